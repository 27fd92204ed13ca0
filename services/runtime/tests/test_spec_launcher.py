from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from triptych_errors import FailedPrecondition
from triptych_runtime.spec import launcher

SOURCES = Path(launcher.__file__).parent


NATIVE = platform.machine()
CODES = {"x86_64": launcher.CODE_X86_64, "aarch64": launcher.CODE_AARCH64}


def tool(machine: str, name: str) -> str | None:
    """A program of binutils for a machine."""
    return shutil.which(name if machine == NATIVE else f"{machine}-linux-gnu-{name}")


# The other machine's code is tested where its tools happen to be installed (binutils-aarch64-linux-gnu,
# qemu-user-static); this one's always.
RUNNABLE = [m for m in CODES if m == NATIVE or shutil.which(f"qemu-{m}-static")]
ASSEMBLED = [m for m in CODES if tool(m, "as") and tool(m, "objcopy")]


@pytest.mark.parametrize("machine", ASSEMBLED)
def test_the_code_is_that_of_the_source(tmp_path: Path, machine: str) -> None:
    source = SOURCES / f"launcher_{machine}.S"
    objects = [tmp_path / "o", tmp_path / "code"]
    subprocess.run([tool(machine, "as") or "", source, "-o", objects[0]], check=True)
    subprocess.run([tool(machine, "objcopy") or "", "-O", "binary", "-j", ".text", *objects], check=True)
    assert objects[1].read_bytes() == CODES[machine]


@pytest.mark.parametrize("machine", CODES)
def test_the_table_is_aligned(machine: str) -> None:
    assert len(CODES[machine]) % 8 == 0


def run(
    tmp_path: Path, machine: str, command: list[str], env: dict[bytes, bytes]
) -> subprocess.CompletedProcess[bytes]:
    path = tmp_path / "program"
    path.write_bytes(launcher.program([b"RAW=\xff\xfe", b"A=\x80added"], machine))
    path.chmod(0o755)
    emulator = [] if machine == NATIVE else [shutil.which(f"qemu-{machine}-static") or ""]
    return subprocess.run([*emulator, str(path), *command], env=env, capture_output=True, cwd=tmp_path)


@pytest.mark.parametrize("machine", RUNNABLE)
def test_adds_and_executes(tmp_path: Path, machine: str) -> None:
    env = {b"PATH": b"/no/such:" + b"/x" * 3000 + b":/usr/bin:/bin", b"A": b"old", b"B": b"kept"}
    done = run(tmp_path, machine, ["env", "-0"], env)
    assert done.returncode == 0
    entries = done.stdout.split(b"\0")
    assert b"RAW=\xff\xfe" in entries
    assert b"B=kept" in entries
    assert entries.index(b"A=\x80added") < entries.index(b"A=old")


@pytest.mark.parametrize("machine", RUNNABLE)
def test_arguments_pass_unchanged(tmp_path: Path, machine: str) -> None:
    done = run(tmp_path, machine, ["/bin/echo", "one two", "", "drei"], {})
    assert done.stdout == b"one two  drei\n"


@pytest.mark.parametrize("machine", RUNNABLE)
@pytest.mark.parametrize(
    ("command", "path", "status"),
    [
        (["no-such-command"], b"/usr/bin:/bin", 127),
        (["/no/such"], b"/bin", 127),
        (["env"], None, 127),
        (["env"], b"", 127),
        ([], b"/bin", 127),
        (["plain"], b"", 126),
        (["./plain"], b"/bin", 126),
        (["plain"], b"/bin::/no", 126),
        (["x" * 5000], b"/bin", 126),
    ],
)
def test_failures(tmp_path: Path, machine: str, command: list[str], path: bytes | None, status: int) -> None:
    (tmp_path / "plain").write_text("not executable")
    done = run(tmp_path, machine, command, {} if path is None else {b"PATH": path})
    assert done.returncode == status
    assert done.stderr == b"triptych: the command cannot be executed\n"


@pytest.mark.parametrize("machine", RUNNABLE)
def test_a_path_piece_may_be_the_working_directory(tmp_path: Path, machine: str) -> None:
    script = tmp_path / "tool"
    script.write_text('#!/bin/sh\necho "here $0"\n')
    script.chmod(0o755)
    assert run(tmp_path, machine, ["tool"], {b"PATH": b"/no:"}).stdout == b"here tool\n"


def test_install() -> None:
    document: dict[str, Any] = {
        "process": {"args": ["run", "x"]},
        "mounts": [{"destination": "/dev", "type": "tmpfs"}],
    }
    file = launcher.install(document, [b"A=\xff"], Path("/bundle"), "x86_64")
    assert (file.path, file.mode) == (Path("/bundle/environment"), 0o555)
    assert document["process"]["args"] == ["/dev/.triptych-env", "run", "x"]
    assert document["mounts"][-1] == {
        "destination": "/dev/.triptych-env",
        "type": "bind",
        "source": "/bundle/environment",
        "options": ["bind", "ro", "nosuid", "nodev"],
    }
    assert launcher.wrap_exec(document["process"]["args"], ["y"]) == ["/dev/.triptych-env", "y"]
    assert launcher.wrap_exec(["run"], ["y"]) == ["y"]


def test_install_keeps_out_of_a_dev_of_the_host() -> None:
    document: dict[str, Any] = {
        "process": {"args": ["run"]},
        "mounts": [{"destination": "/dev", "type": "bind"}],
    }
    launcher.install(document, [b"A=\xff"], Path("/bundle"), "x86_64")
    assert document["process"]["args"][0] == "/.triptych-env"


def test_other_machines_name_the_variable() -> None:
    with pytest.raises(FailedPrecondition, match="the value of NAME is not UTF-8.*riscv64") as caught:
        launcher.program([b"NAME=\xffsecret"], "riscv64")
    assert "secret" not in str(caught.value)
