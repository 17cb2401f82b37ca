"""A TypeScript client, made of our OpenAPI document by a generator, asks a running service."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from api.stand_in import LIMITS, LengthClassifier
from served import serving

from deployments.http.app import create_app
from deployments.http.openapi import openapi_document

pytestmark = [
    pytest.mark.trials,  # fetches packages
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]

# The newest TypeScript has no interface for programmes, by which the generator works.
PACKAGES = ("openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3")
PROGRAMME = """
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

declare const process: { argv: string[] };
type Prediction = components["schemas"]["Prediction"];
type Refused = components["schemas"]["ErrorAnswer"];

const client = createClient<paths>({ baseUrl: process.argv[2] });
const one = await client.POST("/classify", { body: { text: "好" } });
const label: string = (one.data as Prediction).label;
const list = await client.POST("/classify", { body: { text: ["好", " "], top_k: 1 } });
const codes = (list.data as (Prediction | Refused)[]).map((row) =>
  "error" in row ? row.error.code : row.label,
);
const refused = await client.POST("/classify", { body: { text: "" } });
const code: string | undefined = refused.error?.error.code;
const labels: string[] | undefined = (await client.GET("/info")).data?.labels;
// @ts-expect-error: texts are strings
await client.POST("/classify", { body: { text: [5] } });
const tei = await client.POST("/predict", { body: { inputs: "好" } });
console.log(JSON.stringify({ label, codes, code, status: refused.response.status, labels,
  tei: tei.response.status }));
"""


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the generator and its companions are installed."""
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=240)
    if done.returncode != 0:
        pytest.skip(f"npm could not install: {(done.stderr.strip() or '?').splitlines()[0]}")
    return folder


def test_a_generated_client_compiles_and_asks(folder: Path) -> None:
    (folder / "openapi.json").write_text(json.dumps(openapi_document(LIMITS)))
    (folder / "ask.ts").write_text(PROGRAMME, encoding="utf-8")
    options = ("--default-non-nullable", "false", "-o", "schema.d.ts")
    run(folder, "npx", "openapi-typescript", "openapi.json", *options)
    strict = ("--strict", "--target", "es2022", "--lib", "es2022,dom", "--outDir", "made")
    modules = ("--module", "esnext", "--moduleResolution", "bundler")
    run(folder, "npx", "tsc", *strict, *modules, "ask.ts")
    with serving(create_app(LengthClassifier(), LIMITS)) as url:
        said = run(folder, "node", "made/ask.js", url)
    assert json.loads(said) == {
        "label": "short",
        "codes": ["short", "empty_text"],
        "code": "empty_text",
        "status": 422,
        "labels": ["long", "short"],
        "tei": 200,
    }
