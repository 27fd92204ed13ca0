"""What `save` writes and where."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import tarfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from runtime.v1 import api_pb2
from triptych.image.v1 import image_pb2
from triptych_image.errors import DiskFull, InvalidRequest
from triptych_image.offline.push import Pusher
from triptych_image.offline.threads import open_in_thread
from triptych_image.offline.writer import writing
from triptych_image.registry import Credentials
from triptych_image.settings import Settings
from triptych_image.store import LayerRecord, Store, layer_key
from triptych_image.unpack.pool import UnpackWorkers
from triptych_oci import Digest, Reference

Start = Callable[..., Any]


async def test_a_descriptor_that_nobody_waits_for_is_closed(tmp_path: Path) -> None:
    go_on = threading.Event()
    opened: list[int] = []

    def call() -> int:
        go_on.wait(60)
        opened.append(os.open(tmp_path, os.O_RDONLY))
        return opened[0]

    task = asyncio.create_task(open_in_thread(call))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    async with asyncio.timeout(60):
        while not opened or os.path.exists(f"/proc/self/fd/{opened[0]}"):
            await asyncio.sleep(0.01)


async def test_archives_at_once_under_one_name(tmp_path: Path) -> None:
    """The one that ends last is there, whole."""
    path = tmp_path / "x.tar"
    (tmp_path / "file").write_bytes(b"f" * 700)

    async def write(data: bytes) -> None:
        async with writing(path) as archive:
            await archive.put("a", data)
            await both.wait()
            assert await archive.put_file("b", tmp_path / "file") == 700
            start = await archive.begin()
            os.write(archive.fd, data)
            await archive.end(start, "c", len(data))
            await archive.finish()

    both = asyncio.Barrier(2)
    await asyncio.gather(write(b"1" * 3000), write(b"2" * 10))
    with tarfile.open(path) as found:
        contents = [found.extractfile(name).read() for name in found.getnames()]  # type: ignore[union-attr]
        assert found.getnames() == ["a", "b", "c"]
    assert contents[0] == contents[2] and contents[0] in (b"1" * 3000, b"2" * 10)
    assert contents[1] == b"f" * 700
    assert sorted(os.listdir(tmp_path)) == ["file", "x.tar"]


async def test_a_write_that_takes_a_part_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: original(fd, bytes(data[:100])))
    async with writing(tmp_path / "x.tar") as archive:
        await archive.put("a", b"1" * 3000)
        await archive.finish()
    with tarfile.open(tmp_path / "x.tar") as found:
        assert found.extractfile("a").read() == b"1" * 3000  # type: ignore[union-attr]


async def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DiskFull):
        async with writing(tmp_path / "x.tar") as archive:
            await archive.put("a", b"1")
    assert os.listdir(tmp_path) == []


async def test_only_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "old").write_bytes(b"old")
    for path in (tmp_path / "d", tmp_path / "fifo", Path("/"), Path("/dev/null"), tmp_path / "none/x"):
        with pytest.raises(InvalidRequest, match="^path: "):
            async with writing(path):
                raise AssertionError("it was opened")
    async with writing(tmp_path / "old") as archive:
        await archive.finish()
    assert (tmp_path / "old").stat().st_size == 1024


@pytest.mark.integration
def test_what_was_pulled_as_docker_has_it_is_saved_as_oci(
    daemon: Start, registry: Any, tmp_path: Path, make_image: Any, layer_of: Any
) -> None:
    """A manifest of the one form with layers of the other is one that Podman and CRI-O did not take."""
    running = daemon("[pull]\nkeep_compressed = true\n")
    image = make_image(layer_of({"a": b"1"}))
    for name in ("manifest.v2+json", "container.image.v1+json", "image.rootfs.diff.tar.gzip"):
        oci = {"m": "image.manifest.v1+json", "c": "image.config.v1+json", "i": "image.layer.v1.tar+gzip"}[
            name[0]
        ]
        old, new = f"vnd.oci.{oci}", f"vnd.docker.{'distribution.' if name[0] == 'm' else ''}{name}"
        image.manifest = image.manifest.replace(old.encode(), new.encode())
        image.media_type = image.media_type.replace(old, new)
    name = registry.add("x:1", image)
    running.images.PullImage(api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=name)))
    path = tmp_path / "x.tar"
    running.admin.Save(image_pb2.SaveRequest(images=[name], path=str(path)))

    def blob(name: str) -> Any:
        return json.loads(archive.extractfile(name).read())  # type: ignore[union-attr]

    with tarfile.open(path) as archive:
        (entry,) = blob("index.json")["manifests"]
        saved = blob(f"blobs/sha256/{entry['digest'][7:]}")
    assert [layer["digest"] for layer in saved["layers"]] == [
        layer["digest"] for layer in json.loads(image.manifest)["layers"]
    ]
    assert "docker" not in json.dumps(saved)
    running.images.RemoveImage(api_pb2.RemoveImageRequest(image=api_pb2.ImageSpec(image=name)))
    assert running.admin.Load(image_pb2.LoadRequest(path=str(path))).image_ids == [image.id]


@pytest.mark.integration
def test_an_image_id_is_nowhere_to_push_to(
    daemon: Start, registry: Any, make_image: Any, layer_of: Any
) -> None:
    """It would go to docker.io/library/sha256 otherwise."""
    running = daemon()
    name = registry.add("x:1", make_image(layer_of({"a": b"1"})))
    found = running.images.PullImage(api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=name)))
    for text in (found.image_ref, found.image_ref[7:19]):
        with pytest.raises(grpc.RpcError) as failed:
            running.admin.Push(image_pb2.PushRequest(image=text))
        assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "is an image ID" in (failed.value.details() or "")


@pytest.mark.parametrize(("destination", "same"), [("reg.io/y:1", True), ("reg.io:5000/x:1", False)])
async def test_credentials_of_a_push_are_for_its_registry_alone(destination: str, same: bool) -> None:
    """A registry that does not mount is read from by the credentials that it is written to with."""
    asked: list[tuple[str, Credentials | None]] = []

    class Registry:
        @contextlib.asynccontextmanager
        async def repository(
            self, reference: Reference, credentials: Credentials | None = None
        ) -> AsyncIterator[None]:
            asked.append((str(reference), credentials))
            yield

    class Pulled:
        source = "reg.io/x:1"

    mine = Credentials("me", "secret")
    nothing: Any = None
    registry: Any = Registry()
    pulled: Any = Pulled()
    async with contextlib.AsyncExitStack() as stack:
        pusher = Pusher(nothing, registry, nothing, nothing)
        await pusher._origin(stack, pulled, Reference.parse(destination), mine)
    assert asked == [("reg.io/x:1", mine if same else None)]


@pytest.mark.integration
async def test_a_layer_that_is_packed_anew_leaves_the_reserve(
    store: Store, workers: UnpackWorkers, unpack: Any, tar: Any
) -> None:
    tree = await unpack(tar().file(b"a", b"1" * 100_000).end())
    diff_id = Digest(tree.found.diff_id)
    record = LayerRecord(layer_key(diff_id), diff_id, 4096, 2, True, "", 1)
    await store.add_layer(record, tree.root, tree.tape)
    nothing: Any = None
    for reserve in (0, 1 << 60):
        unpacking = msgspec.structs.replace(Settings().unpack, reserve_bytes=reserve)
        settings = msgspec.structs.replace(Settings(), unpack=unpacking)
        packing = Pusher(store, nothing, workers, settings)._pack(diff_id, store.paths.scratch())
        if reserve == 0:
            assert (await packing).size > 0
        else:
            with pytest.raises(DiskFull, match="below the reserve"):
                await packing
