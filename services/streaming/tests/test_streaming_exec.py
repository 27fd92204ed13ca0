"""Exec with a real daemon, a real runtime and a real container, over every protocol."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from subprocess import PIPE

import pytest
from triptych.streaming.v1 import streaming_pb2 as pb
from triptych_dev import streamclient as client
from triptych_dev.errors import StepFailed
from triptych_dev.patience import PATIENCE
from triptych_linux.pidfd import ProcessIdentity

pytestmark = pytest.mark.integration

SPDY = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"]
WEBSOCKET = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
]


TRACER = """
import ctypes, os, sys
SEIZE, pid = 0x4206, int(sys.argv[1])
assert ctypes.CDLL(None).ptrace(SEIZE, pid, None, None) == 0
print("seized", flush=True)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
print("ended", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def daemon(shared_streaming):
    return shared_streaming


async def gone(pid: int, seconds: float = 30.0 * PATIENCE) -> bool:
    """Whether a process is reaped within that time."""
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


def inside(container, word: str) -> list[int]:
    """Processes of the container whose command line has that word."""
    own = os.readlink(f"/proc/{container.pid}/ns/pid")
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "ns/pid") == own and word in (path / "cmdline").read_text():
                found.append(int(path.name))
        except OSError:
            continue
    return found


async def test_output_of_both_streams_and_exit_code(daemon, container) -> None:
    url = daemon.stub.OpenExec(container.shell("echo out; echo err >&2; exit 7")).url
    result = await client.exec_spdy(url)
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 7)
    assert result.protocol == "v4.channel.k8s.io"
    status = json.loads(result.status)
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]


@pytest.mark.parametrize("code", [0, 1, 127, 255])
async def test_exit_codes(daemon, container, code: int) -> None:
    url = daemon.stub.OpenExec(container.shell(f"exit {code}")).url
    assert (await client.exec_spdy(url)).exit_code == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
async def test_a_signal_is_128_and_its_number(daemon, container, number: int) -> None:
    url = daemon.stub.OpenExec(container.shell(f"kill -{int(number)} $$")).url
    assert (await client.exec_spdy(url)).exit_code == 128 + number


async def test_the_exit_code_of_a_traced_process(daemon, container, until) -> None:
    url = daemon.stub.OpenExec(container.shell("read traced; exit 3", stdin=True)).url
    async with client.remote_spdy(url, stdin=True) as remote:
        assert remote.stdin
        await until(lambda: inside(container, "traced"))
        (pid,) = inside(container, "traced")
        tracer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", TRACER, str(pid), stdin=PIPE, stdout=PIPE
        )
        assert tracer.stdout and await tracer.stdout.readline()
        await remote.stdin.write(b"\n")
        assert await tracer.stdout.readline()  # its process has ended, and waits for it
        await asyncio.sleep(0.2)
        await tracer.communicate(b"")
        assert client.exit_code(await remote.status()) == 3


@pytest.mark.parametrize("protocol", SPDY)
async def test_every_spdy_version(daemon, container, protocol: str) -> None:
    url = daemon.stub.OpenExec(container.shell("echo out; echo err >&2; exit 3")).url
    result = await client.exec_spdy(url, protocols=[protocol])
    assert (result.stdout, result.stderr, result.protocol) == (b"out\n", b"err\n", protocol)
    if protocol == "v4.channel.k8s.io":
        assert result.exit_code == 3
    elif protocol == "channel.k8s.io":
        assert result.status == b""
    else:
        assert result.status == b"command terminated with non-zero exit code: exit status 3"


@pytest.mark.parametrize("protocol", WEBSOCKET)
async def test_every_websocket_version(daemon, container, protocol: str) -> None:
    url = daemon.stub.OpenExec(container.shell("printf '\\377\\000out'; echo err >&2; exit 3")).url
    result = await client.exec_websocket(url, protocol=protocol)
    assert (result.stdout, result.stderr, result.protocol) == (b"\xff\0out", b"err\n", protocol)
    if protocol.startswith(("v4", "v5")):
        assert result.exit_code == 3
    else:
        assert result.status == b"command terminated with non-zero exit code: exit status 3"


