"""What several integration tests use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import Driver, driving


@pytest.fixture(params=["crun", "runc"])
def driver(live_stack: Stack, live_image: str, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Pods on the live daemons, by each of the two OCI runtimes; removed after the test."""
    with driving(live_stack, live_image, request.param) as made:
        yield made
