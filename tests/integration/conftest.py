"""What several integration tests use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import DEADLINE, Driver


@pytest.fixture(params=["crun", "runc"])
def driver(live_stack: Stack, live_image: str, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Pods on the live daemons, by each of the two OCI runtimes; removed after the test."""
    with live_stack.images() as images:
        pull = cri.PullImageRequest(image=cri.ImageSpec(image=live_image))
        images.PullImage(pull, timeout=DEADLINE)
    with live_stack.runtime() as stub:
        made = Driver(stub, live_image, request.param)
        yield made
        made.clear()
