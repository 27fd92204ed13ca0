from __future__ import annotations

import gzip
import os
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from triptych_image.unpack.worker.errors import Refused
from triptych_image.unpack.worker.source import OUT_CHUNK, Input, chunks


def inflate(data: bytes) -> bytes:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(write, view) :]
        finally:
            os._exit(0)
    os.close(write)
    try:
        pieces = list(chunks(Input(read)))
        assert all(len(piece) <= OUT_CHUNK for piece in pieces)
        return b"".join(pieces)
    finally:
        os.close(read)
        os.waitpid(pid, 0)


PLAIN = bytes(range(256)) * 4000
GZIP_HEADER = b"\x1f\x8b\x08\x1e\0\0\0\0\0\xff\x04\0abcdname\0comment\0"


@pytest.mark.parametrize(
    "packed",
    [
        PLAIN,
        gzip.compress(PLAIN),
        zstandard.compress(PLAIN),
        zstandard.ZstdCompressor(write_content_size=False).compress(PLAIN),
        # several members, as pigz and eStargz write them, and zero padding behind
        gzip.compress(PLAIN[:1000]) + gzip.compress(PLAIN[1000:]),
        gzip.compress(PLAIN) + bytes(700),
        zstandard.compress(PLAIN[:1000]) + zstandard.compress(PLAIN[1000:]),
        # every optional field of the header: extra, name, comment, header checksum
        GZIP_HEADER + zlib.crc32(GZIP_HEADER).to_bytes(4, "little")[:2] + gzip.compress(PLAIN, mtime=0)[10:],
        # a skippable frame first (zstd:chunked)
        b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstandard.compress(PLAIN),
    ],
    ids=[
        "plain",
        "gzip",
        "zstd",
        "zstd-unsized",
        "gzip-members",
        "gzip-padded",
        "zstd-frames",
        "gzip-fields",
        "zstd-skippable",
    ],
)
def test_every_packing_gives_the_plain_bytes(packed: bytes) -> None:
    assert inflate(packed) == PLAIN


def test_nothing_gives_nothing() -> None:
    assert inflate(b"") == b""


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (gzip.compress(PLAIN)[:-9], "too early"),
        (gzip.compress(PLAIN)[:200] + b"\xff" * 3000, "broken|too early"),
        (gzip.compress(PLAIN) + b"garbage", "garbage"),
        (gzip.compress(PLAIN)[:-8] + bytes(8), "broken"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\xfd7zXZ\x00\x00", "xz"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 100, "zstd"),
    ],
)
def test_broken_streams_are_refused(packed: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        inflate(packed)
    assert refused.value.kind == "malformed"


def test_a_truncated_zstd_stream_does_not_pass_for_the_whole() -> None:
    packed = zstandard.compress(PLAIN)
    try:
        assert inflate(packed[:-20]) != PLAIN
    except Refused as refused:
        assert refused.kind == "malformed"


def test_a_bomb_comes_in_bounded_pieces() -> None:
    packer = zlib.compressobj(9, wbits=31)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    assert len(packed) < 100_000
    assert len(inflate(packed)) == 64 << 20


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd"]))
def test_any_bytes_end_in_bytes_or_a_refusal(data: bytes, magic: bytes) -> None:
    try:
        inflate(magic + data)
    except Refused as refused:
        assert refused.kind == "malformed"
