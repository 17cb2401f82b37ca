"""The forge's files: by their schema, by zizmor's audits, and by what our release promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEXTS = {path.stem: path.read_text("utf-8") for path in WORKFLOWS}


def audited(folder: Path) -> str:
    """What zizmor finds in a folder of workflows; empty: nothing."""
    command = [Path(sys.executable).with_name("zizmor"), "--offline", "--no-progress", "--quiet"]
    done = subprocess.run(
        [*command, "--format=plain", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, *range(10, 15)), done.stderr
    return done.stdout + done.stderr if done.returncode else ""


def schema_problems(path: Path, schema: str = "vendor.github-workflows") -> str:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def jobs(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(TEXTS[name])["jobs"])


def test_the_audit_finds_nothing() -> None:
    assert audited(ROOT / ".github") == ""


def test_each_file_has_its_schemas_form() -> None:
    assert [schema_problems(path) for path in WORKFLOWS] == [""] * 3
    assert schema_problems(ROOT / ".github" / "dependabot.yml", "vendor.dependabot") == ""


@pytest.mark.parametrize(
    ("name", "old", "new", "audit"),
    [
        ("tests", "persist-credentials: false", "fetch-depth: 1", "artipacked"),
        ("tests", "@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@v7", "unpinned-uses"),
        ("release", '"$GITHUB_REF_NAME"', "${{ github.event.head_commit.message }}", "template-"),
        ("image", "  pull_request:\n", "  pull_request_target:\n", "dangerous-triggers"),
    ],
)
def test_the_audit_finds_a_mistake_of_each_kind(
    tmp_path: Path, name: str, old: str, new: str, audit: str
) -> None:
    assert old in TEXTS[name]
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / f"{name}.yml").write_text(TEXTS[name].replace(old, new), encoding="utf-8")
    assert audit in audited(tmp_path)


def test_the_schema_finds_a_misspelt_key(tmp_path: Path) -> None:
    bad = tmp_path / "tests.yml"
    bad.write_text(TEXTS["tests"].replace("timeout-minutes", "timeout-minuts"), encoding="utf-8")
    assert "timeout-minuts" in schema_problems(bad)


def test_every_action_is_pinned_to_a_commit_with_its_version_beside() -> None:
    """A tag can be moved to other code by who steals it; a commit can't."""
    used = [line for text in TEXTS.values() for line in re.findall(r"uses: (.*)", text)]
    outside = [line for line in used if not line.startswith("./")]
    assert len(outside) >= 10
    pinned = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [line for line in outside if not pinned.fullmatch(line)] == []
    assert len(set(outside)) == len({line.partition("@")[0] for line in outside}), "two versions"


def test_no_job_may_do_more_than_it_must() -> None:
    allowed = {
        ("tests", "tests"): {"contents": "read"},
        ("image", "try"): {"contents": "read"},
        ("release", "build"): {"contents": "read"},
        ("release", "publish"): {"id-token": "write"},
        ("release", "notes"): {"contents": "write"},
    }
    for (workflow, job), permissions in allowed.items():
        assert jobs(workflow)[job]["permissions"] == permissions
    for text in TEXTS.values():
        assert yaml.safe_load(text)["permissions"] == {}


def test_what_is_published_was_tested_and_checked_before() -> None:
    release = jobs("release")

    def before(job: str) -> set[str]:
        needs = release[job].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*(before(one) for one in direct))

    assert before("publish") == {"tests", "build", "images"}
    assert release["tests"]["uses"] == "./.github/workflows/tests.yml"
    assert jobs("image")["push"]["needs"] == "try"
    assert jobs("image")["push"]["if"] == "github.ref_type == 'tag'"


def test_the_index_trusts_the_workflow_and_no_token() -> None:
    publish = jobs("release")["publish"]
    assert publish["environment"] == "pypi"
    assert "secrets." not in yaml.safe_dump(publish)
    folders = [one["with"]["packages-dir"] for one in publish["steps"][1:]]
    assert folders == ["dist/rayclassify-client", "dist/rayclassify"]


def test_the_tests_are_those_that_everybody_runs() -> None:
    runs = [step["run"] for step in jobs("tests")["tests"]["steps"] if "run" in step]
    assert runs[-1] == ".ci/run"
