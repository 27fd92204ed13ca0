"""What the daemons' configuration files say, without the daemons: for the paths that checks look at."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from triptych_cli.context import DaemonName

DIRECTORY = Path("/etc/triptych")


def read(directory: Path = DIRECTORY) -> dict[DaemonName, dict[str, Any]]:
    """The keys that the files and their drop-ins set; files with mistakes count as empty, as another check
    tells of them."""
    return {name: _merged(directory / f"{name.value}.toml") for name in DaemonName}


def _merged(file: Path) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    drop_ins = file.with_name(file.name + ".d")
    for path in (file, *(sorted(drop_ins.glob("*.toml")) if drop_ins.is_dir() else ())):
        try:
            _merge(merged, tomllib.loads(path.read_text()))
        except (OSError, ValueError):
            continue
    return merged


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
