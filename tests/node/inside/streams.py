"""The streaming daemon is restarted by systemd while sessions run and new ones open: nobody notices.

Its sockets belong to systemd, the old process drains what runs, and the new one takes what was given out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev import streamclient
from triptych_dev.patience import PATIENCE
from triptych_dev.vm.inside import Node, eventually, systemctl

UNIT = "triptych-streaming.service"
SERVE = ("sh", "-c", "httpd -p 8080 -h /www; trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")
CLIENTS = 3
RESTARTS = 2


@pytest.fixture
def pod(node: Node) -> Any:
    """A pod with a web server: the sandbox and the container."""
    sandbox = node.run_pod("streams")
    yield sandbox[0], node.run_container(sandbox, "main", SERVE)
    node.remove_pod(sandbox[0])


def exec_url(node: Node, container: str, *command: str, stdin: bool = False) -> str:
    """A URL for a command."""
    request = cri.ExecRequest(container_id=container, cmd=command, stdin=stdin, stdout=True, stderr=True)
    return str(node.call("Exec", request).url)


def forward_url(node: Node, sandbox: str) -> str:
    """A URL for forwarding ports."""
    return str(node.call("PortForward", cri.PortForwardRequest(pod_sandbox_id=sandbox)).url)


@contextlib.asynccontextmanager
async def shell(url: str) -> AsyncIterator[Callable[[bytes], Any]]:
    """A running `cat`: a function that sends a line and waits for it to come back."""
    async with streamclient.remote_spdy(url, stdin=True) as remote:

        async def say(line: bytes) -> None:
            assert remote.stdin is not None and remote.stdout is not None
            await remote.stdin.write(line)
            async with asyncio.timeout(20 * PATIENCE):
                assert await remote.stdout.read_until(line) == line

        yield say
        assert remote.stdin is not None
        await remote.stdin.close()
        assert streamclient.exit_code(await remote.status()) == 0


async def fetch(forwarder: streamclient.Forwarder) -> bytes:
    """What the pod's web server answers through a session, or else why it does not."""
    forward = await forwarder.connect(8080)
    await forward.data.write(b"GET /index.html HTTP/1.0\r\n\r\n")
    async with asyncio.timeout(20 * PATIENCE):
        return await forward.data.read_all() or await forward.error.read_all()


async def restart() -> None:
    """`systemctl restart`, which waits until the new process is ready."""
    before = systemctl("show", "-P", "MainPID", UNIT)
    await asyncio.to_thread(systemctl, "restart", UNIT)
    assert systemctl("show", "-P", "MainPID", UNIT) != before


async def test_a_restart_under_load_is_not_noticed(node: Node, pod: tuple[str, str]) -> None:
    """No connection refused, no session cut, no URL lost."""
    sandbox, container = pod
    done = [0] * CLIENTS
    stop = asyncio.Event()

    async def client(number: int) -> None:
        while not stop.is_set():
            url = await asyncio.to_thread(exec_url, node, container, "echo", f"{number}")
            result = await streamclient.exec_spdy(url)
            assert (result.stdout, result.exit_code) == (b"%d\n" % number, 0)
            done[number] += 1

    async def each_once_more() -> None:
        seen = list(done)
        async with asyncio.timeout(30 * PATIENCE):
            while any(now <= before for now, before in zip(done, seen, strict=True)):
                await asyncio.sleep(0.1)

    async with (
        shell(exec_url(node, container, "cat", stdin=True)) as say,
        streamclient.portforward_spdy(forward_url(node, sandbox)) as forwarder,
    ):
        await say(b"before\n")
        assert b"hello from triptych" in await fetch(forwarder)
        async with asyncio.TaskGroup() as tasks:
            clients = [tasks.create_task(client(number)) for number in range(CLIENTS)]
            for turn in range(RESTARTS):
                await each_once_more()
                given_out = exec_url(node, container, "echo", "given out before")
                await restart()
                await say(b"drained %d\n" % turn)
                assert b"hello from triptych" in await fetch(forwarder)
                assert (await streamclient.exec_spdy(given_out)).stdout == b"given out before\n"
                await each_once_more()
            stop.set()
            await asyncio.gather(*clients)
        await say(b"after\n")
    eventually(lambda: draining() == [])


def draining() -> list[int]:
    """Processes of the unit that belong to no running main process."""
    group = Path("/sys/fs/cgroup/triptych.slice") / UNIT / "cgroup.procs"
    main = int(systemctl("show", "-P", "MainPID", UNIT))
    parents = {pid: _parent(pid) for pid in map(int, group.read_text().split())}
    return [pid for pid, parent in parents.items() if pid != main and parent != main]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_further_instances_share_the_sockets(node: Node, pod: tuple[str, str]) -> None:
    """With a second instance the first one can go; sessions open all the while."""
    systemctl("start", "triptych-streaming@2.service")
    try:
        systemctl("stop", UNIT)
        for number in range(3):
            url = exec_url(node, pod[1], "echo", f"{number}")
            assert asyncio.run(streamclient.exec_spdy(url)).stdout == b"%d\n" % number
    finally:
        systemctl("start", UNIT)
        systemctl("stop", "triptych-streaming@2.service")
