"""A file system (FUSE) on which looking up the name `hang` never ends, as on storage that is gone.

A process that looks it up waits in the kernel; once it is killed, in state D, which only the end of this
program ends. Run as `python -m triptych_dev.testing.hungfs DIRECTORY`; it says `ready` when it is mounted.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from triptych_linux import mounts, syscalls
from triptych_linux.mounts import Flag

HANG = "hang"
# linux/fuse.h: fuse_in_header, fuse_out_header, fuse_init_out, and fuse_attr_out with its fuse_attr.
_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_INIT = struct.Struct("<IIIIHHIIHHI28x")
_ATTR = struct.Struct("<QII6Q10I")
_LOOKUP, _FORGET, _GETATTR, _INIT_CODE, _INTERRUPT = 1, 2, 3, 26, 36
_PR_SET_PDEATHSIG = 1


@contextmanager
def mounted(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The file system on a directory that is made; everything that hangs on it goes on in the end."""
    directory.mkdir()
    program = [sys.executable, "-m", __spec__.name, str(directory)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()
            process.wait()
            mounts.umount(directory)


def main(directory: str) -> None:
    """Mount it and serve until killed."""
    syscalls.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other"
    syscalls.mount("hungfs", directory, "fuse", Flag.NOSUID | Flag.NODEV, options)
    while True:
        request = os.read(fd, (1 << 17) + 4096)
        _, code, unique, *_ = _IN.unpack_from(request)
        if code in (_FORGET, _INTERRUPT) or (code == _LOOKUP and _name(request) == HANG):
            continue
        error, answer = _answer(code)
        os.write(fd, _OUT.pack(_OUT.size + len(answer), -error, unique) + answer)
        if code == _INIT_CODE:
            sys.stdout.write("ready\n")
            sys.stdout.flush()


def _name(request: bytes) -> str:
    return request[_IN.size :].rstrip(b"\0").decode(errors="replace")


def _answer(code: int) -> tuple[int, bytes]:
    """The error, or 0, and the body of an answer."""
    if code == _INIT_CODE:
        return 0, _INIT.pack(7, 31, 1 << 16, 0, 8, 8, 1 << 16, 1, 1, 0, 0)
    if code == _GETATTR:
        attributes = (1, 0, 0, 0, 0, 0, 0, 0, 0, stat.S_IFDIR | 0o755, 2, 0, 0, 0, 4096, 0)
        return 0, _ATTR.pack(0, 0, 0, *attributes)
    return errno.ENOENT if code == _LOOKUP else errno.ENOSYS, b""


if __name__ == "__main__":
    main(sys.argv[1])
