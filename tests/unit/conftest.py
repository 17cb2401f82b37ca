"""For unit tests: each finds our log as a process does at its start."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def our_log() -> None:
    """A replica that an earlier test made has taken our records to Serve's handlers."""
    ours = logging.getLogger("deployments")
    ours.handlers, ours.propagate = [], True
    ours.setLevel(logging.NOTSET)
