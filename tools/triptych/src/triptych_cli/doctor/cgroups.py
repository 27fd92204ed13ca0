"""Control groups: the mode, the controllers, and the combinations that programs refuse."""

from __future__ import annotations

import enum

from triptych_cli.context import DaemonName
from triptych_cli.doctor.model import Findings, Host, error, info, ok, warning

_NEEDED = ("cpu", "memory", "pids")
_USEFUL = ("cpuset", "io", "hugetlb")
_TOP = "/sys/fs/cgroup"


class Mode(enum.Enum):
    """How cgroups are mounted."""

    UNIFIED = "v2"
    HYBRID = "hybrid"
    LEGACY = "v1"
    NONE = "none"


def mode(host: Host) -> Mode:
    """The mode of the host."""
    if host.path(f"{_TOP}/cgroup.controllers").exists():
        return Mode.UNIFIED
    if host.path(f"{_TOP}/unified/cgroup.procs").exists():
        return Mode.HYBRID
    if host.path(f"{_TOP}/memory").is_dir():
        return Mode.LEGACY
    return Mode.NONE


def controllers(host: Host, found: Mode) -> set[str]:
    """The controllers that containers can have."""
    if found is Mode.UNIFIED:
        return set(host.read(f"{_TOP}/cgroup.controllers").split())
    top = host.path(_TOP)
    names = {part for entry in top.iterdir() if entry.is_dir() for part in entry.name.split(",")}
    return names | ({"io"} if "blkio" in names else set())


def check(host: Host) -> Findings:
    """Everything about cgroups."""
    found = mode(host)
    if found is Mode.NONE:
        yield error("cgroups", f"nothing is mounted at {_TOP}", f"mount -t cgroup2 cgroup2 {_TOP}")
        return
    if found is Mode.UNIFIED:
        yield ok("cgroup mode", "v2")
    else:
        yield info(
            "cgroup mode",
            f"{found.value}; pressure, memory QoS and OOM by group need v2",
            "boot with systemd.unified_cgroup_hierarchy=1",
        )
    have = controllers(host, found)
    absent = [name for name in _NEEDED if name not in have]
    if absent:
        yield error("controllers", f"missing: {', '.join(absent)}", "enable them on the kernel command line")
    else:
        optional = [name for name in _USEFUL if name not in have]
        yield ok("controllers", ", ".join(sorted(have & {*_NEEDED, *_USEFUL})))
        if "cpuset" in optional:
            yield warning("cpuset", "missing: containers cannot be bound to CPUs", "enable the controller")
    if found is Mode.HYBRID:
        yield from _hybrid(host)
    yield from _driver(host)


def _hybrid(host: Host) -> Findings:
    unified = host.read(f"{_TOP}/unified/cgroup.controllers").split()
    if unified:
        name = unified[0]
        yield warning(
            "hybrid hierarchy",
            f"{', '.join(unified)} is on the unified hierarchy, which crun up to 1.8 refuses",
            f"mkdir -p {_TOP}/{name} && mount -t cgroup -o {name} cgroup {_TOP}/{name}; or use runc",
        )


def _driver(host: Host) -> Findings:
    systemd = host.path("/run/systemd/system").is_dir()
    chosen = host.setting(DaemonName.RUNTIME, "cgroup_driver", "auto")
    driver = chosen if chosen != "auto" else "systemd" if systemd else "cgroupfs"
    if driver == "systemd" and not systemd:
        yield error(
            "cgroup driver",
            "systemd is configured, and is not the init of this host",
            'cgroup_driver = "cgroupfs" in runtime.toml, and cgroupDriver: cgroupfs for the kubelet',
        )
    elif driver == "cgroupfs" and systemd:
        yield warning(
            "cgroup driver",
            "cgroupfs beside systemd: two masters of one tree",
            'cgroup_driver = "auto" in runtime.toml',
        )
    else:
        yield ok("cgroup driver", driver)
