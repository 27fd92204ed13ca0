"""Devices of containers in user namespaces, for OCI runtimes that bind them by their path."""

from __future__ import annotations

from typing import Any

import pytest
from triptych_errors import FailedPrecondition
from triptych_runtime.spec import HandlerFeatures
from triptych_runtime.spec.userns_devices import bind_renamed

RUNC = HandlerFeatures(name="runc")


def node(path: str, major: int, minor: int, kind: str = "c") -> dict[str, Any]:
    return {"path": path, "type": kind, "major": major, "minor": minor}


def document(*nodes: dict[str, Any], mapped: bool = True) -> dict[str, Any]:
    mounts = [{"destination": path} for path in ("/dev", "/a/b/c/d")]
    return {"mounts": mounts, "linux": {"devices": list(nodes), "uidMappings": [{}] if mapped else []}}


def test_one_with_another_name_is_bound_by_its_own() -> None:
    # /dev/null of the host is another device than the container is to have there.
    made = document(node("/dev/zero", 1, 5), node("/dev/null", 1, 7), node("/dev/fifo", 0, 0, "p"))
    bind_renamed(made, RUNC)
    assert [entry["path"] for entry in made["linux"]["devices"]] == ["/dev/zero", "/dev/fifo"]
    destinations = [mount["destination"] for mount in made["mounts"]]
    assert destinations == ["/dev", "/dev/null", "/a/b/c/d"]
    mount = made["mounts"][1]
    assert (mount["source"], mount["options"][:2]) == ("/dev/full", ["bind", "rprivate"])


@pytest.mark.parametrize("handler", [HandlerFeatures(name="crun"), RUNC])
def test_it_is_left_alone_where_nodes_are_made(handler: HandlerFeatures) -> None:
    made = document(node("/dev/mine", 1, 7), mapped=handler.name == "crun")
    bind_renamed(made, handler)
    assert len(made["mounts"]) == 2
    assert len(made["linux"]["devices"]) == 1


def test_one_that_the_host_has_nowhere_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match=r"/dev/none: .*249:1234, which runc"):
        bind_renamed(document(node("/dev/none", 249, 1234)), RUNC)
