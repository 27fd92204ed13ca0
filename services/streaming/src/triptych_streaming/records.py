"""Sessions as they wait for their client, and the file format of that."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from triptych_streaming.protocol.channels import StreamSet
from triptych_streaming.protocol.negotiation import Kind


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose session it is; for people and metrics only."""

    pod_sandbox_id: str = ""
    container_id: str = ""
    pod_namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""
    container_name: str = ""


class ExecSession(msgspec.Struct, frozen=True, tag="exec", omit_defaults=True):
    """A process to start in a container; see OpenExecRequest for the fields."""

    target: Target
    streams: StreamSet
    runtime_command: tuple[str, ...]
    process: bytes
    exec_args: tuple[str, ...] = ()
    container_pid: int = 0
    container_start_ticks: int = 0

    kind = Kind.EXEC


class AttachSession(msgspec.Struct, frozen=True, tag="attach", omit_defaults=True):
    """A running container's stdio, by its monitor; see OpenAttachRequest for the fields."""

    target: Target
    streams: StreamSet
    attach_socket: str
    control_fifo: str = ""

    kind = Kind.ATTACH


class PortForwardSession(msgspec.Struct, frozen=True, tag="portforward", omit_defaults=True):
    """Connections into a network namespace; see OpenPortForwardRequest for the fields."""

    target: Target
    network_namespace: str = ""
    ports: tuple[int, ...] = ()

    kind = Kind.PORT_FORWARD


Session = ExecSession | AttachSession | PortForwardSession


class Waiting(msgspec.Struct, frozen=True):
    """The content of a session's file.

    :param id: public number, for logs and listings; not the token.
    :param created_at: Unix time in nanoseconds, as is `expires_at`.
    :param trace: the `traceparent` of the request that opened it, so that the session continues its trace.
    """

    id: str
    created_at: int
    expires_at: int
    session: Session
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that now waits, and the secret that leads to it."""

    token: str
    waiting: Waiting
