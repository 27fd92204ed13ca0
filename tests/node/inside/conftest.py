"""Fixtures of what runs inside the virtual node of `./dev test node`, never on a developer's machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from triptych_dev.demo import image
from triptych_dev.stack import Registry
from triptych_dev.vm.inside import Node


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests change the machine they run on."""
    here = Path(__file__).parent
    if any(here in item.path.parents for item in items) and not os.environ.get("TRIPTYCH_NODE_INSIDE"):
        raise pytest.UsageError("these tests belong into the virtual node: ./dev test node")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with the demo's image: the image's reference."""
    made = Registry(tmp_path_factory.mktemp("registry"))
    made.start()
    yield image.push(made.host)
    made.stop()


@pytest.fixture(scope="session")
def node() -> Node:
    """The node, with what was known of it before a reboot."""
    return Node.load()
