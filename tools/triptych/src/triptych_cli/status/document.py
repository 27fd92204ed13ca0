"""One look at a node, for programs."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from triptych_cli.status.model import Node


def document(node: Node) -> dict[str, Any]:
    """The JSON form: the fields of the model under their own names, enums by value."""
    found: dict[str, Any] = _plain(node)
    return {"healthy": node.healthy, **found}


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    return value
