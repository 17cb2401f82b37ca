"""`rayclassify explain`: what each part of a text added to its label."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from deployments.cli.classify import TIMEOUT_S, KeyOption
from deployments.cli.exit_codes import NO, UNREACHABLE, WRONG

_FAINT = 0.15  # of the largest attribution: less is left plain


def explain(
    texts: Annotated[list[str], typer.Argument(help="Texts to explain.")],
    model: Annotated[str, typer.Option(help="A model's directory, or its id.")] = "models/demo",
    target: Annotated[
        str | None, typer.Option(help="The label to explain. Default: the one answered.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="auto, integrated_gradients, gradient_x_input or occlusion."),
    ] = "auto",
    passes: Annotated[int, typer.Option(help="Forward passes at most, 2 to 512.")] = 32,
    url: Annotated[
        str | None,
        typer.Option(help="Ask the service there, in place of a model on this machine."),
    ] = None,
    key: KeyOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="An object a line.")] = False,
) -> None:
    """Explain answers of a model: on this machine and without a service, or by one with --url.

    Parts that speak for the label are green and underlined; parts that speak against it are red and
    struck through. docs/explain.md says what the numbers mean.

    Examples:

    - `rayclassify explain "质量很好，会再来"`

    - `rayclassify explain "质量很好，会再来" --url http://127.0.0.1:8000`
    """
    out = Console(highlight=False, soft_wrap=True, markup=False)
    how = {"target": target, "method": method, "passes": passes}
    answers = _by_model(texts, model, how) if url is None else _by_service(texts, url, key, how)
    failed = False
    for text, answer in zip(texts, answers, strict=True):
        if isinstance(answer, str):
            _say(answer)
            failed = True
        elif as_json:
            sys.stdout.write(json.dumps({"text": text, **answer}, ensure_ascii=False) + "\n")
        else:
            out.print(*_shown(text, answer), sep="\n")
    if failed:
        raise typer.Exit(NO)


def _say(error: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    console.print(f"error: {error}")


def _by_model(texts: list[str], model: str, how: dict[str, Any]) -> Iterator[dict[str, Any] | str]:
    """An answer for each text, or what is wrong with it."""
    from transformers.utils.logging import disable_progress_bar

    from deployments.engines.loaded import REFUSALS
    from deployments.local import LocalClassifier
    from deployments.pipeline.errors import ServiceError

    disable_progress_bar()  # of the weights: an error would stand in its line
    settings = {"model": {"id": model}, "engine": {"name": "torch", "dtype": "float32"}}
    try:
        with LocalClassifier(settings) as classifier:
            for text in texts:
                try:
                    yield classifier.explain(text, **how)
                except ServiceError as exc:
                    yield exc.message
    except REFUSALS as exc:
        _say(str(exc))
        raise typer.Exit(WRONG) from None


def _by_service(
    texts: list[str], url: str, key: str | None, how: dict[str, Any]
) -> Iterator[dict[str, Any] | str]:
    from rayclassify_client import Client, ClientError, ServiceError

    try:
        with Client(url, key, timeout_s=TIMEOUT_S) as client:
            for text in texts:
                try:
                    yield client.explain(text, **how)
                except ServiceError as exc:
                    yield str(exc)
    except ClientError as exc:
        _say(str(exc))
        raise typer.Exit(UNREACHABLE) from None


def _shown(text: str, answer: dict[str, Any]) -> tuple[Text, Text]:
    """The text with its parts marked, and a line that says by what."""
    found = answer["explanation"]
    marked = Text(text)
    largest = max((abs(token["attribution"]) for token in found["tokens"]), default=0.0)
    for token in found["tokens"]:
        value = token["attribution"]
        if abs(value) > _FAINT * largest:
            style = "green underline" if value > 0 else "red strike"
            strong = " bold" if abs(value) > largest / 2 else ""
            marked.stylize(style + strong, token["start"], token["end"])
    delta = found["convergence_delta"]
    said = f"{found['label']}: {found['method']}, {found['passes']} passes, sum {found['sum']:.3f}"
    if delta is not None:
        said += f", off by {abs(delta):.4f}"
    return marked, Text(f"  {answer['label']} {answer['score']:.1%}; {said}", style="dim")
