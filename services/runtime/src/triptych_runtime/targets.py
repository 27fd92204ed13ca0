"""Whose a streaming session is, and which streams it may have."""

from __future__ import annotations

from runtime.v1 import api_pb2
from triptych.streaming.v1 import streaming_pb2

from triptych_runtime.errors import InvalidArgument
from triptych_runtime.model import ContainerRecord, SandboxRecord
from triptych_runtime.node import Node


def check_streams(request: api_pb2.ExecRequest | api_pb2.AttachRequest) -> None:
    """:raises InvalidArgument: for a terminal with stderr, or no stream at all; as the CRI says."""
    if request.tty and request.stderr:
        raise InvalidArgument("stderr: a terminal has no stderr of its own")
    if not (request.stdin or request.stdout or request.stderr):
        raise InvalidArgument("one of stdin, stdout and stderr must be set")


def sandbox_target(record: SandboxRecord) -> streaming_pb2.Target:
    """A sandbox, for the audit log."""
    meta = record.config.metadata
    return streaming_pb2.Target(
        pod_sandbox_id=record.id, pod_namespace=meta.namespace, pod_name=meta.name, pod_uid=meta.uid
    )


def container_target(node: Node, record: ContainerRecord) -> streaming_pb2.Target:
    """A container, for the audit log."""
    target = sandbox_target(node.state.sandbox(record.sandbox_id))
    target.container_id, target.container_name = record.id, record.name
    return target
