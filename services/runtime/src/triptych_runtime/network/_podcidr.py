"""The node's pod subnets: parsing, keeping, and putting them into a configuration template."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any

import msgspec

from triptych_runtime.network import _config
from triptych_runtime.network._config import NetworkConfig
from triptych_runtime.network.errors import ConfigInvalid, PodCidrInvalid

_Subnets = tuple[str, ...]


def parse(text: str) -> _Subnets:
    """Subnets joined by commas, as UpdateRuntimeConfig has them; at most one of each family.

    :raises PodCidrInvalid: naming the one that is none.
    """
    subnets: list[str] = []
    families: set[int] = set()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        try:
            network = ipaddress.ip_network(part)
        except ValueError as error:
            raise PodCidrInvalid(f"pod CIDR {part!r}: {error}") from None
        if network.version in families:
            raise PodCidrInvalid(f"pod CIDR {text!r}: more than one IPv{network.version} subnet")
        families.add(network.version)
        subnets.append(str(network))
    return tuple(subnets)


def ranges(subnets: _Subnets) -> list[list[dict[str, str]]]:
    """The `ipRanges` argument: one address of each subnet."""
    return [[{"subnet": subnet}] for subnet in subnets]


def load(path: Path) -> _Subnets:
    """The subnets told before the last restart; none when there are none."""
    try:
        return parse(path.read_text(encoding="ascii", errors="replace"))
    except (FileNotFoundError, PodCidrInvalid):
        return ()


def save(path: Path, subnets: _Subnets) -> None:
    """Keep the subnets over a restart; the kubelet tells them only when they change."""
    temporary = path.with_suffix(".new")
    temporary.write_text(",".join(subnets), encoding="ascii")
    os.replace(temporary, path)


def render(template: Path, subnets: _Subnets) -> NetworkConfig:
    """The network of a template: a configuration list in which these strings are replaced.

    `${POD_CIDR}`, `${POD_CIDR_V4}`, `${POD_CIDR_V6}`: the first subnet, or that of a family; an entry whose
    family the node has not is left out. `${POD_CIDR_RANGES}`: host-local's `ranges` of all subnets.
    `${POD_CIDR_ROUTES}`: its `routes`, a default route for each family.

    :raises ConfigInvalid: when the file cannot be used.
    """
    try:
        document = msgspec.json.decode(template.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigInvalid(f"{template}: {error}") from None
    by_family = {ipaddress.ip_network(subnet).version: subnet for subnet in subnets}
    values: dict[str, Any] = {
        "${POD_CIDR}": subnets[0],
        "${POD_CIDR_V4}": by_family.get(4),
        "${POD_CIDR_V6}": by_family.get(6),
        "${POD_CIDR_RANGES}": ranges(subnets),
        "${POD_CIDR_ROUTES}": [
            {"dst": "::/0" if ipaddress.ip_network(s).version == 6 else "0.0.0.0/0"} for s in subnets
        ],
    }
    return _config.parse_list(msgspec.json.encode(_replace(document, values)), template)


def _replace(node: Any, values: dict[str, Any]) -> Any:
    if isinstance(node, str):
        return values.get(node, node)
    if isinstance(node, dict):
        pairs = {key: _replace(value, values) for key, value in node.items()}
        return {key: value for key, value in pairs.items() if value is not None or node[key] is None}
    if isinstance(node, list):
        items = [_replace(value, values) for value in node]
        return [new for old, new in zip(node, items, strict=True) if new is not None or old is None]
    return node
