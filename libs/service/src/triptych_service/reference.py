"""What the table of settings says to people: types in words, help text, the reference page."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from triptych_service.settings import HIDDEN, Key, Reload, Table, keys

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    Any: "any value",
    type(None): "nothing",
}


def describe_type(hint: Any) -> str:
    """A type in words: "an integer from 1 to 64", 'one of "auto", "text"', "an array, each a string"."""
    kind, args = typing.get_origin(hint), typing.get_args(hint)
    if kind is typing.Annotated:
        return describe_type(args[0]) + _bounds(args[1:])
    if kind is typing.Literal:
        return "one of " + ", ".join(_literal(value) for value in args)
    if kind in (typing.Union, types.UnionType):
        return " or ".join(describe_type(arg) for arg in args if arg is not type(None))
    if kind in (list, tuple, set, frozenset):
        return f"an array, each {describe_type(args[0])}" if args else "an array"
    if kind in (dict, Mapping):
        return f"a table whose values are each {describe_type(args[1])}"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "one of " + ", ".join(_literal(member.value) for member in hint)
    if isinstance(hint, type) and issubclass(hint, Table):
        return "a table"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _bounds(metas: tuple[Any, ...]) -> str:
    words = ""
    for meta in metas:
        if not isinstance(meta, msgspec.Meta):
            continue
        if meta.ge is not None and meta.le is not None:
            words += f" from {meta.ge} to {meta.le}"
        elif meta.ge is not None:
            words += f" of at least {meta.ge}"
        elif meta.le is not None:
            words += f" of at most {meta.le}"
        if meta.gt is not None:
            words += f" above {meta.gt}"
        if meta.lt is not None:
            words += f" below {meta.lt}"
        if meta.pattern is not None:
            words += f" that matches {meta.pattern}"
        if meta.min_length is not None:
            words += f" of length {meta.min_length} or more"
    return words


def _literal(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, enum.Enum):
        return _literal(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return msgspec.json.encode(value).decode()  # TOML's basic strings have JSON's escapes
    if isinstance(value, list | tuple | set | frozenset):
        return "[" + ", ".join(_literal(entry) for entry in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{quote(str(k))} = {_literal(v)}" for k, v in value.items()) + "}"
    return "" if value is None else str(value)


def _walk(table: type[Table], prefix: str = "") -> Iterator[tuple[str, Key]]:
    for key in keys(table):
        yield prefix + key.name, key
        if key.table is not None:
            yield from _walk(key.table, f"{prefix}{key.name}.")
        elif key.table_map is not None:
            yield from _walk(key.table_map, f"{prefix}{key.name}.NAME.")


def help_text(table: type[Table]) -> str:
    """The keys for `--help`: dotted name, default, type and meaning."""
    lines: list[str] = []
    for dotted, key in _walk(table):
        if key.table is not None:
            continue
        default = "" if key.table_map is not None else f" = {_literal(key.setting.default)}"
        lines.append(f"  {dotted}{default}")
        lines.append(f"      {key.setting.help.replace('`', '')}")
        lines.append(f"      {describe_type(key.type)}; a change takes effect {_when(key)}")
    return "\n".join(lines)


def reference_page(table: type[Table], title: str, file: str) -> str:
    """The reference page of one daemon's settings, in Markdown, one section a table."""
    lines = [f"## {title}", "", f"File `{file}`, drop-ins `{file}.d/*.toml`.", ""]
    lines += _section(table, "")
    return "\n".join(lines).rstrip() + "\n"


def _section(table: type[Table], prefix: str) -> list[str]:
    lines = ["| key | type | default | change takes effect | meaning |", "|---|---|---|---|---|"]
    nested: list[str] = []
    for key in keys(table):
        inner = key.table or key.table_map
        if inner is not None:
            name = f"{prefix}{key.name}" + (".NAME" if key.table_map else "")
            nested += ["", f"### `[{name}]`", "", key.setting.help, "", *_section(inner, name + ".")]
            continue
        cells = (f"`{key.name}`", describe_type(key.type), f"`{_literal(key.setting.default)}`", _when(key))
        lines.append("| " + " | ".join(_cell(cell) for cell in (*cells, key.setting.help)) + " |")
    if len(lines) == 2:
        lines = []
    return lines + nested


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _when(key: Key) -> str:
    return "on SIGHUP" if key.setting.reload is Reload.LIVE else "with a restart"


def effective(settings: Table, origins: Mapping[str, Path]) -> str:
    """Settings as TOML, each value with the file that set it, or `default`."""
    return "\n".join(_lines(settings, "", origins)).lstrip("\n") + "\n"


def _lines(settings: Table, prefix: str, origins: Mapping[str, Path]) -> Iterator[str]:
    nested: list[tuple[str, Table]] = []
    for key in keys(type(settings)):
        value = getattr(settings, key.name)
        dotted = prefix + key.name
        if key.table is not None:
            nested.append((dotted, value))
        elif key.table_map is not None:
            nested += [(f"{dotted}.{quote(name)}", entry) for name, entry in value.items()]
        else:
            shown = HIDDEN if key.setting.secret and value else value
            yield f"{key.name} = {_literal(shown)}  # {origin(dotted, origins)}"
    for name, table in nested:
        yield f"\n[{name}]"
        yield from _lines(table, name + ".", origins)


def origin(dotted: str, origins: Mapping[str, Path]) -> str:
    """The file that set a key, or the files that set parts of it; `default` when none did."""
    files = {str(file) for name, file in origins.items() if name == dotted or name.startswith(dotted + ".")}
    return ", ".join(sorted(files)) or "default"


def quote(name: str) -> str:
    """A key as TOML writes it: bare where it can be."""
    bare = name.replace("-", "a").replace("_", "a")
    return name if bare.isascii() and bare.isalnum() else _literal(name)
