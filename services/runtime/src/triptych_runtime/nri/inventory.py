"""What there is and what is about to be, for plugins that come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from nri.v1alpha1 import nri_pb2 as nri

from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxRecord
from triptych_runtime.nri.messages import Document, container_message, pod_message
from triptych_runtime.nri.nobody import NoPlugins

ReadDocument = Callable[[str], Document | None]

_TOLD = (ContainerPhase.CREATED, ContainerPhase.STARTING, ContainerPhase.RUNNING)


class Inventory:
    """Pods and containers, with those that are in no list yet but too far for a plugin to be asked about.

    :param sandboxes, containers: the records that are there.
    :param document: reads a container's OCI spec, None when it is gone; called in a thread.
    :param coming: has those.
    """

    def __init__(
        self,
        sandboxes: Callable[[], Sequence[SandboxRecord]],
        containers: Callable[[], Sequence[ContainerRecord]],
        document: ReadDocument,
        coming: NoPlugins,
    ) -> None:
        self._sandboxes = sandboxes
        self._containers = containers
        self._document = document
        self._coming = coming

    async def collect(self) -> tuple[Sequence[nri.PodSandbox], Sequence[nri.Container]]:
        """All of them, as plugins are told."""
        there = {sandbox.id: sandbox for sandbox in self._sandboxes() if sandbox.visible}
        pods = [pod_message(sandbox) for sandbox in (self._coming.coming_pods | there).values()]
        known = {record.id: record for record in self._containers() if record.phase in _TOLD}
        containers = list((self._coming.coming_containers | known).values())

        def work() -> list[nri.Container]:
            return [each if isinstance(each, nri.Container) else self.message(each) for each in containers]

        return pods, await asyncio.to_thread(work)

    def message(self, record: ContainerRecord) -> nri.Container:
        """A container; reads its document."""
        return container_message(record, self._document(record.id))
