"""The command line: `rayclassify serve | deploy | classify | …`.

- audit: `rayclassify audit`: what an audit log says, and whether it was changed
- bench: `rayclassify bench URL …`: how fast servers are, ours or others, side by side
- calibrate: `rayclassify calibrate`: scores that mean what they say, and when to abstain
- cascade: `rayclassify cascade`: a small model first, the large one for what it is unsure of
- check: `rayclassify check`: everything wrong in a config, before it is deployed
- classify: `rayclassify classify`: texts in, labels out, from a running service
- classify_table: `rayclassify classify TABLE --text-column`: a table in, a table with labels out
- compare: `rayclassify compare`: a model on trial against the one that serves, on real traffic
- deploy: `rayclassify deploy` and `rollback`: change what a running cluster serves
- deploy_run: A deploy as a person sees it: what is going on, how it ended, and the way back
- distill: `rayclassify distill`, `prune` and `trim`: a smaller model of a larger one
- doctor: `rayclassify doctor`: what this machine has, and which engine would run the model on it
- drift: `rayclassify baseline` and `drift`: whether texts and answers are still of the kind they
  were
- evaluate: `rayclassify evaluate`: which model to take, by the user's own labelled table
- exit_codes: what the exit codes mean: the same of every command, and what it is about in each
- explain: `rayclassify explain`: what each part of a text added to its label
- finetune: `rayclassify finetune`: a classifier of the user's own, from labelled rows
- formats: what a command prints: a table for people, JSON or CSV for programmes
- info: `rayclassify info`: what the running service serves, and how
- keys: `rayclassify keys`: make, list and revoke the API keys of a keys file
- logs: `rayclassify logs`: what all replicas on this machine say, now or in a run that has ended
- model_directory: the directory that a command writes a model to, and what in it may be replaced
- plan: `rayclassify plan`: replicas, nodes and a config for so many requests a second
- prove: `rayclassify check --prove`: the model is loaded and held to transformers' own, without Ray
- quantize: `rayclassify quantize`: a model that runs in 8 bits, held to its owner's own texts
- serve: `rayclassify serve`: check, start, wait, follow, stop
- shrinking: what `distill`, `prune` and `trim` share
- status: `rayclassify status`: what is deployed, what serves, and why it has so many replicas
- top: `rayclassify top`: what a service does just now, on a terminal, until Ctrl-C
- training_errors: how a command that trains ends where it can't go on
- tune: `rayclassify tune`: the engine, replicas and batch size that suit a machine and its texts

Nobody imports it; it may import everything.
"""

from __future__ import annotations

from typing import Annotated

import typer

from deployments import __version__
from deployments.cli.audit import app as audit
from deployments.cli.bench import bench
from deployments.cli.calibrate import calibrate
from deployments.cli.cascade import cascade
from deployments.cli.check import check
from deployments.cli.classify import classify
from deployments.cli.compare import compare
from deployments.cli.deploy import deploy, rollback
from deployments.cli.distill import distill, prune, trim
from deployments.cli.doctor import doctor
from deployments.cli.drift import baseline, drift
from deployments.cli.evaluate import evaluate
from deployments.cli.exit_codes import epilog
from deployments.cli.explain import explain
from deployments.cli.finetune import finetune
from deployments.cli.info import info
from deployments.cli.keys import app as keys
from deployments.cli.logs import logs
from deployments.cli.plan import plan
from deployments.cli.quantize import quantize
from deployments.cli.serve import serve
from deployments.cli.status import status
from deployments.cli.top import top
from deployments.cli.tune import tune

app = typer.Typer(
    name="rayclassify",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rayclassify {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Text classification with BERT on Ray Serve.

    Start the service with `rayclassify serve`, then ask it from a second terminal:
    `rayclassify classify "质量很好，会再来"`.
    """


_OPERATING = "Run it for others"
_PANELS = {
    "Serve and ask": (serve, classify, explain, info, bench),
    _OPERATING: (check, deploy, status, rollback, top, logs),
    "Fit it to machines and traffic": (doctor, tune, plan),
    "Models, by your own texts": (
        *(evaluate, finetune, calibrate, distill, prune, trim, quantize, cascade),
        *(baseline, drift, compare),
    ),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(epilog=epilog(_command.__name__), rich_help_panel=_panel)(_command)
app.command("choose", hidden=True, epilog=epilog("evaluate"))(evaluate)  # what people look for
app.add_typer(audit, name="audit", rich_help_panel=_OPERATING)
app.add_typer(keys, name="keys", rich_help_panel=_OPERATING)
