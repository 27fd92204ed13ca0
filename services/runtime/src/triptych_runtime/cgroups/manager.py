"""The face of this package: one manager a daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Literal

from runtime.v1.api_pb2 import LinuxContainerResources
from triptych_linux import mounts, syscalls

from triptych_runtime.cgroups import paths, pods, systemd, transaction
from triptych_runtime.cgroups.errors import CgroupFailed, NoCgroups
from triptych_runtime.cgroups.groupkill import GroupKills
from triptych_runtime.cgroups.handle import Cgroup, write
from triptych_runtime.cgroups.layout import Layout, Mode, remount_options
from triptych_runtime.cgroups.monitors import Monitors
from triptych_runtime.cgroups.oom import OomLedger
from triptych_runtime.cgroups.paths import Driver
from triptych_runtime.cgroups.plan import Write, plan

DriverSetting = Literal["auto", "cgroupfs", "systemd"]

_SYSTEMD_RUNS = Path("/run/systemd/system")
"""Exists if and only if systemd is the init of this node (sd_booted(3))."""
_FAVOR_DYNAMIC = "favordynmods"


def require_driver(driver: DriverSetting) -> None:
    """:raises NoCgroups: when systemd is asked for where it is not init."""
    if driver == "systemd" and not _SYSTEMD_RUNS.is_dir():
        raise NoCgroups(
            "the cgroup driver is set to systemd, but systemd is not the init of this node",
            hint='set it to "auto" or "cgroupfs"',
        )


class CgroupManager:
    """Knows the node's cgroup layout and driver, and makes handles for cgroups."""

    def __init__(self, layout: Layout, driver: Driver) -> None:
        self.layout = layout
        self.driver = driver
        self.oom = OomLedger(self.resolve, lambda path: Cgroup.at(layout, path))
        scopes = driver is Driver.SYSTEMD and layout.mode is Mode.UNIFIED
        self.group_kills = GroupKills(self.resolve, enabled=scopes)
        self._monitors: Monitors | None = None

    @classmethod
    def detect(cls, driver: DriverSetting = "auto") -> CgroupManager:
        """Look at the mount table and the init system; reads two files.

        :raises NoCgroups: when no hierarchy is mounted, or systemd is asked for where it is not init.
        """
        layout = Layout.detect()
        require_driver(driver)
        if driver == "auto":
            return cls(layout, Driver.SYSTEMD if _SYSTEMD_RUNS.is_dir() else Driver.CGROUPFS)
        return cls(layout, Driver(driver))

    @property
    def mode(self) -> Mode:
        """The kernel's layout: LEGACY, HYBRID or UNIFIED."""
        return self.layout.mode

    # Names

    def check_parent(self, parent: str) -> str:
        """Validate and normalise a CRI `cgroup_parent` at once, before anything is made.

        :raises BadParent: (INVALID_ARGUMENT) when it has not the form of the driver in use.
        """
        return paths.check_parent(self.driver, parent)

    def default_parent(self, sandbox_id: str) -> str:
        """The parent for a pod whose client gives none; see `create_pod`."""
        return paths.default_parent(self.driver, sandbox_id)

    def container_path(self, parent: str, container_id: str) -> str:
        """The OCI `linux.cgroupsPath` of a container: "<parent>/<id>" or "<slice>:triptych:<id>".

        :param parent: the pod's `cgroup_parent`, or `default_parent`.
        :raises BadParent: as `check_parent`.
        """
        return paths.oci_path(self.driver, self.check_parent(parent), container_id)

    def check_path(self, cgroups_path: str) -> str:
        """Validate and normalise a `linux.cgroupsPath` that is not of our making.

        :raises BadParent: (INVALID_ARGUMENT) when it has not the form of the driver in use.
        """
        return paths.check_path(self.driver, cgroups_path)

    def spec_annotations(self, resources: LinuxContainerResources | None) -> dict[str, str]:
        """Annotations that the OCI document of a container needs for its limits to be found and to last."""
        return systemd.scope_annotations(resources, self.mode) if self.driver is Driver.SYSTEMD else {}

    # Handles

    def resolve(self, cgroups_path: str) -> Cgroup:
        """The cgroup of a container from its `linux.cgroupsPath`. Touches no file."""
        return Cgroup.at(self.layout, paths.filesystem_path(cgroups_path))

    def resolve_parent(self, parent: str) -> Cgroup:
        """The cgroup of a pod from its `cgroup_parent`. Touches no file."""
        return Cgroup.at(self.layout, paths.parent_filesystem_path(self.driver, parent))

    # Resources

    async def update(
        self, cgroups_path: str, resources: LinuxContainerResources, oom_score: int | None = None
    ) -> None:
        """Change the resources of a running container: all of them or, on an error, none.

        Fields that are 0 or empty stay as they are. With the systemd driver the scope's properties
        follow, so that a daemon-reload does not undo the change.

        :param oom_score: for its processes, in place of `resources.oom_score_adj`; None leaves them theirs.
        :raises BadResources: (INVALID_ARGUMENT) for a value this node cannot take; names the field.
        :raises CgroupFailed: when the kernel or systemd refuses, or the cgroup does not exist.
        """
        unit = None
        if self.driver is Driver.SYSTEMD:
            unit = os.path.basename(paths.filesystem_path(cgroups_path))
        await self._update(self.resolve(cgroups_path), unit, resources, oom_score)

    async def _update(
        self, cgroup: Cgroup, unit: str | None, resources: LinuxContainerResources, score: int | None = None
    ) -> None:
        undo = await asyncio.to_thread(_apply, cgroup, resources, score)
        properties = systemd.resource_properties(resources, self.mode) if unit else []
        if not unit or not properties:
            return
        try:
            await systemd.set_properties(unit, properties)
        except BaseException:
            await asyncio.to_thread(transaction.revert, cgroup, undo)
            raise

    # Pods

    async def create_pod(
        self,
        sandbox_id: str,
        resources: LinuxContainerResources | None = None,
        overhead: LinuxContainerResources | None = None,
    ) -> str:
        """Make the cgroup of a pod whose client gave no parent, with pod-level limits. Idempotent.

        :returns: its parent for `container_path`, the same as `default_parent`.
        :raises CgroupFailed: when it cannot be made; nothing is left then.
        """
        parent = self.default_parent(sandbox_id)
        limits = pods.pod_limits(resources, overhead)
        try:
            if self.driver is Driver.SYSTEMD:
                properties = systemd.resource_properties(limits, self.mode)
                await systemd.start_slice(parent, f"triptych pod {sandbox_id[:13]}", properties)
                await systemd.settle(self.resolve_parent(parent).exists, f"start {parent}")
            else:
                await asyncio.to_thread(pods.make, self.layout, parent)
            if limits.ByteSize():
                await asyncio.to_thread(_apply, self.resolve_parent(parent), limits)
        except BaseException:
            with contextlib.suppress(CgroupFailed):
                await self.remove_pod(sandbox_id)
            raise
        return parent

    async def update_pod(
        self,
        sandbox_id: str,
        resources: LinuxContainerResources | None,
        overhead: LinuxContainerResources | None,
    ) -> None:
        """Change the limits of a pod cgroup that `create_pod` made (UpdatePodSandboxResources).

        Must not be called for a parent that the client gave: its limits are the client's.

        :raises BadResources: as `update`.
        :raises CgroupFailed: as `update`.
        """
        parent = self.default_parent(sandbox_id)
        unit = parent if self.driver is Driver.SYSTEMD else None
        limits = pods.pod_limits(resources, overhead)
        await self._update(self.resolve_parent(parent), unit, limits, limits.oom_score_adj or None)

    async def remove_pod(self, sandbox_id: str) -> None:
        """Remove what `create_pod` made; idempotent, and safe for a pod that has its client's parent.

        :raises CgroupFailed: when processes are left in it.
        """
        parent = self.default_parent(sandbox_id)
        cgroup = self.resolve_parent(parent)
        if self.driver is Driver.SYSTEMD:
            if await asyncio.to_thread(cgroup.exists):
                await systemd.stop(parent)
            await cgroup.remove(deadline=5.0)
            return
        if await cgroup.remove():
            await asyncio.to_thread(pods.remove_above, self.layout, cgroup.path)

    # Processes that are not containers

    async def place_monitor(self, pid: int) -> None:
        """Move a conmon out of the daemon's cgroup; call it before conmon forks (start pipe).

        :raises CgroupFailed: when it cannot be placed.
        """
        await self._placement().place(pid)

    def forget_monitors(self) -> None:
        """Remove the cgroup of monitors if none is left; for the end of the daemon."""
        self.group_kills.close()
        self._placement().remove()

    def _placement(self) -> Monitors:
        if self._monitors is None:
            self._monitors = Monitors(self.layout, self.driver)
        return self._monitors

    async def adopt(self, pid: int, cgroups_path: str) -> None:
        """Put a process that we started (a pod's init) into the cgroup of a `container_path`.

        :raises CgroupFailed: when it cannot be placed, or has ended.
        """
        path = paths.filesystem_path(cgroups_path)
        if self.driver is Driver.SYSTEMD:
            parent = cgroups_path.split(":", 1)[0]
            unit = os.path.basename(path)
            await systemd.start_scope(unit, parent, [pid], "triptych pod init")
            scope = self.resolve(cgroups_path)
            await systemd.settle(lambda: pid in scope.procs(), f"start {unit}")
            return
        await asyncio.to_thread(_adopt, self.layout, path, pid)

    # The node

    def favors_dynamic_changes(self) -> bool:
        """Whether the kernel is told to make moves between cgroups cheap (cgroup2 favordynmods)."""
        return any(
            _FAVOR_DYNAMIC in entry.super_options.split(",")
            for entry in mounts.mount_table()
            if entry.fstype == "cgroup2"
        )

    def favor_dynamic_changes(self) -> bool:
        """Ask the kernel (6.0+) to make moves between cgroups cheap, at a little cost to fork and exit.

        A container's create and each exec wait some milliseconds for such a move otherwise. It is a
        mount option of the node's v2 hierarchy, so it is a choice of the node's owner.

        :returns: whether it is on now.
        """
        unified = self.layout.unified
        if unified is None or self.favors_dynamic_changes():
            return unified is not None
        entry = mounts.mount_of(unified)
        flags, data = remount_options(entry)
        data = f"{data},{_FAVOR_DYNAMIC}" if data else _FAVOR_DYNAMIC
        try:
            syscalls.mount(entry.source, os.fspath(unified), None, flags, data)
        except OSError:
            return False
        return True


def _apply(cgroup: Cgroup, resources: LinuxContainerResources, score: int | None = None) -> list[Write]:
    undo = transaction.apply(cgroup, plan(cgroup, resources))
    if score is not None:
        try:
            transaction.set_oom_score(cgroup.procs(), score)
        except CgroupFailed:
            transaction.revert(cgroup, undo)
            raise
    return undo


def _adopt(layout: Layout, path: str, pid: int) -> None:
    pods.make(layout, os.path.dirname(path))
    made: list[str] = []
    try:
        for directory in Cgroup.at(layout, path).directories:
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o755)
                made.append(directory)
                pods.inherit_cpuset(layout, directory)
            write(directory, "cgroup.procs", b"%d" % pid)
    except OSError as error:
        for directory in made:
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        raise CgroupFailed(f"adopt process {pid} into {path}: {error.strerror}") from error
