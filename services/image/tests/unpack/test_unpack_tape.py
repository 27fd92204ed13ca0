from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triptych_image.unpack.worker.errors import Refused
from triptych_image.unpack.worker.tape import TapeWriter, play


def record(path: Path, parts: list[bytes | tuple[bytes, int, int]]) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    tape = TapeWriter(fd)
    for part in parts:
        if isinstance(part, bytes):
            tape.literal(part)
        else:
            tape.file(*part)
    tape.close()
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def test_a_tape_gives_literals_and_spans_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f").write_bytes(b"0123456789")
    fd = record(tmp_path / "tape", [b"head", (b"f", 2, 3), b"", b"x" * 400_000, (b"f", 0, 1), b"tail"])
    assert b"".join(play(fd)) == b"head234" + b"x" * 400_000 + b"0tail"
    os.close(fd)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=2000), st.integers(0, 999)), max_size=30))
def test_any_sequence_plays_back(tmp_path_factory: pytest.TempPathFactory, items: list[bytes | int]) -> None:
    directory = tmp_path_factory.mktemp("tape")
    os.chdir(directory)
    content = os.urandom(1000)
    Path("f").write_bytes(content)
    parts: list[bytes | tuple[bytes, int, int]] = [
        item if isinstance(item, bytes) else (b"f", item, 1000 - item) for item in items
    ]
    fd = record(directory / "tape", parts)
    wanted = b"".join(item if isinstance(item, bytes) else content[item:] for item in items)
    assert b"".join(play(fd)) == wanted
    os.close(fd)


def test_missing_and_short_files_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fd = record(tmp_path / "tape", [(b"gone", 0, 1)])
    with pytest.raises(Refused, match="gone"):
        list(play(fd))
    os.close(fd)
    Path("short").write_bytes(b"12")
    fd = record(tmp_path / "tape", [(b"short", 0, 3)])
    with pytest.raises(Refused, match="shorter"):
        list(play(fd))
    os.close(fd)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-6], lambda raw: b"\xff" * 20, lambda raw: b""])
def test_a_broken_tape_is_refused_or_ends(tmp_path: Path, damage: object) -> None:
    os.close(record(tmp_path / "tape", [os.urandom(5000)]))
    raw = (tmp_path / "tape").read_bytes()
    (tmp_path / "tape").write_bytes(damage(raw))  # type: ignore[operator]
    fd = os.open(tmp_path / "tape", os.O_RDONLY)
    try:
        assert b"".join(play(fd)) == b""
    except Refused as refused:
        assert refused.kind == "malformed"
    finally:
        os.close(fd)
