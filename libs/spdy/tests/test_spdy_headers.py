"""Header blocks, their compression, and the dictionary."""

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from triptych_spdy import DICTIONARY, ProtocolError, find_header
from triptych_spdy._headers import HeaderCompressor, HeaderDecompressor, decode_block, encode_block
from triptych_spdy.errors import InvalidHeaders

NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: name == name.lower())
VALUES = st.binary(max_size=40).filter(lambda value: b"\0" not in value)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=20, unique_by=lambda pair: pair[0])


def test_dictionary_is_that_of_the_draft() -> None:
    assert len(DICTIONARY) == 1423
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2
    assert hashlib.sha256(DICTIONARY).hexdigest().startswith("51d27341")


@given(st.lists(HEADERS, max_size=6))
def test_blocks_survive_a_connection(blocks: list[list[tuple[bytes, bytes]]]) -> None:
    compressor, decompressor = HeaderCompressor(), HeaderDecompressor(1 << 20)
    for headers in blocks:
        packed = compressor.compress(encode_block(headers))
        assert decode_block(decompressor.decompress(packed), 100) == tuple(headers)


@given(HEADERS)
def test_plain_zlib_reads_what_is_sent(headers: list[tuple[bytes, bytes]]) -> None:
    block = encode_block(headers)
    assert zlib.decompressobj(zdict=DICTIONARY).decompress(HeaderCompressor().compress(block)) == block


def test_values_of_one_name_travel_joined() -> None:
    block = encode_block([(b"Accept", b"a"), (b"x", b""), (b"accept", b"b")])
    assert b"a\0b" in block
    assert decode_block(block, 10) == ((b"accept", b"a"), (b"accept", b"b"), (b"x", b""))


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\1",
        b"\0\0\0\1\0\0\0\2a",
        b"\0\0\0\1\0\0\0\1a\xff\xff\xff\xffb",
        b"\0\0\0\0x",
        b"\xff\xff\xff\xff",
    ],
)
def test_broken_block_is_a_fault_of_the_connection(block: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_block(block, 1000)


@pytest.mark.parametrize(
    "block",
    [
        b"\0\0\0\1\0\0\0\0\0\0\0\0",
        b"\0\0\0\1\0\0\0\1A\0\0\0\0",
        b"\0\0\0\2\0\0\0\1a\0\0\0\0\0\0\0\1a\0\0\0\0",
        b"\0\0\0\1\0\0\0\1a\0\0\0\2\0x",
    ],
)
def test_bad_names_and_values_are_a_fault_of_the_stream(block: bytes) -> None:
    with pytest.raises(InvalidHeaders):
        decode_block(block, 1000)


def test_many_values_in_one_header_count_as_headers() -> None:
    with pytest.raises(ProtocolError, match="more than 10 header values"):
        decode_block(encode_block([(b"a", b"x")] * 11), 10)


def test_inflate_bomb_is_stopped_at_the_limit() -> None:
    bomb = zlib.compressobj(9, zdict=DICTIONARY)
    packed = bomb.compress(bytes(50 << 20)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    assert len(packed) < 60_000
    with pytest.raises(ProtocolError, match="more than 65536 bytes"):
        HeaderDecompressor(65536).decompress(packed)


def test_no_zlib_and_wrong_dictionary() -> None:
    with pytest.raises(ProtocolError, match="does not inflate"):
        HeaderDecompressor(1000).decompress(b"GET / HTTP/1.1")
    other = zlib.compressobj(zdict=b"something else")
    with pytest.raises(ProtocolError, match="does not inflate"):
        HeaderDecompressor(1000).decompress(other.compress(b"\0\0\0\0") + other.flush(zlib.Z_SYNC_FLUSH))


def test_nothing_may_follow_the_end_of_the_zlib_stream() -> None:
    packer = zlib.compressobj(zdict=DICTIONARY)
    decompressor = HeaderDecompressor(1000)
    assert decompressor.decompress(packer.compress(b"\0\0\0\0") + packer.flush()) == b"\0\0\0\0"
    with pytest.raises(ProtocolError, match="after the end"):
        decompressor.decompress(b"more")


def test_find_header_takes_the_first() -> None:
    headers = ((b"a", b"1"), (b"b", b"2"), (b"a", b"3"))
    assert find_header(headers, b"a") == b"1"
    assert find_header(headers, b"c") is None
