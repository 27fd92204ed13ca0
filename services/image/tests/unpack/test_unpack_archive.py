from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triptych_image.unpack.worker import header
from triptych_image.unpack.worker.archive import Archive
from triptych_image.unpack.worker.errors import Refused
from triptych_image.unpack.worker.limits import Limits
from triptych_image.unpack.worker.tape import NoTape


def pieces(data: bytes, size: int = 700) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def read(data: bytes, limits: Limits | None = None, size: int = 700) -> list[tuple[header.Entry, bytes]]:
    archive = Archive(pieces(data, size), NoTape(), limits or Limits())
    found = [(entry, b"".join(map(bytes, archive.payload(entry.size)))) for entry in archive.members()]
    assert archive.diff_id() == "sha256:" + hashlib.sha256(data).hexdigest()
    assert archive.total == len(data)
    return found


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("size", [1, 511, 512, 700, 1 << 20])
def test_what_tarfile_writes_is_read_alike(format: int, size: int) -> None:
    out = io.BytesIO()
    long = "d" * 90 + "/" + "f" * (60 if format == tarfile.USTAR_FORMAT else 300)
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, data in (("a", b""), ("b/c", b"x" * 1000), (long, b"y" * 512)):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid, info.gid, info.mode = len(data), 12345, 7, 8, 0o4755
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "t" * 90
        archive.addfile(link)
    found = read(out.getvalue(), size=size)
    assert [(entry.name.decode(), data) for entry, data in found[:3]] == [
        ("a", b""),
        ("b/c", b"x" * 1000),
        (long, b"y" * 512),
    ]
    first = found[0][0]
    assert (first.uid, first.gid, first.mode, first.mtime_ns) == (7, 8, 0o4755, 12345 * 10**9)
    assert (found[3][0].kind, found[3][0].link) == (b"2", b"t" * 90)


def test_pax_records_win_over_the_header(tar: Callable[[], Any]) -> None:
    records = {
        b"path": b"p\xff/long",
        b"mtime": b"1.000000002",
        b"uid": b"4000000000",
        b"size": b"3",
        b"SCHILY.xattr.user.a": b"v\0\n=v",
        b"comment": b"ignored",
    }
    data = tar().pax(records).header(b"short", size=9).body(b"abc").end()
    ((entry, body),) = read(data)
    assert (entry.name, entry.mtime_ns, entry.uid, body) == (
        b"p\xff/long",
        1_000_000_002,
        4_000_000_000,
        b"abc",
    )
    assert entry.xattrs == {b"user.a": b"v\0\n=v"}


def test_of_several_names_the_one_that_go_takes(tar: Callable[[], Any]) -> None:
    """A scanner that reads the layer with archive/tar must see what is unpacked."""
    writer = tar().pax({b"path": b"pax", b"linkpath": b"pax", b"mtime": b"7"})
    writer.header(b"L", kind=b"L", size=4).body(b"gnu\0").header(b"K", kind=b"K", size=4).body(b"gnu\0")
    writer.symlink(b"header", b"header")
    writer.pax({b"path": b"first", b"uid": b"5"}).pax({b"path": b"second"}).file(b"header")
    writer.header(b"L", kind=b"L", size=1).body(b"\0").file(b"header")
    (one, _), (two, _), (three, _) = read(writer.end())
    assert (one.name, one.link, one.mtime_ns) == (b"gnu", b"gnu", 7 * 10**9)
    assert (two.name, two.uid) == (b"second", 0)
    assert three.name == b"header"


@pytest.mark.parametrize(("kind", "expected"), [(b"\0", b"5"), (b"0", b"0"), (b"7", b"0")])
def test_directories_of_old_writers(kind: bytes, expected: bytes, tar: Callable[[], Any]) -> None:
    writer = tar().header(b"d/", kind=kind).pax({b"path": b"long/"}).header(b"short", kind=kind)
    assert [entry.kind for entry, _ in read(writer.end())] == [expected, expected]


