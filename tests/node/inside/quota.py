"""A limit of the writable layer, kept by the kernel: a store on a disk with project quota."""

from __future__ import annotations

import contextlib
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.vm.inside import MIB, Node, eventually, systemctl

UNIT = "triptych-image.service"
POINT = Path("/var/lib/triptych-node/disk")
DISK = POINT.with_suffix(".img")
DROP_IN = Path(f"/run/systemd/system/{UNIT}.d/50-node-test.conf")
CONFIG = Path("/etc/triptych/image.toml.d/50-node-test.toml")
ANNOTATION = "triptych.dev/writable-layer-size"
LIMIT = 8 * MIB
FILESYSTEMS = {
    "ext4": (["mkfs.ext4", "-q", "-F", "-O", "quota,project"], "loop,prjquota"),
    "xfs": (["mkfs.xfs", "-q", "-f"], "loop,prjquota"),
    "ext4-without": (["mkfs.ext4", "-q", "-F"], "loop"),
}


@pytest.fixture
def disk(request: pytest.FixtureRequest, node: Node) -> Iterator[str]:
    """The image daemon on a disk of its own, with the test's image: the name of its file system."""
    make, options = FILESYSTEMS[request.param]
    with contextlib.ExitStack() as stack:
        with DISK.open("wb") as file:
            file.truncate(400 * MIB)
        stack.callback(DISK.unlink)
        subprocess.run([*make, DISK], check=True, capture_output=True)
        POINT.mkdir(exist_ok=True)
        subprocess.run(["mount", "-o", options, DISK, POINT], check=True)
        stack.callback(unmount)
        stack.callback(restart)
        for path, text in (
            (CONFIG, f'root = "{POINT}/image"\n[unpack]\nreserve_bytes = 0\n'),
            (DROP_IN, f"[Service]\nReadWritePaths={POINT}\n"),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            stack.callback(path.unlink)
        restart()
        pull(node)
        yield request.param


def unmount() -> None:
    """Give the disk back."""
    subprocess.run(["umount", POINT], check=True)


def restart() -> None:
    """Take up the drop-ins; returns when the daemon is ready."""
    systemctl("daemon-reload")
    systemctl("restart", UNIT)


def pull(node: Node) -> None:
    """The test's image into the store in use."""
    spec = cri.ImageSpec(image=node.facts["image"])
    with node.images() as images:
        images.PullImage(cri.PullImageRequest(image=spec), timeout=600, wait_for_ready=True)


def limited(config: cri.ContainerConfig) -> None:
    config.annotations[ANNOTATION] = str(LIMIT)


def fill(node: Node, container: str, mebibytes: int) -> tuple[int, str]:
    """Write a file of zeros in a container: dd's exit code and its words."""
    command = ["dd", "if=/dev/zero", "of=/fill", "bs=64k", f"count={mebibytes * 16}", "conv=fsync"]
    answer = node.call("ExecSync", cri.ExecSyncRequest(container_id=container, cmd=command, timeout=300))
    return answer.exit_code, answer.stderr.decode()


def used(node: Node, container: str) -> int:
    """Bytes of the writable layer, as the stats tell them."""
    request = cri.ContainerStatsRequest(container_id=container)
    return int(node.call("ContainerStats", request).stats.writable_layer.used_bytes.value)


@pytest.mark.parametrize("handler", ["crun", "runc"])
@pytest.mark.parametrize("disk", ["ext4", "xfs"], indirect=True)
def test_the_limit_is_kept_and_told(disk: str, handler: str, node: Node) -> None:
    """One container meets its limit, its neighbour does not notice, and what is removed is given back."""
    sandbox = node.run_pod("limited", handler=handler)
    try:
        container = node.run_container(sandbox, "small", change=limited)
        free = node.run_container(sandbox, "free")
        code, words = fill(node, container, 16)
        assert code != 0 and ("No space" in words or "quota" in words), words
        eventually(lambda: LIMIT // 2 < used(node, container) <= LIMIT)
        assert fill(node, free, 16)[0] == 0
        eventually(lambda: used(node, free) >= 16 * MIB)
        node.exec(container, "rm", "/fill")
        assert fill(node, container, 4)[0] == 0
        eventually(lambda: 4 * MIB <= used(node, container) < 6 * MIB)
        # What comes from the image counts when it is changed, and not before.
        assert (
            node.exec(container, "sh", "-c", "echo more >> /www/index.html; wc -l < /www/index.html")
            == "2\n"
        )
    finally:
        node.remove_pod(sandbox[0])


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_a_limit_outlives_the_daemon_and_its_number_is_free_again(disk: str, node: Node) -> None:
    sandbox = node.run_pod("limited")
    try:
        first = node.run_container(sandbox, "first", change=limited)
        systemctl("restart", UNIT)
        second = node.run_container(sandbox, "second", change=limited)
        for container in (first, second):
            assert fill(node, container, 16)[0] != 0
        remove(node, first)
        third = node.run_container(sandbox, "third", change=limited)
        assert fill(node, third, 7)[0] == 0
    finally:
        node.remove_pod(sandbox[0])


@pytest.mark.parametrize("disk", ["ext4-without"], indirect=True)
def test_a_limit_that_nobody_can_keep_is_refused(disk: str, node: Node) -> None:
    """And nothing of the container stays."""
    sandbox = node.run_pod("limited")
    try:
        with pytest.raises(grpc.RpcError) as caught:
            node.run_container(sandbox, "main", change=limited)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "prjquota" in (caught.value.details() or "")
        assert not node.call("ListContainers", cri.ListContainersRequest()).containers
        node.run_container(sandbox, "main")
    finally:
        node.remove_pod(sandbox[0])


def remove(node: Node, container: str) -> None:
    """Stop and remove."""
    node.call("StopContainer", cri.StopContainerRequest(container_id=container))
    node.call("RemoveContainer", cri.RemoveContainerRequest(container_id=container))


def test_the_store_is_back_where_it_was(node: Node) -> None:
    """After all these disks the node's own store is in use and whole."""
    with node.images() as images:
        listed = functools.partial(
            images.ListImages, cri.ListImagesRequest(), timeout=60, wait_for_ready=True
        )
        assert node.facts["image"] in [tag for item in listed().images for tag in item.repo_tags]
    assert str(POINT) not in Path("/proc/self/mountinfo").read_text()
