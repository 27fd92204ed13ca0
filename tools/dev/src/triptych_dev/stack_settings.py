"""Settings of a stack's daemons and its network, as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def merge(base: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in more.items():
        known = merged.get(key)
        merged[key] = (
            merge(known, value) if isinstance(known, dict) and isinstance(value, Mapping) else value
        )
    return merged


def toml(settings: Mapping[str, Any], prefix: str = "") -> str:
    """A TOML document of plain values, lists and nested tables."""
    plain = {k: v for k, v in settings.items() if not isinstance(v, Mapping)}
    lines = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in plain.items()]
    for key, value in settings.items():
        if isinstance(value, Mapping):
            table = f"{prefix}{json.dumps(key)}"
            lines += [f"[{table}]", toml(value, f"{table}.")]
    return "\n".join(lines) + "\n"


def conflist(name: str, bridge: str, subnet: str, leases: Path) -> dict[str, Any]:
    """A CNI network with a bridge and host ports.

    :param leases: directory of the addresses that are given out.
    """
    ipam = {
        "type": "host-local",
        "dataDir": str(leases),
        "ranges": [[{"subnet": subnet}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugin = {"type": "bridge", "bridge": bridge, "isGateway": True, "hairpinMode": True, "ipam": ipam}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": name, "plugins": [plugin, portmap]}
