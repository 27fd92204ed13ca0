"""What runs behind the sessions may fail without ending them."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import grpc.aio
import pytest
from triptych.streaming.v1 import streaming_pb2 as pb
from triptych.streaming.v1 import streaming_pb2_grpc
from triptych_dev import streamclient as client
from triptych_service import Daemon, Definition
from triptych_service.health import Health
from triptych_service.interceptors import ServerInterceptor
from triptych_service.metrics import Metrics
from triptych_service.tasks import Tasks
from triptych_streaming import daemon as streaming
from triptych_streaming.protocol.channels import StreamSet
from triptych_streaming.protocol.status import Outcome
from triptych_streaming.records import ExecSession, PortForwardSession, Target, Waiting
from triptych_streaming.sessions import Sessions
from triptych_streaming.settings import HttpSettings, Settings
from triptych_streaming.store import SessionStore
from triptych_streaming.workers import reaper
from triptych_streaming.workers.exec import ExecBackend
from triptych_streaming.workers.headstart import HeadStarts

FORWARD = pb.OpenPortForwardRequest(target=pb.Target(pod_sandbox_id="p1"))
NO_DESCRIPTORS = OSError(errno.EMFILE, "Too many open files")


class Failing:
    """Fails at the first call; `again` is set by the second."""

    def __init__(self) -> None:
        self.again = asyncio.Event()
        self._calls = 0

    def __call__(self) -> set[int]:
        self._calls += 1
        if self._calls == 1:
            raise NO_DESCRIPTORS
        self.again.set()
        return set()


class Store:
    def __init__(self) -> None:
        self.sweep = Failing()


async def test_a_sweep_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_SWEEP_SECONDS", 0)
    store = Store()
    async with Tasks() as tasks:
        tasks.create_task(streaming._sweep(cast(SessionStore, store)))
        await store.sweep.again.wait()
        await tasks.end()


async def test_a_look_for_strays_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    zombies = Failing()
    monkeypatch.setattr(reaper, "zombies", zombies)
    async with Tasks() as tasks:
        tasks.create_task(reaper.reap_strays(0))
        await asyncio.sleep(0)
        await asyncio.to_thread(subprocess.run, ["true"])
        await zombies.again.wait()  # though no other child ended
        await tasks.end()


async def test_what_a_session_moves_counts_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_COUNT_SECONDS", 0)
    sessions, counted = Sessions(Metrics(), 1), {"in": 0.0, "out": 0.0}

    def add(value: float, *, kind: str, direction: str) -> None:
        counted[direction] += value

    monkeypatch.setattr(sessions, "_bytes", SimpleNamespace(add=add))
    async with Tasks() as tasks:
        tasks.create_task(streaming._count(sessions))
        forward = PortForwardSession(Target(pod_sandbox_id="p1"))
        with sessions.running(Waiting("a", 0, 1, forward), "SPDY/3.1", "") as active:
            active.outcome = Outcome()
            for moved in (5, 12):
                active.traffic.received, active.traffic.sent = moved, 2 * moved
                while counted != {"in": moved, "out": 2 * moved}:
                    await asyncio.sleep(0)
            active.traffic.sent += 1
        await tasks.end()
    assert counted == {"in": 12, "out": 25}


class Immortal:
    """Stands for a runtime that the kernel does not let die."""

    prepared = True

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def prepare(self) -> None:
        """It waits."""

    async def close(self) -> None:
        self.closed.set()
        raise TimeoutError


async def test_a_runtime_that_does_not_end_ends_nothing_else() -> None:
    session = ExecSession(Target(container_id="c1"), StreamSet(stdout=True), ("/bin/runtime",), b"{}")
    backend = Immortal()
    async with Tasks() as tasks:
        other = tasks.create_task(asyncio.sleep(1000))
        HeadStarts(tasks, lambda _: cast(ExecBackend, backend), lambda: 0.01).begin(
            Waiting("a", 0, 1, session)
        )
        await backend.closed.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not other.done()
        await tasks.end()


def make(
    directory: Path, tasks: Tasks, stopping: asyncio.Event, server: grpc.aio.Server
) -> Daemon[Settings]:
    settings = Settings(state=str(directory), http=HttpSettings(listen="127.0.0.1:0"))
    definition = Definition("triptych-streaming", "0", Settings, streaming.start, "")
    interceptor = ServerInterceptor(stopping)
    return Daemon(definition, settings, server, tasks, Health(), interceptor, Metrics(), {}, stopping)


async def test_a_part_that_fails_ends_the_daemon_by_a_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, until
) -> None:
    caplog.set_level(logging.INFO)
    fail = asyncio.Event()

    async def failing() -> None:
        await fail.wait()
        raise NO_DESCRIPTORS

    monkeypatch.setattr(reaper, "reap_strays", failing)
    monkeypatch.setattr(reaper, "become_subreaper", lambda: None)
    up: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        stopping, server = asyncio.Event(), grpc.aio.server()
        async with Tasks() as tasks, streaming.start(make(tmp_path, tasks, stopping, server)):
            server.add_insecure_port(f"unix:{tmp_path}/s")
            await server.start()
            try:
                async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
                    stub = streaming_pb2_grpc.StreamingServiceStub(channel)  # type: ignore[no-untyped-call,unused-ignore]
                    up.set_result((await stub.OpenPortForward(FORWARD)).url)
                    await stopping.wait()
            finally:
                await server.stop(None)
                await tasks.end()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    served = await asyncio.start_server(echo, "127.0.0.1", 0)
    running = asyncio.create_task(run())
    async with client.portforward_spdy(await up) as forwarder:
        pair = await forwarder.connect(served.sockets[0].getsockname()[1])
        fail.set()
        await until(lambda: "draining" in caplog.text)
        for word in (b"one", b"two"):
            await pair.data.write(word)
            assert await pair.data.read_until(word) == word
    with pytest.raises(ExceptionGroup) as caught:
        await running
    assert caught.value.exceptions == (NO_DESCRIPTORS,)
    served.close()
    assert os.listdir(tmp_path / "sessions" / "waiting") == []
