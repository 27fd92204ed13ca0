"""Settings of the streaming daemon."""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta
from triptych_service import Reload, ServiceSettings, Table, setting

Seconds = Annotated[float, Meta(gt=0)]
SecondsOrNone = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]


class HttpSettings(Table):
    """`[http]`"""

    listen: str = setting(
        "127.0.0.1:10010",
        "Address that exec, attach and port-forward URLs are served on, `host:port`. A socket named `http` "
        "that the service manager passes is used instead.",
    )
    advertise: str = setting(
        "",
        "Base of the URLs given out, such as `https://node-1:10010/stream`, where the kubelet reaches this "
        "daemon by another name than `listen`; empty makes it from the address served.",
        reload=Reload.LIVE,
    )
    insecure: bool = setting(
        False, "Serve plain HTTP on an address that is not loopback. Who sees a URL then has the session."
    )
    backlog: Count = setting(1024, "Connections that the kernel keeps waiting to be taken.")


class TlsVersion(enum.Enum):
    """TLS versions that are fit for use."""

    V1_2 = "1.2"
    V1_3 = "1.3"


class TlsSettings(Table):
    """`[tls]`"""

    certificate: str = setting(
        "", "PEM file of the server's certificate and chain; empty serves plain HTTP.", reload=Reload.LIVE
    )
    key: str = setting("", "PEM file of its private key.", reload=Reload.LIVE)
    client_ca: str = setting(
        "",
        "PEM file of authorities; when set, only clients with a certificate of theirs are served.",
        reload=Reload.LIVE,
    )
    minimum: TlsVersion = setting(TlsVersion.V1_2, "Lowest TLS version.", reload=Reload.LIVE)


class LimitSettings(Table):
    """`[limits]`"""

    sessions: Count = setting(
        4096, "Sessions of this process at once; more are answered 503.", reload=Reload.LIVE
    )
    handshakes: Count = setting(
        1024,
        "Connections that have not sent their whole request yet; above it the oldest is dropped.",
        reload=Reload.LIVE,
    )
    streams_per_session: Annotated[int, Meta(ge=2)] = setting(
        1000, "Open SPDY streams of one session; a forwarded connection takes two.", reload=Reload.LIVE
    )
    forwarded_connections: Count = setting(
        16384,
        "Forwarded connections of all sessions of this process at once, and never more than half of its "
        "descriptors (RLIMIT_NOFILE); more are told so on their error stream.",
        reload=Reload.LIVE,
    )
    tokens: Count = setting(
        1000,
        "URLs given out that nobody has used yet; above it Exec gets RESOURCE_EXHAUSTED.",
        reload=Reload.LIVE,
    )
    stream_buffer_bytes: Annotated[int, Meta(ge=4096, le=64 << 20)] = setting(
        65536,
        "Bytes kept for a reader that lags, per stream, before its writer is stopped.",
        reload=Reload.LIVE,
    )
    forward_backlog_bytes: Annotated[int, Meta(ge=0, le=1 << 30)] = setting(
        1 << 20,
        "Bytes kept for the connections of a port-forward session whose ports lag; above it the client "
        "waits, and all connections of the session with it.",
        reload=Reload.LIVE,
    )
    message_bytes: Annotated[int, Meta(ge=65536, le=1 << 30)] = setting(
        4 << 20,
        "Largest WebSocket frame taken from a client; its bytes are passed on as they come.",
        reload=Reload.LIVE,
    )


class TimeoutSettings(Table):
    """`[timeouts]`, in seconds"""

    token: Seconds = setting(60.0, "Life of a URL that is not used.", reload=Reload.LIVE)
    handshake: Seconds = setting(
        10.0, "From a connection to its whole HTTP request (and TLS handshake).", reload=Reload.LIVE
    )
    creation: Seconds = setting(30.0, "For a client to open the streams of its session.", reload=Reload.LIVE)
    idle: SecondsOrNone = setting(
        4 * 3600.0,
        "Without a byte in either direction until a session is ended; 0 for never.",
        reload=Reload.LIVE,
    )
    head_start: SecondsOrNone = setting(
        2.0,
        "That the OCI runtime, started when Exec is answered, waits for the client; 0 starts it when the "
        "client has connected.",
        reload=Reload.LIVE,
    )
    exec_start: Seconds = setting(30.0, "For the OCI runtime to start a process.", reload=Reload.LIVE)
    dial: Seconds = setting(10.0, "For a forwarded port to take a connection.", reload=Reload.LIVE)
    linger: SecondsOrNone = setting(
        2.0,
        "After a process has ended, for children of it that still hold its output open.",
        reload=Reload.LIVE,
    )
    hangup: SecondsOrNone = setting(
        10.0,
        "After a client vanished and its process was hung up (end of input, no reader, SIGHUP on a "
        "terminal), until the process is killed.",
        reload=Reload.LIVE,
    )
    lag: SecondsOrNone = setting(
        10.0,
        "For a client of attach that does not read to go on reading; then its session is ended, because the "
        "container, its log and its other clients wait for it; 0 for never.",
        reload=Reload.LIVE,
    )
    drain: SecondsOrNone = setting(
        3600.0,
        "For sessions that run when the daemon is told to stop; then they are ended. Under systemd the old "
        "process drains beside the new one.",
        reload=Reload.LIVE,
    )


class Settings(ServiceSettings):
    """`triptych-streaming`"""

    state: str = setting(
        "/run/triptych/streaming",
        "Directory on tmpfs that all streaming processes of the node share.",
    )
    http: HttpSettings = setting(HttpSettings(), "The HTTP server.")
    tls: TlsSettings = setting(TlsSettings(), "Encryption of the HTTP server.")
    limits: LimitSettings = setting(LimitSettings(), "What clients may take.")
    timeouts: TimeoutSettings = setting(TimeoutSettings(), "How long things may take, in seconds.")
