"""Giving back what a sandbox holds: network, init, namespaces, files, own cgroups."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from runtime.v1 import api_pb2
from triptych_errors import TriptychError

from triptych_runtime.lifecycle import STEP_DEADLINE, fault
from triptych_runtime.model import SandboxPhase, SandboxRecord
from triptych_runtime.namespaces import InitProcess
from triptych_runtime.node import Node

log = logging.getLogger(__name__)

#: Seconds that the undo of a half-made sandbox waits for its network. All of its steps share one deadline
#: of an undo, and a plugin that hangs may take longer than that by itself.
NETWORK_PATIENCE = STEP_DEADLINE / 3


class _Steps:
    """Steps of a clean-up: each is tried, whatever became of those before, even of a cancelled caller."""

    def __init__(self, sandbox_id: str) -> None:
        self._sandbox_id = sandbox_id
        self.failures: list[BaseException] = []

    async def take(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except (TriptychError, OSError, asyncio.CancelledError) as error:
            extra = {"sandbox": self._sandbox_id, "step": name, "error": str(error) or repr(error)}
            log.warning("a pod sandbox could not give back all that it holds", extra=extra)
            self.failures.append(error)
        fault(f"stop_pod_sandbox.{name}")

    def conclude(self) -> None:
        """:raises: the cancellation if there was one, else what the first step that failed raised."""
        for failure in self.failures:
            if isinstance(failure, asyncio.CancelledError):
                raise failure
        if self.failures:
            raise self.failures[0]


async def release_sandbox(node: Node, record: SandboxRecord, *, keep_pins: bool = True) -> None:
    """Give back what a sandbox holds. Idempotent; every step is tried, whatever became of those before.

    :param keep_pins: keep the namespaces of a pod whose network could not be given back, for the next try.
    :raises TriptychError, OSError: what the first step that failed raised.
    """
    steps = _Steps(record.id)
    if record.network_ready:
        netns = record.namespaces.get("net")
        await steps.take("network", lambda: node.network.teardown(record.id, Path(netns) if netns else None))
    detached = not steps.failures
    if record.init_pid:
        init = InitProcess(record.init_pid, record.init_start_ticks)
        await steps.take("init", lambda: node.init.stop(init))
    await _finish(node, record, steps, pins=detached or not keep_pins)


async def discard_sandbox(node: Node, record: SandboxRecord) -> None:
    """Undo everything that a sandbox may have, whatever it came to.

    What the network of a half-made one does not give back in time it gives back by itself, from its own
    records: nobody can ask for that sandbox again.

    :raises TriptychError, OSError: what the first step that failed raised; all were tried.
    """
    if record.phase is not SandboxPhase.CREATING:
        await release_sandbox(node, record, keep_pins=False)
        return
    # It may have been attached, or have an init, without having come to say so.
    steps = _Steps(record.id)
    cgroup = node.cgroups.resolve(node.cgroups.container_path(record.cgroup_parent, record.id))
    await steps.take("processes", cgroup.kill)
    await steps.take("network", lambda: _begin_teardown(node, record.id))
    if record.options.pid == api_pb2.POD:
        await steps.take("init", lambda: node.init.discard(record.id))
    await _finish(node, record, steps, pins=True)


async def _begin_teardown(node: Node, sandbox_id: str) -> None:
    """Give back a network; when that fails or takes long, in the background."""
    key = f"detach {sandbox_id}"
    netns = node.namespaces.get(sandbox_id).net
    node.flights.background(key, lambda: node.network.teardown(sandbox_id, netns))
    task = node.flights.get(key)
    if task is not None and not (await asyncio.wait((task,), timeout=NETWORK_PATIENCE))[0]:
        log.warning("giving back a network goes on in the background", extra={"sandbox": sandbox_id})


async def _finish(node: Node, record: SandboxRecord, steps: _Steps, *, pins: bool) -> None:
    if pins:
        await steps.take("namespaces", lambda: node.namespaces.destroy(record.id))
    await steps.take("files", lambda: node.files.destroy(record.id))
    await steps.take("cgroup", lambda: _remove_cgroups(node, record))
    steps.conclude()


async def _remove_cgroups(node: Node, record: SandboxRecord) -> None:
    if record.options.pid == api_pb2.POD:
        await node.cgroups.resolve(node.cgroups.container_path(record.cgroup_parent, record.id)).remove()
    if record.owns_cgroup:
        # Those of its ended containers lie below the pod's.
        await node.flights.settled(*(f"release {c.id}" for c in node.state.containers_of(record.id)))
        await node.cgroups.remove_pod(record.id)
