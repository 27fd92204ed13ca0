"""What a stranger's image archive may ask of the daemon."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from triptych_image.errors import ImageMalformed
from triptych_image.offline import archives, docker, documents, members
from triptych_image.offline.documents import Documents
from triptych_image.offline.members import Archive, TarArchive


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def content(archive: Archive, name: str) -> bytes | None:
    member = archive.find(name)
    return None if member is None else archives.read(member, name)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_lie_where_tarfile_put_them(form: int, tmp_path: Path) -> None:
    out = io.BytesIO()
    long = "d/" * 60 + "blob"
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in (("empty", b""), ("./a", b"1" * 511), (long, b"2" * 513), ("/b", b"3" * 70_000)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for kind, name, target in ((tarfile.SYMTYPE, "d/up", "../b"), (tarfile.LNKTYPE, "hard", "./a")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    found = TarArchive(written(tmp_path / "x.tar", out.getvalue()))
    assert content(found, "empty") == b""
    assert content(found, "a") == content(found, "hard") == b"1" * 511
    assert content(found, long) == b"2" * 513
    assert content(found, "../b") == content(found, "d/up") == b"3" * 70_000
    assert content(found, "d") is content(found, "c") is None


def test_an_extended_header_of_any_size_is_not_read(tmp_path: Path, tar: Any) -> None:
    path = tmp_path / "x.tar"
    for kind in (b"x", b"g", b"L", b"K"):
        path.write_bytes(tar().header(b"x", kind=kind, size=1 << 40).end())
        with pytest.raises(ImageMalformed, match="extended header has 1099511627776 bytes"):
            TarArchive(path)


def test_many_extended_headers_of_one_member_are_too_much(tmp_path: Path, tar: Any) -> None:
    archive = tar()
    for _ in range(3):
        archive.pax({b"comment": b"x" * 700_000})
    with pytest.raises(ImageMalformed, match="extended headers of one entry"):
        TarArchive(written(tmp_path / "x.tar", archive.file(b"a").end()))


def test_names_are_too_much_together(tmp_path: Path, tar: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "_NAMES_MAX", 100_000)
    archive = tar()
    for number in range(3):
        archive.pax({b"path": b"%d" % number * 40_000}).file(b"a")
    with pytest.raises(ImageMalformed, match="names of its members"):
        TarArchive(written(tmp_path / "x.tar", archive.end()))


def test_thousands_of_members_are_too_much(
    tmp_path: Path, tar: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "_MEMBERS_MAX", 20)
    archive = tar()
    for number in range(21):
        archive.file(b"%d" % number)
    with pytest.raises(ImageMalformed, match="more than 20 entries"):
        TarArchive(written(tmp_path / "x.tar", archive.end()))


def test_what_breaks_off_is_no_archive(tmp_path: Path, tar: Any) -> None:
    whole = tar().file(b"a", b"1" * 5000).end()
    for size in (700, 3000, 5500):
        with pytest.raises(ImageMalformed, match="ends too early"):
            TarArchive(written(tmp_path / "x.tar", whole[:size]))
    assert content(TarArchive(written(tmp_path / "x.tar", whole[:-1024])), "a") == b"1" * 5000


def test_an_archive_that_is_replaced_holds_nobody_up(tmp_path: Path, tar: Any) -> None:
    path = tmp_path / "x.tar"
    found = TarArchive(written(path, tar().file(b"a", b"1" * 5000).end()))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ImageMalformed, match="Illegal seek"):
        content(found, "a")
    path.unlink()
    with pytest.raises(ImageMalformed, match="No such file"):
        content(found, "a")


def test_a_sparse_member_is_none_to_read(tmp_path: Path, tar: Any) -> None:
    archive = tar().pax({b"GNU.sparse.map": b"0,1,100000,2", b"GNU.sparse.size": b"200000"})
    found = TarArchive(written(tmp_path / "x.tar", archive.file(b"s", b"abc").file(b"t", b"4").end()))
    assert content(found, "s") is None
    assert content(found, "t") == b"4"


def test_documents_are_too_much_together(tmp_path: Path, tar: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of a few megabytes may name one config of 4 MiB half a million times."""
    monkeypatch.setattr(documents, "_TOGETHER_MAX", 10_000)
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": []}, "padding": "x" * 1000}).encode()
    listed = json.dumps([{"Config": "c", "Layers": None}] * 20).encode()
    archive = tar().file(b"manifest.json", listed).file(b"c", config).end()
    with pytest.raises(ImageMalformed, match="more than 10000 bytes"):
        list(docker.docker_images(Documents(TarArchive(written(tmp_path / "x.tar", archive)))))


def test_a_packed_layer_is_hashed_once(tmp_path: Path, tar: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    original = docker._describe

    def describe(member: Any, diff_id: Any) -> Any:
        hashed.append(member.offset)
        return original(member, diff_id)

    monkeypatch.setattr(docker, "_describe", describe)
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}).encode()
    listed = json.dumps([{"Config": "c", "Layers": ["l"]}] * 20).encode()
    archive = tar().file(b"manifest.json", listed).file(b"c", config).file(b"l", b"\x1f\x8b packed")
    found = list(docker.docker_images(Documents(TarArchive(written(tmp_path / "x.tar", archive.end())))))
    assert (len(found), len(hashed)) == (20, 1)


@pytest.mark.parametrize(
    "listed",
    [
        "{}",
        "[5]",
        '[{"Config": 5}]',
        '[{"Config": "c", "RepoTags": 5}]',
        '[{"Config": "c", "RepoTags": "abc"}]',
        '[{"Config": "c", "Layers": 5}]',
        '[{"Config": "c", "Layers": "l"}]',
        '[{"Config": "c", "Layers": [null]}]',
        '[{"Config": "c", "RepoTags": ["No Name"]}]',
        "[{}]",
        "[" * 100_000,
        "",
    ],
)
def test_lists_of_the_wrong_shape(listed: str, tmp_path: Path, tar: Any) -> None:
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": []}}).encode()
    archive = tar().file(b"manifest.json", listed.encode()).file(b"c", config).end()
    with pytest.raises(ImageMalformed):
        list(docker.docker_images(Documents(TarArchive(written(tmp_path / "x.tar", archive)))))
