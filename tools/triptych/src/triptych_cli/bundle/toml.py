"""Writing TOML: a document that was parsed, without its comments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def written(document: dict[str, Any]) -> str:
    """A TOML document with these keys, those of tables behind the others."""
    return "\n".join(_table(document, "")).lstrip("\n") + "\n"


def _table(table: dict[str, Any], name: str) -> Iterator[str]:
    for key, value in table.items():
        if not isinstance(value, dict):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in table.items():
        if isinstance(value, dict):
            dotted = f"{name}.{_key(key)}" if name else _key(key)
            yield f"\n[{dotted}]"
            yield from _table(value, dotted)


def _key(key: str) -> str:
    bare = key.replace("-", "a").replace("_", "a")
    return key if bare.isascii() and bare.isalnum() else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        inside = ", ".join(f"{_key(key)} = {_value(entry)}" for key, entry in value.items())
        return f"{{ {inside} }}"
    return str(value)  # numbers, dates and times are written as Python shows them


def _string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
