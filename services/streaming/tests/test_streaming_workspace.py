"""The files of an OCI runtime's run: given whole, removed, and swept after a daemon that was killed."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from triptych_dev.testing.descriptors import count_descriptors
from triptych_streaming.errors import ExecFailed
from triptych_streaming.protocol.channels import StreamSet
from triptych_streaming.records import ExecSession, Target
from triptych_streaming.workers import ociexec
from triptych_streaming.workers.exec import ExecBackend
from triptych_streaming.workers.workspace import Workspace, sweep


def session(document: bytes = b"{}", *, tty: bool = False) -> ExecSession:
    return ExecSession(
        Target(container_id="c1"),
        StreamSet(stdout=True, tty=tty),
        ("/bin/runtime", "--root", "/r"),
        document,
    )


def after(argv: list[str], option: str) -> str:
    return argv[argv.index(option) + 1]


async def test_the_document_comes_when_it_is_given(tmp_path: Path) -> None:
    document = bytes(range(256)) * 1000  # more than a pipe holds
    workspace = Workspace(tmp_path, session(document))
    argv = workspace.argv()
    assert argv[:3] == ["/bin/runtime", "--root", "/r"] and argv[-1] == "c1"
    with open(after(argv, "--process"), "rb") as file:
        read = asyncio.ensure_future(asyncio.to_thread(file.read))
        done, _ = await asyncio.wait((read,), timeout=0.2)
        assert not done
        workspace.give()
        assert await read == document
    workspace.close()
    assert not list(tmp_path.iterdir())


async def test_all_files_are_removed(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    before = count_descriptors()
    workspace = Workspace(deep, session(tty=True))
    argv = workspace.argv()
    assert len(after(argv, "--console-socket")) < 108 and "--tty" in argv
    Path(after(argv, "--pid-file")).write_text("12")
    lines = ('{"level":"error","msg":"first"}', "nonsense", '{"level":"error","msg":"the reason"}', "{}")
    Path(after(argv, "--log")).write_text("\n".join(lines))
    assert workspace.pid() == 12 and workspace.complaint() == "the reason"
    with pytest.raises(ExecFailed, match="sent no terminal"):
        workspace.terminal()
    workspace.close()
    assert not list(deep.iterdir()) and count_descriptors() == before


async def test_what_the_system_lacks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*arguments: object) -> None:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(ociexec, "begin", refuse)
    before = count_descriptors()
    backend = ExecBackend(session(), tmp_path, deadline=1)
    with pytest.raises(ExecFailed, match="cannot start the OCI runtime: Too many open files"):
        await backend.prepare()
    assert not backend.prepared
    await backend.close()
    assert count_descriptors() == before


def test_what_a_killed_daemon_left_is_swept(tmp_path: Path) -> None:
    gone = 1 << 23  # above the largest process ID
    mine = tmp_path / f"{os.getpid()}-aa.pid"
    for path in (mine, tmp_path / f"{gone}-bb.log", tmp_path / f".{gone}-bb.pid"):
        path.touch()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [mine]