async def test_stdin_is_binary_safe_and_its_end_reaches_the_process(daemon, container) -> None:
    data = os.urandom(3_000_000)
    url = daemon.stub.OpenExec(container.exec_request("/bin/cat", stdin=True)).url
    result = await client.exec_spdy(url, data)
    assert result.stdout == data and result.exit_code == 0
    url = daemon.stub.OpenExec(container.exec_request("/bin/cat", stdin=True)).url
    result = await client.exec_websocket(url, data)
    assert result.stdout == data and result.exit_code == 0


async def test_the_last_byte_is_never_lost(daemon, container) -> None:
    script = "head -c 1000000 /dev/zero; echo last"
    for _ in range(10):
        url = daemon.stub.OpenExec(container.shell(script)).url
        result = await client.exec_spdy(url)
        assert len(result.stdout) == 1_000_005 and result.stdout.endswith(b"last\n")


async def test_stdin_that_nobody_reads_does_not_hang(daemon, container) -> None:
    url = daemon.stub.OpenExec(container.exec_request("/bin/true", stdin=True)).url
    result = await client.exec_spdy(url, bytes(1 << 20))
    assert result.exit_code == 0


async def test_terminal_over_websocket(daemon, container) -> None:
    url = daemon.stub.OpenExec(container.exec_request("/bin/stty", "size", stdin=True, tty=True)).url
    result = await client.exec_websocket(url, b"", size=(90, 30))
    assert result.exit_code == 0 and result.stdout.endswith(b"\r\n")


@pytest.mark.parametrize(
    ("typed", "shown"), [(b"line\n", b"line\r\nline\r\n"), (b"in a line", b"in a linein a line"), (b"", b"")]
)
async def test_end_of_stdin_reaches_a_reader_on_a_terminal(
    daemon, container, typed: bytes, shown: bytes
) -> None:
    url = daemon.stub.OpenExec(container.exec_request("/bin/cat", stdin=True, tty=True)).url
    result = await client.exec_spdy(url, typed, tty=True)
    assert result.exit_code == 0 and result.stdout == shown


async def test_a_program_that_is_not_there(daemon, container) -> None:
    url = daemon.stub.OpenExec(container.exec_request("/bin/nothing", pod="missing")).url
    result = await client.exec_spdy(url)
    with pytest.raises(StepFailed, match="OCI runtime exec failed: .*/bin/nothing"):
        _ = result.exit_code
    assert json.loads(result.status)["reason"] == "InternalError" and not result.stdout
    assert "OCI runtime exec failed" in (await daemon.audit("missing"))[0]["error"]


async def test_a_runtime_that_is_not_there(daemon, container) -> None:
    request = container.exec_request("/bin/true")
    request.runtime_command[0] = "/usr/bin/no-such-runtime"
    result = await client.exec_spdy(daemon.stub.OpenExec(request).url)
    with pytest.raises(StepFailed, match="no-such-runtime"):
        _ = result.exit_code


async def test_a_container_that_ended_meanwhile(daemon, container) -> None:
    request = container.exec_request("/bin/true", container_pid=container.pid, container_start_ticks=1)
    result = await client.exec_spdy(daemon.stub.OpenExec(request).url)
    with pytest.raises(StepFailed, match=f"container {container.id} is not running"):
        _ = result.exit_code


async def test_a_child_that_keeps_the_output_open_does_not_hold_the_session(daemon, container) -> None:
    url = daemon.stub.OpenExec(container.shell("(sleep 3030; echo late) & echo now")).url
    async with asyncio.timeout(60 * PATIENCE):
        result = await client.exec_spdy(url)
    assert result.stdout == b"now\n" and result.exit_code == 0
    for pid in inside(container, "sleep\x003030"):
        os.kill(pid, signal.SIGKILL)


