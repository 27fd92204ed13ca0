"""A pod's configuration, as the parts of the daemon ask for it."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.v1 import api_pb2

from triptych_runtime.model import SandboxRecord
from triptych_runtime.namespaces import IdMapping, NamespaceOptions, PodFilesOptions, UserMappings
from triptych_runtime.network import PodAttachment, PodDns, PortMapping

_PROTOCOLS = {api_pb2.TCP: "tcp", api_pb2.UDP: "udp", api_pb2.SCTP: "sctp"}


def user_mappings(record: SandboxRecord) -> UserMappings | None:
    """The ID mappings of a pod with a user namespace of its own, None for one without."""
    options = record.options
    if not options.HasField("userns_options") or options.userns_options.mode != api_pb2.POD:
        return None
    users = options.userns_options
    return UserMappings(uids=_mappings(users.uids), gids=_mappings(users.gids))


def _mappings(mappings: object) -> tuple[IdMapping, ...]:
    return tuple(IdMapping(m.container_id, m.host_id, m.length) for m in mappings)  # type: ignore[attr-defined]


def namespace_options(record: SandboxRecord) -> NamespaceOptions:
    """Which namespaces the pod gets. A pod on the host's network keeps the host's UTS namespace too."""
    options = record.options
    own_network = options.network != api_pb2.NODE
    return NamespaceOptions(
        hostname=record.config.hostname if own_network else "",
        network=own_network,
        ipc=options.ipc != api_pb2.NODE,
        uts=own_network,
        users=user_mappings(record),
        sysctls=dict(record.config.linux.sysctls),
    )


def files_options(record: SandboxRecord, shm_size: int) -> PodFilesOptions:
    """The shared files of the pod."""
    users = user_mappings(record)
    config = record.config
    return PodFilesOptions(
        hostname=config.hostname or os.uname().nodename,
        dns=_dns(config.dns_config) if config.HasField("dns_config") else None,
        shm_size=shm_size if record.options.ipc != api_pb2.NODE else 0,
        owner=users.root if users else (0, 0),
        mount_label=record.selinux_mount_label,
    )


def _dns(config: api_pb2.DNSConfig) -> PodDns:
    return PodDns(tuple(config.servers), tuple(config.searches), tuple(config.options))


def attachment(record: SandboxRecord) -> PodAttachment:
    """The pod as CNI sees it."""
    config = record.config
    meta = config.metadata
    ports = (
        PortMapping(p.container_port, p.host_port, _PROTOCOLS.get(p.protocol, "tcp"), p.host_ip)
        for p in config.port_mappings
        if p.host_port > 0
    )
    return PodAttachment(
        sandbox_id=record.id,
        netns=Path(record.namespaces["net"]),
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid,
        port_mappings=tuple(ports),
        annotations=dict(config.annotations),
        dns=_dns(config.dns_config),
        cgroup_parent=record.cgroup_parent,
    )
