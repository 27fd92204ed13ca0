"""Real archives through real workers: what they make, what they refuse, and that nothing gets out."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import os
import stat
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from triptych_image.errors import DiskFull, LayerMalformed, LayerTooLarge
from triptych_image.layers.marks import is_opaque, set_opaque
from triptych_image.unpack.pool import LayerLimits, UnpackWorkers

pytestmark = pytest.mark.integration


def listing(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


async def test_everything_an_entry_says_is_kept(tar: Callable[[], Any], unpack: Any) -> None:
    data = (
        tar()
        .directory(b"./", mode=0o751, uid=3, gid=4)
        .directory(b"d/", mode=0o2770, uid=5, gid=6, mtime=1000)
        .file(b"d/setuid", b"x" * 5000, mode=0o4755, uid=7, gid=8)
        .pax({b"SCHILY.xattr.user.note": b"\0v", b"SCHILY.xattr.security.capability": CAPABILITY})
        .file(b"d/capable", b"y", mode=0o755, uid=9)
        .symlink(b"d/link", b"/etc/passwd", uid=10)
        .hard_link(b"d/again", b"d/setuid")
        .header(b"d/null", kind=b"3", mode=0o666, major=1, minor=3)
        .header(b"d/fifo", kind=b"6", mode=0o600)
        .file(b"old", b"one")
        .file(b"old", b"two!")
        .end()
    )
    tree = await unpack(gzip.compress(data))
    root = tree.root
    info = os.stat(root)
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o751, 3, 4)
    info = os.stat(root / "d")
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime) == (0o2770, 5, 6, 1000)
    info = os.stat(root / "d/setuid")
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_size, info.st_nlink) == (0o4755, 7, 5000, 2)
    assert info.st_mtime == 1_500_000_000
    assert os.getxattr(root / "d/capable", "user.note") == b"\0v"
    assert os.getxattr(root / "d/capable", "security.capability") == CAPABILITY
    assert os.readlink(root / "d/link") == "/etc/passwd"
    assert os.lstat(root / "d/link").st_uid == 10
    assert os.stat(root / "d/null").st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO(os.stat(root / "d/fifo").st_mode)
    assert (root / "old").read_bytes() == b"two!"
    assert tree.found.implied == ()
    assert tree.found.complete is False  # the first "old" is nowhere any more


CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


async def test_counts_are_those_of_du(tar: Callable[[], Any], unpack: Any) -> None:
    writer = tar()
    for number in range(20):
        writer.file(b"a/b/%d" % number, b"x" * (number * 1000))
    writer.hard_link(b"a/link", b"a/b/3").file(b"a/b/7", b"shorter")
    tree = await unpack(writer.end())
    blocks = inodes = 0
    seen: set[int] = set()
    for path in [tree.root, *tree.root.rglob("*")]:
        info = path.lstat()
        if info.st_ino not in seen:
            seen.add(info.st_ino)
            inodes += 1
            blocks += info.st_blocks * 512 if path.is_file() else 4096
    assert (tree.found.size, tree.found.inodes) == (blocks, inodes)
    assert tree.found.implied == ("", "a", "a/b")


async def test_whiteouts_become_overlayfs_marks(tar: Callable[[], Any], unpack: Any) -> None:
    data = (
        tar()
        .file(b"a/.wh.gone")
        .directory(b"o")
        .file(b"o/.wh..wh..opq")
        .file(b"o/kept", b"x")
        .file(b"p/.wh..wh..opq")
        .file(b"mine", b"stays")
        .file(b".wh.mine")
        .file(b".wh.later")
        .directory(b"later")
        .file(b".wh.deep")
        .file(b"deep/er/file", b"x")
        .file(b".wh..wh.plnk/1.2", b"aufs")
        .end()
    )
    tree = await unpack(data)
    info = os.stat(tree.root / "a/gone")
    assert stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
    assert (tree.root / "mine").read_bytes() == b"stays"
    assert (tree.root / "o/kept").exists()
    assert (tree.root / "deep/er/file").exists()
    # "later" and "deep" were taken away below and made anew: what is below must not shine through
    assert set(tree.found.opaque) == {"o", "p", "later", "deep"}
    assert not (tree.root / ".wh..wh.plnk").exists()


async def test_what_lies_below_a_symlink_is_known_by_where_it_is(
    tar: Callable[[], Any], unpack: Any
) -> None:
    data = (
        tar()
        .directory(b"b/sub")
        .symlink(b"a", b"b")
        .symlink(b"b/up", b"../../b/./over")
        .directory(b"b/over")
        .file(b"a/.wh..wh..opq")
        .file(b"a/sub/.wh..wh..opq")
        .file(b"a/up/new/.wh..wh..opq")
        .file(b"a/gone/.wh..wh..opq")
        .file(b"a/gone", b"a file by now")
        .file(b"a/c/d/e", b"x")
        .directory(b"a/c")
        .directory(b"a/whited")
        .file(b"a/.wh.whited")
        .end()
    )
    tree = await unpack(data)
    assert set(tree.found.opaque) == {"b", "b/sub", "b/over/new", "b/whited"}
    assert set(tree.found.implied) == {"", "b", "b/over/new", "b/c/d"}
    set_opaque(tree.root, tree.found.opaque)
    assert all(is_opaque(tree.root, path) for path in tree.found.opaque)


async def test_holes_stay_holes(unpack: Any, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(5 << 20)
        file.write(b"data")
    archive = tmp_path / "a.tar"
    for format in ("gnu", "posix"):
        assert os.system(f"tar -S --format={format} -C {tmp_path} -cf {archive} sparse") == 0
        tree = await unpack(archive.read_bytes())
        made = tree.root / "sparse"
        assert made.stat().st_size == 1 << 30
        assert made.stat().st_blocks * 512 < 1 << 20
        with made.open("rb") as file:
            file.seek(5 << 20)
            assert file.read(5) == b"data\0"
        assert tree.found.complete


async def test_the_tape_gives_the_archive_back(
    tar: Callable[[], Any], unpack: Any, workers: UnpackWorkers, tmp_path: Path
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(300):
            info = tarfile.TarInfo(f"{'d' * (number % 150)}/{number}")
            info.size, info.mtime = number * 37, 1.5
            archive.addfile(info, io.BytesIO(os.urandom(info.size)))
    data = out.getvalue() + b"behind the end"
    tree = await unpack(gzip.compress(data))
    fd, copy = os.open(tree.tape, os.O_RDONLY), os.open(tmp_path / "copy", os.O_WRONLY | os.O_CREAT)
    async with workers.export(tree.root, fd, copy, gzip=False) as report:
        assert (await report.result("export"))["diff_id"] == tree.found.diff_id
    assert (tmp_path / "copy").read_bytes() == data
    os.lseek(fd, 0, os.SEEK_SET)
    assert (await workers.verify(tree.root, fd))["problems"] == []
    os.chmod(tree.root / "d/1", 0o4711)
    (tree.root / "d/151").unlink()
    os.lseek(fd, 0, os.SEEK_SET)
    with pytest.raises(Exception, match="d/151"):
        await workers.verify(tree.root, fd)
    os.close(fd)
    os.close(copy)


ESCAPES = {
    "dots": lambda t, out: t.file(b"../" * 8 + out + b"/x", b"evil"),
    "dots inside": lambda t, out: t.file(b"a/../../../" + out + b"/x", b"evil"),
    "hard link to dots": lambda t, out: t.hard_link(b"h", b"../../../etc/passwd"),
    "whiteout of dots": lambda t, out: t.file(b"a/.wh..."),
    "whiteout of dot": lambda t, out: t.file(b"a/.wh.."),
    "whiteout of nothing": lambda t, out: t.file(b"a/.wh."),
    "hard link to nothing": lambda t, out: t.hard_link(b"h", b"missing"),
    "hard link to itself": lambda t, out: t.file(b"h").hard_link(b"h", b"h"),
    "hard link to a directory": lambda t, out: t.directory(b"d").hard_link(b"h", b"d"),
    "hard link to the root": lambda t, out: t.hard_link(b"h", b"/"),
    "hard link out through a symlink": lambda t, out: t.symlink(b"l", b"/etc").hard_link(b"h", b"l/passwd"),
    "file below a file": lambda t, out: t.file(b"f").file(b"f/x"),
    "file as root": lambda t, out: t.file(b"./", b"x"),
    "symlink as root": lambda t, out: t.symlink(b"/", b"x"),
    "symlink loop": lambda t, out: t.symlink(b"a", b"b").symlink(b"b", b"a").file(b"a/x"),
    "empty symlink": lambda t, out: t.symlink(b"a", b""),
    "unknown type": lambda t, out: t.header(b"a", kind=b"Z"),
    "device out of range": lambda t, out: t.header(b"a", kind=b"3", major=1 << 20),
    "too deep": lambda t, out: t.pax({b"path": b"/".join([b"d"] * 300)}).file(b"x"),
    "too long": lambda t, out: t.pax({b"path": b"a" * 5000}).file(b"x"),
    "name too long": lambda t, out: t.pax({b"path": b"a" * 300}).file(b"x"),
}


@pytest.mark.parametrize("name", ESCAPES)
async def test_hostile_entries_are_refused(
    name: str, tar: Callable[[], Any], unpack: Any, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    data = ESCAPES[name](tar(), os.fsencode(outside).lstrip(b"/")).end()
    with pytest.raises((LayerMalformed, LayerTooLarge)):
        await unpack(data)
    assert listing(outside) == []


@pytest.mark.parametrize(
    "write",
    [
        lambda t, out: t.symlink(b"l", out).file(b"l/x", b"evil"),
        lambda t, out: t.symlink(b"l", b"..").file(b"l/" + b"../" * 0 + b"x", b"evil"),
        lambda t, out: t.symlink(b"l", b"/").directory(b"l/proc").file(b"l/proc/x", b"evil"),
        lambda t, out: t.symlink(b"a", out).symlink(b"b", b"a").directory(b"b", mode=0o777, uid=99),
        lambda t, out: t.symlink(b"d", out).directory(b"d").file(b"d/x", b"evil"),
        lambda t, out: t.file(b"/" + out + b"/x", b"evil"),
        lambda t, out: t.symlink(b"l", out).file(b"l/.wh..wh..opq"),
        lambda t, out: t.symlink(b"l", out).file(b"l", b"evil"),
    ],
)
async def test_symlinks_lead_nowhere_outside(
    write: Callable[[Any, bytes], Any], tar: Callable[[], Any], unpack: Any, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    before = os.stat(outside)
    above = listing(tmp_path)
    try:
        await unpack(write(tar(), os.fsencode(outside)).end())
    except LayerMalformed:
        pass
    assert listing(outside) == []
    after = os.stat(outside)
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_mtime_ns,
    )
    assert [n for n in listing(tmp_path) if not n.startswith("layer")] == [n for n in above if n != "layer0"]


async def test_what_an_image_may_not_set_is_left_out(tar: Callable[[], Any], unpack: Any) -> None:
    records = {
        b"SCHILY.xattr.trusted.overlay.redirect": b"/etc",
        b"SCHILY.xattr.trusted.overlay.opaque": b"y",
        b"SCHILY.xattr.user.overlay.opaque": b"y",
        b"SCHILY.xattr.security.selinux": b"unconfined",
    }
    tree = await unpack(tar().pax(records).directory(b"d").end())
    assert os.listxattr(tree.root / "d") == []


@pytest.mark.parametrize(
    ("limits", "write"),
    [
        (LayerLimits(bytes=1 << 20), lambda t: t.file(b"a", bytes(2 << 20))),
        (LayerLimits(entries=1000), lambda t: [t.file(b"%d" % n) for n in range(2000)][-1]),
        (
            LayerLimits(bytes=1 << 30),
            lambda t: t.pax({b"GNU.sparse.map": b"", b"GNU.sparse.size": b"%d" % (1 << 40)}).file(b"a"),
        ),
    ],
    ids=["bytes", "entries", "sparse"],
)
async def test_limits(
    limits: LayerLimits, write: Callable[[Any], Any], tar: Callable[[], Any], unpack: Any
) -> None:
    with pytest.raises(LayerTooLarge):
        await unpack(gzip.compress(write(tar()).end()), limits)


async def test_long_names_of_directories_without_entries_are_too_much_together(
    tar: Callable[[], Any], unpack: Any
) -> None:
    """Each of these files implies 15 directories whose names have 26 KB; the daemon hears of all of them."""
    writer = tar()
    for number in range(200):
        writer.pax({b"path": b"%d/" % number + b"/".join([b"d" * 250] * 15)}).file(b"x")
    with pytest.raises(LayerTooLarge, match="4194304 bytes of names"):
        await unpack(writer.end())


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
async def test_a_bomb_ends_at_its_ratio(packing: str, tar: Callable[[], Any], unpack: Any) -> None:
    """It ends when a GiB is unpacked, of the 16 that it says."""
    packer: Any = zlib.compressobj(1, wbits=31)
    if packing == "zstd":
        packer = zstandard.ZstdCompressor(1).compressobj()
    start = packer.compress(tar().header(b"zeros", size=1 << 34).parts[0])
    chunk = bytes(1 << 24)
    bomb = start + b"".join(packer.compress(chunk) for _ in range(70)) + packer.flush()
    assert len(bomb) < 8 << 20
    with pytest.raises(LayerTooLarge, match="times its size"):
        await unpack(bomb, LayerLimits(ratio=100))


async def test_a_window_beyond_the_memory_is_refused(unpack: Any) -> None:
    """A frame of zstd that wants 2 GiB to look back into (RFC 8878, section 3.1.1.1.2)."""
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([21 << 3]) + b"\x01\x00\x00"
    with pytest.raises(LayerMalformed, match="zstd"):
        await unpack(frame)


async def test_more_files_than_the_limit(tar: Callable[[], Any], unpack: Any) -> None:
    writer = tar()
    for number in range(20_000):
        writer.file(b"%d" % number)
    with pytest.raises(LayerTooLarge, match="10000 entries"):
        await unpack(gzip.compress(writer.end(), 1), LayerLimits(entries=10_000))


async def test_truncated_streams_are_refused(tar: Callable[[], Any], unpack: Any) -> None:
    data = gzip.compress(tar().file(b"a", os.urandom(200_000)).end())
    for size in (1, 100, len(data) // 2, len(data) - 5):
        with pytest.raises(LayerMalformed):
            await unpack(data[:size])


async def test_a_spool_without_room_is_a_full_disk(
    tar: Callable[[], Any], workers: UnpackWorkers, tmp_path: Path
) -> None:
    """The unpacker sees an archive that ends too early, which is not what is wrong."""
    data = gzip.compress(tar().file(b"a", os.urandom(2_000_000)).end(), 1)
    for name in ("l", "small"):
        (tmp_path / name).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path / "small"], check=True)
    tape = os.open(tmp_path / "tape", os.O_RDWR | os.O_CREAT)
    spool = os.open(tmp_path / "small/spool", os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def feed(sink: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            view = memoryview(data)
            while view:
                view = view[os.write(sink, view) :]

    try:
        async with workers.unpack(tmp_path / "l", tape, LayerLimits(), spool=spool) as job:
            await asyncio.to_thread(feed, job.sink)
            job.finish_input()
            with pytest.raises(DiskFull):
                await job.result()
    finally:
        os.close(tape)
        os.close(spool)
        subprocess.run(["umount", tmp_path / "small"], check=True)


async def test_workers_run_side_by_side(tar: Callable[[], Any], unpack: Any) -> None:
    layers = [tar().file(b"f", b"%d" % n).end() for n in range(12)]
    trees = await asyncio.gather(*(unpack(layer) for layer in layers))
    assert [(tree.root / "f").read_bytes() for tree in trees] == [b"%d" % n for n in range(12)]


async def test_who_leaves_an_export_does_not_wait_for_it(
    tar: Callable[[], Any], unpack: Any, workers: UnpackWorkers, tmp_path: Path
) -> None:
    tree = await unpack(gzip.compress(tar().file(b"a", os.urandom(3_000_000)).end()))
    tape = os.open(tree.tape, os.O_RDONLY)
    read, write = os.pipe()
    try:
        async with asyncio.timeout(30):
            async with workers.export(tree.root, tape, write, gzip=False):
                await asyncio.to_thread(os.read, read, 1)
        child = workers._child
        assert child is not None
        for fd in (read, write):
            os.close(fd)
        async with asyncio.timeout(30):
            while any(children(pid) for pid in children(child.pid)):
                await asyncio.sleep(0.02)
    finally:
        os.close(tape)


async def test_leaving_early_leaves_no_process(workers: UnpackWorkers, tmp_path: Path) -> None:
    (tmp_path / "l").mkdir()
    fd = os.open(tmp_path / "tape", os.O_RDWR | os.O_CREAT)
    async with workers.unpack(tmp_path / "l", fd, LayerLimits()) as job:
        os.write(job.sink, b"\x1f\x8b\x08")
    os.close(fd)
    assert job.sink == -1
    child = workers._child
    assert child is not None
    assert children(child.pid)
    # The worker sees that its end of the job is gone in its own time.
    async with asyncio.timeout(20):
        while any(children(pid) for pid in children(child.pid)):
            await asyncio.sleep(0.02)
    await workers.close()
    assert not Path(f"/proc/{child.pid}").exists()


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()]
