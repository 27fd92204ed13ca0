"""Exec and attach over SPDY/3.1, as client-go opens them."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from triptych_dev.errors import StepFailed
from triptych_dev.streamclient.spdy import REMOTE_PROTOCOLS, OnData, SpdySession, Stream, connect_spdy


@dataclass(slots=True)
class Result:
    """How a command ended.

    :param status: the error stream as it came: JSON from version 4 on, else text.
    """

    stdout: bytes = b""
    stderr: bytes = b""
    status: bytes = b""
    protocol: str = ""

    @property
    def exit_code(self) -> int:
        """0 for success.

        :raises StepFailed: the command did not run, or the server sent no status.
        """
        return exit_code(self.status)


def exit_code(status: bytes) -> int:
    """The exit code in a version 4 status.

    :raises StepFailed: there is none.
    """
    if not status:
        raise StepFailed("the server sent no status")
    document: dict[str, Any] = json.loads(status)
    if document["status"] == "Success":
        return 0
    if document.get("reason") == "NonZeroExitCode":
        return int(document["details"]["causes"][0]["message"])
    raise StepFailed(str(document.get("message")))


@dataclass(slots=True)
class Remote:
    """A running exec or attach session; streams that were not asked for are None."""

    session: SpdySession
    error: Stream
    stdin: Stream | None = None
    stdout: Stream | None = None
    stderr: Stream | None = None
    resize: Stream | None = None

    async def set_size(self, width: int, height: int) -> None:
        """Tell the terminal's size."""
        if self.resize is not None:
            await self.resize.write(json.dumps({"Width": width, "Height": height}).encode())

    async def status(self) -> bytes:
        """Wait for the end; the error stream's content."""
        return await self.error.read_all()


@asynccontextmanager
async def remote_spdy(
    url: str,
    *,
    stdin: bool = False,
    stdout: bool = True,
    stderr: bool = True,
    tty: bool = False,
    protocols: Sequence[str] = REMOTE_PROTOCOLS,
    on_stdout: OnData | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Remote]:
    """Open an exec or attach session with its streams in the order that client-go opens them."""
    async with connect_spdy(url, protocols, tls=tls) as session:
        remote = Remote(session, await session.open({"streamtype": "error"}))
        if stdin:
            remote.stdin = await session.open({"streamtype": "stdin"})
        if stdout:
            remote.stdout = await session.open({"streamtype": "stdout"}, on_stdout)
        if stderr and not tty:
            remote.stderr = await session.open({"streamtype": "stderr"})
        if tty and session.protocol in REMOTE_PROTOCOLS[:2]:
            remote.resize = await session.open({"streamtype": "resize"})
        yield remote


async def exec_spdy(
    url: str,
    stdin: bytes | None = None,
    *,
    tty: bool = False,
    size: tuple[int, int] | None = None,
    protocols: Sequence[str] = REMOTE_PROTOCOLS,
    tls: ssl.SSLContext | None = None,
) -> Result:
    """Run a command to its end."""
    async with remote_spdy(url, stdin=stdin is not None, tty=tty, protocols=protocols, tls=tls) as remote:
        if size is not None:
            await remote.set_size(*size)

        async def feed() -> None:
            if remote.stdin is not None and stdin is not None:
                for start in range(0, len(stdin), 1 << 15):
                    await remote.stdin.write(stdin[start : start + (1 << 15)])
                await remote.stdin.close()

        async def nothing() -> bytes:
            return b""

        _, stdout, stderr, status = await asyncio.gather(
            feed(),
            remote.stdout.read_all() if remote.stdout else nothing(),
            remote.stderr.read_all() if remote.stderr else nothing(),
            remote.status(),
        )
        return Result(stdout, stderr, status, remote.session.protocol)


attach_spdy = remote_spdy
"""An attach session is driven like an interactive exec."""
