"""What the exit codes mean: the same of every command, and what it is about in each."""

from __future__ import annotations

from collections.abc import Mapping

DONE = 0
NO = 1
"""The command ran, and the answer is no, or not for all."""
WRONG = 2
"""The command line, the config or a file is wrong; nothing was begun."""
UNREACHABLE = 3
"""The service or the cluster could not be asked."""
INTERRUPTED = 130
"""Ctrl-C ended it, as shells have it. Commands that end well by Ctrl-C say 0."""

EXIT_CODES: Mapping[str, Mapping[int, str]] = {
    "serve": {
        DONE: "it served, and was stopped",
        NO: "it did not start, or would not end",
        WRONG: "the config is wrong",
    },
    "deploy": {
        DONE: "it serves",
        NO: "it does not serve",
        WRONG: "the config is wrong",
        UNREACHABLE: "no cluster answers",
    },
    "status": {
        DONE: "every application shown serves as it was asked to",
        NO: "one does not, or there is none",
        UNREACHABLE: "no cluster answers",
    },
    "rollback": {
        DONE: "it serves",
        NO: "it does not serve, or nothing is kept to go back to",
        UNREACHABLE: "no cluster answers",
    },
    "check": {DONE: "nothing is wrong", WRONG: "the config or the model is wrong"},
    "doctor": {
        DONE: "this machine can run it",
        NO: "the config's model or engine can't run here",
        WRONG: "the config is wrong",
    },
    "classify": {
        DONE: "every text has a label",
        NO: "some texts have none, or there was no text",
        WRONG: "a file is wrong",
        UNREACHABLE: "the service can't be asked",
    },
    "info": {
        DONE: "it serves",
        NO: "it refused to say: it is not ready, or wants a key",
        UNREACHABLE: "the service can't be asked",
    },
    "bench": {
        DONE: "all was measured, or as much as Ctrl-C left time for",
        NO: "nothing was measured, or a server answered nothing right under some load",
        WRONG: "a file is wrong",
        UNREACHABLE: "a server can't be asked: not there, another dialect, no key",
    },
    "logs": {
        DONE: "the lines are printed",
        NO: "there are no logs on this machine",
        UNREACHABLE: "several clusters run here, and none was named",
    },
    "top": {
        DONE: "one view was printed, or Ctrl-C ended it",
        UNREACHABLE: "neither a cluster nor the service answers",
    },
    "tune": {
        DONE: "the tuned config is written",
        NO: "nothing could be measured",
        WRONG: "the config is wrong",
    },
    "plan": {
        DONE: "the plan is printed",
        NO: "no number of replicas keeps the wish",
        WRONG: "an option, the model's directory or the config is wrong",
    },
    "evaluate": {
        DONE: "all models were measured, and one is recommended",
        NO: "a model could not be measured, or none keeps within the limits",
        WRONG: "a table is wrong, or tells too little",
    },
    "explain": {
        DONE: "every text is explained",
        NO: "some texts could not be",
        WRONG: "the model can't be loaded",
        UNREACHABLE: "the service can't be asked",
    },
    "finetune": {
        DONE: "the model is written",
        NO: "it was stopped before, or this machine lacks the device or can't write there",
        WRONG: "a table, an option or the base model is wrong",
    },
    "calibrate": {
        DONE: "calibration.json is written",
        NO: "the model could not be run",
        WRONG: "the table is wrong, or has too few rows for what is asked",
    },
    "distill": {
        DONE: "the model is written",
        NO: "it was stopped before",
        WRONG: "a table, an option or a model is wrong",
    },
    "prune": {
        DONE: "the model is written",
        NO: "it was stopped before",
        WRONG: "a table, an option or the model is wrong, or can't be cut so",
    },
    "quantize": {
        DONE: "the model is written",
        NO: "8 bits change more than the limits allow, or can't be had on this machine",
        WRONG: "the table, an option or the model is wrong",
    },
    "trim": {DONE: "the model is written", WRONG: "the table or the model is wrong"},
    "baseline": {
        DONE: "drift.json is written",
        NO: "the model could not be run",
        WRONG: "the table is wrong, or has too few texts",
    },
    "drift": {
        DONE: "nothing has moved, or too few texts came to tell",
        NO: "something has moved, or nothing is watched",
        UNREACHABLE: "no cluster answers",
    },
    "cascade": {
        DONE: "the threshold keeps within the loss on rows that it was not fitted to",
        NO: "it does not, or a model could not be run",
        WRONG: "the table, the config or an option is wrong, or no threshold would do",
    },
    "compare": {
        DONE: "both models were compared on some texts",
        NO: "on none yet, or no model is on trial",
        UNREACHABLE: "no cluster answers",
    },
    "audit verify": {
        DONE: "no line was changed",
        NO: "one was",
        WRONG: "there is no such secret",
    },
    "audit hash": {DONE: "the hash is printed", WRONG: "there is no such secret"},
    "keys new": {DONE: "the key is printed", WRONG: "the file or the name is wrong"},
    "keys list": {DONE: "the keys are printed", WRONG: "the file is wrong"},
    "keys revoke": {DONE: "it is revoked", WRONG: "the file or the name is wrong"},
}
"""Command → code → what it means there. A command line that can't be read is 2 everywhere."""


def epilog(command: str) -> str:
    """What stands under a command's --help."""
    codes = "; ".join(f"{code}: {said}" for code, said in EXIT_CODES[command].items())
    return f"Exit code {codes}."
