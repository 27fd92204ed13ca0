"""The kernel: version, file systems, namespaces, seccomp, limits, and what this process may do."""

from __future__ import annotations

import os
import re

from triptych_cli.doctor.model import Findings, Host, error, info, ok, warning

_OLDEST = (5, 10)
_IDMAPPED_OVERLAY = (5, 19)
_CAPABILITIES = {"SYS_ADMIN": 21, "NET_ADMIN": 12, "SYS_RESOURCE": 24, "MKNOD": 27, "SYS_CHROOT": 18}


def check(host: Host) -> Findings:
    """Everything about the kernel."""
    yield from _version(host)
    yield from _overlay(host)
    yield from _namespaces(host)
    yield from _seccomp(host)
    yield from _sysctls(host)
    yield from _capabilities(host)


def _version(host: Host) -> Findings:
    release = host.read("/proc/sys/kernel/osrelease")
    match = re.match(r"(\d+)\.(\d+)", release)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version < _OLDEST:
        yield error(
            "kernel",
            f"{release} is too old: volatile overlays and pidfds came by 5.10",
            "upgrade the kernel",
        )
    elif version < _IDMAPPED_OVERLAY:
        yield warning(
            "kernel",
            f"{release} cannot mount overlays idmapped, so pods with user namespaces do not start",
            "kernel 5.19 or later",
        )
    else:
        yield ok("kernel", release)


def _overlay(host: Host) -> Findings:
    if re.search(r"\boverlay$", host.read("/proc/filesystems"), re.MULTILINE):
        yield ok("overlayfs", "there")
    elif host.path(f"/lib/modules/{host.read('/proc/sys/kernel/osrelease')}/kernel/fs/overlayfs").exists():
        yield warning("overlayfs", "a module that is not loaded", "modprobe overlay")
    else:
        yield error("overlayfs", "the kernel has none", "a kernel with CONFIG_OVERLAY_FS")


def _namespaces(host: Host) -> Findings:
    wanted = ("net", "ipc", "uts", "pid", "mnt", "cgroup", "user")
    absent = [name for name in wanted if not os.path.lexists(host.path(f"/proc/self/ns/{name}"))]
    if set(absent) - {"cgroup", "user"}:
        yield error("namespaces", f"the kernel has no {', '.join(absent)}", "another kernel")
    elif absent:
        yield warning("namespaces", f"the kernel has no {', '.join(absent)}", "another kernel")
    elif host.read("/proc/sys/user/max_user_namespaces") == "0":
        yield warning(
            "namespaces",
            "user namespaces are turned off: pods with hostUsers: false do not start",
            "sysctl -w user.max_user_namespaces=15000",
        )
    else:
        yield ok("namespaces", ", ".join(wanted))


def _seccomp(host: Host) -> Findings:
    actions = host.read("/proc/sys/kernel/seccomp/actions_avail")
    if actions:
        yield ok("seccomp", "filters work")
    else:
        yield warning(
            "seccomp", "the kernel has no filters: pods with a profile do not start", "CONFIG_SECCOMP_FILTER"
        )


def _sysctls(host: Host) -> Findings:
    if host.read("/proc/sys/net/ipv4/ip_forward") == "1":
        yield ok("ip_forward", "on")
    else:
        yield warning(
            "ip_forward",
            "off: pods reach nothing beyond this node",
            "sysctl -w net.ipv4.ip_forward=1 (to keep it: /etc/sysctl.d/60-triptych.conf)",
        )
    bridged = host.read("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if bridged == "0":
        yield warning(
            "bridge-nf-call-iptables",
            "off: kube-proxy's rules do not see traffic between pods of this node",
            "sysctl -w net.bridge.bridge-nf-call-iptables=1",
        )
    elif not bridged:
        yield info(
            "br_netfilter",
            "not loaded; kube-proxy in iptables mode wants it",
            "modprobe br_netfilter (to keep it: /etc/modules-load.d/triptych.conf)",
        )
    instances = host.read("/proc/sys/fs/inotify/max_user_instances")
    if instances.isdigit() and int(instances) < 256:
        yield warning(
            "inotify",
            f"max_user_instances is {instances}: programs in many pods share it",
            "sysctl -w fs.inotify.max_user_instances=8192",
        )


def _capabilities(host: Host) -> Findings:
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", host.read("/proc/self/status"), re.MULTILINE)
    effective = int(match[1], 16) if match else 0
    absent = {name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1}
    if not absent:
        yield ok("capabilities", "all that are needed")
    elif absent == {"SYS_RESOURCE"}:
        yield warning(
            "capabilities",
            "no CAP_SYS_RESOURCE: no oom_score_adj below this process's own, and no limit can be raised",
            "run the daemons with it; until then they raise such scores to the least they may set",
        )
    else:
        yield error(
            "capabilities", f"missing: {', '.join(sorted(absent))}", "run as root, outside of a container"
        )
