"""scripts/classify_dataset.py refuses what is wrong before it joins a Ray.

tests/serve/test_service_ray.py sends it to one as a job.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from scripts.classify_dataset import _pool, app


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["in", "/out"], "in is a relative path. Write it in full"),
        (["s3://shop/in", "out"], "out is a relative path"),
        (["/in", "/in/"], "OUT_DIR is IN_DIR"),
        (["/in", "HERE/there"], "there is there already"),
        (["/in", "HERE/out", "--actors", "many"], "--actors many: write 4, 2: or 2:8"),
        (["/in", "HERE/out", "--config", "none.yaml"], "none.yaml"),
        (["/in", "HERE/out", "--config", "args.yaml"], "args.yaml is no Serve config"),
    ],
)
def test_it_says_what_is_wrong_and_exits_with_2(
    options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "args.yaml").write_text("model: {id: models/demo}")
    given = [option.replace("HERE", str(tmp_path)) for option in options]
    done = CliRunner().invoke(app, [*given, "--text-column", "review"])
    assert (done.exit_code, words in done.stderr) == (2, True), done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("said", "pool"), [("4", 4), ("2:", (2, None)), ("2:8", (2, 8)), ("1:1", (1, 1))]
)
def test_actors_are_a_number_or_a_range(said: str, pool: int | tuple[int, int | None]) -> None:
    assert _pool(said) == pool
