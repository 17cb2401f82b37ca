"""Personal data in a text, replaced by what kind it was: `<PHONE>` for a phone number.

Numbers count only where their check digits are right. Letters and digits are told apart from
Chinese by our own borders: `\\b` sees none between 话 and 1.
"""

from __future__ import annotations

import ipaddress
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

from deployments import installing
from deployments.pipeline.types import TextInput
from deployments.settings import RedactionSettings

Span = tuple[int, int]

_NOT_AFTER_WORD, _NOT_BEFORE_WORD = r"(?<![0-9A-Za-z])", r"(?![0-9A-Za-z])"
_EMAIL = re.compile(
    r"(?<![0-9A-Za-z._%+-])[0-9A-Za-z._%+-]{1,64}@(?:[0-9A-Za-z-]{1,63}\.){1,8}[A-Za-z]{2,24}"
)
_ID_CARD = re.compile(_NOT_AFTER_WORD + r"[1-9][0-9]{16}[0-9Xx]" + _NOT_BEFORE_WORD)
_MIN_CARD_DIGITS, _MAX_CARD_DIGITS = 14, 19
# Of any length, as what stands before or behind a card may be digits too: its expiry, its code.
_DIGIT_GROUPS = re.compile(_NOT_AFTER_WORD + r"[0-9](?:[ -]?[0-9]){13,}" + _NOT_BEFORE_WORD)
_DIGITS = re.compile("[0-9]+")
_IBAN = re.compile(
    _NOT_AFTER_WORD
    + r"[A-Z]{2}[0-9]{2}(?: ?[0-9A-Z]{4}){2,7}(?: ?[0-9A-Z]{1,3})?"
    + _NOT_BEFORE_WORD
)
_IPV4 = re.compile(
    r"(?<![0-9A-Za-z])(?<![0-9]\.)[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z]|\.[0-9])"
)
_IPV6 = re.compile(
    r"(?<![0-9A-Za-z.:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![0-9A-Za-z:]|\.[0-9])"
)
# None of the kinds does without one of these, and most texts do. \d: digits of all scripts.
_SUSPECT = re.compile(r"[\d@＠]")
_MANY_DIGITS = re.compile(r"(?:[0-9][^0-9]{0,3}){7}")


class Redactor:
    """Finds the kinds of personal data that the settings name.

    Raises:
        ValueError: the extra `redaction` is not installed.
    """

    def __init__(self, settings: RedactionSettings) -> None:
        try:
            import phonenumbers
            from stdnum import iban, luhn
            from stdnum.cn import ric
        except ImportError as exc:
            raise ValueError(
                f"args.redaction.kinds needs {exc.name}. Install it: {installing('redaction')}."
            ) from None
        region = settings.phone_region

        def phones(text: str) -> Iterator[Span]:
            if _MANY_DIGITS.search(text):
                for match in phonenumbers.PhoneNumberMatcher(text, region):
                    yield match.start, match.end

        # IBANs by their check digits alone: the tables of banks in stdnum refuse some that exist.
        # In this order: +86 and a mobile number are as long as a card, and one in ten passes Luhn.
        finders: dict[str, Callable[[str], Iterator[Span]]] = {
            "email": _finder(_EMAIL, lambda _: True),
            "id_card": _finder(_ID_CARD, ric.is_valid),
            "iban": lambda text: _ibans(text, partial(iban.is_valid, check_country=False)),
            "phone": phones,
            "credit_card": lambda text: _cards(text, luhn.is_valid),
            "ip": _ips,
        }
        self._finders = [(f"<{k.upper()}>", f) for k, f in finders.items() if k in settings.kinds]

    def redact(self, text: str) -> tuple[str, int]:
        """The text with placeholders, and how many there are."""
        found = self.find(text)
        if not found:
            return text, 0
        pieces: list[str] = []
        done = 0
        for start, end, placeholder in found:
            pieces += text[done:start], placeholder
            done = end
        return "".join([*pieces, text[done:]]), len(found)

    def find(self, text: str) -> list[tuple[int, int, str]]:
        """Start, end and placeholder of all that `redact` takes out, in order."""
        if not _SUSPECT.search(text):
            return []
        narrow = text.translate(_narrow())
        taken = bytearray(len(text))
        found: list[tuple[int, int, str]] = []
        for placeholder, spans in self._finders:
            for start, end in spans(narrow):
                if not any(taken[start:end]):
                    taken[start:end] = bytes([1]) * (end - start)
                    found.append((start, end, placeholder))
        return sorted(found)

    def redact_all(self, inputs: Sequence[TextInput]) -> tuple[list[TextInput], list[int]]:
        """The inputs with both halves redacted, and how many placeholders each has."""
        redacted, counts = [], []
        for item in inputs:
            text, n = self.redact(item.text)
            pair, m = (None, 0) if item.text_pair is None else self.redact(item.text_pair)
            redacted.append(replace(item, text=text, text_pair=pair) if n or m else item)
            counts.append(n + m)
        return redacted, counts


def _finder(
    pattern: re.Pattern[str], is_valid: Callable[[str], bool]
) -> Callable[[str], Iterator[Span]]:
    def spans(text: str) -> Iterator[Span]:
        for match in pattern.finditer(text):
            if is_valid(match.group()):
                yield match.span()

    return spans


def _cards(text: str, is_valid: Callable[[str], bool]) -> Iterator[Span]:
    """Of what lies between two borders of groups of digits, the longest that is a card."""
    for match in _DIGIT_GROUPS.finditer(text):
        groups = [found.span() for found in _DIGITS.finditer(text, *match.span())]
        i = 0
        while i < len(groups):
            digits, end = "", None
            for j in range(i, len(groups)):
                digits += text[slice(*groups[j])]
                if len(digits) > _MAX_CARD_DIGITS:
                    break
                if len(digits) >= _MIN_CARD_DIGITS and is_valid(digits):
                    end = j
            if end is not None:
                yield groups[i][0], groups[end][1]
            i = i + 1 if end is None else end + 1


def _ibans(text: str, is_valid: Callable[[str], bool]) -> Iterator[Span]:
    """Groups may be words: `BE68539007547034 BIC`; so those at the end are left out, one by one."""
    at = 0
    while match := _IBAN.search(text, at):
        number = match.group()
        while number and not is_valid(number):
            number = number.rpartition(" ")[0]
        if number:
            yield match.start(), match.start() + len(number)
        at = match.start() + max(len(number), 1)


def _ips(text: str) -> Iterator[Span]:
    for pattern in (_IPV4, _IPV6):
        yield from _finder(pattern, _is_ip)(text)


@cache
def _narrow() -> dict[int, int]:
    """What a keyboard writes for ASCII: １３８ and ＠ a Chinese one, ١٣٨ an Arabic one.

    One character for one, so that places stay.
    """
    digits = {
        code: ord("0") + unicodedata.decimal(chr(code))
        for code in range(0x80, sys.maxunicode + 1)
        if chr(code).isdecimal()
    }
    return digits | {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return text != "::"


def redactor_of(settings: RedactionSettings) -> Redactor | None:
    """None where nothing is to be taken out."""
    return Redactor(settings) if settings.kinds else None
