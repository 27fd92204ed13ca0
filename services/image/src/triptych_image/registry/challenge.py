"""WWW-Authenticate (RFC 9110, section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PART: Final = re.compile(
    rf'\s*(?:(?P<key>{_TOKEN})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]+))'
    rf"|(?P<scheme>{_TOKEN}))\s*(?P<comma>,)?"
)
_MAX: Final = 8192


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that a server offers.

    :param scheme: lower case (`bearer`, `basic`).
    """

    scheme: str
    parameters: dict[str, str]


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """All challenges of all headers, in order; what cannot be parsed is skipped."""
    return [challenge for value in values for challenge in _parse(value[:_MAX])]


def _parse(value: str) -> Iterator[Challenge]:
    scheme, parameters = "", dict[str, str]()
    position = 0
    while part := _PART.match(value, position):
        position = part.end()
        if part["scheme"]:
            if scheme:
                yield Challenge(scheme, parameters)
            scheme, parameters = part["scheme"].lower(), {}
        elif scheme:
            quoted = part["quoted"]
            text = part["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters[part["key"].lower()] = text
    if scheme:
        yield Challenge(scheme, parameters)
