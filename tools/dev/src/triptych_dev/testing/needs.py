"""What a test needs of its host, and the package that brings it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable

PACKAGES = {
    "apparmor_parser": "apparmor",
    "bridge": "containernetworking-plugins",
    "busybox": "busybox-static",
    "catatonit": "catatonit",
    "conmon": "conmon",
    "criu": "criu",
    "crun": "crun",
    "debootstrap": "debootstrap",
    "docker-registry": "docker-registry",
    "ip": "iproute2",
    "iptables": "iptables",
    "mke2fs": "e2fsprogs",
    "nft": "nftables",
    "nsenter": "util-linux",
    "portmap": "containernetworking-plugins",
    "prometheus": "prometheus",
    "qemu-system-x86_64": "qemu-system-x86",
    "runc": "runc",
    "systemd-analyze": "systemd",
    "tc": "iproute2",
    "seccomp.json": "golang-github-containers-common",
}
"""Programs and files by the Debian package that has them."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/cni:/opt/cni/bin"
LIVE = ("bridge", "busybox", "conmon", "docker-registry", "ip", "portmap", "runc", "seccomp.json")
"""What the live daemons need."""


def missing(programs: Iterable[str]) -> list[str]:
    """The programs that are not there."""
    return [program for program in programs if not present(program)]


def present(program: str) -> bool:
    """Whether a program, or one of the files in `PACKAGES`, is on this host."""
    if program == "seccomp.json":
        return os.path.exists("/usr/share/containers/seccomp.json")
    return shutil.which(program, path=_PATH) is not None


def reason(programs: Iterable[str]) -> str:
    """What a skip says: the programs, and how to get them."""
    names = sorted(programs)
    packages = sorted({PACKAGES.get(name, name) for name in names})
    return f"missing here: {', '.join(names)}; apt-get install {' '.join(packages)}"


def strict() -> bool:
    """Whether a missing package is a failure: in CI, where everything is to be tested."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


_WANTS_PACKAGE = re.compile(r"missing here:|\bnot installed\b|^(Skipped: )?needs (?!.*kernel)")


def wants_package(reason: str) -> bool:
    """Whether a skip is for want of something that could be installed, not of a kernel or an init system."""
    return _WANTS_PACKAGE.search(reason) is not None
