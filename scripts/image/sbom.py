"""The image's packages, Python's and Debian's, as CycloneDX 1.6 in JSON.

Python's by cyclonedx-bom, which reads the metadata that pip installed; Debian's by dpkg-query,
whose database names no licences: those are in /usr/share/doc/*/copyright.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scripts.image.engine import Engine

CYCLONEDX = "cyclonedx-bom==7.5.0"
# On the image, with a venv beside the service's: the tool is no part of what it lists.
_DOCKERFILE = f"""
FROM {{image}}
USER root
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \\
    deactivated=$(echo "$PATH" | sed 's#/opt/rayclassify/bin:##') && export PATH=$deactivated \\
 && python -m venv --without-pip /opt/cyclonedx \\
 && python -m pip --python /opt/cyclonedx/bin/python install --no-cache-dir {CYCLONEDX}
"""
_VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(error and str(error))
"""
_FIELDS = r"${binary:Package}\t${Version}\t${Architecture}\n"


def sbom(engine: Engine, image: str, context: Path) -> dict[str, Any]:
    """The SBOM, valid by CycloneDX's own schema. Raises EngineError, also where it isn't."""
    tool = f"{image}-sbom"
    engine.build(context, tool, {}, dockerfile=_DOCKERFILE.format(image=image))
    try:
        python = engine.once(
            tool,
            *("/opt/cyclonedx/bin/cyclonedx-py", "environment", "--spec-version=1.6"),
            "/opt/rayclassify/bin/python",
        )
        debian = engine.once(tool, "dpkg-query", "--show", f"--showformat={_FIELDS}")
        release = engine.once(tool, "bash", "-c", '. /etc/os-release; echo "$ID-$VERSION_ID"')
        bom = merged(json.loads(python), debian, release.strip(), image)
        engine.once(tool, "/opt/cyclonedx/bin/python", "-c", _VALIDATE, text=json.dumps(bom))
        return bom
    finally:
        engine.call("rmi", "--force", tool)


def merged(bom: dict[str, Any], debian: str, release: str, image: str) -> dict[str, Any]:
    """Python's SBOM with the packages of dpkg-query's lines, and the image as its subject."""
    for component in bom["components"]:
        # Ours comes from a file, and gets no name of an index from cyclonedx-bom.
        component.setdefault("purl", f"pkg:pypi/{component['name']}@{component['version']}")
    vendor = release.partition("-")[0]
    for line in debian.splitlines():
        name, version, architecture = line.split("\t")
        name = name.partition(":")[0]
        purl = (
            f"pkg:deb/{vendor}/{quote(name)}@{quote(version, safe='')}"
            f"?arch={architecture}&distro={release}"
        )
        bom["components"].append(
            {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        )
    name, _, version = image.rpartition(":")
    bom["metadata"]["component"] = {
        "type": "container",
        "bom-ref": "image",
        "name": name,
        "version": version,
    }
    return bom


def licences(bom: dict[str, Any]) -> dict[str, int]:
    """How many Python packages say which licence, most frequent first."""
    counts: dict[str, int] = {}
    for component in bom["components"]:
        if component.get("purl", "").startswith("pkg:pypi/"):
            name = _licence(component.get("licenses") or [])
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _licence(said: list[dict[str, Any]]) -> str:
    """An expression or an SPDX id, where one is said; a text or a classifier by its first line."""
    for one in said:
        if "expression" in one:
            return str(one["expression"])
    ids = [one["license"]["id"] for one in said if "id" in one.get("license", {})]
    if ids:
        return " AND ".join(sorted(set(ids)))
    names = [str(one["license"]["name"]) for one in said if "name" in one.get("license", {})]
    # A classifier, as `License :: OSI Approved :: BSD License`, by its last part.
    return names[0].splitlines()[0].rpartition(" :: ")[2][:40] if names else "none said"
