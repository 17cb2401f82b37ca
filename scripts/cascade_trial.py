#!/usr/bin/env python
"""What a cascade gains and loses through the service, beside each of its models alone.

    rayclassify cascade ./small ./large --data held-out.csv -o cascade.yaml
    python scripts/cascade_trial.py cascade.yaml --data held-out.csv

Three applications of one Serve, asked in turns: the small model, the large one, and the config's
cascade of both. Each has two Classifiers of one thread, and the cascade one of its small model
beside them. Labels are of the half of the rows that the threshold was not fitted to.
"""

import argparse
import copy
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import requests

from deployments.bench.client import Endpoint
from deployments.optimise.calibration import halves
from deployments.optimise.labelled import Labelled, read_labelled
from deployments.settings import PARTS
from scripts.bench.load import load
from scripts.bench.process import wait_until
from scripts.bench.service import Config, is_ready, read_config, running_service

ROUTES = {"small": "/small", "large": "/large", "cascade": ""}
FIRST = PARTS["cascade"]


def side_by_side(config: Config) -> Config:
    """The cascade's application, and one for each of its models."""
    (app,) = config["applications"]
    app["args"]["engine"] = {"name": "torch", "dtype": "float32", "num_threads": 1}
    for one in app["deployments"]:
        one.pop("autoscaling_config", None)
        replicas = 2 if one["name"] == "Classifier" else 1
        one |= {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 0.1}}
    for name in ("small", "large"):
        alone = copy.deepcopy(app)
        alone |= {"name": name, "route_prefix": ROUTES[name]}
        cascade = alone["args"].pop("cascade")
        if name == "small":
            alone["args"]["model"] = cascade["model"]
        alone["deployments"] = [one for one in alone["deployments"] if one["name"] != FIRST]
        config["applications"].append(alone)
    return config


def rows_that_fitted_nothing(path: Path) -> Labelled:
    """As `rayclassify cascade` halves the same table."""
    rows = read_labelled(str(path))
    names = sorted(set(rows.labels))
    _, checked = halves(len(rows), np.asarray([names.index(label) for label in rows.labels]))
    return rows.rows(checked.tolist())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="labelled, with text and label")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--duration-s", type=float, default=4.0)
    args = parser.parse_args()
    rows = rows_that_fitted_nothing(args.data)
    config = side_by_side(read_config(args.config))
    with running_service([], config, scales=True) as service:
        urls = {name: service.endpoint.url + route for name, route in ROUTES.items()}
        for url in urls.values():
            wait_until(partial(is_ready, url), url, 300.0)
        right, passed_on = {}, 0
        for name, url in urls.items():
            answers = []
            for start in range(0, len(rows), 128):
                body = {"text": rows.texts[start : start + 128], "timeout_ms": 30_000}
                answers += requests.post(f"{url}/classify", json=body, timeout=60).json()
            right[name] = sum(
                one["label"] == gold for one, gold in zip(answers, rows.labels, strict=True)
            )
            if name == "cascade":
                stages = Counter(one["cascade"]["stage"] for one in answers)
                passed_on = stages["second"]
        rates: dict[str, list[float]] = {name: [] for name in urls}
        p50: dict[str, list[float]] = {name: [] for name in urls}
        errors = 0
        for turn in range(args.turns + 1):
            for name in [*urls][turn % 3 :] + [*urls][: turn % 3]:
                endpoint: Endpoint = replace(service.endpoint, path=f"{ROUTES[name]}/classify")
                run = load(endpoint, rows.texts, args.connections, args.duration_s)
                errors += run.errors
                if turn:  # the first one warms up
                    rates[name].append(run.requests_per_s)
                    p50[name].append(run.p50_ms)
    n = len(rows)
    mean = sum(map(len, rows.texts)) / n
    print(f"{n:,} rows of {mean:.0f} characters on average; {args.connections} connections")
    print("| through the service | right | lost against large | texts/s | × large | p50 ms |")
    print("|---|---|---|---|---|---|")
    for name in urls:
        ratios = sorted(a / b for a, b in zip(rates[name], rates["large"], strict=True))
        print(
            f"| {name} | {right[name]:,} ({right[name] / n:.2%}) | "
            f"{(right['large'] - right[name]) / n:.2%} | {median(rates[name]):,.0f} | "
            f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) | "
            f"{median(p50[name]):.0f} |"
        )
    print(f"{passed_on:,} texts ({passed_on / n:.1%}) went on to the large model; {errors} errors.")


if __name__ == "__main__":
    main()
