"""Fields of the document that not every OCI runtime in use knows.

A runtime ignores what it does not know, silently; so whoever sets one of these looks here first. The
document stays of version 1.0.2, as crun below 1.14.2 refuses newer ones; crun and runc read the fields
whatever the version says.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final


class NewerField(enum.StrEnum):
    """A field, by its path in the document."""

    IO_PRIORITY = "process.ioPriority"
    SCHEDULER = "process.scheduler"
    INTEL_RDT = "linux.intelRdt"
    RDT_SCHEMATA = "linux.intelRdt.schemata"
    RDT_MONITORING = "linux.intelRdt.enableMonitoring"
    NET_DEVICES = "linux.netDevices"
    MEMORY_POLICY = "linux.memoryPolicy"


# The first versions that know them: crun's NEWS, runc's CHANGELOG.md.
_SINCE: Final[dict[str, dict[NewerField, tuple[int, ...]]]] = {
    "crun": {
        NewerField.SCHEDULER: (1, 8, 5),
        NewerField.IO_PRIORITY: (1, 8, 6),
        NewerField.INTEL_RDT: (1, 10),
        NewerField.NET_DEVICES: (1, 22),
        NewerField.RDT_SCHEMATA: (1, 24),
        NewerField.RDT_MONITORING: (1, 24),
        NewerField.MEMORY_POLICY: (1, 24),
    },
    "runc": {
        NewerField.SCHEDULER: (1, 2),
        NewerField.IO_PRIORITY: (1, 2),
        NewerField.NET_DEVICES: (1, 4),
        NewerField.RDT_SCHEMATA: (1, 4),
        NewerField.RDT_MONITORING: (1, 4),
        NewerField.MEMORY_POLICY: (1, 4),
    },
}
# Where the features document (runtime-spec, features-linux.md) tells of them.
_TOLD: Final = {
    NewerField.INTEL_RDT: ("intelRdt", "enabled"),
    NewerField.RDT_SCHEMATA: ("intelRdt", "schemata"),
    NewerField.RDT_MONITORING: ("intelRdt", "monitoring"),
    NewerField.NET_DEVICES: ("netDevices", "enabled"),
    NewerField.MEMORY_POLICY: ("memoryPolicy", "modes"),
}


def ignored(name: str, version: tuple[int, ...]) -> frozenset[NewerField]:
    """What a runtime does not know by its version; an unknown one is believed to be current."""
    return frozenset(field for field, since in _SINCE.get(name, {}).items() if version < since)


def ignored_as_told(linux: Mapping[str, Any], known: frozenset[NewerField]) -> frozenset[NewerField]:
    """`known`, corrected by what the `linux` part of a features document tells; null tells nothing."""
    result = set(known)
    for field, (part, member) in _TOLD.items():
        told = (linux.get(part) or {}).get(member)
        if told is not None:
            (result.discard if told else result.add)(field)
    return frozenset(result)
