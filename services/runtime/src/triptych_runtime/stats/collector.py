"""Takes statistics of many containers or pods in one visit to a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence

from runtime.v1 import api_pb2

from triptych_runtime.stats import messages, metrics, readers
from triptych_runtime.stats.layers import LayerCache
from triptych_runtime.stats.network import read_interfaces
from triptych_runtime.stats.rates import Rates
from triptych_runtime.stats.subjects import ContainerSubject, LayerReader, LayerUsage, PodSubject


class StatsCollector:
    """Statistics as CRI messages.

    What cannot be read (the cgroup is gone, the kernel does not count it) is left unset; nothing here
    fails because of one container.

    :param layers: usage of writable layers; None for none.
    :param tasks: owns background work, that of the layer usage.
    """

    def __init__(self, layers: LayerReader | None, tasks: asyncio.TaskGroup) -> None:
        self._layers = LayerCache(layers, tasks)
        self._rates = Rates()

    async def container_stats(self, subjects: Sequence[ContainerSubject]) -> list[api_pb2.ContainerStats]:
        """ContainerStats of each subject, in their order."""
        layers = await self._layers.get([subject.id for subject in subjects])
        return await asyncio.to_thread(self._containers, subjects, layers)

    async def pod_stats(self, subjects: Sequence[PodSubject]) -> list[api_pb2.PodSandboxStats]:
        """PodSandboxStats of each subject, in their order, with those of its containers."""
        layers = await self._layers.get([item.id for subject in subjects for item in subject.containers])
        return await asyncio.to_thread(lambda: [self._pod(subject, layers) for subject in subjects])

    async def pod_metrics(self, subjects: Sequence[PodSubject]) -> list[api_pb2.PodSandboxMetrics]:
        """PodSandboxMetrics of each subject, in their order; see `metric_descriptors`."""
        layers = await self._layers.get([item.id for subject in subjects for item in subject.containers])
        return await asyncio.to_thread(lambda: [metrics.pod_metrics(s, layers) for s in subjects])

    def keep(self, ids: Collection[str]) -> None:
        """Forget everything about containers and pods that are not among these."""
        self._rates.keep(ids)
        self._layers.keep(ids)

    def _containers(
        self, subjects: Sequence[ContainerSubject], layers: Mapping[str, LayerUsage]
    ) -> list[api_pb2.ContainerStats]:
        return [self._container(subject, layers.get(subject.id)) for subject in subjects]

    def _container(self, subject: ContainerSubject, layer: LayerUsage | None) -> api_pb2.ContainerStats:
        stats = api_pb2.ContainerStats(attributes=subject.attributes)
        cpu = readers.read_cpu(subject.cgroup)
        if cpu is not None:
            rate = self._rates.nano_cores(subject.id, cpu, subject.started_at)
            stats.cpu.MergeFrom(messages.cpu_message(cpu, rate))
        memory = readers.read_memory(subject.cgroup)
        if memory is not None:
            stats.memory.MergeFrom(messages.memory_message(memory))
            swap = messages.swap_message(memory)
            if swap is not None:
                stats.swap.MergeFrom(swap)
        io = readers.read_io(subject.cgroup)
        if io is not None:
            stats.io.MergeFrom(messages.io_message(io))
        if layer is not None:
            stats.writable_layer.MergeFrom(messages.layer_message(layer))
        return stats

    def _pod(self, subject: PodSubject, layers: Mapping[str, LayerUsage]) -> api_pb2.PodSandboxStats:
        stats = api_pb2.PodSandboxStats(attributes=subject.attributes)
        linux = stats.linux
        cpu = readers.read_cpu(subject.cgroup)
        if cpu is not None:
            rate = self._rates.nano_cores(subject.id, cpu, subject.created_at)
            linux.cpu.MergeFrom(messages.cpu_message(cpu, rate))
        memory = readers.read_memory(subject.cgroup)
        if memory is not None:
            linux.memory.MergeFrom(messages.memory_message(memory))
        io = readers.read_io(subject.cgroup)
        if io is not None:
            linux.io.MergeFrom(messages.io_message(io))
        if subject.netns:
            pids = [item.pid for item in subject.containers if item.pid]
            interfaces = read_interfaces(subject.netns, pids)
            if interfaces:
                linux.network.MergeFrom(messages.network_message(time.time_ns(), interfaces))
        linux.process.timestamp = time.time_ns()
        linux.process.process_count.value = len(subject.cgroup.procs())
        linux.containers.extend(self._containers(subject.containers, layers))
        return stats
