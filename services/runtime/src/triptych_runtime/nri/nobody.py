"""NRI where no plugin has come yet, which is a megabyte less: the events, and nobody to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.v1 import api_pb2

from triptych_runtime.model import ContainerRecord, SandboxRecord

if TYPE_CHECKING:
    from nri.v1alpha1 import nri_pb2

    from triptych_runtime.nri.messages import Document


class NoPlugins:
    """What RPCs tell, to nobody; `interface.Nri` takes its place when somebody comes.

    :ivar coming_pods: by ID: what is in no list yet, but too far for a plugin to be asked about.
    :ivar coming_containers: by ID: as plugins were told, or the record when there was none to be asked.
    """

    def __init__(self) -> None:
        self.coming_pods: dict[str, SandboxRecord] = {}
        self.coming_containers: dict[str, nri_pb2.Container | ContainerRecord] = {}

    @property
    def active(self) -> bool:
        """Whether anybody wants to be asked."""
        return False

    @property
    def names(self) -> list[str]:
        """The plugins that are connected, INDEX-NAME each."""
        return []

    # Pods

    async def run_pod_sandbox(self, sandbox: SandboxRecord) -> None:
        """A sandbox is built, and about to be ready.

        :raises RefusedByPlugin: a plugin does not want it.
        """
        self.coming_pods[sandbox.id] = sandbox

    def pod_is_ready(self, sandbox_id: str) -> None:
        """A sandbox is in the lists."""
        self.coming_pods.pop(sandbox_id, None)

    async def update_pod_sandbox(
        self,
        sandbox: SandboxRecord,
        overhead: api_pb2.LinuxContainerResources | None,
        resources: api_pb2.LinuxContainerResources | None,
    ) -> None:
        """A sandbox is about to get other limits.

        :raises RefusedByPlugin: a plugin does not want that.
        """

    async def pod_sandbox_updated(self, sandbox: SandboxRecord) -> None:
        """A sandbox has other limits."""

    async def stop_pod_sandbox(self, sandbox: SandboxRecord) -> None:
        """The containers of a sandbox have ended, and it is about to give back what it has."""

    async def remove_pod_sandbox(self, sandbox: SandboxRecord) -> None:
        """A sandbox is gone, or has not come to be."""
        self.coming_pods.pop(sandbox.id, None)

    # Containers

    async def create_container(
        self, sandbox: SandboxRecord, container: ContainerRecord, document: Document
    ) -> nri_pb2.ContainerAdjustment | None:
        """A container's spec is made: what plugins want different; None where nobody was asked.

        Other containers that they want changed are changed when this returns.

        :raises RefusedByPlugin: a plugin does not want it, or a validator what they want together.
        """
        return None

    def container_unasked(self, container: ContainerRecord) -> None:
        """A container is made while there is nobody to be asked; a plugin that comes meanwhile finds it."""
        self.coming_containers[container.id] = container

    async def container_created(self, sandbox: SandboxRecord, container: ContainerRecord) -> None:
        """A container is in the lists."""
        self.coming_containers.pop(container.id, None)

    async def start_container(self, sandbox: SandboxRecord, container: ContainerRecord) -> None:
        """A container is about to start.

        :raises RefusedByPlugin: a plugin does not want that.
        """

    async def container_started(self, sandbox: SandboxRecord, container: ContainerRecord) -> None:
        """A container runs."""

    async def update_container(
        self, sandbox: SandboxRecord, container: ContainerRecord, wanted: api_pb2.LinuxContainerResources
    ) -> api_pb2.LinuxContainerResources:
        """A container is about to get other limits: those that it shall get.

        Other containers that plugins want changed are changed when this returns.

        :raises RefusedByPlugin: a plugin does not want that.
        """
        return wanted

    async def container_updated(self, sandbox: SandboxRecord, container: ContainerRecord) -> None:
        """A container has other limits."""

    async def stop_container(self, sandbox: SandboxRecord, container: ContainerRecord) -> None:
        """A container has ended."""

    async def remove_container(self, sandbox: SandboxRecord, container: ContainerRecord) -> None:
        """A container is gone, or has not come to be."""
        self.coming_containers.pop(container.id, None)
