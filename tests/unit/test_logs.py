"""`rayclassify logs`, and the runs whose logs are kept."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deployments.cli import app
from deployments.deploying import clusters
from deployments.launch import kept_logs
from deployments.launch.kept_logs import LOG_FILE, OWNER_FILE, keep, keep_what_died, kept_runs
from deployments.launch.log_lines import LogDirectory, parsed
from deployments.launch.processes import owner_name

FILES = {
    "controller_12.log": [
        "INFO 2026-11-28 09:00:00,100 controller 12 -- Deploying new app 'classify'.",
        "ERROR 2026-11-28 09:00:04,000 controller 12 -- Replica died:",
        "  because of a traceback",
    ],
    "replica_classify_Tokenizer_abc.log.1": [
        "INFO 2026-11-28 09:00:01,000 classify_Tokenizer abc -- the rotated part",
    ],
    "replica_classify_Tokenizer_abc.log": [
        "INFO 2026-11-28 09:00:03,000 classify_Tokenizer abc id-1 -- refused: overloaded (429)",
    ],
    "replica_classify_Classifier_xyz.log": [
        json.dumps(
            {"asctime": "2026-11-28 09:00:02,000", "levelname": "WARNING", "message": "in JSON",
             "deployment": "classify_Classifier", "replica": "xyz", "request_id": "id-2"}
        ),
    ],
}  # fmt: skip


@pytest.fixture
def serve_logs(tmp_path: Path) -> Path:
    directory = tmp_path / "serve"
    directory.mkdir()
    for name, lines in FILES.items():
        (directory / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return directory


@pytest.fixture(autouse=True)
def nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ray runs, and what is kept is kept here."""
    monkeypatch.setenv("RAYCLASSIFY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(clusters, "local_rays", lambda: iter(()))
    cli_logs = importlib.import_module("deployments.cli.logs")
    monkeypatch.setattr(cli_logs, "_RAYS_OWN", tmp_path / "none")
    for name in clusters._VARIABLES:
        monkeypatch.delenv(name, raising=False)


def run(*args: object) -> Result:
    return CliRunner().invoke(app, ["logs", *map(str, args)])


def test_all_files_in_the_order_of_time(serve_logs: Path) -> None:
    result = run(serve_logs)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "2026-11-28 09:00:00,100 INFO    controller 12: Deploying new app 'classify'.",
        "2026-11-28 09:00:01,000 INFO    Tokenizer abc: the rotated part",
        "2026-11-28 09:00:02,000 WARNING Classifier xyz id-2: in JSON",
        "2026-11-28 09:00:03,000 INFO    Tokenizer abc id-1: refused: overloaded (429)",
        "2026-11-28 09:00:04,000 ERROR   controller 12: Replica died:",
        "  because of a traceback",
    ]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--deployment", "tokenizer"], ["the rotated part", "refused: overloaded (429)"]),
        (["--level", "warning"], ["in JSON", "Replica died:\n  because of a traceback"]),
        (["--request-id", "id-1"], ["refused: overloaded (429)"]),
        (["-n", "1"], ["Replica died:\n  because of a traceback"]),
    ],
)
def test_filters(serve_logs: Path, args: list[str], said: list[str]) -> None:
    lines = run(serve_logs, "--json", *args).stdout.splitlines()
    assert [json.loads(line)["message"] for line in lines] == said


def test_what_comes_later_is_read_once_also_of_new_and_rotated_files(serve_logs: Path) -> None:
    reader = LogDirectory(serve_logs)
    assert len(list(reader.read())) == 5
    assert list(reader.read()) == []
    log = serve_logs / "replica_classify_Tokenizer_abc.log"
    with log.open("a") as file:
        file.write("INFO 2026-11-28 09:00:06,000 classify_Tokenizer abc -- before it is rotated\n")
        file.write("INFO 2026-11-28 09:00:08,000 classify_Tokenizer abc -- half a")
        file.flush()
        log.rename(serve_logs / "replica_classify_Tokenizer_abc.log.2")
        log.write_text("INFO 2026-11-28 09:00:07,000 classify_Tokenizer abc -- after\n")
        assert [line.message for line in reader.read()] == ["before it is rotated", "after"]
        file.write(" line\n")
    assert [line.message for line in reader.read()] == ["half a line"]


def test_a_line_that_is_no_record_is_the_rest_of_one() -> None:
    assert parsed("  File x") is None
    assert parsed('{"no": "record"}') is None
    assert parsed("{") is None


def test_without_any_run_it_says_so() -> None:
    result = run()
    assert result.exit_code == 1
    assert "no Ray runs here, and no run was kept" in result.stderr


def ended_run(tmp_path: Path, name: str, owner: str = "") -> Path:
    run_dir = tmp_path / f"rayclassify-{name}"
    logs = run_dir / "ray" / "session_2026-11-28" / "logs"
    (logs / "serve").mkdir(parents=True)
    (run_dir / OWNER_FILE).write_text(owner)
    began_s = 1.7e9 + ord(name)
    os.utime(run_dir / OWNER_FILE, (began_s, began_s))
    (run_dir / LOG_FILE).write_text("started\n")
    (logs / "serve" / "controller_1.log").write_text(f"{FILES['controller_12.log'][0]}\n")
    (logs / "worker-1.err").write_text("".join(f"line {n}\n" for n in range(100)))
    (logs / "empty.log").touch()
    (logs / "link.log").symlink_to(logs / "worker-1.err")
    return run_dir


def test_the_last_runs_are_kept_and_no_more(tmp_path: Path) -> None:
    for name in "abcd":
        run_dir = ended_run(tmp_path, name)
        kept = keep(run_dir, at_most=2)
        assert kept is not None
        assert not run_dir.exists()
    assert [path.name[-1] for path in kept_runs()] == ["d", "c"]
    assert sorted(str(p.relative_to(kept)) for p in kept.rglob("*") if p.is_file()) == [
        "serve.log", "serve/controller_1.log", "worker-1.err",
    ]  # fmt: skip
    assert oct(kept.parent.stat().st_mode)[-3:] == "700"
    listed = run("--list").stdout.splitlines()
    assert listed == [str(path) for path in kept_runs()]
    for named in ([], [kept.name], [kept]):
        assert "Deploying new app" in run(*named).stdout


def test_of_a_large_run_the_ends_are_kept_serves_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_logs, "FILE_BYTES", 100)
    monkeypatch.setattr(kept_logs, "RUN_BYTES", 150)
    kept = keep(ended_run(tmp_path, "a"))
    assert kept is not None
    assert (kept / "worker-1.err").read_text().endswith("line 99\n")
    sizes = [path.stat().st_size for path in kept.rglob("*") if path.is_file()]
    assert (len(sizes), sum(sizes) <= 150) == (3, True)


def test_none_is_kept_where_none_is_wanted(tmp_path: Path) -> None:
    assert keep(ended_run(tmp_path, "a"), at_most=0) is None
    assert kept_runs() == []


def test_where_it_cannot_be_kept_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAYCLASSIFY_STATE_DIR", str(tmp_path / "file"))
    run_dir = ended_run(tmp_path, "a")
    assert keep(run_dir) is None
    assert (run_dir / LOG_FILE).exists()


def test_a_run_whose_launcher_was_killed_is_kept_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_logs, "RUN_DIRS", tmp_path)
    dead, living = ended_run(tmp_path, "d", "1@0.0"), ended_run(tmp_path, "l", owner_name())
    keep_what_died()
    assert [path.name[-1] for path in kept_runs()] == ["d"]
    assert (dead.exists(), living.exists()) == (False, True)
