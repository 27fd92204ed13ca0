"""What is made is what the entry says, whatever its directory or an older entry would make of it."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from typing import Any

import pytest
from triptych_image.unpack.pool import UnpackWorkers

pytestmark = pytest.mark.integration

# user::rwx, group::r-x, other::--- as in linux/posix_acl_xattr.h
DEFAULT_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permissions, 0xFFFFFFFF) for tag, permissions in ((1, 7), (4, 5), (0x20, 0))
)


async def problems(workers: UnpackWorkers, tree: Any) -> Any:
    fd = os.open(tree.tape, os.O_RDONLY)
    try:
        return (await workers.verify(tree.root, fd))["problems"]
    finally:
        os.close(fd)


async def test_nothing_takes_the_group_of_a_setgid_directory(
    tar: Callable[[], Any], unpack: Any, workers: UnpackWorkers
) -> None:
    """Debian's /usr/local is root:staff 2775, and what builders put there is root's."""
    data = (
        tar()
        .directory(b"local", mode=0o2775, gid=50)
        .file(b"local/file", b"x")
        .symlink(b"local/link", b"file")
        .header(b"local/fifo", kind=b"6", mode=0o600)
        .directory(b"local/directory")
        .file(b"local/implied/file", b"x")
        .end()
    )
    tree = await unpack(data)
    for name in ("file", "link", "fifo", "directory", "implied", "implied/file"):
        info = os.lstat(tree.root / "local" / name)
        assert (name, info.st_uid, info.st_gid) == (name, 0, 0)
    assert stat.S_IMODE(os.stat(tree.root / "local").st_mode) == 0o2775
    assert stat.S_IMODE(os.stat(tree.root / "local/implied").st_mode) == 0o755
    assert await problems(workers, tree) == []


async def test_nothing_takes_the_default_acl_of_its_directory(
    tar: Callable[[], Any], unpack: Any, workers: UnpackWorkers
) -> None:
    data = (
        tar()
        .pax({b"SCHILY.xattr.system.posix_acl_default": DEFAULT_ACL})
        .directory(b"d", mtime=1000)
        .file(b"d/file", b"x", mode=0o644)
        .directory(b"d/below", mode=0o777)
        .end()
    )
    tree = await unpack(data)
    assert os.getxattr(tree.root / "d", "system.posix_acl_default") == DEFAULT_ACL
    assert os.stat(tree.root / "d").st_mtime == 1000
    assert stat.S_IMODE(os.stat(tree.root / "d/file").st_mode) == 0o644
    assert os.listxattr(tree.root / "d/file") == os.listxattr(tree.root / "d/below") == []
    assert await problems(workers, tree) == []


async def test_a_replaced_file_that_lives_on_under_another_name(tar: Callable[[], Any], unpack: Any) -> None:
    """The tape looks for the first content under the name that has the second."""
    tree = await unpack(tar().file(b"a", b"one").hard_link(b"b", b"a").file(b"a", b"two").end())
    assert [(tree.root / name).read_bytes() for name in ("a", "b")] == [b"two", b"one"]
    assert not tree.found.complete


async def test_a_replaced_file_with_holes_gives_back_what_it_took(
    tar: Callable[[], Any], unpack: Any
) -> None:
    holes = {b"GNU.sparse.map": b"0,3", b"GNU.sparse.size": b"%d" % (1 << 40)}
    tree = await unpack(tar().pax(holes).file(b"a", b"one").file(b"a", b"x" * 5000).end())
    assert (tree.found.size, tree.found.inodes) == (4096 + 8192, 2)


@pytest.mark.parametrize("mtime", [1 << 85, -(1 << 85)])
async def test_times_beyond_every_clock(mtime: int, tar: Callable[[], Any], unpack: Any) -> None:
    writer = tar().header(b"f")
    block = bytearray(writer.parts.pop())
    block[136:148] = ((mtime & (1 << 95) - 1) | 1 << 95).to_bytes(12, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    tree = await unpack(writer.raw(bytes(block)).end())
    assert stat.S_ISREG(os.stat(tree.root / "f").st_mode)
