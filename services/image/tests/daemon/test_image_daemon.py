"""The daemon as the kubelet and the runtime daemon see it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from runtime.v1 import api_pb2
from triptych.image.v1 import image_pb2
from triptych.rootfs.v1 import rootfs_pb2

pytestmark = pytest.mark.integration

Start = Callable[..., Any]


def spec(name: str) -> api_pb2.ImageSpec:
    return api_pb2.ImageSpec(image=name)


def pull(running: Any, name: str) -> str:
    ref: str = running.images.PullImage(api_pb2.PullImageRequest(image=spec(name)), timeout=60).image_ref
    return ref


def status(running: Any, name: str, verbose: bool = False) -> api_pb2.ImageStatusResponse:
    found: api_pb2.ImageStatusResponse = running.images.ImageStatus(
        api_pb2.ImageStatusRequest(image=spec(name), verbose=verbose)
    )
    return found


def images(running: Any, name: str = "") -> list[api_pb2.Image]:
    filter = api_pb2.ImageFilter(image=spec(name))
    return list(running.images.ListImages(api_pb2.ListImagesRequest(filter=filter)).images)


def usage(running: Any) -> tuple[int, int]:
    found = running.images.ImageFsInfo(api_pb2.ImageFsInfoRequest())
    return (
        found.image_filesystems[0].used_bytes.value,
        found.container_filesystems[0].used_bytes.value,
    )


def test_a_cold_start_answers_at_once(daemon: Start) -> None:
    started = time.monotonic()
    running = daemon()
    found = running.images.ImageFsInfo(api_pb2.ImageFsInfoRequest())
    assert time.monotonic() - started < 20
    assert found.image_filesystems[0].fs_id.mountpoint == str(running.root)
    assert found.container_filesystems[0].fs_id.mountpoint == str(running.root)
    assert usage(running) == (0, 0)


def test_an_image_from_pull_to_removal(daemon: Start, registry: Any, make_image: Any, layer_of: Any) -> None:
    running = daemon()
    image = make_image(layer_of({"a": b"x" * 5000}), config={"User": "65532:0"}, annotations={"who": "me"})
    name = registry.add("x/y:1", image)
    assert pull(running, name) == image.id
    by_digest = f"{registry.address}/x/y@{image.digest}"
    (listed,) = images(running)
    assert (listed.id, list(listed.repo_tags), list(listed.repo_digests)) == (image.id, [name], [by_digest])
    assert (listed.uid.value, listed.username, listed.pinned) == (65532, "", False)
    assert listed.spec.annotations == {"who": "me"}
    for text in (
        name,
        by_digest,
        f"{name}@{image.digest}",
        image.id,
        image.id[7:],
        image.id[7:19],
        image.id[:19],
    ):
        assert status(running, text).image == listed, text
        assert images(running, text) == [listed]
    for text in ("", "Not A Name", f"{registry.address}/x/y:2", "0" * 64):
        assert not status(running, text).HasField("image"), text
    info = json.loads(status(running, name, verbose=True).info["info"])
    assert info["imageSpec"]["config"] == {"User": "65532:0"}
    assert info["chainID"].startswith("sha256:")
    assert usage(running)[0] == listed.size > 5000
    running.images.RemoveImage(api_pb2.RemoveImageRequest(image=spec(name)))
    running.images.RemoveImage(api_pb2.RemoveImageRequest(image=spec(name)))
    assert images(running) == [] and usage(running) == (0, 0)
    wait_until(lambda: running.leftovers() == [])


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_removing_one_tag_removes_all_of_that_image(
    daemon: Start, registry: Any, make_image: Any, layer_of: Any
) -> None:
    running = daemon()
    image = make_image(layer_of({"a": b"x"}))
    one, two = registry.add("x:1", image), registry.add("y:2", image)
    assert pull(running, one) == pull(running, two)
    (listed,) = images(running)
    assert list(listed.repo_tags) == sorted([one, two])
    running.images.RemoveImage(api_pb2.RemoveImageRequest(image=spec(two)))
    assert images(running) == []


def test_users_by_name_and_none(daemon: Start, registry: Any, make_image: Any, layer_of: Any) -> None:
    running = daemon()
    huge = "9" * 5000
    users = [
        ("www:www", None, "www"),
        ("", None, ""),
        ("0", 0, ""),
        (str((1 << 63) - 1), (1 << 63) - 1, ""),
        (str(1 << 63), None, str(1 << 63)),
        (huge, None, huge[:256]),
    ]
    for number, (user, uid, name) in enumerate(users):
        reference = registry.add(
            f"u{number}:1", make_image(layer_of({"a": b"%d" % number}), config={"User": user})
        )
        pull(running, reference)
        found = status(running, reference).image
        assert found.username == name
        assert (found.uid.value if found.HasField("uid") else None) == uid
    assert len(images(running)) == len(users)


def test_an_image_cannot_make_lists_too_long(
    daemon: Start, registry: Any, make_image: Any, layer_of: Any
) -> None:
    running = daemon()
    layer = layer_of({"a": b"x"})
    for number in range(2):
        notes = {"short": "x", **({"long": "x" * 3_000_000} if number else {})}
        config = {"User": f"u{number}" + ("x" * 3_000_000 if number else "")}
        pull(running, registry.add(f"n{number}:1", make_image(layer, config=config, annotations=notes)))
    assert sum(image.ByteSize() for image in images(running)) < 2000
    assert sorted(dict(image.spec.annotations).get("short", "") for image in images(running)) == ["", "x"]


def test_pinned_images_by_pattern(daemon: Start, registry: Any, make_image: Any, layer_of: Any) -> None:
    running = daemon(f'pinned = ["{registry.address}/pause:*"]')
    pause = registry.add("pause:3.10", make_image(layer_of({"pause": b"x"})))
    other = registry.add("other:1", make_image(layer_of({"other": b"x"})))
    pull(running, pause), pull(running, other)
    assert {image.repo_tags[0]: image.pinned for image in images(running)} == {pause: True, other: False}
    response = running.admin.Prune(image_pb2.PruneRequest(images=True))
    assert len(response.removed_images) == 1
    assert [image.repo_tags[0] for image in images(running)] == [pause]


def test_streams_of_images(daemon: Start, registry: Any, make_image: Any, layer_of: Any) -> None:
    running = daemon()
    name = registry.add("x:1", make_image(layer_of({"a": b"x"})))
    pull(running, name)
    chunks = list(running.images.StreamImages(api_pb2.StreamImagesRequest()))
    assert [image for chunk in chunks for image in chunk.images] == images(running)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("lower/Case", grpc.StatusCode.INVALID_ARGUMENT),
        ("", grpc.StatusCode.INVALID_ARGUMENT),
        ("{registry}/missing:1", grpc.StatusCode.NOT_FOUND),
        ("127.0.0.1:1/x:1", grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_what_cannot_be_pulled(daemon: Start, registry: Any, name: str, code: grpc.StatusCode) -> None:
    running = daemon("[registry]\nhost_seconds = 1\nattempts = 1\n")
    with pytest.raises(grpc.RpcError) as failed:
        pull(running, name.format(registry=registry.address))
    assert failed.value.code() == code
    if code is grpc.StatusCode.UNAVAILABLE:
        assert (failed.value.details() or "").startswith("RegistryUnavailable")


def test_progress_of_a_pull(daemon: Start, registry: Any, make_image: Any, layer_of: Any) -> None:
    running = daemon()
    image = make_image(layer_of({"a": os.urandom(400_000)}), layer_of({"b": b"y"}))
    name = registry.add("x:1", image)
    registry.rate = 400_000
    watch = running.admin.WatchPulls(image_pb2.WatchPullsRequest())
    told = list(running.admin.PullImage(api_pb2.PullImageRequest(image=spec(name)), timeout=60))
    assert told[-1].done and told[-1].image_id == image.id
    assert told[-1].stage == image_pb2.PULL_STAGE_DONE
    assert not any(message.done for message in told[:-1])
    received = [sum(layer.received_bytes for layer in message.layers) for message in told if message.layers]
    # The first message may come before the first byte.
    assert received == sorted(received) and received[0] < received[-1]
    assert received[-1] == sum(layer.total_bytes for layer in told[-1].layers)
    assert all(layer.stage == image_pb2.PULL_STAGE_DONE for layer in told[-1].layers)
    seen = []
    for message in watch:
        seen.append(message)
        if message.done:
            break
    watch.cancel()
    assert {message.reference for message in seen} == {name}
    failed = list(running.admin.PullImage(api_pb2.PullImageRequest(image=spec(name + "x"))))
    assert failed[-1].done and failed[-1].error_code == 5 and "not found" in failed[-1].error.lower()


def test_an_opaque_root_hides_all_layers_below(
    daemon: Start, registry: Any, make_image: Any, tar: Any, tmp_path: Path
) -> None:
    """overlayfs does not look at the mark of a root."""
    running = daemon()
    layers = [
        tar().directory(b"./", mode=0o711).directory(b"d", mode=0o700).file(b"d/old").file(b"old").end(),
        tar().file(b"older").symlink(b"link", b"d").end(),
        tar().file(b".wh..wh..opq").file(b"d/new", b"x").end(),
        tar().file(b"top", b"x").end(),
    ]
    name = registry.add("x:1", make_image(*layers))
    pull(running, name)
    made = running.rootfs.PrepareRootfs(rootfs_pb2.PrepareRootfsRequest(key="c" * 64, image=name))
    view = tmp_path / "view"
    view.mkdir()
    options = f"ro,lowerdir={':'.join(made.overlay.lower)}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "none", view], check=True)
    try:
        assert sorted(str(path.relative_to(view)) for path in view.rglob("*")) == ["d", "d/new", "top"]
        assert (view / "d").stat().st_mode & 0o777 == 0o755
        assert os.stat(made.overlay.upper).st_mode & 0o777 == 0o711
    finally:
        subprocess.run(["umount", view], check=True)
    found = list(running.admin.Verify(image_pb2.VerifyRequest()))
    assert all(item.ok and not item.problem for item in found) and len(found) == 7
    saved = image_pb2.SaveRequest(images=[name], path=str(tmp_path / "x.tar"))
    assert running.admin.Save(saved).bytes > 0


def test_root_filesystems(daemon: Start, registry: Any, make_image: Any, tar: Any) -> None:
    running = daemon()
    image = make_image(
        tar().directory(b"./", mode=0o711, uid=1).file(b"a", b"x").end(), config={"User": "5"}
    )
    name = registry.add("x:1", image)
    other = registry.add("y:1", make_image(tar().file(b"b", b"x").end()))
    pull(running, name), pull(running, other)
    key = "c" * 64
    request = rootfs_pb2.PrepareRootfsRequest(key=key, image=name)
    made = running.rootfs.PrepareRootfs(request)
    assert running.rootfs.PrepareRootfs(request) == made
    assert (made.image_id, made.image_ref) == (image.id, f"{registry.address}/x@{image.digest}")
    assert json.loads(made.image_config)["config"] == {"User": "5"}
    assert list(made.overlay.options) == ["volatile", "index=off"] and not made.overlay.idmap_lower
    upper = os.stat(made.overlay.upper)
    assert (upper.st_mode & 0o7777, upper.st_uid) == (0o711, 1)
    assert (Path(made.overlay.lower[0]) / "a").read_bytes() == b"x"
    with pytest.raises(grpc.RpcError) as failed:
        running.rootfs.PrepareRootfs(rootfs_pb2.PrepareRootfsRequest(key=key, image=other))
    assert failed.value.code() == grpc.StatusCode.ALREADY_EXISTS
    Path(made.overlay.upper, "written").write_bytes(b"z" * 100_000)
    (used,) = running.rootfs.RootfsUsage(rootfs_pb2.RootfsUsageRequest(keys=[key, "unknown"])).items
    assert used.used_bytes >= 100_000 and used.inodes_used == 2
    assert used.mountpoint == str(running.root)
    assert usage(running)[1] == used.used_bytes
    mapped = running.rootfs.PrepareRootfs(
        rootfs_pb2.PrepareRootfsRequest(
            key="d" * 64,
            image=name,
            mount_label="system_u:object_r:container_file_t:s0:c1,c2",
            uid_mappings=[rootfs_pb2.IdMapping(host_id=100_000, container_id=0, length=65536)],
            gid_mappings=[rootfs_pb2.IdMapping(host_id=200_000, container_id=0, length=65536)],
        )
    )
    upper = os.stat(mapped.overlay.upper)
    assert (upper.st_uid, upper.st_gid, mapped.overlay.idmap_lower) == (100_001, 200_000, True)
    assert mapped.overlay.options[0] == 'context="system_u:object_r:container_file_t:s0:c1,c2"'
    # an image that is in use can go, its layers stay until the last container does
    running.images.RemoveImage(api_pb2.RemoveImageRequest(image=spec(name)))
    assert (
        running.rootfs.PrepareRootfs(rootfs_pb2.PrepareRootfsRequest(key="e" * 64, image=other)).image_id
        != image.id
    )
    assert (Path(made.overlay.lower[0]) / "a").exists()
    listed = {
        item.key: item.image_id for item in running.rootfs.ListRootfs(rootfs_pb2.ListRootfsRequest()).items
    }
    assert listed[key] == image.id and len(listed) == 3
    for gone in (key, "d" * 64, "e" * 64, "unknown"):
        running.rootfs.RemoveRootfs(rootfs_pb2.RemoveRootfsRequest(key=gone))
    running.images.RemoveImage(api_pb2.RemoveImageRequest(image=spec(other)))
    wait_until(lambda: running.leftovers() == [])


@pytest.mark.parametrize(
    ("key", "image", "extra", "code"),
    [
        ("", "{name}", {}, grpc.StatusCode.INVALID_ARGUMENT),
        ("../../x", "{name}", {}, grpc.StatusCode.INVALID_ARGUMENT),
        ("k", "missing:1", {}, grpc.StatusCode.NOT_FOUND),
        ("k", "", {}, grpc.StatusCode.NOT_FOUND),
        ("k", "{name}", {"size_limit_bytes": 1 << 20}, grpc.StatusCode.FAILED_PRECONDITION),
        (
            "k",
            "{name}",
            {"uid_mappings": [rootfs_pb2.IdMapping(host_id=1, container_id=5, length=1)]},
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    ],
)
def test_root_filesystems_that_cannot_be(
    key: str,
    image: str,
    extra: Any,
    code: grpc.StatusCode,
    daemon: Start,
    registry: Any,
    make_image: Any,
    layer_of: Any,
) -> None:
    running = daemon()
    name = registry.add("x:1", make_image(layer_of({"a": b"x"})))
    pull(running, name)
    with pytest.raises(grpc.RpcError) as failed:
        running.rootfs.PrepareRootfs(
            rootfs_pb2.PrepareRootfsRequest(key=key, image=image.format(name=name), **extra)
        )
    assert failed.value.code() == code, failed.value.details()
    assert os.listdir(running.root / "rootfs") == []


def test_image_volumes(daemon: Start, registry: Any, make_image: Any, tar: Any) -> None:
    running = daemon()
    lower = tar().directory(b"d").file(b"d/gone", b"x").file(b"d/kept", b"x").symlink(b"in", b"/d").end()
    upper = (
        tar().directory(b"d").file(b"d/.wh.gone").symlink(b"out", b"../../etc").symlink(b"up", b"up").end()
    )
    name = registry.add("x:1", make_image(lower, upper))
    pull(running, name)

    def prepare(key: str, path: str) -> rootfs_pb2.PrepareImageVolumeResponse:
        request = rootfs_pb2.PrepareImageVolumeRequest(key=key, image=name, sub_path=path)
        made: rootfs_pb2.PrepareImageVolumeResponse = running.rootfs.PrepareImageVolume(request)
        return made

    made = prepare("c/0", "")
    assert len(made.overlay.lower) == 2 and not made.overlay.upper and made.sub_path == ""
    assert prepare("c/1", "/d/").sub_path == "d"
    assert prepare("c/2", "in/kept").sub_path == "in/kept"
    for path in ("d/gone", "missing", "d/kept/x", "out", "up", "../x"):
        with pytest.raises(grpc.RpcError) as failed:
            prepare("c/3", path)
        assert failed.value.code() == grpc.StatusCode.NOT_FOUND
        assert (failed.value.details() or "").startswith("ImageVolumeMountFailed")
    running.images.RemoveImage(api_pb2.RemoveImageRequest(image=spec(name)))
    assert Path(made.overlay.lower[0]).exists()
    running.rootfs.RemoveRootfs(rootfs_pb2.RemoveRootfsRequest(key="c", prefix=True))
    wait_until(lambda: running.leftovers() == [])


def test_a_caller_that_hangs_up_stops_its_pull(
    daemon: Start, registry: Any, make_image: Any, layer_of: Any
) -> None:
    running = daemon()
    name = registry.add("x:1", make_image(layer_of({"big": os.urandom(2_000_000)})))
    registry.rate = 200_000
    call = running.images.PullImage.future(api_pb2.PullImageRequest(image=spec(name)))
    wait_until(lambda: len(os.listdir(running.root / "tmp")) > 0)
    call.cancel()
    wait_until(lambda: not os.listdir(running.root / "tmp"))
    assert images(running) == []


def test_reload_takes_new_settings(daemon: Start, registry: Any, make_image: Any, layer_of: Any) -> None:
    import signal

    running = daemon()
    name = registry.add("x:1", make_image(layer_of({"a": b"x"})))
    pull(running, name)
    assert not images(running)[0].pinned
    running.config.write_text('pinned = ["*/x:*"]\n' + running.config.read_text())
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: images(running)[0].pinned)


def test_memory_when_idle(daemon: Start, registry: Any, make_image: Any, layer_of: Any) -> None:
    running = daemon("[unpack]\nidle_seconds = 0.1\n")
    pull(running, registry.add("x:1", make_image(layer_of({"a": os.urandom(5_000_000)}))))
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    wait_until(lambda: children.read_text() == "")
    rollup = Path(f"/proc/{running.process.pid}/smaps_rollup").read_text()
    private = sum(
        int(line.split()[1]) for line in rollup.splitlines() if line.startswith(("Private_", "SwapPss"))
    )
    assert private < 35_000, rollup
