"""Things on this node that no record owns: left by a crash, or by a database that was lost."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from triptych_errors import TriptychError

from triptych_runtime.bundles import remove_bundle
from triptych_runtime.node import Node

log = logging.getLogger(__name__)


async def remove_orphans(node: Node) -> None:
    """Remove OCI containers, bundles, namespaces, files, networks and root file systems that nobody owns."""
    await _oci_containers(node)
    await _bundles(node)
    await _sandboxes(node)
    await _root_filesystems(node)


async def _oci_containers(node: Node) -> None:
    for handler in node.handlers.all():
        for name in await asyncio.to_thread(handler.runtime.known):
            if name not in node.state.containers:
                log.info("removing an orphan", extra={"kind": "OCI container", "id": name})
                await handler.runtime.delete(name)


async def _bundles(node: Node) -> None:
    for parent in (node.paths.state / "containers", node.paths.root / "volumes"):
        for name in await asyncio.to_thread(_entries, parent):
            if name not in node.state.containers:
                log.info("removing an orphan", extra={"kind": "bundle", "id": name})
                await asyncio.to_thread(remove_bundle, node.paths.bundle(name), node.paths.volumes(name))
    for name in await asyncio.to_thread(_entries, node.paths.exits):
        if name not in node.state.containers:
            node.exits.remove_file(name)


async def _sandboxes(node: Node) -> None:
    known = node.state.sandboxes
    await node.network.gc([s.id for s in known.values() if s.network_ready or s.id in node.namespaces.ids()])
    for name in set(node.namespaces.ids()) | set(node.files.ids()):
        if name not in node.state.sandboxes:
            log.info("removing an orphan", extra={"kind": "namespaces", "id": name})
            await node.namespaces.destroy(name)
            await node.files.destroy(name)


async def _root_filesystems(node: Node) -> None:
    try:
        keys = await node.images.keys()
    except TriptychError as error:
        log.info("the image daemon was not asked for orphans", extra={"error": str(error)})
        return
    for owner in {key.partition("/")[0] for key in keys}:
        if owner not in node.state.containers:
            log.info("removing an orphan", extra={"kind": "root filesystem", "id": owner})
            await node.images.remove(owner)
            await node.images.remove(owner, prefix=True)


def _entries(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
