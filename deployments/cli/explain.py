"""`rayclassify explain`: what each part of a text added to its label."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from deployments.cli.exit_codes import NO, WRONG

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
    as_json: Annotated[bool, typer.Option("--json", help="An object a line.")] = False,
) -> None:
    """Explain answers of a model, on this machine and without a service.

    Parts that speak for the label are green and underlined; parts that speak against it are red and
    struck through. docs/explain.md says what the numbers mean.

    Example: `rayclassify explain "质量很好，会再来"`
    """
    from deployments.engines.loaded import REFUSALS
    from deployments.local import LocalClassifier
    from deployments.pipeline.errors import ServiceError

    say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    out = Console(highlight=False, soft_wrap=True, markup=False)
    settings = {"model": {"id": model}, "engine": {"name": "torch", "dtype": "float32"}}
    failed = False
    try:
        with LocalClassifier(settings) as classifier:
            for text in texts:
                try:
                    answer = classifier.explain(text, target=target, method=method, passes=passes)
                except ServiceError as exc:
                    say.print(f"error: {exc.message}")
                    failed = True
                    continue
                if as_json:
                    line = json.dumps({"text": text, **answer}, ensure_ascii=False)
                    sys.stdout.write(line + "\n")
                else:
                    out.print(*_shown(text, answer), sep="\n")
    except REFUSALS as exc:
        say.print(f"error: {exc}")
        raise typer.Exit(WRONG) from None
    if failed:
        raise typer.Exit(NO)


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
