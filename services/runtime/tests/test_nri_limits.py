"""Resources between NRI and the CRI."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nri.v1alpha1 import nri_pb2
from runtime.v1.api_pb2 import HugepageLimit, LinuxContainerResources
from triptych_runtime.errors import AdjustmentRefused
from triptych_runtime.model import ContainerRecord
from triptych_runtime.node import Node
from triptych_runtime.nri.limits import as_update, from_cri, to_cri
from triptych_runtime.resources import update_spec
from triptych_runtime.spec import CgroupVersion, HostFacts, validate_resources

V1 = HostFacts(cgroup_version=CgroupVersion.V1)
V2 = HostFacts()


def limits() -> LinuxContainerResources:
    return LinuxContainerResources(
        cpu_shares=512,
        cpu_quota=-1,
        cpu_period=1000,
        cpuset_cpus="0-1",
        cpuset_mems="0",
        memory_limit_in_bytes=1 << 20,
        memory_swap_limit_in_bytes=2 << 20,
        hugepage_limits=[HugepageLimit(page_size="2MB", limit=7)],
        unified={"memory.high": "7"},
    )


def resources(**fields: Any) -> nri_pb2.LinuxResources:
    """Of memory_X, cpu_X and fields of the message."""
    made = nri_pb2.LinuxResources()
    for field, value in fields.items():
        part, _, name = field.partition("_")
        getattr(getattr(made, part), name).value = value
    return made


def test_there_and_back() -> None:
    told = {field.name for field, _ in limits().ListFields()}
    assert told == {*LinuxContainerResources.DESCRIPTOR.fields_by_name} - {"oom_score_adj"}
    assert to_cri(from_cri(limits())) == limits()
    assert from_cri(LinuxContainerResources()) == nri_pb2.LinuxResources()
    assert not from_cri(LinuxContainerResources()).ListFields()
    assert as_update(from_cri(limits()), V2) == limits()


def test_numbers_above_what_the_cri_holds() -> None:
    huge = (1 << 64) - 1
    made = to_cri(resources(cpu_shares=huge, cpu_period=huge))
    assert (made.cpu_shares, made.cpu_period) == (262144, (1 << 63) - 1)


def test_an_update_of_what_the_cri_has_not() -> None:
    wanted = resources(memory_reservation=7, cpu_quota=0, memory_use_hierarchy=True)
    wanted.pids.limit = 9
    made = as_update(wanted, V2)
    assert made.cpu_quota == -1
    assert dict(made.unified) == {"memory.low": "7", "pids.max": "9"}
    validate_resources(made, "resources")
    wanted.pids.limit = -1
    assert as_update(wanted, V2).unified["pids.max"] == "max"


async def test_an_update_before_the_start_keeps_what_plugins_set(tmp_path: Path) -> None:
    pages = [{"pageSize": "1GB", "limit": 1}, {"pageSize": "2MB", "limit": 1}]
    memory = {"limit": 1, "reservation": 1}
    held = {"devices": [{"allow": False}], "pids": {"limit": 9}, "memory": memory, "hugepageLimits": pages}
    document = {"linux": {"resources": held}, "annotations": {}, "process": {}}
    (tmp_path / "config.json").write_text(json.dumps(document))
    node = SimpleNamespace(
        host=V2,
        paths=SimpleNamespace(bundle=lambda _id: tmp_path),
        cgroups=SimpleNamespace(spec_annotations=lambda _limits: {}),
    )
    await update_spec(cast(Node, node), cast(ContainerRecord, SimpleNamespace(id="c")), limits())
    made = json.loads((tmp_path / "config.json").read_text())["linux"]["resources"]
    assert (made["pids"], made["devices"]) == (held["pids"], held["devices"])
    assert made["memory"] == {"limit": 1 << 20, "swap": 2 << 20, "reservation": 1}
    assert made["hugepageLimits"] == [pages[0], {"pageSize": "2MB", "limit": 7}]


@pytest.mark.parametrize(
    ("wanted", "host", "why"),
    [
        (resources(memory_swappiness=1), V2, "linux.resources.memory.swappiness: cgroup v2 has no"),
        (resources(memory_swappiness=1), V1, "linux.resources: swappiness can be set at creation only"),
        (resources(memory_reservation=1), V1, "linux.resources.memory.reservation: can be set at creation"),
        (nri_pb2.LinuxResources(pids=nri_pb2.LinuxPids(limit=1)), V1, "linux.resources.pids: can be set at"),
        (
            nri_pb2.LinuxResources(rdt_class=nri_pb2.OptionalString(value="gold")),
            V2,
            "linux.resources.rdt_class: no classes are configured, so not 'gold'",
        ),
    ],
)
def test_no_update(wanted: nri_pb2.LinuxResources, host: HostFacts, why: str) -> None:
    with pytest.raises(AdjustmentRefused, match=why):
        as_update(wanted, host)
