"""A container's document while plugins' wishes are applied to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from triptych_runtime.errors import AdjustmentRefused
from triptych_runtime.spec import Document, HandlerFeatures, HostFacts
from triptych_runtime.spec.inputs import Relabel
from triptych_runtime.spec.newer_fields import NewerField


def enum_name(kinds: Any, value: int, where: str) -> str:
    """The name of a value of one of NRI's enums, which are those of the OCI document.

    :raises AdjustmentRefused: for a value of a newer NRI, naming `where`.
    """
    if value not in kinds.values():
        raise AdjustmentRefused(f"{where}: {value} is unknown")
    name: str = kinds.Name(value)
    return name


@dataclass(slots=True)
class Adjusting:
    """The document in the making.

    :ivar raw: variables of the environment that it cannot carry (`spec.launcher`).
    :ivar relabels: host paths that get an SELinux label because of a mount.
    """

    document: Document
    raw: list[bytes]
    host: HostFacts
    handler: HandlerFeatures
    relabels: list[Relabel] = field(default_factory=list)

    @property
    def process(self) -> Document:
        process: Document = self.document["process"]
        return process

    @property
    def linux(self) -> Document:
        linux: Document = self.document["linux"]
        return linux

    def need(self, newer: NewerField) -> None:
        """:raises AdjustmentRefused: when the OCI runtime would ignore the field."""
        if newer in self.handler.ignored:
            version = ".".join(map(str, self.handler.version))
            raise AdjustmentRefused(
                f"{newer}: the OCI runtime {self.handler.name} {version} has no such field"
            )
