"""CNI configurations for benchmarks: the same for every peer but for names and addresses."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

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
    document: dict[str, Any]
    if kind is NetworkKind.DEFAULT:
        document = json.loads((CHECKOUT_ROOT / "deploy/cni/10-triptych.conflist").read_text())
        first = document["plugins"][0]
    else:
        masquerade = kind is NetworkKind.MASQUERADE
        first = {"type": "bridge", "isGateway": True, "hairpinMode": True, "ipMasq": masquerade}
        first["ipam"] = {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}]}
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        document = {"cniVersion": "1.0.0", "plugins": [first, portmap]}
    document["name"] = name
    first["bridge"] = bridge
    first["ipam"] |= {"dataDir": str(data), "ranges": [[{"subnet": subnet}]]}
    return document