async def test_a_client_that_stops_reading_stops_the_process(daemon, container) -> None:
    url = daemon.stub.OpenExec(container.exec_request("/bin/yes", stderr=False, pod="slow")).url
    neighbour = daemon.stub.OpenExec(container.shell("seq 1 100000")).url
    async with client.remote_spdy(url, stderr=False) as remote:
        assert remote.stdout and remote.session.transport
        await remote.stdout.read_until(b"y\n")
        before = _rss(daemon.pid)
        remote.session.transport.pause_reading()
        sent = -1
        async with asyncio.timeout(60 * PATIENCE):
            while sent != (sent := _sent(daemon, "slow")):
                await asyncio.sleep(1.0)
        assert _rss(daemon.pid) - before < 1 << 20
        assert len((await client.exec_spdy(neighbour)).stdout) > 500_000
    assert (await daemon.audit("slow"))[0]["kind"] == "exec"


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def _sent(daemon, pod: str) -> int:
    sessions = daemon.stub.ListSessions(pb.ListSessionsRequest()).sessions
    return sum(each.bytes_out for each in sessions if each.active and each.target.pod_name == pod)


@pytest.mark.parametrize("tty", [False, True])
async def test_a_client_that_vanishes_ends_its_process(daemon, container, until, tty: bool) -> None:
    mark = f"4242{int(tty)}"
    request = container.exec_request("/bin/sleep", mark, stdin=True, tty=tty, pod=mark)
    async with client.remote_spdy(daemon.stub.OpenExec(request).url, stdin=True, tty=tty):
        while not inside(container, mark):
            await asyncio.sleep(0.02)
        (pid,) = inside(container, mark)
    assert await gone(pid)
    (line,) = await daemon.audit(mark)
    assert line["exit_code"] in (128 + signal.SIGHUP, 128 + signal.SIGKILL)
    assert line["reason"] == "the client is gone"  # and no other killer
    await until(lambda: not list((daemon.state / "exec").iterdir()))


async def test_a_writer_notices_that_the_client_refuses_its_output(daemon, container) -> None:
    url = daemon.stub.OpenExec(container.shell("yes; exit 0", stderr=False)).url
    async with client.remote_spdy(url, stderr=False) as remote:
        assert remote.stdout
        await remote.stdout.read_until(b"y\n")
        remote.session.connection.reset_stream(remote.stdout.id)
        remote.session.flush()
        assert client.exit_code(await remote.status()) == 0


async def test_exec_processes_are_in_the_containers_cgroup(daemon, container) -> None:
    url = daemon.stub.OpenExec(container.exec_request("/bin/cat", "/proc/self/cgroup")).url
    result = await client.exec_spdy(url)
    name = f"/triptych-streaming-test/{container.id}".encode()
    lines = [line for line in result.stdout.splitlines() if b":memory:" in line or line.startswith(b"0::")]
    assert any(line.endswith(name) for line in lines), result.stdout


async def test_exec_processes_are_as_dear_to_the_kernel_as_their_container(daemon, make_container) -> None:
    container = make_container()
    own = ProcessIdentity.of(container.pid)
    score = Path(f"/proc/{own.pid}/oom_score_adj")
    score.write_text(str(int(score.read_text()) + 7))
    request = container.exec_request(
        "/bin/cat", "/proc/self/oom_score_adj", container_pid=own.pid, container_start_ticks=own.start_ticks
    )
    result = await client.exec_spdy(daemon.stub.OpenExec(request).url)
    assert result.stdout.decode() == score.read_text()


async def test_audit_line(daemon, container) -> None:
    url = daemon.stub.OpenExec(container.shell("cat; exit 4", stdin=True, pod="audited")).url
    await client.exec_spdy(url, b"12345")
    (line,) = await daemon.audit("audited")
    assert (line["bytes_in"], line["bytes_out"], line["exit_code"]) == (5, 5, 4)
    assert "reason" not in line
    assert line["container_id"] == container.id and line["namespace"] == "test" and line["seconds"] >= 0
    assert url.rpartition("/")[2] not in daemon.log.read_text()
