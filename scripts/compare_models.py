#!/usr/bin/env python
"""How fast models are through the service, side by side in one run.

    python scripts/compare_models.py ./large ./small ./large:int8 --texts texts.csv

DIR:dtype fixes a precision; `auto` is the service's own choice. The first is what the others are
held against. Give it a machine with nothing else to do.
"""

import argparse
import csv
import sys
from pathlib import Path

from deployments.engines.machine import cpu_count
from scripts.bench.beside import Candidate, markdown, measure
from scripts.bench.session import Plan


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Candidate.of, metavar="DIR[:dtype]")
    parser.add_argument("--texts", type=Path, required=True, help="a CSV with a column text")
    parser.add_argument("--connections", default="1,16,64")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--duration-s", type=float, default=4.0)
    args = parser.parse_args()
    with args.texts.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)][:256]
    connections = tuple(int(n) for n in args.connections.split(","))
    plan = Plan(args.duration_s, connections, cpu_count())
    found = measure(
        args.models, texts, connections, args.turns, plan, lambda said: print(said, file=sys.stderr)
    )
    print(markdown(found))
    mean = sum(map(len, texts)) / len(texts)
    print(
        f"\n{len(texts)} texts of {mean:.0f} characters on average; medians of {args.turns} turns."
    )


if __name__ == "__main__":
    main()
