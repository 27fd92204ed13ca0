"""Names of cgroups: parents as the CRI gives them, OCI `linux.cgroupsPath`, and paths in a hierarchy."""

from __future__ import annotations

import enum
import posixpath
import re

from triptych_runtime.cgroups.errors import BadParent

PREFIX = "triptych"
"""Begins the name of every scope, slice and cgroup that is ours."""

_SLICE = ".slice"
# Parts of the name of a scope, as systemd.unit(5) has it.
_UNIT = re.compile(r"[A-Za-z0-9_.\\-]+(?<!\.slice)")


class Driver(enum.Enum):
    """Who makes cgroups: the OCI runtime by mkdir, or systemd asked by the OCI runtime over D-Bus."""

    CGROUPFS = "cgroupfs"
    SYSTEMD = "systemd"


def check_parent(driver: Driver, parent: str) -> str:
    """Normalise a CRI `cgroup_parent`.

    cgroupfs: an absolute path without "..", e.g. "/kubepods/burstable/pod1". systemd: the name of a
    slice; a path of slices, which the kubelet sends, stands for its last one.

    :raises BadParent: when it has the form of the other driver, or none.
    """
    base = posixpath.basename(parent.rstrip("/"))
    if driver is Driver.SYSTEMD:
        if not base.endswith(_SLICE):
            raise BadParent(
                f"cgroup_parent {parent!r} is not a slice, which the systemd cgroup driver needs",
                hint='use a name such as "kubepods.slice", or set the cgroup driver to cgroupfs',
            )
        expand_slice(base)
        return base
    if base.endswith(_SLICE):
        raise BadParent(
            f"cgroup_parent {parent!r} is a systemd slice, but the cgroup driver is cgroupfs",
            hint="use a path, or set the cgroup driver to systemd",
        )
    return absolute(parent)


def absolute(path: str) -> str:
    """An absolute, normal form of a cgroup path.

    OCI runtimes take a relative one as below their own cgroup, which is the daemon's unit.

    :raises BadParent: for a path with "..", or with a NUL or line feed.
    """
    if "\0" in path or "\n" in path or ".." in path.split("/"):
        raise BadParent(f"cgroup_parent {path!r} is not a cgroup path")
    return posixpath.normpath("/" + path.lstrip("/"))


def expand_slice(name: str) -> str:
    """The path of a slice: "a-b.slice" is "/a.slice/a-b.slice" and "-.slice" is "/" (systemd.slice(5)).

    :raises BadParent: when it is no valid name of a slice.
    """
    stem = name.removesuffix(_SLICE)
    if stem == "-":
        return "/"
    parts = stem.split("-")
    if stem == name or "/" in name or not all(parts):
        raise BadParent(f"{name!r} is not the name of a systemd slice")
    return "/" + "/".join("-".join(parts[: i + 1]) + _SLICE for i in range(len(parts)))


def oci_path(driver: Driver, parent: str, container_id: str) -> str:
    """The OCI `linux.cgroupsPath` of a container below a parent that `check_parent` gave."""
    if driver is Driver.SYSTEMD:
        return f"{parent}:{PREFIX}:{container_id}"
    return posixpath.join(parent, container_id)


def filesystem_path(cgroups_path: str) -> str:
    """Where in each hierarchy the cgroup of an OCI `linux.cgroupsPath` is.

    :raises BadParent: when it is neither an absolute path nor "slice:prefix:name".
    """
    if cgroups_path.startswith("/"):
        return absolute(cgroups_path)
    parts = cgroups_path.split(":")
    if len(parts) != 3:
        raise BadParent(f"cgroupsPath {cgroups_path!r} is neither absolute nor slice:prefix:name")
    parent, prefix, name = parts
    unit = name if name.endswith(_SLICE) else f"{prefix}-{name}.scope"
    return posixpath.join(expand_slice(parent), unit)


def check_path(driver: Driver, cgroups_path: str) -> str:
    """Normalise an OCI `linux.cgroupsPath` that is not of our making.

    :raises BadParent: when it has not the form of the driver in use.
    """
    path = filesystem_path(cgroups_path)
    if driver is Driver.CGROUPFS and cgroups_path.startswith("/"):
        return path
    if driver is Driver.SYSTEMD and not cgroups_path.startswith("/"):
        _, *scope = cgroups_path.split(":")
        if all(map(_UNIT.fullmatch, scope)):
            return cgroups_path
    raise BadParent(f"cgroupsPath {cgroups_path!r} is not of the form that the {driver.value} driver takes")


def parent_filesystem_path(driver: Driver, parent: str) -> str:
    """Where in each hierarchy the cgroup of a pod (a CRI `cgroup_parent`) is."""
    parent = check_parent(driver, parent)
    return expand_slice(parent) if driver is Driver.SYSTEMD else parent


def default_parent(driver: Driver, sandbox_id: str) -> str:
    """The parent of a pod for which the CRI client names none."""
    if driver is Driver.SYSTEMD:
        return f"{PREFIX}-{sandbox_id}{_SLICE}"
    return f"/{PREFIX}/{sandbox_id}"
