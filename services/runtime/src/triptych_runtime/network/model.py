"""What the network is asked and what it answers: attachments, results, status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec


class PortMapping(msgspec.Struct, frozen=True):
    """A port of the host that leads to a port of the pod.

    :param protocol: "tcp", "udp" or "sctp".
    :param host_ip: address of the host to listen on; "" for all.
    """

    container_port: int
    host_port: int
    protocol: str = "tcp"
    host_ip: str = ""


class PodDns(msgspec.Struct, frozen=True):
    """The pod's resolver settings, for plugins with the `dns` capability."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class PodAttachment(msgspec.Struct, frozen=True, kw_only=True):
    """A pod that wants a network; kept on disk until its network is torn down.

    :param netns: the pinned network namespace.
    :param port_mappings: those with a host port of 0 are ignored, as the CRI says.
    :param annotations: of the pod; bandwidth is read from them.
    :param cgroup_parent: the pod's cgroup, for plugins with the `cgroupPath` capability.
    :param ips: requested addresses, each "IP" or "IP/PREFIX", for plugins with the `ips` capability.
    :param mac: requested hardware address, for plugins with the `mac` capability.
    """

    sandbox_id: str
    netns: Path
    name: str
    namespace: str
    uid: str
    port_mappings: tuple[PortMapping, ...] = ()
    annotations: dict[str, str] = {}
    dns: PodDns = PodDns()
    cgroup_parent: str = ""
    ips: tuple[str, ...] = ()
    mac: str = ""
    aliases: tuple[str, ...] = ()


class Interface(msgspec.Struct, frozen=True):
    """An interface that a plugin made.

    :param sandbox: path of the pod's network namespace; "" for an interface of the host.
    """

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int = 0
    addresses: tuple[str, ...] = ()


class NetworkResult(msgspec.Struct, frozen=True):
    """The network of a pod.

    :param ips: addresses without prefix length, the pod's primary one first (setting `ip_preference`).
    :param interfaces: of host and pod, with their addresses in CIDR notation.
    :param raw: the last plugin's answer of each network by network name, as CNI 1.1 JSON.
    """

    ips: list[str]
    interfaces: list[Interface]
    raw: dict[str, dict[str, Any]]


class NetworkStatus(msgspec.Struct, frozen=True):
    """The NetworkReady condition of CRI Status.

    :param reason: "" when ready, else a word such as NetworkPluginNotReady.
    :param message: for people; may be set when ready too (files that were passed over).
    :param networks: name and file of the networks in use.
    """

    ready: bool
    reason: str = ""
    message: str = ""
    networks: tuple[tuple[str, str], ...] = ()
