"""Nothing is left behind: after thousands of sessions the daemon is as it was."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest
from triptych.streaming.v1 import streaming_pb2 as pb
from triptych_dev import streamclient as client

pytestmark = [pytest.mark.integration, pytest.mark.slow]

FAST = 10_000
EXECS = 300


def counts(daemon) -> dict[str, int]:
    """What a leak would make grow."""
    process = Path(f"/proc/{daemon.pid}")
    opened = []
    for path in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            opened.append(os.readlink(path))
    return {
        "descriptors": len(opened),
        "threads": len(os.listdir(process / "task")),
        "children": len(daemon.children()),
        "files": sum(len(files) + len(names) for _, names, files in os.walk(daemon.state)),
        "terminals": sum(each.endswith("/ptmx") for each in opened),
    }


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What is more than it was, and by how much."""
    return {name: after[name] - before[name] for name in before if after[name] > before[name]}


def anonymous(daemon) -> int:
    """What the daemon takes for itself, in bytes; pages of libraries come and go as they are used."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    (found,) = (line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(found) << 10


async def settled(daemon, expected: dict[str, int] | None = None) -> dict[str, int]:
    """The counts, once they are as expected or have not changed for a while."""
    found, same = counts(daemon), 0
    while found != expected and same < 50:
        await asyncio.sleep(0.1)
        now = counts(daemon)
        same = same + 1 if now == found else 0
        found = now
    return found


@pytest.mark.timeout(600)
async def test_ten_thousand_sessions(start_streaming) -> None:
    daemon = start_streaming("[timeouts]\nhangup = 0.5\n")
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    request = pb.OpenPortForwardRequest(target=pb.Target(pod_sandbox_id="p1"))

    async def some(number: int) -> None:
        for index in range(number):
            async with client.portforward_spdy(daemon.stub.OpenPortForward(request).url) as forwarder:
                pair = await forwarder.connect(port if index % 3 else 1)
                if index % 2:
                    await pair.data.read_all()

    await asyncio.gather(*(some(50) for _ in range(20)))
    before, memory = await settled(daemon), anonymous(daemon)
    await asyncio.gather(*(some((FAST - 1000) // 20) for _ in range(20)))
    assert grown(before, await settled(daemon, before)) == {}
    # Holes in arenas are 2 MB or so; a kilobyte that each session left would be 9.
    assert anonymous(daemon) - memory < 8 << 20
    server.close()


@pytest.mark.timeout(300)
async def test_execs_with_and_without_terminal(start_streaming, container) -> None:
    daemon = start_streaming("[timeouts]\nhangup = 0.2\n")

    async def one(index: int) -> None:
        tty, vanish, fail = bool(index & 1), index % 5 == 0, index % 7 == 0
        command = ["/bin/nothing"] if fail else ["/bin/sh", "-c", "echo hello; read line"]
        request = container.exec_request(*command, stdin=True, tty=tty)
        if index % 11 == 0:  # the client leaves while the runtime waits for its streams
            async with client.connect_spdy(daemon.stub.OpenExec(request).url) as session:
                await session.open({"streamtype": "error"})
            return
        async with client.remote_spdy(daemon.stub.OpenExec(request).url, stdin=True, tty=tty) as remote:
            if vanish:
                await asyncio.sleep(index % 4 * 0.01)
                return
            assert remote.stdin
            await remote.stdin.write(b"\n")
            await remote.stdin.close()
            await remote.status()

    for start in range(0, 40, 8):
        await asyncio.gather(*(one(index) for index in range(start, start + 8)))
    before = await settled(daemon)
    for start in range(0, EXECS, 8):
        await asyncio.gather(*(one(index) for index in range(start, start + 8)))
    assert grown(before, await settled(daemon, before)) == {}
