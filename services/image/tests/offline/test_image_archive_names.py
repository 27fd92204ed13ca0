"""Which images of an archive are taken, and under which names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from triptych_image.errors import InvalidRequest
from triptych_image.offline.docker import docker_images
from triptych_image.offline.documents import Documents, Found
from triptych_image.offline.layouts import layout_images
from triptych_image.offline.load import _named
from triptych_image.offline.members import DirectoryArchive
from triptych_oci import Digest, Platform, PlatformMatcher

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
REF, NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
Entry = dict[str, Any]


class Layout:
    """An OCI layout that grows."""

    def __init__(self, root: Path, make_image: Callable[..., Any], layer: bytes) -> None:
        self.root = root
        self._make, self._layer = make_image, layer
        (root / "blobs/sha256").mkdir(parents=True)

    def image(self, number: int, architecture: str = "amd64", **more: Any) -> Entry:
        """Put an image in; its entry."""
        image = self._make(self._layer, config={"Labels": {"number": str(number)}})
        config = image.config.replace(b'"amd64"', f'"{architecture}"'.encode())
        manifest = image.manifest.replace(image.id.encode(), Digest.of(config).encode())
        manifest = manifest.replace(b'"size": %d' % len(image.config), b'"size": %d' % len(config))
        for blob in (*image.blobs.values(), config):
            self.blob(blob)
        return self.entry(self.blob(manifest), MANIFEST, **more)

    def index(self, *entries: Entry, **more: Any) -> Entry:
        """Put an index in; its entry."""
        data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
        return self.entry(self.blob(data), INDEX, **more)

    def blob(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        (self.root / "blobs/sha256" / digest.hex).write_bytes(data)
        return digest

    def entry(
        self, digest: Digest, kind: str, platform: str = "", names: dict[str, str] | None = None
    ) -> Entry:
        size = (self.root / "blobs/sha256" / digest.hex).stat().st_size
        entry: Entry = {"mediaType": kind, "digest": digest, "size": size}
        if platform:
            system, architecture, *variant = platform.split("/")
            entry["platform"] = {"os": system, "architecture": architecture}
            entry["platform"] |= {"variant": variant[0]} if variant else {}
        return entry | ({"annotations": names} if names else {})

    def found(self, *entries: Entry) -> list[Found]:
        """What is found when the layout lists entries."""
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        (self.root / "index.json").write_text(json.dumps(index))
        matcher = PlatformMatcher(Platform.parse("linux/amd64/v3"))
        return list(layout_images(Documents(DirectoryArchive(self.root)), matcher))


@pytest.fixture
def layout(tmp_path: Path, make_image: Any, layer_of: Any) -> Layout:
    return Layout(tmp_path / "layout", make_image, layer_of({"a": b"x"}))


def numbers(found: list[Found]) -> list[str]:
    configs = [image.content.config for image in found]
    return [(config.settings.labels or {})["number"] for config in configs if config is not None]


def test_a_list_of_platforms_gives_the_best_of_them(layout: Layout) -> None:
    """As in the image layout specification's example, whose index.json tells platforms itself."""
    name = {REF: "example.com/x:1"}
    entries = [
        layout.image(1, "arm64", platform="linux/arm64", names=name),
        layout.image(2, platform="linux/amd64", names=name),
        layout.image(3, platform="linux/amd64/v3", names=name),
        layout.image(4, platform="linux/amd64", names={REF: "example.com/y:1"}),
        layout.image(5, platform="unknown/unknown"),
        layout.image(6),
    ]
    found = layout.found(*entries)
    assert numbers(found) == ["3", "4", "6"]
    assert [image.names for image in found] == [("example.com/x:1",), ("example.com/y:1",), ()]
    assert layout.found(entries[0], entries[4]) == []


def test_an_index_that_tells_no_platforms(layout: Layout) -> None:
    index = layout.index(layout.image(1, "arm64"), layout.index(layout.image(2, "arm64"), layout.image(3)))
    outer = layout.index(layout.image(4, "s390x"), layout.image(5), names={REF: "example.com/x:1"})
    found = layout.found(index, outer)
    assert numbers(found) == ["3", "5"]
    assert [image.target for image in found] == [index["digest"], outer["digest"]]
    assert outer["digest"] in found[1].content.blobs


def test_an_index_of_which_a_part_is_there(layout: Layout) -> None:
    gone = layout.image(1, platform="linux/amd64/v3")
    (layout.root / "blobs/sha256" / gone["digest"].hex).unlink()
    nested = layout.index(gone, platform="linux/amd64/v2")
    index = layout.index(gone, nested, layout.image(2, platform="linux/amd64"))
    assert numbers(layout.found(index)) == ["2"]


def test_a_name_with_a_digest_must_be_of_that_digest(layout: Layout, tmp_path: Path) -> None:
    """Or an archive could put anything in the place of an image that is asked for by digest."""
    image = layout.image(1)
    right, wrong = f"example.com/x@{image['digest']}", f"example.com/x@{Digest.of(b'other')}"
    for names, expected in (
        ({NAME: right}, (right,)),
        ({NAME: f"example.com/x:1@{image['digest']}"}, (right,)),
        ({NAME: wrong}, ()),
        ({NAME: wrong, REF: "example.com/x:1"}, ("example.com/x:1",)),
    ):
        (found,) = layout.found(image | {"annotations": names})
        assert found.names == expected
    nameless = layout.found(image)
    assert _named(nameless, right)[0][1] == [right]
    with pytest.raises(InvalidRequest, match="has digest"):
        _named(nameless, wrong)


def test_a_given_name_is_that_of_one_image(layout: Layout) -> None:
    one, two = layout.image(1), layout.image(2)
    with pytest.raises(InvalidRequest, match="2 images"):
        _named(layout.found(one, two), "x")
    found = layout.found(one, two | {"annotations": {REF: "example.com/y:2"}})
    assert [names for _, names in _named(found, "x")] == [
        ["docker.io/library/x:latest"],
        ["example.com/y:2"],
    ]
    assert [names for _, names in _named(layout.found(one, two), "")] == [[], []]


def test_tags_of_a_list_beside_the_index(layout: Layout) -> None:
    """Docker 25 and later write both; the same image may be listed twice."""
    entry = layout.image(1)
    (plain,) = layout.found(entry)
    config = plain.content.config_digest
    listed = [
        {"Config": f"blobs/sha256/{config.hex}", "RepoTags": ["busybox:1"], "Layers": []},
        {"Config": f"{config.hex}.json", "RepoTags": ["busybox:2"], "Layers": None},
        {"Config": "other", "RepoTags": None},
    ]
    (layout.root / "manifest.json").write_text(json.dumps(listed))
    expected = ("docker.io/library/busybox:1", "docker.io/library/busybox:2")
    for names in ({}, {NAME: expected[0]}):
        (found,) = layout.found(entry | {"annotations": names})
        assert found.names == expected


def test_a_docker_archive_cannot_name_digests(tmp_path: Path) -> None:
    (tmp_path / "c").write_text(json.dumps({"rootfs": {"type": "layers", "diff_ids": []}}))
    tags = [f"example.com/x@{Digest.of(b'other')}"]
    (tmp_path / "manifest.json").write_text(json.dumps([{"Config": "c", "RepoTags": tags}]))
    with pytest.raises(Exception, match="no name with a tag"):
        list(docker_images(Documents(DirectoryArchive(tmp_path))))
