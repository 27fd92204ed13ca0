"""Quantities of annotations, such as the limit of a writable layer."""

from __future__ import annotations

import re

from runtime.v1 import api_pb2
from triptych_errors import InvalidArgument

_UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 1 << 10,
    "Mi": 1 << 20,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
}
_QUANTITY = re.compile(r"([0-9]+)(k|M|G|T|Ki|Mi|Gi|Ti)?")


def size_limit(annotation: str, config: api_pb2.ContainerConfig, sandbox: api_pb2.PodSandboxConfig) -> int:
    """The limit of the container's writable layer in bytes, 0 for none; the container's annotation wins.

    :raises InvalidArgument: for a value that is no quantity.
    """
    value = config.annotations.get(annotation) or sandbox.annotations.get(annotation)
    return parse_quantity(value, annotation) if value else 0


def parse_quantity(text: str, what: str) -> int:
    """Bytes of a quantity as Kubernetes writes them: a whole number with an optional unit.

    :raises InvalidArgument: naming `what`.
    """
    found = _QUANTITY.fullmatch(text.strip())
    if found is None:
        raise InvalidArgument(f"annotation {what}: {text!r} is no size", hint="for example 500Mi or 2Gi")
    return int(found[1]) * _UNITS[found[2] or ""]
