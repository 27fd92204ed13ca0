"""CNI configurations for benchmarks: the same for every peer but for names and addresses."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

from triptych_dev import stack_settings
from triptych_dev.node.shell import CHECKOUT_ROOT


class NetworkKind(enum.Enum):
    """What the pods' network consists of.

    PLAIN: bridge, host-local, portmap. MASQUERADE: the same with the bridge plugin's ipMasq, which runs
    iptables. DEFAULT: what deploy/cni installs.
    """

    PLAIN = "plain"
    MASQUERADE = "masquerade"
    DEFAULT = "default"


def conflist(kind: NetworkKind, name: str, bridge: str, subnet: str, data: Path) -> dict[str, Any]:
    """A network of a kind under a peer's own names."""
    if kind is NetworkKind.DEFAULT:
        document: dict[str, Any] = json.loads(
            (CHECKOUT_ROOT / "deploy/cni/10-triptych.conflist").read_text()
        )
        document["name"] = name
        first = document["plugins"][0]
        first["bridge"] = bridge
        first["ipam"] |= {"dataDir": str(data), "ranges": [[{"subnet": subnet}]]}
        return document
    document = stack_settings.conflist(name, bridge, subnet, data)
    document["plugins"][0]["ipMasq"] = kind is NetworkKind.MASQUERADE
    return document
