"""Texts that exist nowhere else, and the search for them in whatever form they were written."""

from __future__ import annotations

import base64
import json
import re
import secrets
import string
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import quote

import numpy as np
from tokenizers import Tokenizer

from scripts.bench.machine import ROOT

# Characters of the demo model's vocabulary, one token each.
_CHINESE = "山水花鸟风月云雨雪霜天地日星江河湖海春夏秋冬"
_EXCERPT_BYTES = 120
_LATIN_CHARS = 12
WORD_CHARS = _LATIN_CHARS + 3  # and the number of the case


def _latin() -> str:
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(_LATIN_CHARS))


def _chinese() -> str:
    return "".join(secrets.choice(_CHINESE) for _ in range(8))


@dataclass(frozen=True)
class Canaries:
    """Every text is `latin`, the number of its case, `chinese`, and what else the case needs."""

    latin: str = field(default_factory=_latin)
    chinese: str = field(default_factory=_chinese)

    def text(self, case: int, more: str = "") -> str:
        return f"{self.latin}{case:03d}{self.chinese}{more}"

    def of_tokens(self, text: str, n_tokens: int) -> str:
        """`text` with as much behind it as makes exactly `n_tokens` tokens for the demo model."""
        return text + "好" * (n_tokens - len(self._tokenizer.encode(text).ids))

    @cached_property
    def ids(self) -> list[int]:
        """Token ids of the Chinese half."""
        ids: list[int] = self._tokenizer.encode(self.chinese, add_special_tokens=False).ids
        return ids

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(ROOT / "models" / "demo" / "tokenizer.json"))

    @cached_property
    def forms(self) -> dict[str, bytes]:
        """Name of a form → what stands in a file where a text was written in it. Lower case."""
        utf8 = self.chinese.encode()
        forms = {
            "plain": self.latin.encode(),  # in UTF-8, JSON, a URL or a repr alike
            "UTF-16": self.latin.encode("utf-16-le"),
            "hex": self.latin.encode().hex().encode(),
            "reversed": self.latin[::-1].encode(),
            "Chinese in UTF-8": utf8,
            "Chinese in GBK": self.chinese.encode("gbk"),
            "Chinese in UTF-16": self.chinese.encode("utf-16-le"),
            "Chinese as \\u escapes": json.dumps(self.chinese)[1:-1].encode(),
            "Chinese in a URL": quote(self.chinese).encode(),
            "Chinese as a repr of bytes": repr(utf8)[2:-1].encode(),
            "Chinese reversed": utf8[::-1],
            "token ids as int32": np.asarray(self.ids, np.int32).tobytes(),
        }
        for name, core in (("plain", self.latin.encode()), ("Chinese", utf8)):
            forms |= {f"{name} in base64, {i}": _base64(core, i) for i in range(3)}
        return {name: form.lower() for name, form in forms.items()}

    @cached_property
    def _ids_as_words(self) -> re.Pattern[bytes]:
        return re.compile(rb"\b" + rb"[,;\s]+".join(b"%d" % one for one in self.ids) + rb"\b")

    def forms_in(self, data: bytes) -> dict[str, str]:
        """Forms of a canary in `data` → where, as an excerpt."""
        lower = data.lower()
        found = {name: lower.find(form) for name, form in self.forms.items()}
        if ids := self._ids_as_words.search(data):
            found["token ids"] = ids.start()
        return {name: _excerpt(data, at) for name, at in found.items() if at >= 0}

    def in_all_forms(self, case: int) -> bytes:
        """A text written down in each of the forms that `forms_in` knows."""
        text = self.text(case)
        written = (
            text.encode(),
            text.encode("utf-16-le"),
            text.encode().hex().encode(),
            text[::-1].encode(),
            text.encode()[::-1],
            text.encode("gbk"),
            json.dumps(text).encode(),
            quote(text).encode(),
            repr(text.encode()).encode(),
            repr(self.ids).encode(),
            np.asarray(self.ids, np.int32).tobytes(),
            # Whatever stands before it shifts base64 by one of three.
            *(base64.b64encode(bytes(i) + text.encode()) for i in range(3)),
        )
        return b"\n".join(written)


def _base64(core: bytes, shift: int) -> bytes:
    """What base64 makes of `core` with `shift` bytes before it, whatever these and the next are."""
    whole = base64.b64encode(bytes(shift) + core)
    first = -(-shift * 8 // 6)
    last = (shift + len(core)) * 8 // 6
    return whole[first:last]


def _excerpt(data: bytes, at: int) -> str:
    piece = data[max(0, at - _EXCERPT_BYTES) : at + _EXCERPT_BYTES]
    return piece.decode(errors="replace").replace("\n", " ⏎ ")
