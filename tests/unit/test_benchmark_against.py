"""Two commits side by side: what is asked of both, and where the other one comes from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from scripts.bench.against import KINDS, checkout
from scripts.bench.kinds import Kind
from scripts.bench.service import our_endpoint

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [f"第 {number} 条：很好" for number in range(10)]


@pytest.mark.parametrize("n", [1, 4])
def test_a_request_holds_so_many_texts_in_order(n: int) -> None:
    kind = Kind(n, 1)
    endpoint = kind.endpoint(our_endpoint("http://127.0.0.1:8000"))
    asked = [json.loads(endpoint.body(one))["text"] for one in kind.requests(TEXTS)]
    assert asked == (TEXTS if n == 1 else [TEXTS[:4], TEXTS[4:8]])


def test_both_kinds_of_load_are_compared() -> None:
    assert {kind.connections for kind in KINDS if kind.texts == 1} == {1, 16, 64}
    assert {kind.texts for kind in KINDS} == {1, 32, 256}


def test_the_other_commit_has_its_own_files_and_leaves_nothing() -> None:
    def worktrees() -> str:
        listed = ["git", "-C", str(ROOT), "worktree", "list"]
        return subprocess.run(listed, capture_output=True, text=True, check=True).stdout

    before = worktrees()
    with checkout("HEAD") as tree:
        assert (tree / "serve_config.yaml").exists()
        assert str(tree) in worktrees()
    assert not tree.exists()
    assert worktrees() == before