def test_a_global_header_is_left_out(tar: Callable[[], Any]) -> None:
    data = tar().pax({b"path": b"evil"}, kind=b"g").file(b"a").end()
    assert [entry.name for entry, _ in read(data)] == [b"a"]


def test_base_256_numbers(tar: Callable[[], Any]) -> None:
    ((entry, _),) = read(tar().file(b"a", uid=3_000_000_000, mtime=1 << 40).end())
    assert (entry.uid, entry.mtime_ns) == (3_000_000_000, (1 << 40) * 10**9)


def test_links_and_directories_have_no_payload_whatever_they_say(tar: Callable[[], Any]) -> None:
    data = tar().header(b"d", kind=b"5", size=1000).header(b"l", kind=b"1", link=b"x", size=1 << 40).end()
    assert [entry.size for entry, _ in read(data)] == [0, 0]


def test_an_archive_without_end_mark_ends_at_a_block(tar: Callable[[], Any]) -> None:
    assert len(read(tar().file(b"a", b"x").end()[:-1024])) == 1


def test_an_empty_layer_has_no_entries() -> None:
    assert read(b"") == []


def test_what_follows_the_end_belongs_to_the_digest(tar: Callable[[], Any]) -> None:
    assert len(read(tar().file(b"a").end() + b"garbage" * 1000)) == 1


def old_sparse(tar: Callable[[], Any], spans: list[tuple[int, int]], real: int, size: int) -> bytes:
    writer = tar().header(b"s", kind=b"S", size=size, magic=b"ustar  \0")
    block = bytearray(writer.parts[-1])
    for index, (offset, length) in enumerate(spans[:4]):
        block[386 + 24 * index : 410 + 24 * index] = b"%011o\0%011o\0" % (offset, length)
    block[482] = len(spans) > 4
    block[483:495] = b"%011o\0" % real
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    writer.parts[-1] = bytes(block)
    for start in range(4, len(spans), 21):
        extra = bytearray(512)
        for index, (offset, length) in enumerate(spans[start : start + 21]):
            extra[24 * index : 24 * index + 24] = b"%011o\0%011o\0" % (offset, length)
        extra[504] = start + 21 < len(spans)
        writer.raw(bytes(extra))
    return bytes(writer.body(b"z" * size).end())


def test_old_gnu_sparse_files(tar: Callable[[], Any]) -> None:
    spans = [(index * 1000, 3) for index in range(30)]
    ((entry, body),) = read(old_sparse(tar, spans, 100_000, 90))
    assert (entry.kind, entry.segments, entry.real_size, body) == (b"0", spans, 100_000, b"z" * 90)


@pytest.mark.parametrize(
    ("records", "body"),
    [
        ({b"GNU.sparse.map": b"0,1,100,2", b"GNU.sparse.size": b"200", b"GNU.sparse.name": b"s"}, b"abc"),
        (
            [
                (b"GNU.sparse.size", b"200"),
                (b"GNU.sparse.numblocks", b"2"),
                (b"GNU.sparse.offset", b"0"),
                (b"GNU.sparse.numbytes", b"1"),
                (b"GNU.sparse.offset", b"100"),
                (b"GNU.sparse.numbytes", b"2"),
            ],
            b"abc",
        ),
        (
            {
                b"GNU.sparse.major": b"1",
                b"GNU.sparse.minor": b"0",
                b"GNU.sparse.name": b"s",
                b"GNU.sparse.realsize": b"200",
            },
            b"2\n0\n1\n100\n2\n".ljust(512, b"\0") + b"abc",
        ),
    ],
    ids=["0.1", "0.0", "1.0"],
)
def test_pax_sparse_files(tar: Callable[[], Any], records: Any, body: bytes) -> None:
    ((entry, data),) = read(tar().pax(records).header(b"s", size=len(body)).body(body).end())
    assert (entry.name, entry.segments, entry.real_size, data) == (b"s", [(0, 1), (100, 2)], 200, b"abc")


