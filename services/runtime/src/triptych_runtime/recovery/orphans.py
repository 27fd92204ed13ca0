"""Things on this node that no record owns: left by a crash, or by a database that was lost."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from triptych_runtime.bundles import remove_bundle
from triptych_runtime.node import Node
from triptych_runtime.recovery.removal import remove_orphan
from triptych_runtime.recovery.root_filesystems import remove_root_filesystems


async def remove_orphans(node: Node) -> None:
    """Remove OCI containers, bundles, namespaces, files, networks and root file systems that nobody owns.

    One that cannot be removed is told of, and left for the next start.
    """
    await _oci_containers(node)
    await _bundles(node)
    await _sandboxes(node)
    await remove_root_filesystems(node)


async def _oci_containers(node: Node) -> None:
    for handler in node.handlers.all():
        for name in await asyncio.to_thread(handler.runtime.known):
            if name not in node.state.containers:
                await remove_orphan("OCI container", name, handler.runtime.delete(name))


async def _bundles(node: Node) -> None:
    checkpoints = node.paths.checkpoints
    for parent in (node.paths.state / "containers", node.paths.root / "volumes", checkpoints):
        for name in await asyncio.to_thread(_entries, parent):
            if name not in node.state.containers:
                bundle, volumes = node.paths.bundle(name), node.paths.volumes(name)
                images = asyncio.to_thread(shutil.rmtree, checkpoints / name, ignore_errors=True)
                await remove_orphan(
                    "bundle", name, asyncio.to_thread(remove_bundle, bundle, volumes), images
                )
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
            await remove_orphan("pod sandbox", name, *removal, node.cgroups.remove_pod(name))


def _entries(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
