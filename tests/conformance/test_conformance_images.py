"""What the CRI says of images, on the image endpoint and on the runtime's."""

from __future__ import annotations

from typing import Any

import pytest
from grpc import StatusCode
from runtime.v1 import api_pb2 as cri


def spec(image: str) -> cri.ImageSpec:
    return cri.ImageSpec(image=image)


async def test_an_image_by_all_its_names(node: Any) -> None:
    pulled = await node.images.PullImage(cri.PullImageRequest(image=spec(node.image)))
    image = (await node.images.ImageStatus(cri.ImageStatusRequest(image=spec(node.image)))).image
    assert image.id == pulled.image_ref
    assert image.id.startswith("sha256:")
    assert image.size > 0
    assert node.image in image.repo_tags
    for name in (image.id, image.id.removeprefix("sha256:"), *image.repo_digests):
        found = await node.images.ImageStatus(cri.ImageStatusRequest(image=spec(name)))
        assert found.image.id == image.id, name
    listed = (await node.images.ListImages(cri.ListImagesRequest())).images
    assert image.id in {i.id for i in listed}
    request = cri.ListImagesRequest(filter=cri.ImageFilter(image=spec(node.image)))
    assert [i.id for i in (await node.images.ListImages(request)).images] == [image.id]


async def test_an_unknown_image_is_no_error(node: Any) -> None:
    answer = await node.images.ImageStatus(cri.ImageStatusRequest(image=spec("127.0.0.1:1/none:v1")))
    assert not answer.HasField("image")
    await node.images.RemoveImage(cri.RemoveImageRequest(image=spec("127.0.0.1:1/none:v1")))


@pytest.mark.parametrize("name", ["", "lower/CASE:x", "host/name@sha256:short", "a//b"])
async def test_a_name_that_is_none_is_refused(node: Any, refused: Any, name: str) -> None:
    await refused(node.images.PullImage(cri.PullImageRequest(image=spec(name))), StatusCode.INVALID_ARGUMENT)


async def test_a_missing_tag_is_not_found(node: Any, refused: Any) -> None:
    name = node.image.rpartition(":")[0] + ":no-such-tag"
    message = await refused(
        node.images.PullImage(cri.PullImageRequest(image=spec(name))), StatusCode.NOT_FOUND
    )
    assert "no-such-tag" in message


async def test_the_runtime_endpoint_says_the_same(node: Any, live_stack: Any) -> None:
    from triptych_dev.kubelet import connect

    async with connect(live_stack.socket("runtime"), live_stack.socket("runtime")) as one:
        for call, request in (
            ("ListImages", cri.ListImagesRequest()),
            ("ImageStatus", cri.ImageStatusRequest(image=spec(node.image))),
        ):
            assert await getattr(one.images, call)(request) == await getattr(node.images, call)(request)


async def test_disk_usage(node: Any) -> None:
    answer = await node.images.ImageFsInfo(cri.ImageFsInfoRequest())
    usage = answer.image_filesystems[0]
    assert usage.timestamp > 0 and usage.fs_id.mountpoint
    assert usage.used_bytes.value > 0 and usage.inodes_used.value > 0


async def test_an_image_in_use_can_be_removed_and_its_container_lives(node: Any) -> None:
    pod = await node.pod()
    container = await pod.start("main")
    await node.images.RemoveImage(cri.RemoveImageRequest(image=spec(node.image)))
    assert not (await node.images.ImageStatus(cri.ImageStatusRequest(image=spec(node.image)))).HasField(
        "image"
    )
    assert (await pod.exec(container, "cat", "/www/index.html")).stdout == b"hello from triptych\n"
