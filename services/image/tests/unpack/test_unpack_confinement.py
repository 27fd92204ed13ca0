"""What a worker that was taken over could do: code of the tests runs in its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import triptych_image
from triptych_image.unpack.pool import _NAMESPACES, _open_confined

pytestmark = pytest.mark.integration

ATTACK = """
import ctypes, json, os, signal, socket, sys
sys.path[:0] = [sys.argv[1]]
from triptych_image.unpack.worker import confine
root = int(sys.argv[2]); out = int(sys.argv[3]); victim = int(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)
confine.leave_host()
found = {}
def attempt(name, work):
    try:
        found[name] = repr(work())
    except BaseException as error:
        found[name] = type(error).__name__ + ":" + str(getattr(error, "errno", ""))
# the namespaces alone, before the filter of system calls hides them
attempt("a", lambda: os.kill(victim, 0))
attempt("b", lambda: [name for _, name in socket.if_nameindex()])
found["processes"] = [found["a"], found["b"]]
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
    sys.exit()
confine.confine(root, confine.UNPACK_CAPABILITIES, 1 << 30)
attempt("list", lambda: sorted(os.listdir("/")))
attempt("up", lambda: sorted(os.listdir("../../..")))
attempt("proc", lambda: os.listdir("/proc/1"))
attempt("write", lambda: os.close(os.open("/made", os.O_CREAT | os.O_WRONLY)))
attempt("mknod", lambda: os.mknod("/disk", 0o60600, os.makedev(7, 0)))
attempt("open device", lambda: os.open("/disk", os.O_RDONLY))
attempt("mount", lambda: confine._check(libc.mount(b"x", b"/", b"tmpfs", 0, None), "mount"))
attempt("chroot", lambda: os.chroot("."))
attempt("setuid", lambda: os.setuid(1000))
attempt("kill", lambda: os.kill(victim, 0))
attempt("socket", lambda: socket.socket(socket.AF_UNIX))
attempt("exec", lambda: os.execv("/bin/true", ["true"]))
attempt("fork", lambda: os.fork())
attempt("io_uring", lambda: confine._check(libc.syscall(425, 1, None), "io_uring_setup"))
attempt("unshare user", lambda: confine._check(libc.unshare(0x10000000), "unshare"))
head = (ctypes.c_uint32 * 2)(0x20080522, 0); data = (ctypes.c_uint32 * 6)()
libc.capget(head, data)
found["caps"] = [data[0] | data[3] << 32, data[1] | data[4] << 32, data[2] | data[5] << 32]
found["bounding"] = sum(1 << n for n in range(41) if libc.prctl(23, n, 0, 0, 0) == 1)
found["no_new_privs"] = libc.prctl(39, 0, 0, 0, 0)
found["dumpable"] = libc.prctl(3, 0, 0, 0, 0)
os.write(out, json.dumps(found).encode())
os._exit(0)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("root")
    (root / "mine").mkdir()
    mount = _open_confined(root)
    read, write = os.pipe()
    source = str(Path(triptych_image.__file__).parent.parent)
    subprocess.run(
        [
            *("unshare", *_NAMESPACES, sys.executable, "-I", "-S", "-c", ATTACK),
            *(source, str(mount), str(write), str(os.getpid())),
        ],
        pass_fds=(mount, write),
        check=True,
        timeout=30,
    )
    os.close(write)
    os.close(mount)
    result: dict[str, Any] = json.loads(os.read(read, 1 << 16))
    os.close(read)
    return result


def test_it_sees_its_own_directory_and_nothing_else(found: dict[str, Any]) -> None:
    assert found["list"] == "['mine']"
    assert found["up"] == "['mine']"
    assert found["proc"].startswith("FileNotFoundError")


def test_it_may_do_what_unpacking_takes(found: dict[str, Any]) -> None:
    assert found["write"] == "None"
    assert found["mknod"] == "None"


def test_a_device_that_it_makes_cannot_be_opened(found: dict[str, Any]) -> None:
    assert found["open device"] == "PermissionError:13"


@pytest.mark.parametrize(
    "what", ["mount", "chroot", "setuid", "unshare user", "socket", "exec", "fork", "io_uring", "kill"]
)
def test_it_has_no_way_to_more(found: dict[str, Any], what: str) -> None:
    assert found[what].startswith(("PermissionError", "OSError:28", "OSError:1"))


def test_it_sees_no_process_and_no_network_of_the_host(found: dict[str, Any]) -> None:
    assert found["processes"] == ["ProcessLookupError:3", "['lo']"]


def test_its_capabilities_are_those_of_unpacking(found: dict[str, Any]) -> None:
    wanted = sum(1 << number for number in (0, 1, 3, 4, 27, 31))
    assert found["caps"] == [wanted, wanted, 0]
    assert found["bounding"] == wanted
    assert (found["no_new_privs"], found["dumpable"]) == (1, 0)
