"""The fields of NRI's adjustments, as the messages' own descriptors tell them: no test forgets one."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from nri.v1alpha1 import nri_pb2

# Messages whose fields are adjusted each on its own.
_BRANCHES = frozenset(
    t.DESCRIPTOR.full_name
    for t in (
        nri_pb2.LinuxContainerAdjustment,
        nri_pb2.Hooks,
        nri_pb2.LinuxResources,
        nri_pb2.LinuxMemory,
        nri_pb2.LinuxCPU,
        nri_pb2.LinuxRdt,
    )
)


def field_paths(descriptor: Descriptor) -> Iterator[str]:
    """Every field that can be adjusted, with dots: "mounts", "linux.resources.memory.limit"."""
    for field in descriptor.fields:
        if field.message_type is not None and field.message_type.full_name in _BRANCHES:
            yield from (f"{field.name}.{path}" for path in field_paths(field.message_type))
        else:
            yield field.name


def filled(message: Message, path: str) -> None:
    """Give the field at `path` a value, with everything below it."""
    *parents, name = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
    _fill(message, name)


def _fill(message: Message, name: str) -> None:
    field, held = message.DESCRIPTOR.fields_by_name[name], getattr(message, name)
    kind = field.message_type
    if kind is None:
        value = {field.CPPTYPE_STRING: "x", field.CPPTYPE_BOOL: True}.get(field.cpp_type, 1)
        if field.is_repeated:
            held.append(value)
        else:
            setattr(message, name, value)
    elif kind.GetOptions().map_entry:
        entry = kind.fields_by_name["value"]
        if entry.message_type is None:
            held["x"] = "x"
        else:
            _fill_all(held["x"])
    else:
        _fill_all(held.add() if field.is_repeated else held)


def _fill_all(message: Message) -> None:
    for field in message.DESCRIPTOR.fields:
        _fill(message, field.name)
