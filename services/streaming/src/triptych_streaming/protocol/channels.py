"""What both transports of exec and attach have in common: channels, versions and events."""

from __future__ import annotations

import enum
from dataclasses import dataclass

Buffer = bytes | bytearray | memoryview


class Channel(enum.IntEnum):
    """The streams of a session, by their WebSocket channel numbers."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4


class Version(enum.IntEnum):
    """Versions of the exec and attach protocol (k8s.io/apimachinery/pkg/util/remotecommand).

    V1 resets its error stream, V2 keeps it, V3 adds resize, V4 makes the error stream JSON, V5 (WebSocket
    only) adds a close signal.
    """

    V1 = 1
    V2 = 2
    V3 = 3
    V4 = 4
    V5 = 5

    @property
    def resizes(self) -> bool:
        return self >= Version.V3

    @property
    def json_status(self) -> bool:
        return self >= Version.V4


@dataclass(frozen=True, slots=True)
class StreamSet:
    """The streams that the CRI request asked for."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False

    def expected(self, version: Version) -> frozenset[Channel]:
        """The streams that a SPDY client opens before the session begins; others may come later."""
        wanted = {Channel.ERROR}
        if self.stdin:
            wanted.add(Channel.STDIN)
        if self.stdout:
            wanted.add(Channel.STDOUT)
        if self.stderr:
            wanted.add(Channel.STDERR)
        if self.tty and version.resizes:
            wanted.add(Channel.RESIZE)
        return frozenset(wanted)


@dataclass(frozen=True, slots=True)
class SessionReady:
    """All streams are there: the process may start."""


@dataclass(frozen=True, slots=True)
class StdinReceived:
    """:param data: valid until the next call of `receive`."""

    data: Buffer


@dataclass(frozen=True, slots=True)
class StdinEnded:
    """The client closed its side of stdin."""


@dataclass(frozen=True, slots=True)
class Resized:
    """The client's terminal has a new size, in characters."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class OutputRefused:
    """The client wants no more of STDOUT or STDERR, but the session goes on."""

    channel: Channel


@dataclass(frozen=True, slots=True)
class ClientClosed:
    """The client ended the session by the protocol."""


RemoteEvent = SessionReady | StdinReceived | StdinEnded | Resized | OutputRefused | ClientClosed
