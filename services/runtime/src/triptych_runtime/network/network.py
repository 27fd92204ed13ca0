"""The pod network: the face that the life cycle of pods uses."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

from triptych_errors import Unimplemented

from triptych_runtime.network.model import NetworkResult, NetworkStatus, PodAttachment
from triptych_runtime.network.settings import NetworkSettings


class Network:
    """Attaches pods to the node's network by running CNI plugins."""

    def __init__(self, settings: NetworkSettings, state_dir: Path) -> None:
        self._settings = settings
        self._state_dir = state_dir

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Load the configuration, then watch it and retry unfinished teardowns as tasks of `tasks`."""
        raise Unimplemented("network")

    def status(self) -> NetworkStatus:
        """Whether pods can be attached now; answers at once."""
        raise Unimplemented("network")

    async def setup(self, pod: PodAttachment) -> NetworkResult:
        """Attach a pod. When it fails or is cancelled, what was done is undone before it raises.

        :raises NetworkNotReady: no usable configuration.
        :raises AnnotationInvalid: bandwidth annotations out of range.
        :raises PluginFailed, PluginBusy, PluginMissing, PluginTimeout: from a plugin.
        """
        raise Unimplemented("network")

    def result(self, sandbox_id: str) -> NetworkResult | None:
        """The kept result of a pod that is attached; None when it is not."""
        raise Unimplemented("network")

    async def teardown(self, sandbox_id: str, netns: Path | None) -> None:
        """Detach a pod; idempotent; nothing happens for a pod that was never attached.

        Call it before the namespaces are destroyed; `netns` None or gone is fine too. What fails is kept and
        retried in the background until it succeeds.

        :raises TeardownFailed: with the reasons; calling again tries again.
        """
        raise Unimplemented("network")

    async def check(self, sandbox_id: str) -> None:
        """CHECK of every plugin: raises the first failure.

        :raises AttachmentUnknown: the pod is not attached.
        """
        raise Unimplemented("network")

    async def gc(self, valid_ids: Collection[str]) -> None:
        """Detach every kept attachment that is not in `valid_ids`, then GC (CNI 1.1) of every network."""
        raise Unimplemented("network")

    async def set_pod_cidr(self, cidr: str) -> None:
        """The node's pod subnets, one or several joined by commas; kept over restarts; "" changes nothing.

        :raises PodCidrInvalid: when one is not a subnet.
        """
        raise Unimplemented("network")