def long_pax(tar: Callable[[], Any]) -> bytes:
    return bytes(tar().header(b"x", kind=b"x", size=2 << 20).end())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda tar: tar().file(b"a", b"xyz").end()[:600], "too early"),
        (lambda tar: tar().file(b"a", b"xyz").end()[:1000], "too early"),
        (lambda tar: tar().file(b"a").end()[:511], "too early"),
        (lambda tar: tar().pax({b"path": b"a"}).parts[0], "too early"),
        (lambda tar: b"".join(tar().pax({b"path": b"a"}).parts), "too early"),
        (lambda tar: tar().pax({b"path": b"a"}).end(), "behind an extended header"),
        (lambda tar: b"x" * 512, "number that is none|checksum"),
        (lambda tar: bytes([tar().file(b"a").end()[0] + 1]) + tar().file(b"a").end()[1:], "checksum"),
        (lambda tar: tar().pax({b"size": b"-1"}).file(b"a").end(), "number that is none"),
        (lambda tar: tar().pax({b"uid": b"9" * 12}).file(b"a").end(), "out of range"),
        (lambda tar: tar().pax({b"path": b"a\0b"}).file(b"a").end(), "NUL"),
        (lambda tar: tar().pax({b"mtime": b"soon"}).file(b"a").end(), "time"),
        (
            lambda tar: tar().header(b"x", kind=b"x", size=10).body(b"99 path=a\n").file(b"a").end(),
            "wrong length",
        ),
        (lambda tar: tar().header(b"x", kind=b"x", size=9).body(b"no length").file(b"a").end(), "no length"),
        (long_pax, "extended header has"),
        (lambda tar: tar().header(b"x", kind=b"L", size=1 << 20).end(), "extended header has"),
        (lambda tar: tar().pax({b"SCHILY.xattr.user.a": b"x" * 70_000}).file(b"a").end(), "attribute has"),
        (
            lambda tar: tar().pax({b"SCHILY.xattr.user.%d" % n: b"" for n in range(70)}).file(b"a").end(),
            "extended attributes",
        ),
        (lambda tar: old_sparse(tar, [(100, 5), (50, 5)], 1000, 10), "out of order"),
        (lambda tar: old_sparse(tar, [(0, 5)], 3, 5), "does not fit"),
        (lambda tar: old_sparse(tar, [(0, 50)], 1000, 5), "does not fit"),
        (
            lambda tar: (
                tar()
                .pax({b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"5"})
                .file(b"a", b"9" * 512)
                .end()
            ),
            "map of a sparse file",
        ),
        (lambda tar: tar().file(b"a").end() + bytes(17 << 20), "follow the end"),
    ],
)
def test_broken_archives_are_refused(
    tar: Callable[[], Any], make: Callable[[Any], bytes], words: str
) -> None:
    with pytest.raises(Refused, match=words):
        read(make(tar))


def test_limits_end_the_archive(tar: Callable[[], Any]) -> None:
    many = tar()
    for number in range(50):
        many.file(b"%d" % number)
    with pytest.raises(Refused, match="more than 10 entries") as refused:
        read(many.end(), Limits(entries=10))
    assert refused.value.kind == "limit"
    with pytest.raises(Refused, match="more than 2000 bytes"):
        read(tar().file(b"a", b"x" * 5000).end(), Limits(bytes=2000))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=8)), max_size=6), st.data())
def test_a_damaged_archive_ends_in_entries_or_a_refusal(damage: list[tuple[int, bytes]], data: Any) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a", "b" * 200, "c/é"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 600, 1.5
            archive.addfile(info, io.BytesIO(b"d" * 600))
    raw = bytearray(out.getvalue())
    for position, junk in damage:
        raw[position : position + len(junk)] = junk
    cut = data.draw(st.integers(0, len(raw)))
    archive_reader = Archive(pieces(bytes(raw[:cut])), NoTape(), Limits(bytes=1 << 20, entries=100))
    try:
        for entry in archive_reader.members():
            for _ in archive_reader.payload(entry.size):
                pass
    except Refused as refused:
        assert refused.kind in ("malformed", "limit")
