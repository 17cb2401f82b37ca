"""What scripts/build_image.py makes of an engine's answers; e2e/test_image.py asks a real one."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from scripts.build_image import megabytes, named, with_report
from scripts.image.engine import Engine, EngineError
from scripts.image.proof import PROBES, head_environment
from scripts.image.sbom import licences, merged
from scripts.image.sizes import as_bytes, sizes


class Answers:
    """An engine that knows some answers."""

    def __init__(self, history: str, packages: dict[str, int]) -> None:
        self._history, self._packages = history, packages

    def call(self, *_: str) -> str:
        return self._history

    def once(self, *_: str) -> str:
        return json.dumps(self._packages)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0B", 0), ("12.3kB", 12_300), ("86MB", 86_000_000), ("1.86GB", 1_860_000_000)],
)
def test_sizes_are_read_as_engines_print_them(text: str, count: int) -> None:
    assert as_bytes(text) == count


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match="12 parsecs"):
        as_bytes("12 parsecs")


def test_layers_come_oldest_first_without_those_that_are_empty() -> None:
    history = "0B\tCMD x\n500kB\tCOPY a\n1MB\tADD base\n"
    found = sizes(Answers(history, {"torch": 7}), "image")  # type: ignore[arg-type]
    assert found.layers == [("ADD base", 1_000_000), ("COPY a", 500_000)]
    assert found.image_bytes == 1_500_000
    assert found.packages == {"torch": 7}


def test_the_sbom_has_both_kinds_of_packages_and_the_image_as_its_subject() -> None:
    ray = {"name": "ray", "version": "2.60.0", "purl": "pkg:pypi/ray@2.60.0"}
    ours = {"name": "rayclassify", "version": "0.1.0"}
    python = {"metadata": {}, "components": [ray, ours]}
    debian = "libgcc-s1:amd64\t12.2.0-14\tamd64\nwget\t1:1.21+b1\tamd64\n"
    bom = merged(python, debian, "debian-12", "rayclassify:0.1.0")
    assert [one["purl"] for one in bom["components"]] == [
        "pkg:pypi/ray@2.60.0",
        "pkg:pypi/rayclassify@0.1.0",
        "pkg:deb/debian/libgcc-s1@12.2.0-14?arch=amd64&distro=debian-12",
        "pkg:deb/debian/wget@1%3A1.21%2Bb1?arch=amd64&distro=debian-12",
    ]
    assert bom["metadata"]["component"]["version"] == "0.1.0"


def test_licences_are_counted_for_python_only() -> None:
    def package(*said: dict[str, Any]) -> dict[str, Any]:
        return {"purl": "pkg:pypi/a@1", "licenses": list(said)}

    bom = {
        "components": [
            package({"license": {"id": "MIT"}}),
            package({"license": {"id": "MIT"}}, {"license": {"name": "MIT License"}}),
            package({"expression": "Apache-2.0 OR MIT"}),
            package({"license": {"name": "A text\nof many lines"}}),
            package({"license": {"name": "License :: OSI Approved :: BSD License"}}),
            package(),
            {"purl": "pkg:deb/debian/wget@1"},
        ]
    }
    assert licences(bom) == {
        "MIT": 2,
        "A text": 1,
        "Apache-2.0 OR MIT": 1,
        "BSD License": 1,
        "none said": 1,
    }


def test_a_failed_command_says_which_and_why() -> None:
    with pytest.raises(EngineError, match=r"(?s)ls /nowhere ended with 2:.*No such file"):
        Engine("ls").call("/nowhere")


def test_the_probes_ask_the_ports_that_the_pods_have() -> None:
    ports = {int(one) for probe in PROBES.values() for one in re.findall(r"localhost:(\d+)", probe)}
    assert ports == {52365, 8265, 8000}
    assert head_environment()["RAY_SERVE_ENABLE_HA_PROXY"] == "1"


def test_the_report_goes_between_its_marks() -> None:
    page = "a\n<!-- build_image.py: start -->\nold\n<!-- build_image.py: end -->\nb\n"
    assert with_report(page, "new\n") == page.replace("\nold\n", "\n\nnew\n\n")
    with pytest.raises(ValueError, match="no marks"):
        with_report("a page without", "new")


def test_megabytes_are_millions() -> None:
    assert (megabytes(1_860_000_000), megabytes(86_400_000), megabytes(40_000)) == (
        "1,860",
        "86",
        "0.0",
    )


def test_layers_are_named_by_what_they_hold() -> None:
    podman = [
        ("/bin/sh -c #(nop) ADD file:2b in /", 248),
        ("/bin/sh -c { command -v wget || apt-get; } && { getent passwd 1000 || useradd; }", 4),
        ("/bin/sh -c #(nop) COPY dir:2a in /opt/rayclassify", 1520),
        ("/bin/sh -c #(nop) COPY dir:2b in /opt/rayclassify", 12),
        ("/bin/sh -c #(nop) COPY multi:2c in ./", 1),
    ]
    names = ["base", "wget, user 1000", "dependencies", "our package", "two configs"]
    assert [name for name, _ in named(podman)] == names
    buildkit = "COPY /opt/rayclassify /opt/rayclassify # buildkit"
    assert named([(buildkit, 7), (buildkit, 1)]) == [("dependencies", 7), ("our package", 1)]
