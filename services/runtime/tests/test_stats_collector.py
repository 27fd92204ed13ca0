"""Rates, layer usage and whole messages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.v1 import api_pb2
from triptych_errors import Unavailable
from triptych_runtime.cgroups import Cgroup, Layout, Mode
from triptych_runtime.stats import (
    ContainerSubject,
    LayerUsage,
    PodSubject,
    StatsCollector,
    metric_descriptors,
)
from triptych_runtime.stats.families import FAMILIES
from triptych_runtime.stats.layers import LayerCache
from triptych_runtime.stats.rates import Rates
from triptych_runtime.stats.readers import CpuSample

SECOND = 1_000_000_000


def sample(seconds: float, cpu_seconds: float) -> CpuSample:
    return CpuSample(int(seconds * SECOND), int(cpu_seconds * SECOND), None)


def test_first_rate_is_over_the_life_of_the_container() -> None:
    rates = Rates()
    assert rates.nano_cores("a", sample(110, 5), started_at=100 * SECOND) == SECOND // 2
    assert rates.nano_cores("b", sample(110, 5), started_at=0) is None


def test_rate_between_two_readings() -> None:
    rates = Rates()
    rates.nano_cores("a", sample(100, 1), started_at=0)
    assert rates.nano_cores("a", sample(102, 2), started_at=0) == SECOND // 2
    # A reading right after another has too short a window of its own.
    assert rates.nano_cores("a", sample(102.01, 2), started_at=0) is not None
    rates.keep([])
    assert rates.nano_cores("a", sample(103, 2), started_at=0) is None


def test_rate_follows_when_usage_changes() -> None:
    rates = Rates()
    for second in range(100, 130):
        rates.nano_cores("a", sample(second, 0), started_at=0)
    for second in range(130, 152):
        last = rates.nano_cores("a", sample(second, second - 130), started_at=0)
    assert last is not None and abs(last - SECOND) < SECOND // 10


def test_a_counter_that_goes_back_gives_no_negative_rate() -> None:
    rates = Rates()
    rates.nano_cores("a", sample(100, 50), started_at=0)
    assert rates.nano_cores("a", sample(101, 1), started_at=0) == 0


class Layers:
    """A reader whose answers wait for `go`."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.calls: list[list[str]] = []
        self.fail = False

    async def __call__(self, ids: Sequence[str]) -> Mapping[str, LayerUsage]:
        self.calls.append(list(ids))
        await self.go.wait()
        if self.fail:
            raise Unavailable("the image daemon is away")
        return {i: LayerUsage(10 * len(self.calls), 2, 3, "/layers") for i in ids if i != "unknown"}


async def test_a_slow_walk_holds_nobody_up() -> None:
    layers = Layers()
    async with asyncio.TaskGroup() as tasks:
        cache = LayerCache(layers, tasks, first_wait=0.01)
        async with asyncio.timeout(1):
            assert await cache.get(["a", "b"]) == {}
            assert await cache.get(["a", "b"]) == {}
        layers.go.set()
        await asyncio.sleep(0.01)
        found = await cache.get(["a", "b"])
        assert found.keys() == {"a", "b"}
    assert layers.calls[0] == ["a", "b"]


async def test_old_usage_is_answered_while_it_is_measured_anew() -> None:
    layers = Layers()
    layers.go.set()
    async with asyncio.TaskGroup() as tasks:
        cache = LayerCache(layers, tasks, fresh=0)
        assert (await cache.get(["a"]))["a"].used_bytes == 10
        assert (await cache.get(["a"]))["a"].used_bytes == 10
        await asyncio.sleep(0.01)
        layers.fail = True
        assert (await cache.get(["a"]))["a"].used_bytes == 20
        await asyncio.sleep(0.01)
        # The last known answer outlives a failure of the image daemon.
        assert (await cache.get(["a"]))["a"].used_bytes == 20
        cache.keep([])
        layers.fail = False
        assert "unknown" not in await cache.get(["unknown"])


def tree(root: Path) -> Cgroup:
    for name, text in {
        "cpu.stat": "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 7\n",
        "memory.current": "1000\n",
        "memory.max": "4000\n",
        "memory.peak": "2000\n",
        "memory.stat": "anon 400\nfile 300\ninactive_file 250\nkernel 20\npgfault 12\n",
        "memory.events": "max 4\noom_kill 2\n",
        "memory.swap.current": "0\n",
        "memory.swap.max": "700\n",
        "memory.min": "600\n",
        "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2\n",
        "hugetlb.2MB.current": "0\n",
        "pids.current": "3\n",
        "pids.max": "max\n",
        "cgroup.procs": "",
        "io.pressure": "some avg10=0 avg60=0 avg300=0 total=3000000\n",
    }.items():
        (root / name).write_text(text)
    return Cgroup.at(Layout(Mode.UNIFIED, {}, root, {}), "/")


