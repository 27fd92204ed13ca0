"""Starting the init of a shared PID namespace inside a pod's other namespaces.

The init sees nothing of the host: its root holds only its own program, read-only, it has no capabilities,
and a seccomp filter leaves it little more than waiting: a container that may trace it wins nothing.

Runs in a thread made for it (`start` there), or, for a pod with a user namespace, as a program of its own,
since only a process without threads may enter one. For the latter's start-up time it imports little.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_EMPTY_PATH = 0x1000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4

ARGV = ["/pause", "-P"]
NAME = "pause"
"""What the kernel calls an init (comm)."""
MARK = "TRIPTYCH_SANDBOX"
"""The variable that tells whose init it is before anything else does."""


def enter(program: str, root: str, namespaces: list[str]) -> None:
    """Put the calling thread where its next child is the first process of a new PID namespace.

    The thread is spoilt after it: its root is a file system with nothing but /pause.

    :param program: a static binary that reaps and waits when called with -P, as catatonit does.
    :param root: an empty directory to mount its root on (in a mount namespace of its own).
    :param namespaces: paths of namespaces to enter first, in order.
    :raises OSError: of the step that failed.
    """
    from triptych_linux import syscalls

    for path in namespaces:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(fd)
        finally:
            os.close(fd)
    syscalls.unshare(CLONE_FS | CLONE_NEWNS | CLONE_NEWPID)
    syscalls.mount("none", "/", None, MS_REC | MS_PRIVATE, None)
    options = "size=4k,nr_inodes=4,mode=755,uid=0,gid=0"
    syscalls.mount("pause", root, "tmpfs", MS_NOSUID | MS_NODEV, options)
    os.chdir(root)
    if os.getuid() != 0:
        # In a user namespace just entered: nobody is mapped here until we become its root.
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    # Not open(2): another thread that starts a process just then would hold the file open for writing in
    # its child, and the mount could not become read-only (EBUSY).
    os.mknod("pause", stat.S_IFREG | 0o555)
    syscalls.mount(program, "pause", None, MS_BIND, None)
    _make_read_only("pause")
    syscalls.syscall(syscalls.SYS_PIVOT_ROOT, b".", b".", path=root)
    syscalls.umount2(".", MNT_DETACH)
    os.chdir("/")
    _make_read_only("/")


def _make_read_only(path: str) -> None:
    """mount_setattr(2), since a remount in a user namespace must repeat the flags of the host."""
    from triptych_linux import syscalls

    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0, 0, 0)
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        size = ctypes.c_size_t(ctypes.sizeof(attributes))
        empty, flags = ctypes.c_char_p(b""), ctypes.c_int(AT_EMPTY_PATH)
        number = syscalls.SYS_MOUNT_SETATTR
        syscalls.syscall(number, ctypes.c_int(fd), empty, flags, ctypes.byref(attributes), size, path=path)
    finally:
        os.close(fd)


def main(library: str, sandbox_id: str, user: str, program: str, root: str, *namespaces: str) -> None:
    """The program: starts the init, prints its PID and leaves it behind.

    :param library: where `triptych_linux` is found.
    :param sandbox_id: of the pod.
    :param user: UID and GID of the init.
    """
    sys.path[:0] = library.split(os.pathsep)
    from triptych_linux.initfilter import confine
    from triptych_linux.unprivileged import become

    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
    try:
        enter(program, root, list(namespaces))
        become(int(user), int(user))
        confine()
        pid = os.posix_spawn(ARGV[0], ARGV, {MARK: sandbox_id}, file_actions=actions, setsid=True)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None
    sys.stdout.write(str(pid))


if __name__ == "__main__":
    main(*sys.argv[1:])
