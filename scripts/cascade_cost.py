#!/usr/bin/env python
"""What a cascade costs and loses beside each of its models alone, in one process without Ray.

    rayclassify cascade ./small ./large --data held-out.csv -o cascade.yaml
    python scripts/cascade_cost.py cascade.yaml --data held-out.csv

The ingress, both models and the Postprocessor are the service's own; HTTP and the ways between
processes are missing. Cost is CPU time of the whole process, which a busy machine changes little.
Labels are of the half of the rows that the threshold was not fitted to.
"""

import argparse
import asyncio
import inspect
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from deployments.classifier import Classifier
from deployments.optimise.labelled import Labelled
from deployments.pipeline.types import TextInput
from deployments.postprocessor import Postprocessor
from deployments.settings import Settings
from deployments.tokenizer import Tokenizer
from scripts.bench.service import read_config
from scripts.cascade_trial import rows_that_fitted_nothing

CALLERS, TEXTS = 4, 16
"""Lists under way at once, and texts in each."""


def handle(**methods: Callable[..., Any]) -> Any:
    """As Serve's, of a deployment that is here."""

    def options(method_name: str, **_: Any) -> SimpleNamespace:
        async def remote(*args: Any) -> Any:
            answer = methods[method_name](*args)
            return await answer if inspect.isawaitable(answer) else answer

        return SimpleNamespace(remote=remote)

    def broadcast(method_name: str) -> SimpleNamespace:
        async def results_async(**_: Any) -> list[Any]:
            return [await methods[method_name]()]

        return SimpleNamespace(results_async=results_async)

    return SimpleNamespace(options=options, broadcast=broadcast)


def classifier(settings: Settings) -> Any:
    """A handle of a Classifier that is here."""
    replica = Classifier(settings)
    methods = (replica.predict, replica.parts, replica.info, replica.holding)
    return handle(**{method.__name__: method for method in methods})


async def ask(settings: Settings, rows: Labelled) -> None:
    """Asks all three in turns, block by block, and prints the table."""
    own = settings.of("cascade")
    assert own is not None  # noqa: S101 - the config is of a cascade
    tokenizer = Tokenizer(
        settings,
        classifier(settings),
        handle(postprocess=Postprocessor().postprocess),
        {"cascade": classifier(own)},
    )
    assert tokenizer._beside is not None  # noqa: S101
    first = tokenizer._beside.chains["cascade"]
    await asyncio.gather(tokenizer._chain.loading, first.loading)
    ways = {
        "small": first.classify,
        "large": tokenizer._chain.classify,
        "cascade": tokenizer.classify_inputs,
    }
    lists = [rows.texts[i : i + TEXTS] for i in range(0, len(rows), TEXTS)]
    answers: dict[str, list[Any]] = {name: [] for name in ways}
    cost_s: dict[str, list[float]] = {name: [] for name in ways}
    for start in range(0, len(lists), CALLERS):
        block = [[TextInput(text) for text in texts] for texts in lists[start : start + CALLERS]]
        for name, classify in ways.items():
            began = time.process_time()
            for found in await asyncio.gather(*map(classify, block)):
                answers[name] += found
            cost_s[name].append(time.process_time() - began)
    n = len(rows)
    right = {
        name: sum(one["label"] == gold for one, gold in zip(found, rows.labels, strict=True))
        for name, found in answers.items()
    }
    stages = Counter(one["cascade"]["stage"] for one in answers["cascade"])
    mean = sum(map(len, rows.texts)) / n
    print(f"{n:,} rows of {mean:.0f} characters on average")
    print("| | right | lost against large | CPU ms a text | large / it |")
    print("|---|---|---|---|---|")
    for name, seconds in cost_s.items():
        print(
            f"| {name} | {right[name]:,} ({right[name] / n:.1%}) | "
            f"{(right['large'] - right[name]) / n:.2%} | {sum(seconds) / n * 1e3:.2f} | "
            f"{sum(cost_s['large']) / sum(seconds):.2f} |"
        )
    print(f"{stages['second']:,} texts ({stages['second'] / n:.1%}) went on to the large model.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="labelled, with text and label")
    args = parser.parse_args()
    told = read_config(args.config)["applications"][0]["args"]
    told["engine"] = {"name": "torch", "dtype": "float32", "num_threads": 1}
    asyncio.run(ask(Settings.model_validate(told), rows_that_fitted_nothing(args.data)))


if __name__ == "__main__":
    main()
