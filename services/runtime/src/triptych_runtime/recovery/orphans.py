"""Things on this node that no record owns: left by a crash, or by a database that was lost.

Where records were lost since the boot (a damaged database, or records of a newer version), what lives is
left alone, with all that it may use. It goes at a later start, once it has ended, or with the next boot.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from pathlib import Path

from triptych_runtime.bundles import remove_bundle
from triptych_runtime.node import Node
from triptych_runtime.ociruntime import OciRuntime
from triptych_runtime.recovery.removal import remove_orphan
from triptych_runtime.recovery.root_filesystems import remove_root_filesystems

log = logging.getLogger(__name__)


async def remove_orphans(node: Node) -> None:
    """Remove OCI containers, bundles, namespaces, files, networks and root file systems that nobody owns.

    One that cannot be removed is told of, and left for the next start.
    """
    await _oci_containers(node)
    await _bundles(node)
    if node.strays:
        extra = {"containers": sorted(node.strays)}
        log.warning("containers without a record live on, and so do pods without one", extra=extra)
    else:
        await _sandboxes(node)
        await node.database.quarantine(node.unreadable)
    await remove_root_filesystems(node)


async def _oci_containers(node: Node) -> None:
    for handler in node.handlers.all():
        for name in await asyncio.to_thread(handler.runtime.known):
            if name not in node.state.containers:
                await _oci_container(node, handler.runtime, name)


async def _oci_container(node: Node, runtime: OciRuntime, name: str) -> None:
    """Remove an OCI container that has no record, unless it is somebody else's, or to be left alone."""
    bundle, alive = await runtime.bundle(name)
    if not _below(bundle or runtime.root, node.paths.state):
        log.info("an OCI container is not this daemon's", extra={"id": name, "bundle": str(bundle)})
    elif alive and node.incomplete and node.paths.bundle(name).exists():
        node.strays.add(name)
    else:
        await remove_orphan("OCI container", name, runtime.delete(name))


def _below(path: Path, directory: Path) -> bool:
    return path.resolve().is_relative_to(directory.resolve())


async def _bundles(node: Node) -> None:
    checkpoints = node.paths.checkpoints
    for parent in (node.paths.state / "containers", node.paths.root / "volumes", checkpoints):
        for name in await asyncio.to_thread(_entries, parent):
            if not node.owns(name):
                bundle, volumes = node.paths.bundle(name), node.paths.volumes(name)
                images = asyncio.to_thread(shutil.rmtree, checkpoints / name, ignore_errors=True)
                await remove_orphan(
                    "bundle", name, asyncio.to_thread(remove_bundle, bundle, volumes), images
                )
    for name in await asyncio.to_thread(_entries, node.paths.exits):
        if not node.owns(name):
            node.exits.remove_file(name)


async def _sandboxes(node: Node) -> None:
    """Those without a record and without containers."""
    known = node.state.sandboxes
    pinned = set(node.namespaces.ids())
    kept = {name for name in pinned if name not in known and node.state.containers_of(name)}
    await node.network.gc([*kept, *(s.id for s in known.values() if s.network_ready or s.id in pinned)])
    for name in pinned | set(node.files.ids()):
        if name not in node.state.sandboxes and not node.state.containers_of(name):
            cgroup = node.cgroups.resolve_parent(node.cgroups.default_parent(name))
            removal = (cgroup.kill(), node.namespaces.destroy(name), node.files.destroy(name))
            await remove_orphan("pod sandbox", name, *removal, node.cgroups.remove_pod(name))


def _entries(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
