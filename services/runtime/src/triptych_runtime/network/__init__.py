"""The pod network through CNI plugins (docs/network.md)."""

from triptych_runtime.network.model import (
    Interface,
    NetworkResult,
    NetworkStatus,
    PodAttachment,
    PodDns,
    PortMapping,
)
from triptych_runtime.network.network import Network
from triptych_runtime.network.settings import NetworkSettings

__all__ = [
    "Interface",
    "Network",
    "NetworkResult",
    "NetworkSettings",
    "NetworkStatus",
    "PodAttachment",
    "PodDns",
    "PortMapping",
]
