"""English snippets of four kinds, each with what twenty people made of it: read, label, split.

The source distribution of vaderSentiment 3.3.2 (MIT) carries them, its wheel does not. Hutto and
Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", 2014.
"""

import html
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scripts.demo.data import DataMissing, Split, rank

SOURCE = "vaderSentiment==3.3.2"
_INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
FILES = {
    "films": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "tweets": "tweets",
    "editorials": "nytEditorialSnippets",
}
SENTIMENT_FROM = 0.5
"""Mean ratings go from -4 to 4. Nearer to 0 than this, people don't agree on the side."""


@dataclass(frozen=True, slots=True)
class Snippet:
    """rating: the mean of `votes`. source: the article it is a sentence of, or its own number."""

    text: str
    rating: float
    votes: tuple[int, ...]
    source: str

    @property
    def sentiment(self) -> str | None:
        """None: too near to neutral."""
        if abs(self.rating) < SENTIMENT_FROM:
            return None
        return "positive" if self.rating > 0 else "negative"


def read_snippets(kind: str, folder: Path) -> list[Snippet]:
    """All of a kind (a key of FILES), whitespace normalised, each text once.

    folder: holds the source distribution, or is where pip puts it.

    Raises:
        DataMissing: it is not there and pip can't fetch it.
    """
    name = FILES[kind]
    votes = {
        line[0]: tuple(json.loads(line[3]))
        for line in _lines(folder, f"{name}_anonDataRatings.txt")
    }
    seen: dict[str, Snippet] = {}
    for key, rating, raw in _lines(folder, f"{name}_GroundTruth.txt"):
        text = " ".join(html.unescape(raw).split())
        # Films and tweets stand alone; of the others "12_3" is the third sentence of text 12.
        source = key.split("_")[0]
        seen.setdefault(text, Snippet(text, float(rating), votes[key], source))
    return list(seen.values())


def split_snippets(
    snippets: list[Snippet], label: Callable[[Snippet], object]
) -> dict[str, list[tuple[Snippet, object]]]:
    """{"train", "validation", "test"}: 80/10/10 in the order of a seeded hash; sentences of one
    text stay together. A snippet whose label is None is left out."""
    parts: dict[str, list[tuple[Snippet, object]]] = {"train": [], "validation": [], "test": []}
    for one in sorted(snippets, key=lambda one: rank(one.text)):
        value = label(one)
        if value is not None:
            place = int(rank(one.source)[:8], 16) / 16**8
            name = "train" if place < 0.8 else "validation" if place < 0.9 else "test"
            parts[name].append((one, value))
    return parts


def sentiment_splits(snippets: list[Snippet]) -> dict[str, Split]:
    """`split_snippets` by sentiment: label 0 is negative, 1 positive."""
    parts = split_snippets(snippets, lambda one: one.sentiment)
    return {
        name: Split([one.text for one, _ in part], [int(label == "positive") for _, label in part])
        for name, part in parts.items()
    }


def _lines(folder: Path, name: str) -> Iterator[list[str]]:
    for line in _archive(folder)[name].decode("utf-8-sig", "replace").splitlines():
        if line:
            yield line.split("\t")


@cache
def _archive(folder: Path) -> dict[str, bytes]:
    """{file name: content} of the archive within the source distribution."""
    found = sorted(folder.glob("vader*entiment-3.3.2.tar.gz"))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command = [*pip, "--no-binary", ":all:", "--dest", str(folder), SOURCE]
        if subprocess.run(command, check=False).returncode:
            raise DataMissing(f"{folder} holds no {SOURCE}: " + " ".join(command))
        found = sorted(folder.glob("vader*entiment-3.3.2.tar.gz"))
    with tarfile.open(found[0]) as outer:
        [inner] = (m for m in outer.getmembers() if m.name.endswith(_INNER))
        with tarfile.open(fileobj=io.BytesIO(_read(outer, inner))) as archive:
            files = [m for m in archive.getmembers() if m.isfile()]
            return {Path(m.name).name: _read(archive, m) for m in files}


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise DataMissing(f"{member.name} of {SOURCE} is no file")
    with file:
        return file.read()
