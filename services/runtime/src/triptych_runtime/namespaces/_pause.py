"""Starting the init of a shared PID namespace inside a pod's other namespaces.

The init sees nothing of the host: its root holds only its own program, read-only, and it has no
capabilities, so that no container that may trace it wins anything through /proc/1/root.

Runs in a thread made for it (`start` there), or, for a pod with a user namespace, as a program of its own
(`python _pause.py LIBRARY JSON`), since only a process without threads may enter one. For the latter's
start-up time it imports nothing but the standard library and `triptych_linux`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
READ_ONLY, NOSUID, NODEV = 1, 2, 4


def start(program: str, root: str, namespaces: list[str], uid: int, gid: int) -> subprocess.Popen[bytes]:
    """Start `program` as the first process of a new PID namespace; the calling thread is spoilt after it.

    :param program: a static binary that reaps and waits when called with -P, as catatonit does.
    :param root: an empty directory to mount its root on (in a mount namespace of its own).
    :param namespaces: paths of namespaces to enter first, in order.
    :raises OSError: of the step that failed.
    """
    from triptych_linux import credentials, mounts, syscalls

    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        for path in namespaces:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                syscalls.setns(fd)
            finally:
                os.close(fd)
        syscalls.unshare(CLONE_FS | CLONE_NEWNS | CLONE_NEWPID)
        mounts.mount("none", "/", None, mounts.Flag.REC | mounts.Flag.PRIVATE)
        _enter_root(program, root)
        with credentials.keep_dumpable():
            credentials.become(uid, gid)
            # Not through triptych_linux.process: the child must be born of this very thread.
            return subprocess.Popen(
                ["/pause", "-P"], stdin=null, stdout=null, stderr=null, env={}, start_new_session=True
            )
    finally:
        os.close(null)


def _enter_root(program: str, root: str) -> None:
    from triptych_linux import mounts, syscalls

    flags = mounts.Flag.NOSUID | mounts.Flag.NODEV
    mounts.mount("pause", root, "tmpfs", flags, "size=4k,nr_inodes=4,mode=755,uid=0,gid=0")
    os.chdir(root)
    if os.getuid() != 0:
        # In a user namespace just entered: nobody is mapped here until we become its root.
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    os.close(os.open("pause", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o555))
    mounts.mount(program, "pause", None, mounts.Flag.BIND)
    # mount_setattr(2), since a remount in a user namespace must repeat flags of the host's mount.
    _set_attributes("pause")
    syscalls.syscall(syscalls.SYS_PIVOT_ROOT, b".", b".", path=root)
    mounts.umount(".")
    os.chdir("/")
    _set_attributes("/")


def _set_attributes(path: str) -> None:
    from triptych_linux import mounts

    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        mounts.set_attributes(fd, attr_set=READ_ONLY | NOSUID | NODEV)
    finally:
        os.close(fd)


def main() -> None:
    """The program: starts the init, prints its PID and leaves it behind."""
    sys.path[:0] = sys.argv[1].split(os.pathsep)
    try:
        child = start(**json.loads(sys.argv[2]))
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None
    os.write(1, str(child.pid).encode())
    # Leave at once: Popen would wait for the child, and there is nothing to flush.
    os._exit(0)


if __name__ == "__main__":
    main()
