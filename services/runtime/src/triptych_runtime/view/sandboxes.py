"""PodSandbox and PodSandboxStatus from a record."""

from __future__ import annotations

from runtime.v1 import api_pb2

from triptych_runtime.model import SandboxRecord


def sandbox_message(record: SandboxRecord) -> api_pb2.PodSandbox:
    """An entry of ListPodSandbox."""
    config = record.config
    return api_pb2.PodSandbox(
        id=record.id,
        metadata=config.metadata,
        state=record.state,  # type: ignore[arg-type]
        created_at=record.created_at,
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=record.handler,
    )


def sandbox_status(record: SandboxRecord) -> api_pb2.PodSandboxStatus:
    """The status of a sandbox. A pod on the host's network has no IP here: the kubelet uses the node's."""
    config = record.config
    status = api_pb2.PodSandboxStatus(
        id=record.id,
        metadata=config.metadata,
        state=record.state,  # type: ignore[arg-type]
        created_at=record.created_at,
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=record.handler,
    )
    status.linux.namespaces.options.CopyFrom(record.options)
    status.network.SetInParent()
    if record.ips:
        status.network.ip = record.ips[0]
        for ip in record.ips[1:]:
            status.network.additional_ips.add(ip=ip)
    return status


def match_sandbox(record: SandboxRecord, filter: api_pb2.PodSandboxFilter) -> bool:
    """Whether a sandbox passes a list's filter: all conditions hold, labels exactly."""
    if filter.id and not record.id.startswith(filter.id):
        return False
    if filter.HasField("state") and record.state != filter.state.state:
        return False
    labels = record.config.labels
    return all(labels.get(key) == value for key, value in filter.label_selector.items())
