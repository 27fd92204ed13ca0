"""The Node Resource Interface, as the RPCs use it, with plugins: each function tells them of one event."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from google.protobuf.message import Message
from nri.v1alpha1 import nri_pb2 as nri
from runtime.v1 import api_pb2
from triptych_errors import TriptychError
from triptych_service.tracing import span

from triptych_runtime.errors import RefusedByPlugin
from triptych_runtime.model import ContainerRecord, SandboxRecord
from triptych_runtime.nri.events import Event
from triptych_runtime.nri.inventory import Inventory, ReadDocument
from triptych_runtime.nri.limits import as_update, from_cri
from triptych_runtime.nri.merge import CreateMerge, UpdateMerge
from triptych_runtime.nri.messages import Document, container_message, pod_message
from triptych_runtime.nri.nobody import NoPlugins
from triptych_runtime.nri.plugins import Plugins, Told
from triptych_runtime.nri.settings import NriSettings
from triptych_runtime.nri.validate import validate
from triptych_runtime.spec import HostFacts

log = logging.getLogger(__name__)

Resize = Callable[[str, api_pb2.LinuxContainerResources], Awaitable[None]]


class Nri(NoPlugins):
    """The plugins, and what they know.

    :param sandboxes, containers, document: see `Inventory`.
    :param told: see `Plugins`.
    :param resize: changes a container's limits.
    :param before: whose place it takes.
    """

    def __init__(
        self,
        settings: Callable[[], NriSettings],
        host: HostFacts,
        sandboxes: Callable[[], Sequence[SandboxRecord]],
        containers: Callable[[], Sequence[ContainerRecord]],
        document: ReadDocument,
        told: Told,
        resize: Resize,
        before: NoPlugins | None = None,
    ) -> None:
        super().__init__()
        if before is not None:
            self.coming_pods = before.coming_pods
            self.coming_containers = before.coming_containers
        self._settings = settings
        self._host = host
        self._resize = resize
        self._inventory = Inventory(sandboxes, containers, document, self)
        self.plugins = Plugins(settings, self._inventory.collect, self._update, told)
        self._ended: dict[str, asyncio.Event] = {}
        """By ID: set when its stop was told. That is told once."""

    @property
    def active(self) -> bool:
        """Whether anybody wants to be asked."""
        return bool(self.plugins) or self._settings().validates

    @property
    def names(self) -> list[str]:
        return [str(each) for each in self.plugins.identities]

    # Pods

    async def run_pod_sandbox(self, sandbox: SandboxRecord) -> None:
        if self.active:
            await self._ask(nri.RUN_POD_SANDBOX, nri.RunPodSandboxRequest(pod=pod_message(sandbox)))
        await super().run_pod_sandbox(sandbox)

    async def update_pod_sandbox(
        self,
        sandbox: SandboxRecord,
        overhead: api_pb2.LinuxContainerResources | None,
        resources: api_pb2.LinuxContainerResources | None,
    ) -> None:
        if self.plugins:
            request = nri.UpdatePodSandboxRequest(
                pod=pod_message(sandbox),
                overhead_linux_resources=from_cri(overhead) if overhead is not None else None,
                linux_resources=from_cri(resources) if resources is not None else None,
            )
            await self._ask(nri.UPDATE_POD_SANDBOX, request)

    async def pod_sandbox_updated(self, sandbox: SandboxRecord) -> None:
        if self.plugins:
            request = nri.PostUpdatePodSandboxRequest(pod=pod_message(sandbox))
            await self._tell(nri.POST_UPDATE_POD_SANDBOX, request)

    async def stop_pod_sandbox(self, sandbox: SandboxRecord) -> None:
        if self.plugins:
            request = nri.StopPodSandboxRequest(pod=pod_message(sandbox))
            await self._once(sandbox.id, lambda: self._tell(nri.STOP_POD_SANDBOX, request))

    async def remove_pod_sandbox(self, sandbox: SandboxRecord) -> None:
        await super().remove_pod_sandbox(sandbox)
        try:
            if self.plugins:
                await self.stop_pod_sandbox(sandbox)
                request = nri.RemovePodSandboxRequest(pod=pod_message(sandbox))
                await self._tell(nri.REMOVE_POD_SANDBOX, request)
        finally:
            self._ended.pop(sandbox.id, None)

    # Containers

    async def create_container(
        self, sandbox: SandboxRecord, container: ContainerRecord, document: Document
    ) -> nri.ContainerAdjustment | None:
        if not self.active:
            return None
        request = nri.CreateContainerRequest(
            pod=pod_message(sandbox), container=container_message(container, document)
        )
        merge = CreateMerge(request)
        with span("nri create container", container=container.id):
            async with self.plugins.lock:
                await self.plugins.relay(nri.CREATE_CONTAINER, request, merge.apply)
                await self._judge(merge)
                self.coming_containers[container.id] = request.container
        answer = merge.response()
        await self._update(answer.update)
        return answer.adjust

    async def _judge(self, merge: CreateMerge) -> None:
        question = merge.validation(
            nri.PluginInstance(name=each.name, index=each.index) for each in self.plugins.identities
        )
        why = validate(self._settings().validator, question) or await self.plugins.judge(question)
        if why:
            raise RefusedByPlugin(f"create container {question.container.name!r}: refused by NRI: {why}")

    async def container_created(self, sandbox: SandboxRecord, container: ContainerRecord) -> None:
        await super().container_created(sandbox, container)
        await self._tell_of(nri.POST_CREATE_CONTAINER, nri.PostCreateContainerRequest, sandbox, container)

    async def start_container(self, sandbox: SandboxRecord, container: ContainerRecord) -> None:
        if self.plugins.wants(nri.START_CONTAINER):
            await self._ask(
                nri.START_CONTAINER, await self._request(nri.StartContainerRequest, sandbox, container)
            )

    async def container_started(self, sandbox: SandboxRecord, container: ContainerRecord) -> None:
        await self._tell_of(nri.POST_START_CONTAINER, nri.PostStartContainerRequest, sandbox, container)

    async def update_container(
        self, sandbox: SandboxRecord, container: ContainerRecord, wanted: api_pb2.LinuxContainerResources
    ) -> api_pb2.LinuxContainerResources:
        if not self.plugins:
            return wanted
        request = await self._request(nri.UpdateContainerRequest, sandbox, container)
        request.linux_resources.CopyFrom(from_cri(wanted))
        merge = UpdateMerge(request)
        async with self.plugins.lock:
            await self.plugins.relay(nri.UPDATE_CONTAINER, request, merge.apply)
        changes, others = wanted, []
        for update in merge.response().update:
            if update.container_id == container.id:
                changes = as_update(update.linux.resources, self._host)
                changes.oom_score_adj = wanted.oom_score_adj
            else:
                others.append(update)
        await self._update(others)
        return changes

    async def container_updated(self, sandbox: SandboxRecord, container: ContainerRecord) -> None:
        await self._tell_of(nri.POST_UPDATE_CONTAINER, nri.PostUpdateContainerRequest, sandbox, container)

    async def stop_container(self, sandbox: SandboxRecord, container: ContainerRecord) -> None:
        async def tell() -> None:
            if not self.plugins.wants(nri.STOP_CONTAINER):
                return
            request = await self._request(nri.StopContainerRequest, sandbox, container)
            merge = UpdateMerge(None)
            await self._tell(nri.STOP_CONTAINER, request, merge.apply)
            await self._update(merge.response().update)

        if self.plugins:
            await self._once(container.id, tell)

    async def remove_container(self, sandbox: SandboxRecord, container: ContainerRecord) -> None:
        await super().remove_container(sandbox, container)
        try:
            if self.plugins:
                await self.stop_container(sandbox, container)
                await self._tell_of(nri.REMOVE_CONTAINER, nri.RemoveContainerRequest, sandbox, container)
        finally:
            self._ended.pop(container.id, None)

    # What these have in common

    async def _request(self, kind: type[Any], sandbox: SandboxRecord, container: ContainerRecord) -> Any:
        message = await asyncio.to_thread(self._inventory.message, container)
        return kind(pod=pod_message(sandbox), container=message)

    async def _once(self, identity: str, tell: Callable[[], Awaitable[None]]) -> None:
        """Tell of an end unless that was done; when this returns it was told, whoever did it."""
        told = self._ended.get(identity)
        if told is not None:
            await told.wait()
            return
        told = self._ended[identity] = asyncio.Event()
        try:
            await tell()
        finally:
            told.set()

    async def _ask(self, event: Event, request: Message) -> None:
        async with self.plugins.lock:
            await self.plugins.relay(event, request)

    async def _tell_of(
        self, event: Event, kind: type[Any], sandbox: SandboxRecord, container: ContainerRecord
    ) -> None:
        if self.plugins.wants(event):
            await self._tell(event, await self._request(kind, sandbox, container))

    async def _tell(
        self, event: Event, request: Message, answered: Callable[[Any, str], None] | None = None
    ) -> None:
        """Tell of what is done: a plugin that is against it comes too late."""
        async with self.plugins.lock:
            await self.plugins.relay(event, request, answered, heed=False)

    # For the plugins

    async def _update(self, updates: Sequence[nri.ContainerUpdate]) -> list[nri.ContainerUpdate]:
        """Change containers as plugins want it; those that could not be changed."""
        failed = []
        for update in updates:
            try:
                wanted = as_update(update.linux.resources, self._host)
                await self._resize(update.container_id, wanted)
            except (TriptychError, OSError) as error:
                extra = {"container": update.container_id, "error": str(error)}
                if update.ignore_failure:
                    log.debug("an update that an NRI plugin asked for failed", extra=extra)
                else:
                    log.warning("an update that an NRI plugin asked for failed", extra=extra)
                    failed.append(update)
        return failed
