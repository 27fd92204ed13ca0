"""kill -9 at every step, power loss, and a full disk."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import triptych_image
from runtime.v1 import api_pb2
from triptych.image.v1 import image_pb2
from triptych.rootfs.v1 import rootfs_pb2

pytestmark = pytest.mark.integration

Start = Callable[..., Any]

PULL_FAULTS = (
    "blob-before-rename",
    "blob-before-rename:2",
    "layer-begin",
    "layer-unpacked",
    "layer-before-rename",
    "layer-between-renames",
    "layer-before-row",
    "layer-after-row",
    "layer-after-row:2",
    "pull-before-commit",
    "sync-before",
    "sync-after",
    "commit-before-row",
    "commit-in-transaction",
    "commit-after-row",
)
REMOVE_FAULTS = (
    "remove-before-row",
    "remove-after-row",
    "remove-before-rename",
    "remove-between-renames",
    "remove-after-rename",
)
ROOTFS_FAULTS = (
    "rootfs-before-row",
    "rootfs-after-row",
    "rootfs-remove-before-row",
    "rootfs-remove-after-row",
)
RECOVERY_FAULTS = ("recover-rows", "recover-files")
# Steps between which what is on the disk differs from what the kernel still holds.
LOSS_FAULTS = (
    "layer-between-renames",
    "layer-after-row:2",
    "pull-before-commit",
    "sync-before",
    "sync-after",
    "commit-in-transaction",
    "commit-after-row",
    "remove-before-row",
    "remove-after-row",
    "remove-between-renames",
    "remove-after-rename",
)
SETTINGS = "[pull]\nresume_bytes = 1\n"


def spec(name: str) -> api_pb2.ImageSpec:
    return api_pb2.ImageSpec(image=name)


def pull(running: Any, name: str) -> None:
    running.images.PullImage(api_pb2.PullImageRequest(image=spec(name)), timeout=60)


def dies(running: Any, work: Callable[[], object]) -> None:
    with pytest.raises(grpc.RpcError):
        work()
    assert running.died() == 137


def listed(running: Any) -> dict[str, list[str]]:
    """Images by ID with their tags, each of them proved to be whole."""
    found = running.images.ListImages(api_pb2.ListImagesRequest()).images
    results = list(running.admin.Verify(image_pb2.VerifyRequest()))
    assert [item for item in results if not item.ok or item.problem] == []
    assert {item.image_id for item in results} == {image.id for image in found}
    return {image.id: list(image.repo_tags) for image in found}


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def settled(running: Any) -> bool:
    """Nothing is being made nor removed, and every file belongs to a row."""
    root = running.root
    if os.listdir(root / "tmp") or os.listdir(root / "trash"):
        return False
    with sqlite3.connect(f"file:{root / 'store.db'}?mode=ro", uri=True) as database:
        layers = {row[0] for row in database.execute("SELECT key FROM layers")}
        blobs = {row[0][7:] for row in database.execute("SELECT digest FROM image_blobs")}
        blobs |= {row[0][7:] for row in database.execute("SELECT config FROM rootfs")}
        keys = {row[0] for row in database.execute("SELECT key FROM rootfs")}
    database.close()
    return (
        set(os.listdir(root / "l")) == layers == set(os.listdir(root / "t"))
        and set(os.listdir(root / "blobs/sha256")) == blobs
        and set(os.listdir(root / "rootfs")) == keys
    )


def after(running: Any) -> Any:
    """The daemon again, on what the dead one left."""
    again = running.start().ready()
    wait_until(lambda: settled(again))
    return again


@pytest.fixture
def two(registry: Any, make_image: Any, layer_of: Any) -> Any:
    """Two images that share a layer, and their references."""
    shared = layer_of({f"d/{number}": os.urandom(3000) for number in range(50)})
    one = make_image(shared, layer_of({"one": b"1" * 5000}))
    other = make_image(shared, layer_of({"two": b"2" * 5000}), layer_of({"three": b"3"}))
    return (one, registry.add("one:1", one)), (other, registry.add("two:1", other))


def test_every_named_step_is_tested() -> None:
    source = Path(triptych_image.__file__).parent
    named = {
        name for file in source.rglob("*.py") for name in re.findall(r'\bpoint\("(.*?)"', file.read_text())
    }
    tested = {*PULL_FAULTS, *REMOVE_FAULTS, *ROOTFS_FAULTS, *RECOVERY_FAULTS}
    assert named == {fault.partition(":")[0] for fault in tested}


@pytest.mark.parametrize("fault", PULL_FAULTS)
def test_killed_in_a_pull(fault: str, daemon: Start, two: Any) -> None:
    (one, first), (other, second) = two
    running = daemon(SETTINGS)
    pull(running, first)
    running.stop()
    running.start(fault).ready()
    dies(running, lambda: pull(running, second))
    again = after(running)
    expected = {one.id: [first]}
    if fault == "commit-after-row":
        expected[other.id] = [second]
    assert listed(again) == expected
    pull(again, second)
    assert listed(again) == {one.id: [first], other.id: [second]}
    assert again.admin.Prune(image_pb2.PruneRequest(images=True)).removed_images
    assert again.leftovers() == []


@pytest.mark.parametrize(
    "fault", ["layer-before-rename", "layer-between-renames", "layer-before-row", "sync-after"]
)
def test_killed_in_a_pull_of_an_artifact(fault: str, daemon: Start, registry: Any, make_image: Any) -> None:
    image = make_image(b"model" * 1000, b"card", pack=False)
    manifest = json.loads(image.manifest)
    manifest["config"]["mediaType"] = "application/vnd.example.model"
    for layer, title in zip(manifest["layers"], ("weights/model.bin", "README.md"), strict=True):
        layer["annotations"] = {"org.opencontainers.image.title": title}
    image.manifest = json.dumps(manifest).encode()
    name = registry.add("model:1", image)
    running = daemon(SETTINGS, fault=fault)
    dies(running, lambda: pull(running, name))
    again = after(running)
    assert listed(again) == {}
    pull(again, name)
    assert listed(again) == {image.digest: [name]}


def test_finished_layers_are_not_fetched_again(daemon: Start, registry: Any, two: Any) -> None:
    _, (other, second) = two
    running = daemon(SETTINGS, fault="pull-before-commit")
    dies(running, lambda: pull(running, second))
    again = after(running)
    assert len(os.listdir(again.root / "l")) == 3
    fetched = [request for request in registry.requests if "/blobs/" in request]
    pull(again, second)
    later = [request for request in registry.requests if "/blobs/" in request][len(fetched) :]
    layers = {layer["digest"] for layer in json.loads(other.manifest)["layers"]}
    assert not [request for request in later if any(digest in request for digest in layers)]


def test_what_waits_for_another_attempt_goes_when_none_comes(daemon: Start, two: Any) -> None:
    _, (_, second) = two
    running = daemon("[pull]\nresume_bytes = 1\nresume_seconds = 0.5\n", fault="pull-before-commit")
    dies(running, lambda: pull(running, second))
    time.sleep(0.6)
    again = after(running)
    assert again.leftovers() == []


@pytest.mark.parametrize("fault", REMOVE_FAULTS)
def test_killed_in_a_removal(fault: str, daemon: Start, two: Any) -> None:
    (one, first), (other, second) = two
    running = daemon(SETTINGS)
    pull(running, first)
    pull(running, second)
    running.stop()
    running.start(fault).ready()
    dies(running, lambda: running.images.RemoveImage(api_pb2.RemoveImageRequest(image=spec(second))))
    again = after(running)
    expected = {one.id: [first]}
    if fault == "remove-before-row":
        expected[other.id] = [second]
    assert listed(again) == expected
    again.images.RemoveImage(api_pb2.RemoveImageRequest(image=spec(second)))
    again.images.RemoveImage(api_pb2.RemoveImageRequest(image=spec(first)))
    wait_until(lambda: again.leftovers() == [])


@pytest.mark.parametrize("fault", ROOTFS_FAULTS)
def test_killed_with_a_root_filesystem(fault: str, daemon: Start, two: Any) -> None:
    (_, first), _ = two
    key = "a" * 64
    running = daemon(SETTINGS)
    pull(running, first)
    prepare = rootfs_pb2.PrepareRootfsRequest(key=key, image=first)
    remove = rootfs_pb2.RemoveRootfsRequest(key=key)
    if "remove" in fault:
        running.rootfs.PrepareRootfs(prepare)
    running.stop()
    running.start(fault).ready()
    if "remove" in fault:
        dies(running, lambda: running.rootfs.RemoveRootfs(remove))
    else:
        dies(running, lambda: running.rootfs.PrepareRootfs(prepare))
    again = after(running)
    keys = [item.key for item in again.rootfs.ListRootfs(rootfs_pb2.ListRootfsRequest()).items]
    assert keys == ([key] if fault in ("rootfs-after-row", "rootfs-remove-before-row") else [])
    made = again.rootfs.PrepareRootfs(prepare)
    assert os.listdir(made.overlay.upper) == []
    again.rootfs.RemoveRootfs(remove)
    again.images.RemoveImage(api_pb2.RemoveImageRequest(image=spec(first)))
    wait_until(lambda: again.leftovers() == [])


@pytest.mark.parametrize("fault", RECOVERY_FAULTS)
def test_killed_while_recovering(fault: str, daemon: Start, two: Any) -> None:
    (one, first), (_, second) = two
    running = daemon(SETTINGS)
    pull(running, first)
    running.stop()
    running.start("layer-before-row").ready()
    dies(running, lambda: pull(running, second))
    for _ in range(2):
        running.start(fault)
        assert running.died() == 137
    again = after(running)
    assert listed(again) == {one.id: [first]}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_killed_at_any_moment(seed: int, daemon: Start, registry: Any, two: Any) -> None:
    (one, first), (other, second) = two
    registry.rate = 600_000
    running = daemon(SETTINGS)
    for round in range(3):
        calls = [
            running.images.PullImage.future(api_pb2.PullImageRequest(image=spec(name)))
            for name in (first, second)
        ]
        time.sleep(0.03 + ((seed * 7 + round * 5) % 13) * 0.06)
        if round == 1:
            calls.append(running.images.RemoveImage.future(api_pb2.RemoveImageRequest(image=spec(first))))
            time.sleep(0.01 * seed)
        running.kill()
        running = after(running)
        assert set(listed(running)) <= {one.id, other.id}
    registry.rate = 0
    pull(running, first)
    pull(running, second)
    assert set(listed(running)) == {one.id, other.id}


# -- file systems of their own


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes and mounts small ext4 file systems on loop devices."""
    mounted: list[Path] = []

    def make(name: str, megabytes: int = 64, options: str = "", image: Path | None = None) -> Path:
        file = image or tmp_path / f"{name}.img"
        if image is None:
            with file.open("wb") as sized:
                sized.truncate(megabytes << 20)
            features = ["-O", "quota,project"] if "prjquota" in options else []
            subprocess.run(["mkfs.ext4", "-q", "-F", *features, file], check=True, capture_output=True)
        point = tmp_path / name
        point.mkdir()
        option = ",".join(filter(None, ["loop", options]))
        done = subprocess.run(["mount", "-o", option, file, point], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this kernel does not mount ext4 with {option}: {done.stderr.splitlines()[0]}")
        mounted.append(point)
        return point

    yield make
    for point in reversed(mounted):
        subprocess.run(["umount", "-l", point], check=True)


@pytest.mark.parametrize("fault", ["", *LOSS_FAULTS])
def test_power_loss(fault: str, daemon: Start, disk: Callable[..., Path], two: Any, tmp_path: Path) -> None:
    """What the disk holds at one moment, and not what the kernel was going to write later."""
    (one, first), (other, second) = two
    running = on_disk(daemon, disk("live"), "[pull]\nresume_bytes = 1\n")
    pull(running, first)
    removes = fault.startswith("remove")
    if removes:
        pull(running, second)
    if fault:
        running.stop()
        running.start(fault).ready()
        remove = api_pb2.RemoveImageRequest(image=spec(second))
        dies(running, lambda: running.images.RemoveImage(remove) if removes else pull(running, second))
    shutil.copyfile(tmp_path / "live.img", tmp_path / "lost.img")
    running.stop()
    again = after_loss(running, tmp_path / "live", disk("lost", image=tmp_path / "lost.img"))
    whole = {one.id: [first]}
    if fault in ("commit-after-row", "remove-before-row"):
        whole[other.id] = [second]
    assert listed(again) == whole
    pull(again, second)
    assert listed(again) == {one.id: [first], other.id: [second]}


def on_disk(daemon: Start, point: Path, settings: str) -> Any:
    """A daemon whose store is on a file system of its own, which it may fill."""
    running = daemon(f"{settings}[unpack]\nreserve_bytes = 0\n", ready=False)
    running.stop()
    running.config.write_text(running.config.read_text().replace(str(running.root), str(point / "root")))
    running.root = point / "root"
    return running.start().ready()


def after_loss(running: Any, point: Path, lost: Path) -> Any:
    """The daemon in another boot, on what a file system had on its disk."""
    with sqlite3.connect(lost / "root/store.db") as database:
        database.execute("UPDATE layers SET boot = 'another boot' WHERE boot != ''")
    database.close()
    running.config.write_text(running.config.read_text().replace(str(point), str(lost)))
    running.root = lost / "root"
    return after(running)


@pytest.mark.parametrize("free", [0, 8, 24, 48, 100, 200])
def test_a_disk_that_others_fill(
    free: int,
    daemon: Start,
    disk: Callable[..., Path],
    two: Any,
    registry: Any,
    make_image: Any,
    layer_of: Any,
) -> None:
    """Whatever is the first write that has no room, the pull alone fails; and images can be removed."""
    (one, first), _ = two
    layers = [layer_of({f"{n}/{m}": os.urandom(9000) for m in range(20)}) for n in range(2)]
    other = make_image(*layers)
    second = registry.add("other:1", other)
    point = disk("small", 32)
    running = on_disk(daemon, point, "[pull]\nresume_bytes = 1\n")
    pull(running, first)
    fill(point, leave=free << 10)
    with pytest.raises(grpc.RpcError) as failed:
        pull(running, second)
    assert failed.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, failed.value.details()
    wait_until(lambda: settled(running))
    assert listed(running) == {one.id: [first]}
    running.stop()
    running.start().ready()
    assert listed(running) == {one.id: [first]}
    running.images.RemoveImage(api_pb2.RemoveImageRequest(image=spec(first)))
    assert listed(running) == {}
    (point / "filler").unlink()
    pull(running, second)
    pull(running, first)
    assert listed(running) == {one.id: [first], other.id: [second]}


def fill(point: Path, *, leave: int) -> None:
    """Take all room of a file system but for some bytes."""
    with (point / "filler").open("wb", buffering=0) as filler:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while True:
                    filler.write(bytes(size))
        os.fsync(filler.fileno())
        filler.truncate(max(0, filler.tell() - leave))
        os.fsync(filler.fileno())


def test_a_full_disk_fails_one_pull(
    daemon: Start, disk: Callable[..., Path], two: Any, registry: Any, make_image: Any, layer_of: Any
) -> None:
    (one, first), _ = two
    big = registry.add("big:1", make_image(layer_of({f"{n}": os.urandom(1 << 20) for n in range(60)})))
    point = disk("small", 40)
    running = on_disk(daemon, point, "")
    pull(running, first)
    with pytest.raises(grpc.RpcError) as failed:
        pull(running, big)
    assert failed.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "space" in (failed.value.details() or "")
    wait_until(lambda: settled(running))
    assert listed(running) == {one.id: [first]}
    assert shutil.disk_usage(point).free > 20 << 20
    running.images.RemoveImage(api_pb2.RemoveImageRequest(image=spec(first)))
    pull(running, first)
    assert listed(running) == {one.id: [first]}


def test_a_size_limit_is_kept(daemon: Start, disk: Callable[..., Path], two: Any) -> None:
    (_, first), _ = two
    point = disk("quota", 64, "prjquota")
    running = on_disk(daemon, point, "")
    pull(running, first)
    uppers = []
    for number in range(2):
        request = rootfs_pb2.PrepareRootfsRequest(
            key=f"{number}" * 64, image=first, size_limit_bytes=4 << 20
        )
        uppers.append(Path(running.rootfs.PrepareRootfs(request).overlay.upper))
    with pytest.raises(OSError, match="quota"):
        (uppers[0] / "big").write_bytes(b"x" * (8 << 20))
    (uppers[1] / "small").write_bytes(b"x" * (1 << 20))
    items = running.rootfs.RootfsUsage(rootfs_pb2.RootfsUsageRequest()).items
    used = {item.key[0]: item.used_bytes for item in items}
    assert 3 << 20 < used["0"] <= 4 << 20 and 1 << 20 <= used["1"] < 2 << 20
    running.rootfs.RemoveRootfs(rootfs_pb2.RemoveRootfsRequest(key="0" * 64))
    request = rootfs_pb2.PrepareRootfsRequest(key="2" * 64, image=first, size_limit_bytes=6 << 20)
    upper = Path(running.rootfs.PrepareRootfs(request).overlay.upper)
    wait_until(lambda: not os.listdir(running.root / "trash"))
    (upper / "fits").write_bytes(b"x" * (5 << 20))
