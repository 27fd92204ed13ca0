"""NRI plugins of the node, and containers and pods of which they are to hear."""

from __future__ import annotations

import asyncio
import importlib
import itertools
from typing import TYPE_CHECKING, Any, cast

from runtime.v1.api_pb2 import LinuxContainerResources

from triptych_runtime.bundles.write import document_if_any
from triptych_runtime.lifecycle import Undo
from triptych_runtime.model import ContainerRecord, SandboxRecord
from triptych_runtime.node import Node
from triptych_runtime.nri.nobody import NoPlugins
from triptych_runtime.resources import resize

if TYPE_CHECKING:
    from triptych_runtime.nri.interface import Nri, Resize


def go_unasked(node: Node, sandbox: SandboxRecord, record: ContainerRecord, undo: Undo) -> None:
    """Nobody is to be asked; but plugins that come meanwhile find it there, and hear of its end."""
    undo.push("NRI plugins", lambda: node.nri.remove_container(sandbox, record))
    node.nri.container_unasked(record)


async def load_nri(node: Node) -> Nri:
    """NRI with plugins, which few nodes have: loaded when the first one comes."""
    module: Any = await asyncio.to_thread(importlib.import_module, "triptych_runtime.nri.interface")
    if type(node.nri) is NoPlugins:
        node.nri = module.Nri(
            lambda: node.settings.nri,
            node.host,
            lambda: list(node.state.sandboxes.values()),
            lambda: list(node.state.containers.values()),
            lambda container_id: document_if_any(node.paths.bundle(container_id)),
            node.metrics.plugin_told,
            _resizing(node),
            node.nri,
        )
    return cast("Nri", node.nri)


def _resizing(node: Node) -> Resize:
    numbers = itertools.count(1)

    async def change(container_id: str, limits: LinuxContainerResources) -> None:
        # Work of its own: it comes to its end also when the plugin that asks for it leaves, or is dropped.
        key = f"nri update {next(numbers)} {container_id}"
        await node.flights.join(key, lambda: resize(node, container_id, limits))

    return change
