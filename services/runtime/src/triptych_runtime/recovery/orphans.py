"""Things on this node that no record owns: left by a crash, or by a database that was lost."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Awaitable
from pathlib import Path

from triptych_errors import TriptychError

from triptych_runtime.bundles import remove_bundle
from triptych_runtime.node import Node

log = logging.getLogger(__name__)


async def remove_orphans(node: Node) -> None:
    """Remove OCI containers, bundles, namespaces, files, networks and root file systems that nobody owns.

    One that cannot be removed is told of, and left for the next start.
    """
    await _oci_containers(node)
    await _bundles(node)
    await _sandboxes(node)
    await _root_filesystems(node)


async def _remove(kind: str, identity: str, *steps: Awaitable[object]) -> None:
    log.info("removing an orphan", extra={"kind": kind, "id": identity})
    for step in steps:
        try:
            await step
        except (TriptychError, OSError) as error:
            extra = {"kind": kind, "id": identity, "error": str(error)}
            log.warning("an orphan could not be removed", extra=extra)


async def _oci_containers(node: Node) -> None:
    for handler in node.handlers.all():
        for name in await asyncio.to_thread(handler.runtime.known):
            if name not in node.state.containers:
                await _remove("OCI container", name, handler.runtime.delete(name))


async def _bundles(node: Node) -> None:
    checkpoints = node.paths.checkpoints
    for parent in (node.paths.state / "containers", node.paths.root / "volumes", checkpoints):
        for name in await asyncio.to_thread(_entries, parent):
            if name not in node.state.containers:
                bundle, volumes = node.paths.bundle(name), node.paths.volumes(name)
                images = asyncio.to_thread(shutil.rmtree, checkpoints / name, ignore_errors=True)
                await _remove("bundle", name, asyncio.to_thread(remove_bundle, bundle, volumes), images)
    for name in await asyncio.to_thread(_entries, node.paths.exits):
        if name not in node.state.containers:
            node.exits.remove_file(name)


async def _sandboxes(node: Node) -> None:
    known = node.state.sandboxes
    pinned = set(node.namespaces.ids())
    await node.network.gc([s.id for s in known.values() if s.network_ready or s.id in pinned])
    for name in pinned | set(node.files.ids()):
        if name not in node.state.sandboxes:
            cgroup = node.cgroups.resolve_parent(node.cgroups.default_parent(name))
            removal = (cgroup.kill(), node.namespaces.destroy(name), node.files.destroy(name))
            await _remove("pod sandbox", name, *removal, node.cgroups.remove_pod(name))


async def _root_filesystems(node: Node) -> None:
    try:
        keys = await node.images.keys()
    except TriptychError as error:
        log.info("the image daemon was not asked for orphans", extra={"error": str(error)})
        return
    for owner in {key.partition("/")[0] for key in keys}:
        if owner not in node.state.containers:
            removal = (node.images.remove(owner), node.images.remove(owner, prefix=True))
            await _remove("root filesystem", owner, *removal)


def _entries(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
