"""Digests and chain IDs."""

from __future__ import annotations

import hashlib
import json

import pytest
from triptych_oci import Descriptor, Digest, InvalidDigest, chain_id, chain_ids, encode, parse_descriptor

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_digest_is_a_checked_string() -> None:
    digest = Digest(EMPTY)
    assert digest == EMPTY
    assert (digest.algorithm, digest.hex) == ("sha256", EMPTY[7:])
    assert Digest.of(b"") == digest
    assert digest.matches(b"")
    assert not digest.matches(b"x")
    assert Digest(digest) is digest


def test_sha512() -> None:
    digest = Digest.of(b"abc", "sha512")
    assert digest.hex == hashlib.sha512(b"abc").hexdigest()
    hasher = digest.hasher()
    hasher.update(b"abc")
    assert Digest.finish(hasher) == digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:abc",
        EMPTY.upper(),
        EMPTY + "0",
        EMPTY[:-1] + "g",
        EMPTY[:-1] + "\n",
        "sha256:" + "٣" * 64,
        "sha384:" + "a" * 96,
        "sha512:" + "a" * 64,
        "sha256:" + "/" * 64,
        "x" * 100_000,
    ],
)
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(InvalidDigest, match="invalid digest") as caught:
        Digest(text)
    assert len(str(caught.value)) < 400


def test_chain_ids_follow_the_specification() -> None:
    first, second, third = (Digest.of(name) for name in (b"a", b"b", b"c"))
    assert chain_id([first]) == first
    two = Digest.of(f"{first} {second}".encode())
    three = Digest.of(f"{two} {third}".encode())
    assert chain_id([first, second, third]) == three
    assert chain_ids([first, second, third]) == [first, two, three]
    assert chain_ids([]) == []
    with pytest.raises(InvalidDigest):
        chain_id([])


def test_descriptor_round_trip() -> None:
    blob = Descriptor("a/b", Digest(EMPTY), 5, annotations={"k": "v"})
    data = encode(blob)
    assert json.loads(data) == {
        "mediaType": "a/b",
        "digest": EMPTY,
        "size": 5,
        "annotations": {"k": "v"},
    }
    parsed = parse_descriptor(data)
    assert parsed == blob
    assert isinstance(parsed.digest, Digest)
