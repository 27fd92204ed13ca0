"""Load, save and push, against archives as docker, skopeo and buildkit write them."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from runtime.v1 import api_pb2
from triptych.image.v1 import image_pb2

pytestmark = pytest.mark.integration

Start = Callable[..., Any]


def write_tar(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


def oci_files(image: Any, annotations: dict[str, str] | None = None) -> dict[str, bytes]:
    entry = {
        "mediaType": image.media_type,
        "digest": image.digest,
        "size": len(image.manifest),
        "annotations": annotations or {},
    }
    files = {f"blobs/sha256/{digest[7:]}": data for digest, data in image.blobs.items()}
    files[f"blobs/sha256/{image.digest[7:]}"] = image.manifest
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return files


def load(running: Any, path: Path, reference: str = "") -> image_pb2.LoadResponse:
    found: image_pb2.LoadResponse = running.admin.Load(
        image_pb2.LoadRequest(path=str(path), reference=reference), timeout=60
    )
    return found


def whole(running: Any) -> bool:
    found = list(running.admin.Verify(image_pb2.VerifyRequest()))
    assert all(item.ok and not item.problem for item in found), found
    return bool(found)


def ids(running: Any) -> dict[str, list[str]]:
    found = running.images.ListImages(api_pb2.ListImagesRequest()).images
    return {image.id: list(image.repo_tags) for image in found}


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "directory"])
def test_oci_layouts(kind: str, daemon: Start, tmp_path: Path, make_image: Any, layer_of: Any) -> None:
    running = daemon()
    image = make_image(layer_of({"a": b"1"}), layer_of({"big": os.urandom(3_000_000)}))
    files = oci_files(image, {"org.opencontainers.image.ref.name": "example.com/x:1"})
    path = tmp_path / "archive"
    if kind == "directory":
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    else:
        write_tar(path, files)
        if kind == "tar.gz":
            path.write_bytes(gzip.compress(path.read_bytes(), 1))
    found = load(running, path)
    assert (list(found.image_ids), list(found.references)) == ([image.id], ["example.com/x:1"])
    assert ids(running) == {image.id: ["example.com/x:1"]}
    assert whole(running)
    assert os.listdir(running.root / "tmp") == []


def test_docker_archives(daemon: Start, tmp_path: Path, make_image: Any, layer_of: Any) -> None:
    running = daemon()
    layers = [layer_of({"a": b"1"}), layer_of({"b": b"2"})]
    image = make_image(*layers)
    manifest = [
        {
            "Config": f"{image.id[7:]}.json",
            "RepoTags": ["busybox:1", "example.com/y:2"],
            "Layers": ["one/layer.tar", "two/layer.tar"],
        }
    ]
    files = {
        f"{image.id[7:]}.json": image.config,
        "manifest.json": json.dumps(manifest).encode(),
        "one/layer.tar": layers[0],
        "shared/layer.tar": gzip.compress(layers[1]),
    }
    path = write_tar(tmp_path / "archive", files, {"two/layer.tar": "../shared/layer.tar"})
    found = load(running, path)
    assert list(found.references) == ["docker.io/library/busybox:1", "example.com/y:2"]
    assert ids(running) == {image.id: ["docker.io/library/busybox:1", "example.com/y:2"]}
    assert whole(running)


def test_an_archive_without_names_takes_the_given_one(
    daemon: Start, tmp_path: Path, make_image: Any, layer_of: Any
) -> None:
    running = daemon()
    image = make_image(layer_of({"a": b"1"}))
    path = write_tar(tmp_path / "archive", oci_files(image))
    assert list(load(running, path).references) == []
    assert ids(running) == {image.id: []}
    assert list(load(running, path, "given").references) == ["docker.io/library/given:latest"]
    assert ids(running) == {image.id: ["docker.io/library/given:latest"]}


def test_an_archive_does_not_take_the_place_of_what_is_asked_for_by_digest(
    daemon: Start, registry: Any, tmp_path: Path, make_image: Any, layer_of: Any
) -> None:
    running = daemon()
    image, other = make_image(layer_of({"a": b"1"})), make_image(layer_of({"a": b"2"}))
    registry.add("x:1", image)
    wanted = f"{registry.address}/x@{image.digest}"
    path = write_tar(tmp_path / "archive", oci_files(other, {"io.containerd.image.name": wanted}))
    assert list(load(running, path).references) == []
    status = running.images.ImageStatus(api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=wanted)))
    assert not status.HasField("image")


def missing_layer(files: dict[str, bytes], image: Any) -> None:
    del files["blobs/sha256/" + json.loads(image.manifest)["layers"][0]["digest"][7:]]


def wrong_layer(files: dict[str, bytes], image: Any) -> None:
    name = "blobs/sha256/" + json.loads(image.manifest)["layers"][0]["digest"][7:]
    files[name] = files[name][:-1] + b"x"


def wrong_config(files: dict[str, bytes], image: Any) -> None:
    files[f"blobs/sha256/{image.id[7:]}"] += b" "


def no_index(files: dict[str, bytes], image: Any) -> None:
    del files["index.json"]


def huge_index(files: dict[str, bytes], image: Any) -> None:
    files["index.json"] = b" " * (9 << 20)


def no_json(files: dict[str, bytes], image: Any) -> None:
    files["index.json"] = b"[" * 100_000


def deep_index(files: dict[str, bytes], image: Any) -> None:
    import hashlib

    digest, size, kind = image.digest, len(image.manifest), image.media_type
    machine = os.uname().machine.replace("x86_64", "amd64").replace("aarch64", "arm64")
    for _ in range(8):
        entry = {
            "mediaType": kind,
            "digest": digest,
            "size": size,
            "platform": {"architecture": machine, "os": "linux"},
        }
        kind = "application/vnd.oci.image.index.v1+json"
        data = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}).encode()
        digest, size = "sha256:" + hashlib.sha256(data).hexdigest(), len(data)
        files[f"blobs/sha256/{digest[7:]}"] = data
    files["index.json"] = data


@pytest.mark.parametrize(
    "damage", [missing_layer, wrong_layer, wrong_config, no_index, huge_index, no_json, deep_index]
)
def test_broken_archives(
    damage: Callable[[dict[str, bytes], Any], None],
    daemon: Start,
    tmp_path: Path,
    make_image: Any,
    layer_of: Any,
) -> None:
    running = daemon()
    image = make_image(layer_of({"a": b"1"}))
    files = oci_files(image)
    damage(files, image)
    with pytest.raises(grpc.RpcError) as failed:
        load(running, write_tar(tmp_path / "archive", files))
    assert failed.value.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    assert ids(running) == {}
    assert os.listdir(running.root / "l") == []


def test_lists_that_are_none(daemon: Start, tmp_path: Path, make_image: Any, layer_of: Any) -> None:
    running = daemon()
    image = make_image(layer_of({"a": b"1"}))
    for listed in ('[{"Config": "c", "RepoTags": 5}]', '[{"Config": "c", "Layers": 5}]'):
        path = write_tar(tmp_path / "archive", {"manifest.json": listed.encode(), "c": image.config})
        with pytest.raises(grpc.RpcError) as failed:
            load(running, path)
        assert failed.value.code() == grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("path", ["relative", "/nowhere/to/be/found", ""])
def test_paths_that_are_none(path: str, daemon: Start) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        load(daemon(), Path(path) if path else Path())
    assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_what_is_no_archive(daemon: Start, tmp_path: Path) -> None:
    running = daemon()
    for number, data in enumerate([b"", b"junk" * 1000, b"\x1f\x8bjunk", gzip.compress(b"junk")]):
        path = tmp_path / str(number)
        path.write_bytes(data)
        with pytest.raises(grpc.RpcError) as failed:
            load(running, path)
        assert failed.value.code() == grpc.StatusCode.FAILED_PRECONDITION, failed.value.details()


def test_saved_images_load_as_the_same(
    daemon: Start, registry: Any, tmp_path: Path, make_image: Any, tar: Any
) -> None:
    running = daemon()
    shared = tar().directory(b"d", mode=0o750, uid=5).file(b"d/f", b"x" * 70_000).end()
    sparse = tar().pax({b"GNU.sparse.map": b"0,1,100000,2", b"GNU.sparse.size": b"200000"})
    images = [make_image(shared, sparse.file(b"s", b"abc").end()), make_image(shared)]
    names = [registry.add(f"x{number}:1", image) for number, image in enumerate(images)]
    for name in names:
        running.images.PullImage(api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=name)))
    path = tmp_path / "saved.tar"
    saved = running.admin.Save(image_pb2.SaveRequest(images=names, path=str(path)))
    assert saved.bytes == path.stat().st_size
    assert [entry for entry in os.listdir(tmp_path) if "part" in entry] == []
    with tarfile.open(path) as archive:
        members = archive.getnames()
        docker = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr]
    assert len(members) == len(set(members))
    assert [entry["RepoTags"] for entry in docker] == [[name] for name in names]
    before = ids(running)
    running.admin.Prune(image_pb2.PruneRequest(images=True))
    assert ids(running) == {}
    assert sorted(load(running, path).image_ids) == sorted(before)
    assert ids(running) == before
    assert whole(running)
    # and once more, from what was loaded
    again = tmp_path / "again.tar"
    running.admin.Save(image_pb2.SaveRequest(images=[names[0]], path=str(again)))
    assert again.stat().st_size > 70_000


@pytest.mark.parametrize(
    ("names", "path", "code"),
    [
        ([], "/tmp/x", grpc.StatusCode.INVALID_ARGUMENT),
        (["missing:1"], "/tmp/x", grpc.StatusCode.NOT_FOUND),
        (["{name}"], "relative", grpc.StatusCode.INVALID_ARGUMENT),
        (["{name}"], "/nowhere/at/all.tar", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_what_cannot_be_saved(
    names: list[str],
    path: str,
    code: grpc.StatusCode,
    daemon: Start,
    registry: Any,
    make_image: Any,
    layer_of: Any,
) -> None:
    running = daemon()
    name = registry.add("x:1", make_image(layer_of({"a": b"1"})))
    running.images.PullImage(api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=name)))
    images = [text.format(name=name) for text in names]
    with pytest.raises(grpc.RpcError) as failed:
        running.admin.Save(image_pb2.SaveRequest(images=images, path=path))
    assert failed.value.code() == code


def test_a_damaged_layer_is_found_and_not_saved(
    daemon: Start, registry: Any, tmp_path: Path, make_image: Any, layer_of: Any
) -> None:
    running = daemon()
    image = make_image(layer_of({"a": b"right", "b": b"other"}))
    name = registry.add("x:1", image)
    running.images.PullImage(api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=name)))
    (victim,) = (running.root / "l").glob("*/a")
    victim.write_bytes(b"wrong")
    bad = [item for item in running.admin.Verify(image_pb2.VerifyRequest(images=[name])) if not item.ok]
    assert len(bad) == 1 and bad[0].image_id == image.id and "digest" in bad[0].problem
    with pytest.raises(grpc.RpcError) as failed:
        running.admin.Save(image_pb2.SaveRequest(images=[name], path=str(tmp_path / "x.tar")))
    assert failed.value.code() == grpc.StatusCode.DATA_LOSS
    assert not (tmp_path / "x.tar").exists()
    victim.write_bytes(b"right")
    victim.chmod(0o777)
    (victim.parent / "added").touch()
    (bad_item,) = [item for item in running.admin.Verify(image_pb2.VerifyRequest()) if not item.ok]
    assert "mode" in bad_item.problem and "inodes" in bad_item.problem


def test_tags(daemon: Start, registry: Any, make_image: Any, layer_of: Any) -> None:
    running = daemon()
    image, other = make_image(layer_of({"a": b"1"})), make_image(layer_of({"a": b"2"}))
    name, second = registry.add("x:1", image), registry.add("y:1", other)
    for reference in (name, second):
        running.images.PullImage(api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=reference)))
    running.admin.Tag(image_pb2.TagRequest(image=image.id[:20], reference="mine"))
    assert ids(running)[image.id] == [name, "docker.io/library/mine:latest"]
    running.admin.Tag(image_pb2.TagRequest(image=second, reference="mine"))
    assert ids(running)[image.id] == [name]
    for image_name, reference, code in (
        ("missing:1", "x", grpc.StatusCode.NOT_FOUND),
        (name, "UPPER/Case", grpc.StatusCode.INVALID_ARGUMENT),
        (name, f"x@{image.digest}", grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as failed:
            running.admin.Tag(image_pb2.TagRequest(image=image_name, reference=reference))
        assert failed.value.code() == code


@pytest.mark.skipif(not os.path.exists("/usr/bin/docker-registry"), reason="needs docker-registry")
@pytest.mark.parametrize("origin_left", [True, False], ids=["from the origin", "packed anew"])
def test_pushed_images_are_the_same(
    origin_left: bool, daemon: Start, registry: Any, tmp_path: Path, make_image: Any, layer_of: Any
) -> None:
    import signal
    import socket
    import subprocess
    import time

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n"
    )
    target = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        running = daemon("[registry]\nhost_seconds = 1\nattempts = 1\n")
        image = make_image(layer_of({"a": os.urandom(100_000)}), layer_of({"b": b"2"}))
        name = registry.add("x:1", image)
        running.images.PullImage(api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=name)))
        if not origin_left:
            registry.images.clear()
        for _ in range(100):
            with socket.socket() as connection:
                if connection.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        pushed = f"127.0.0.1:{port}/pushed/x:2"
        digest = running.admin.Push(image_pb2.PushRequest(image=name, destination=pushed), timeout=60).digest
        assert (digest == image.digest) == origin_left
        running.admin.Prune(image_pb2.PruneRequest(images=True))
        found = running.images.PullImage(api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=pushed)))
        assert found.image_ref == image.id
        assert whole(running)
    finally:
        target.send_signal(signal.SIGTERM)
        target.wait(10)