def pod(root: Path) -> PodSubject:
    group = tree(root)
    container = ContainerSubject(
        api_pb2.ContainerAttributes(id="c1", metadata=api_pb2.ContainerMetadata(name="web")),
        group,
        started_at=SECOND,
        image="busybox",
        resources=api_pb2.LinuxContainerResources(cpu_shares=512, memory_limit_in_bytes=-1),
    )
    meta = api_pb2.PodSandboxMetadata(name="pod", namespace="ns", uid="u")
    attributes = api_pb2.PodSandboxAttributes(id="p1", metadata=meta)
    return PodSubject(attributes, group, netns="/proc/self/ns/net", containers=(container,))


async def test_pod_stats(tmp_path: Path) -> None:
    layers = Layers()
    layers.go.set()
    async with asyncio.TaskGroup() as tasks:
        (stats,) = await StatsCollector(layers, tasks).pod_stats([pod(tmp_path)])
    assert stats.attributes.metadata.namespace == "ns"
    linux = stats.linux
    assert linux.cpu.usage_core_nano_seconds.value == 5 * SECOND
    assert linux.memory.available_bytes.value == 4000 - 750
    assert linux.io.psi.Some.Total == 3_000_000_000
    (container,) = linux.containers
    assert container.attributes.id == "c1"
    assert container.writable_layer.used_bytes.value == 10
    assert container.writable_layer.fs_id.mountpoint == "/layers"
    assert container.swap.HasField("swap_available_bytes")
    if linux.HasField("network"):
        assert linux.network.default_interface.name in [i.name for i in linux.network.interfaces]


async def test_stats_of_a_container_whose_cgroup_is_gone(tmp_path: Path) -> None:
    gone = Cgroup.at(Layout(Mode.UNIFIED, {}, tmp_path, {}), "/gone")
    subject = ContainerSubject(api_pb2.ContainerAttributes(id="c1"), gone)
    async with asyncio.TaskGroup() as tasks:
        (stats,) = await StatsCollector(None, tasks).container_stats([subject])
    assert stats.attributes.id == "c1"
    assert not stats.HasField("cpu") and not stats.HasField("memory") and not stats.HasField("swap")


def test_every_metric_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "resources.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `container_")]
    assert rows == [
        f"| `{family.name}` | {'counter' if family.kind == api_pb2.COUNTER else 'gauge'} "
        f"| {', '.join(f'`{label}`' for label in family.labels)} | {family.help} |"
        for family in FAMILIES
    ]


async def test_metrics_match_their_descriptors(tmp_path: Path) -> None:
    layers = Layers()
    layers.go.set()
    async with asyncio.TaskGroup() as tasks:
        (metrics,) = await StatsCollector(layers, tasks).pod_metrics([pod(tmp_path)])
    descriptors = {d.name: list(d.label_keys) for d in metric_descriptors()}
    assert len(descriptors) == len(metric_descriptors()) >= 55
    (container,) = metrics.container_metrics
    for metric in (*metrics.metrics, *container.metrics):
        assert len(metric.label_values) == len(descriptors[metric.name]), metric.name
    values = {(m.name, *m.label_values[6:]): m for m in container.metrics}
    assert values[("container_cpu_usage_seconds_total", "total")].value.value == 5
    assert values[("container_cpu_user_seconds_total",)].value.value == 3
    assert values[("container_memory_max_usage_bytes",)].value.value == 2000
    assert values[("container_oom_events_total",)].value.value == 2
    assert values[("container_pressure_io_waiting_seconds_total",)].value.value == 3
    assert values[("container_memory_failures_total", "pgfault", "container")].value.value == 12
    assert values[("container_threads",)].value.value == 3
    assert values[("container_threads_max",)].value.value == 0
    assert values[("container_hugetlb_usage_bytes", "2MB")].value.value == 0
    assert values[("container_spec_cpu_shares",)].value.value == 512
    assert values[("container_spec_memory_limit_bytes",)].value.value == 0
    assert values[("container_spec_memory_reservation_limit_bytes",)].value.value == 600
    assert values[("container_spec_memory_swap_limit_bytes",)].value.value == 700
    assert values[("container_start_time_seconds",)].value.value == 1
    labels = dict(
        zip(descriptors["container_threads"], values[("container_threads",)].label_values, strict=True)
    )
    assert labels == {
        "id": "/",
        "name": "c1",
        "image": "busybox",
        "container": "web",
        "pod": "pod",
        "namespace": "ns",
    }
    kinds = {m.metric_type for m in container.metrics}
    assert kinds == {api_pb2.COUNTER, api_pb2.GAUGE}
