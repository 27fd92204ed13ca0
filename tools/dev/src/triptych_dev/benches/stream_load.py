"""What the streaming benchmark does to a CRI runtime: sessions over SPDY/3.1, timed by the client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.v1 import api_pb2

from triptych_dev import streamclient as client
from triptych_dev.benches.memory import Memory
from triptych_dev.errors import StepFailed

CAT_PORT = 9001
ZERO_PORTS = range(9100, 9164)
_MB = 1e6
_DEADLINE = 120.0

# busybox's nc -ll starts a program for each connection; it keeps two waiting, hence a port a stream.
SERVER = (
    f"busybox nc -ll -p {CAT_PORT} -e busybox cat & "
    f"for port in $(seq {ZERO_PORTS.start} {ZERO_PORTS.stop - 1}); do "
    "busybox nc -ll -p $port -e busybox dd if=/dev/zero bs=65536 2>/dev/null & done; "
    "trap 'kill 0; exit 0' TERM; while :; do sleep 1000 & wait $!; done"
)
"""Command of the container: what comes to one port goes back, another one pours out zeros."""


@dataclass(slots=True)
class Subject:
    """One runtime with one running container.

    :param stub: its RuntimeService, synchronous.
    :param memory: of the process that serves the streams ("server"), and of the whole runtime ("all").
    :param pids: the processes of the runtime, whose CPU time is counted with that of their children.
    :ivar results: measured values by name of the measurement.
    """

    name: str
    stub: Any
    sandbox: str
    container: str
    memory: Callable[[], dict[str, Memory]]
    pids: Callable[[], list[int]]
    results: dict[str, list[float]] = field(default_factory=dict)

    def note(self, name: str, value: float) -> None:
        self.results.setdefault(name, []).append(value)

    def cpu(self) -> float:
        """Seconds of CPU that the runtime and what it started have used."""
        return sum(map(_cpu, self.pids()))

    def exec_url(self, *command: str, stdin: bool = True) -> str:
        """Exec: the URL of a session without terminal and standard error."""
        request = api_pb2.ExecRequest(container_id=self.container, cmd=command, stdin=stdin, stdout=True)
        return str(self.stub.Exec(request, timeout=_DEADLINE).url)

    def forward_url(self) -> str:
        request = api_pb2.PortForwardRequest(pod_sandbox_id=self.sandbox)
        return str(self.stub.PortForward(request, timeout=_DEADLINE).url)


async def setup_latency(subject: Subject, count: int) -> None:
    """From the Exec call to the first byte of `echo`, and from PortForward to the first byte back."""
    cpu = subject.cpu()
    for _ in range(count):
        begun = time.perf_counter()
        url = await asyncio.to_thread(subject.exec_url, "echo", "x", stdin=False)
        subject.note("exec URL ms", (time.perf_counter() - begun) * 1e3)
        async with client.remote_spdy(url, stderr=False) as remote:
            assert remote.stdout is not None
            await remote.stdout.read()
            subject.note("exec set-up ms", (time.perf_counter() - begun) * 1e3)
            await remote.status()
            subject.note("exec whole ms", (time.perf_counter() - begun) * 1e3)
    subject.note("exec CPU ms", (subject.cpu() - cpu) * 1e3 / count)
    for _ in range(count):
        begun = time.perf_counter()
        url = await asyncio.to_thread(subject.forward_url)
        subject.note("port-forward URL ms", (time.perf_counter() - begun) * 1e3)
        async with client.portforward_spdy(url) as forwarder:
            pair = await forwarder.connect(CAT_PORT)
            await pair.data.write(b"x")
            await pair.data.read()
            subject.note("port-forward set-up ms", (time.perf_counter() - begun) * 1e3)


async def exec_throughput(subject: Subject, streams: int, megabytes: int) -> None:
    """Standard output of `streams` sessions at once, `megabytes` each; all wait for one start."""
    script = f"read go; exec dd if=/dev/zero bs=65536 count={megabytes * 16} 2>/dev/null"
    async with contextlib.AsyncExitStack() as stack:
        counters = [Counter(megabytes << 20) for _ in range(streams)]
        remotes = []
        for counter in counters:
            url = await asyncio.to_thread(subject.exec_url, "sh", "-c", script)
            session = client.remote_spdy(url, stdin=True, stderr=False, on_stdout=counter.take)
            remotes.append(await stack.enter_async_context(session))
        await asyncio.sleep(0.5)
        begun, cpu = time.perf_counter(), subject.cpu()
        for remote in remotes:
            assert remote.stdin is not None
            await remote.stdin.write(b"\n")
        await asyncio.gather(*(counter.done.wait() for counter in counters))
        seconds = time.perf_counter() - begun
        subject.note(f"exec, {_streams(streams)} MB/s", streams * (megabytes << 20) / _MB / seconds)
        await asyncio.gather(*(remote.status() for remote in remotes))
        used = (subject.cpu() - cpu) * 1e9 / (streams * (megabytes << 20))
        subject.note(f"exec, {_streams(streams)} CPU s per GB", used)


async def stdin_throughput(subject: Subject, megabytes: int) -> None:
    """Standard input of one session."""
    url = await asyncio.to_thread(subject.exec_url, "sh", "-c", "wc -c")
    async with client.remote_spdy(url, stdin=True, stderr=False) as remote:
        assert remote.stdin is not None and remote.stdout is not None
        piece = bytes(1 << 15)
        begun = time.perf_counter()
        for _ in range(megabytes * 32):
            await remote.stdin.write(piece)
        await remote.stdin.close()
        if int((await remote.stdout.read_all()).strip()) != megabytes << 20:
            raise AssertionError(f"{subject.name}: bytes of standard input were lost")
        seconds = time.perf_counter() - begun
        subject.note("stdin, 1 stream MB/s", (megabytes << 20) / _MB / seconds)


async def forward_throughput(subject: Subject, streams: int, megabytes: int) -> None:
    """What a port pours out over `streams` connections of one session."""
    async with client.portforward_spdy(await asyncio.to_thread(subject.forward_url)) as forwarder:
        counters = [Counter(megabytes << 20) for _ in range(streams)]
        begun, cpu = time.perf_counter(), subject.cpu()
        pairs = [
            await forwarder.connect(port, counter.take)
            for port, counter in zip(ZERO_PORTS, counters, strict=False)
        ]
        await asyncio.gather(*(_first(counter, pair) for counter, pair in zip(counters, pairs, strict=True)))
        seconds = time.perf_counter() - begun
        received = sum(counter.received for counter in counters)
        subject.note(f"port-forward, {_streams(streams)} MB/s", received / _MB / seconds)
        used = (subject.cpu() - cpu) * 1e9 / received
        subject.note(f"port-forward, {_streams(streams)} CPU s per GB", used)


async def round_trips(subject: Subject, count: int) -> None:
    """Small messages there and back, one after another."""
    message = b"x" * 64
    url = await asyncio.to_thread(subject.exec_url, "cat")
    async with client.remote_spdy(url, stdin=True, stderr=False) as remote:
        assert remote.stdin is not None and remote.stdout is not None
        rate = await _ping_pong(remote.stdin.write, remote.stdout.read, message, count)
        subject.note("exec round trips/s", rate)
        await remote.stdin.close()
    async with client.portforward_spdy(await asyncio.to_thread(subject.forward_url)) as forwarder:
        pair = await forwarder.connect(CAT_PORT)
        rate = await _ping_pong(pair.data.write, pair.data.read, message, count)
        subject.note("port-forward round trips/s", rate)


async def _ping_pong(
    write: Callable[[bytes], Awaitable[None]], read: Callable[[], Awaitable[bytes]], data: bytes, count: int
) -> float:
    begun = time.perf_counter()
    for _ in range(count):
        await write(data)
        left = len(data)
        while left:
            left -= len(await read())
    return count / (time.perf_counter() - begun)


async def many_sessions(subject: Subject, count: int) -> None:
    """`count` exec sessions at once: how long until each has answered, what each costs while it idles."""
    before = subject.memory()
    async with contextlib.AsyncExitStack() as stack:

        async def one() -> None:
            url = await asyncio.to_thread(subject.exec_url, "cat")
            remote = await stack.enter_async_context(client.remote_spdy(url, stdin=True, stderr=False))
            assert remote.stdin is not None and remote.stdout is not None
            await remote.stdin.write(b"x")
            if await remote.stdout.read() != b"x":
                raise AssertionError(f"{subject.name}: a session of {count} at once failed")

        begun = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(count)))
        subject.note(f"{count} sessions at once s", time.perf_counter() - begun)
        await asyncio.sleep(2)
        after = subject.memory()
        for part in ("server", "all"):
            grown = (after[part].alone - before[part].alone) / count / 1e3
            subject.note(f"memory per idle session, {part} kB", grown)
    await asyncio.sleep(2)


async def _first(counter: Counter, pair: client.Forward) -> None:
    """Wait for the goal.

    :raises StepFailed: the connection ended before it.
    """
    ended = asyncio.ensure_future(pair.data.ended.wait())
    done = asyncio.ensure_future(counter.done.wait())
    await asyncio.wait((ended, done), return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if not done.done():
        done.cancel()
        raise StepFailed(f"port-forward ended early: {(await pair.error.read()).decode(errors='replace')}")


@dataclass(slots=True)
class Counter:
    """Counts what arrives up to a goal."""

    goal: int
    received: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, data: memoryview) -> None:
        self.received += len(data)
        if self.received >= self.goal:
            self.done.set()


def _cpu(pid: int) -> float:
    """CPU seconds of a process and of its children that have ended (proc(5), stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _streams(number: int) -> str:
    return "1 stream" if number == 1 else f"{number} streams"
