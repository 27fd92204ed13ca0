"""Configuration files: one TOML file, drop-ins over it, and errors that name file, key and expectation."""

from __future__ import annotations

import enum
import tomllib
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from triptych_service.errors import ConfigError
from triptych_service.reference import describe_type, quote
from triptych_service.settings import Key, ServiceSettings, Table, keys

S = TypeVar("S", bound=ServiceSettings)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[S]):
    """Settings and where they came from.

    :param files: the files read, in the order in which later ones win.
    :param origins: dotted key to the file that set it; keys left at their default are absent.
    """

    settings: S
    files: tuple[Path, ...] = ()
    origins: dict[str, Path] = field(default_factory=dict)


def load(settings: type[S], path: Path, *, must_exist: bool) -> Loaded[S]:
    """Read `path` and then `path`.d/*.toml in the order of their names; later values win.

    Tables merge, everything else is replaced. Where users name tables, those of the default stay beside
    theirs. The error tells the mistakes of all files at once.

    :param must_exist: whether a missing `path` is an error; drop-ins are read either way.
    :raises ConfigError: a file that cannot be read or parsed, an unknown key, a value of the wrong type.
    """
    problems: list[str] = []
    merged: dict[str, Any] = {}
    origins: dict[str, Path] = {}
    files: list[Path] = []
    for file in _files(path, must_exist):
        document = _parse(file, problems)
        if document is None:
            continue
        files.append(file)
        problems += [f"{file}: {problem}" for problem in _check(settings, document, "")]
        _merge(merged, document)
        origins.update(dict.fromkeys(_leaves(document, ""), file))
    if problems:
        raise ConfigError(problems)
    _keep_named(settings, merged)
    try:
        return Loaded(msgspec.convert(merged, settings), tuple(files), origins)
    except msgspec.ValidationError as error:
        names = ", ".join(map(str, files)) or str(path)
        raise ConfigError([f"{names}: {error}"]) from None


def _files(path: Path, must_exist: bool) -> Iterator[Path]:
    if must_exist or path.exists():
        yield path
    drop_ins = path.with_name(path.name + ".d")
    if drop_ins.is_dir():
        yield from sorted(
            p for p in drop_ins.iterdir() if p.suffix == ".toml" and not p.name.startswith(".")
        )


def _parse(file: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        return tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        problems.append(f"{file}: cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        problems.append(f"{file}: not UTF-8 at byte {error.start}")
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{file}: not TOML: {error}")
    return None


def _check(table: type[Table], document: dict[str, Any], prefix: str) -> Iterator[str]:
    """What is wrong with a document, one line a mistake."""
    known = {key.name: key for key in keys(table)}
    for name, value in document.items():
        dotted = prefix + quote(name)
        if name not in known:
            yield f"unknown key `{dotted}`{_suggest(name, prefix, known)}"
        else:
            yield from _check_value(known[name], value, dotted)


def _check_value(key: Key, value: Any, dotted: str) -> Iterator[str]:
    if key.table is not None or key.table_map is not None:
        if not isinstance(value, dict):
            yield f"`{dotted}`: expected a table, got {_show(value)}"
        elif key.table is not None:
            yield from _check(key.table, value, dotted + ".")
            yield from _check_whole(key.table, value, dotted)
        else:
            for name, entry in value.items():
                yield from _check_value(_entry(key), entry, f"{dotted}.{quote(name)}")
        return
    try:
        msgspec.convert(value, key.type)
    except msgspec.ValidationError:
        yield f"`{dotted}`: expected {describe_type(key.type)}, got {_show(value)}"


def _check_whole(table: type[Table], value: dict[str, Any], dotted: str) -> Iterator[str]:
    """Run a table's own `__post_init__` checks once its keys are all well typed."""
    if any(_check(table, value, "")):
        return
    try:
        msgspec.convert(value, table)
    except msgspec.ValidationError as error:
        yield f"`{dotted}`: {error}"


def _entry(key: Key) -> Key:
    return Key(key.name, key.type, key.setting, key.table_map, None)


def _suggest(name: str, prefix: str, known: dict[str, Key]) -> str:
    import difflib  # only once a mistake was made

    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f", did you mean `{prefix}{close[0]}`?"
    place = f"`[{prefix[:-1]}]`" if prefix else "the top level"
    return f"; {place} has {', '.join(f'`{known_name}`' for known_name in known)}"


def _show(value: Any) -> str:
    """A TOML value for an error, with its kind and never at length."""
    kinds: list[tuple[type, str]] = [
        (bool, "boolean"),
        (int, "integer"),
        (float, "float"),
        (str, "string"),
        (list, "array"),
        (dict, "table"),
    ]
    kind = next((name for type_, name in kinds if isinstance(value, type_)), type(value).__name__)
    if isinstance(value, dict):
        return "a table"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    if len(text) > 60:
        text = text[:57] + "..."
    return f"{kind} {text}"


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


def _keep_named(settings: type[S], merged: dict[str, Any]) -> None:
    """Put the default's named tables, in their order, before those that the files name."""
    for key in keys(settings):
        if key.table_map is not None and key.name in merged:
            named = plain(key.setting.default)
            _merge(named, merged[key.name])
            merged[key.name] = named


def _leaves(document: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, value in document.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{quote(name)}.")
        else:
            yield prefix + quote(name)


def plain(value: Any) -> Any:
    """A value as TOML and JSON have it: enums by value, tables as dicts, tuples as lists."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Table):
        return {key.name: plain(getattr(value, key.name)) for key in keys(type(value))}
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    return typing.cast(Any, value)
