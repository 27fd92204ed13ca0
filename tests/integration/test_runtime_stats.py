"""Statistics and metrics of real pods: every field, the lists beside the streams, cAdvisor's names."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import pod_config
from triptych_dev.testing.driver import DEADLINE, Driver, Pod, refused, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

MEMORY = 64 << 20
#: Uses the CPU, memory and the writable layer, then waits.
WORK = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; head -c 3000000 /dev/zero >/f; touch /ready"
BUSY = ("sh", "-c", f"{WORK}; exec sleep 1000")


def busy(driver: Driver, name: str) -> tuple[Pod, str]:
    """A pod with a container that has done something."""
    pod = driver.run(pod_config(name, labels={"tier": name}))
    config = driver.config("app", BUSY, memory_bytes=MEMORY)
    config.labels["tier"], config.annotations["note"] = name, "1"
    container = driver.launch(pod, config)
    wait_until("it has worked", lambda: "ready" in driver.output(container, "ls", "/"))
    return pod, container


def container_stats(driver: Driver, container: str) -> Any:
    request = cri.ContainerStatsRequest(container_id=container)
    return driver.stub.ContainerStats(request, timeout=DEADLINE).stats


def test_of_a_container(driver: Driver) -> None:
    _, container = busy(driver, "measured")
    wait_until(
        "the layer was measured",
        lambda: container_stats(driver, container).writable_layer.used_bytes.value >= 3_000_000,
    )
    # A rate needs a tenth of a second between two readings, or since the start.
    wait_until("a rate", lambda: container_stats(driver, container).cpu.HasField("usage_nano_cores"))
    stats = container_stats(driver, container)
    assert (stats.attributes.id, stats.attributes.metadata.name) == (container, "app")
    assert stats.attributes.labels["tier"] == "measured"
    assert stats.attributes.annotations["note"] == "1"
    assert stats.cpu.usage_core_nano_seconds.value > 1_000_000
    assert stats.cpu.HasField("usage_nano_cores")
    memory = stats.memory
    assert 0 < memory.working_set_bytes.value <= memory.usage_bytes.value <= MEMORY
    assert memory.available_bytes.value == MEMORY - memory.working_set_bytes.value
    assert memory.rss_bytes.value > 0
    assert memory.page_faults.value > 0
    assert memory.HasField("major_page_faults")
    assert stats.writable_layer.inodes_used.value >= 2
    assert stats.writable_layer.fs_id.mountpoint
    stamps = [part.timestamp for part in (stats.cpu, memory, stats.writable_layer)]
    assert all(stamp > driver.status(container).created_at for stamp in stamps)
    for part in (stats.cpu, memory, stats.io):
        if part.HasField("psi"):  # where the kernel has it
            assert part.psi.Some.Total >= part.psi.Full.Total
            assert all(0 <= value <= 100 for value in (part.psi.Some.Avg10, part.psi.Full.Avg300))


def test_of_a_pod(driver: Driver) -> None:
    pod, container = busy(driver, "pod")
    address = driver.stub.PodSandboxStatus(
        cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id), timeout=DEADLINE
    ).status.network.ip
    driver.output(container, "ping", "-c", "1", "-W", "5", address.rpartition(".")[0] + ".1")
    request = cri.PodSandboxStatsRequest(pod_sandbox_id=pod.id)
    stats = driver.stub.PodSandboxStats(request, timeout=DEADLINE).stats
    assert (stats.attributes.id, stats.attributes.metadata) == (pod.id, pod.config.metadata)
    assert stats.attributes.labels["tier"] == "pod"
    linux = stats.linux
    own = linux.containers[0]
    assert [c.attributes.id for c in linux.containers] == [container]
    assert linux.cpu.usage_core_nano_seconds.value >= own.cpu.usage_core_nano_seconds.value
    assert linux.memory.working_set_bytes.value > 0
    interface = linux.network.default_interface
    assert interface.name == "eth0"
    assert interface.rx_bytes.value > 0 and interface.tx_bytes.value > 0
    assert interface.HasField("rx_errors") and interface.HasField("tx_errors")
    assert linux.process.process_count.value == 1
    for part in (linux.cpu, linux.memory, linux.network, linux.process):
        assert part.timestamp > 0


def test_lists_filters_and_streams(driver: Driver) -> None:
    (one, first), (_, second) = busy(driver, "one"), busy(driver, "two")
    ended = driver.launch(one, driver.config("ended", ("true",)))
    driver.wait_exited(ended)
    stopped = driver.run("stopped")
    driver.stop_pod(stopped)

    def containers(**filters: Any) -> list[str]:
        chosen = cri.ContainerStatsFilter(**filters)
        request = cri.ListContainerStatsRequest(filter=chosen)
        listed = driver.stub.ListContainerStats(request, timeout=DEADLINE).stats
        stream = driver.stub.StreamContainerStats(
            cri.StreamContainerStatsRequest(filter=chosen), timeout=DEADLINE
        )
        streamed = [stats.attributes.id for part in stream for stats in part.container_stats]
        assert sorted(streamed) == sorted(stats.attributes.id for stats in listed)
        return streamed

    def pods(**filters: Any) -> list[str]:
        chosen = cri.PodSandboxStatsFilter(**filters)
        request = cri.ListPodSandboxStatsRequest(filter=chosen)
        listed = driver.stub.ListPodSandboxStats(request, timeout=DEADLINE).stats
        stream = driver.stub.StreamPodSandboxStats(
            cri.StreamPodSandboxStatsRequest(filter=chosen), timeout=DEADLINE
        )
        streamed = [stats.attributes.id for part in stream for stats in part.pod_sandbox_stats]
        assert sorted(streamed) == sorted(stats.attributes.id for stats in listed)
        return streamed

    assert set(containers()) == {first, second}
    assert containers(id=first[:20]) == [first]
    assert containers(pod_sandbox_id=one.id) == [first]
    assert containers(label_selector={"tier": "two"}) == [second]
    assert containers(id=first, label_selector={"tier": "two"}) == []
    assert stopped.id not in pods()
    assert pods(id=one.id[:20]) == [one.id]
    assert pods(label_selector={"tier": "one"}) == [one.id]
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
        request = cri.PodSandboxStatsRequest(pod_sandbox_id=stopped.id)
        driver.stub.PodSandboxStats(request, timeout=DEADLINE)
    assert stopped.id in refusal.text


#: What a monitoring stack made for cAdvisor asks for first, of a container and of a pod.
OF_CONTAINERS = {
    "container_cpu_usage_seconds_total",
    "container_cpu_cfs_throttled_periods_total",
    "container_memory_working_set_bytes",
    "container_memory_usage_bytes",
    "container_memory_rss",
    "container_memory_cache",
    "container_fs_usage_bytes",
    "container_processes",
    "container_threads",
    "container_start_time_seconds",
    "container_last_seen",
    "container_spec_memory_limit_bytes",
    "container_oom_events_total",
}
OF_PODS = {
    "container_cpu_usage_seconds_total",
    "container_memory_working_set_bytes",
    "container_network_receive_bytes_total",
    "container_network_transmit_bytes_total",
}


def test_metrics_have_the_names_of_cadvisor(driver: Driver) -> None:
    pod, container = busy(driver, "metrics")
    described = driver.stub.ListMetricDescriptors(cri.ListMetricDescriptorsRequest(), timeout=DEADLINE)
    labels = {descriptor.name: list(descriptor.label_keys) for descriptor in described.descriptors}
    assert all(descriptor.help for descriptor in described.descriptors)

    def metrics() -> Any:
        request = cri.ListPodSandboxMetricsRequest()
        answer = driver.stub.ListPodSandboxMetrics(request, timeout=DEADLINE).pod_metrics
        return next(entry for entry in answer if entry.pod_sandbox_id == pod.id)

    def names(found: Any) -> set[str]:
        return {metric.name for metric in found}

    wait_until(
        "the layer was measured",
        lambda: "container_fs_usage_bytes" in names(metrics().container_metrics[0].metrics),
    )
    entry = metrics()
    assert [of.container_id for of in entry.container_metrics] == [container]
    own = entry.container_metrics[0].metrics
    assert names(own) >= OF_CONTAINERS
    assert names(entry.metrics) >= OF_PODS
    for metric in (*own, *entry.metrics):
        keys = labels[metric.name]
        assert len(metric.label_values) == len(keys), metric.name
        told = dict(zip(keys, metric.label_values, strict=True))
        assert (told["pod"], told["namespace"]) == ("metrics", "default")
        assert told.get("cpu") == ("total" if metric.name == "container_cpu_usage_seconds_total" else None)
        assert metric.timestamp > 0
        counts = metric.name.endswith("_total") and metric.name != "container_fs_inodes_total"
        assert metric.metric_type == (cri.COUNTER if counts else metric.metric_type)
    told = dict(zip(labels[own[0].name], own[0].label_values, strict=True))
    assert (told["container"], told["name"], told["image"]) == ("app", container, driver.image)
    limit = next(metric for metric in own if metric.name == "container_spec_memory_limit_bytes")
    assert (limit.value.value, limit.metric_type) == (MEMORY, cri.GAUGE)
    stream = driver.stub.StreamPodSandboxMetrics(cri.StreamPodSandboxMetricsRequest(), timeout=DEADLINE)
    assert pod.id in [one.pod_sandbox_id for part in stream for one in part.pod_sandbox_metrics]
