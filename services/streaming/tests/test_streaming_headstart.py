"""The OCI runtime that waits for a client: taken, left, or of no use; and nothing runs before its time."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, cast

import pytest
from triptych_dev import streamclient as client
from triptych_service.tasks import Tasks
from triptych_streaming.errors import ExecFailed
from triptych_streaming.protocol.channels import StreamSet
from triptych_streaming.records import ExecSession, PortForwardSession, Session, Target, Waiting
from triptych_streaming.workers.exec import ExecBackend
from triptych_streaming.workers.headstart import HeadStarts

EXEC = ExecSession(Target(container_id="c1"), StreamSet(stdout=True), ("/bin/runtime",), b"{}")


class Backend:
    """Stands for a runtime that waits."""

    def __init__(self, *, fails: bool = False) -> None:
        self.prepared = False
        self.closed = False
        self._fails = fails

    async def prepare(self) -> None:
        if self._fails:
            raise ExecFailed("no")
        self.prepared = True

    async def close(self) -> None:
        self.closed = True


class Bench:
    """Head starts with stand-ins for runtimes."""

    def __init__(self, tasks: Tasks, seconds: float, *, fail: bool = False) -> None:
        self.made: list[Backend] = []
        self._fail = fail
        self.starts = HeadStarts(tasks, self._make, lambda: seconds)

    def _make(self, session: ExecSession) -> ExecBackend:
        self.made.append(Backend(fails=self._fail))
        return cast(ExecBackend, self.made[-1])


def waiting(name: str = "one", session: Session = EXEC) -> Waiting:
    return Waiting(name, 0, 1, session)


async def test_one_that_is_taken_is_its_takers() -> None:
    async with Tasks() as tasks:
        bench = Bench(tasks, 1000)
        bench.starts.begin(waiting())
        await asyncio.sleep(0)
        assert bench.starts.take(waiting("other")) is None
        assert bench.starts.take(waiting()) is cast(Any, bench.made[0])
        assert bench.starts.take(waiting()) is None
    assert not bench.made[0].closed  # and the task has ended


async def test_one_that_nobody_takes_is_ended() -> None:
    async with Tasks() as tasks:
        bench = Bench(tasks, 0.01)
        bench.starts.begin(waiting())
    assert bench.made[0].closed and bench.starts.take(waiting()) is None


async def test_a_stop_ends_those_that_wait() -> None:
    async with Tasks() as tasks:
        bench = Bench(tasks, 1000)
        bench.starts.begin(waiting())
        await asyncio.sleep(0)
        await tasks.end()
    assert bench.made[0].closed


async def test_one_that_is_not_ready_or_failed_is_of_no_use() -> None:
    async with Tasks() as tasks:
        bench, failing = Bench(tasks, 1000), Bench(tasks, 1000, fail=True)
        bench.starts.begin(waiting())
        assert bench.starts.take(waiting()) is None
        failing.starts.begin(waiting())
        await asyncio.sleep(0)
        assert failing.starts.take(waiting()) is None
    assert bench.made[0].closed and failing.made[0].closed


async def test_their_number_is_limited_and_may_be_none() -> None:
    async with Tasks() as tasks:
        many, off = Bench(tasks, 1000), Bench(tasks, 0)
        for index in range(100):
            many.starts.begin(waiting(str(index)))
        many.starts.begin(waiting("forward", PortForwardSession(Target(pod_sandbox_id="p"))))
        off.starts.begin(waiting())
        assert (len(many.made), len(off.made)) == (16, 0)
        await tasks.end()


def files(daemon) -> list[Path]:
    return list((daemon.state / "exec").iterdir())


@pytest.mark.integration
async def test_the_runtime_waits_for_a_client_and_the_url_outlives_it(
    start_streaming, any_container, until
) -> None:
    daemon = start_streaming("[timeouts]\nhead_start = 1\n")
    mark = any_container.bundle / "rootfs/tmp/ran"
    url = daemon.stub.OpenExec(any_container.shell("echo >/tmp/ran; echo hi")).url
    await until(lambda: files(daemon))
    await until(lambda: not files(daemon))
    assert not mark.exists()
    assert (await client.exec_spdy(url)).stdout == b"hi\n"
    assert mark.exists()
    mark.unlink()


@pytest.mark.integration
async def test_another_instance_takes_the_session(start_streaming, any_container, until) -> None:
    first, second = start_streaming(), start_streaming()
    port = re.findall(r"127\.0\.0\.1:(\d+)", second.stub.OpenExec(any_container.shell("true")).url)[0]
    url = first.stub.OpenExec(any_container.shell("echo hi; exit 4", pod="moved")).url
    url = re.sub(r":\d+/", f":{port}/", url)
    result = await client.exec_spdy(url)
    assert (result.stdout, result.exit_code) == (b"hi\n", 4)
    assert len(await second.audit("moved")) == 1
    await until(lambda: not files(first))  # they share the directory


@pytest.mark.integration
async def test_a_daemon_that_is_killed_starts_nothing(start_streaming, any_container, until) -> None:
    daemon = start_streaming("[timeouts]\nhead_start = 1000\n")
    mark = any_container.bundle / "rootfs/tmp/ran"
    daemon.stub.OpenExec(any_container.shell("echo >/tmp/ran"))
    await until(lambda: files(daemon))
    waits = daemon.children()
    daemon.process.kill()
    daemon.process.wait()
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in waits))
    assert waits and not mark.exists()
    start_streaming()
    assert not files(daemon)
