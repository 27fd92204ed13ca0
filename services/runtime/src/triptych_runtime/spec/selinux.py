"""SELinux labels of pods and containers."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.v1 import api_pb2
from triptych_errors import InvalidArgument

from triptych_runtime.spec.facts import HostFacts

LEVEL: Final = re.compile(r"s\d+(-s\d+)?(:c\d{1,4}(\.c\d{1,4})?(,c\d{1,4}(\.c\d{1,4})?)*)?")
_PART: Final = re.compile(r"[A-Za-z0-9_.-]*")
_ATTRIBUTE: Final = "security.selinux"


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of a process and of what it may write."""

    process: str = ""
    mount: str = ""


DEFAULT: Final = Labels("system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0")


def contexts(root: Path = Path("/etc/selinux")) -> Labels:
    """The policy's labels for containers (lxc_contexts); `DEFAULT` where the policy has no such file."""
    try:
        policy = re.search(r"^SELINUXTYPE=(\S+)", (root / "config").read_text(), re.MULTILINE)
        text = (root / (policy[1] if policy else "targeted") / "contexts/lxc_contexts").read_text()
    except OSError:
        return DEFAULT
    found = dict(re.findall(r'^(\w+)\s*=\s*"([^"]+)"', text, re.MULTILINE))
    return Labels(found.get("process", DEFAULT.process), found.get("file", DEFAULT.mount))


def labels_of_pod(config: api_pb2.PodSandboxConfig, sandbox_id: str, host: HostFacts) -> Labels:
    """The labels of a pod on this host; empty ones where the kernel has no SELinux."""
    if not host.selinux:
        return Labels()
    return pod_labels(config.linux.security_context.selinux_options, sandbox_id, contexts())


def pod_labels(options: api_pb2.SELinuxOption, sandbox_id: str, base: Labels = DEFAULT) -> Labels:
    """The labels of a pod: the policy's, with the options in place and, without a level, two categories of
    its own so that pods cannot touch one another's files."""
    labels = _apply(options, base)
    return labels if options.level else _with_level(labels, _own_level(sandbox_id, labels.process))


def container_labels(options: api_pb2.SELinuxOption | None, pod: Labels, base: Labels = DEFAULT) -> Labels:
    """The labels of a container: the pod's, unless it sets options of its own."""
    if options is None or not (options.user or options.role or options.type or options.level):
        return pod
    labels = _apply(options, base)
    return labels if options.level else _with_level(labels, pod.process.split(":", 3)[3])


def validate(options: api_pb2.SELinuxOption) -> None:
    """:raises InvalidArgument: for a level or part that cannot be one."""
    if options.level and LEVEL.fullmatch(options.level) is None:
        raise InvalidArgument(f"selinux_options.level: the format of {options.level!r} is not correct")
    for name in ("user", "role", "type"):
        value: str = getattr(options, name)
        if _PART.fullmatch(value) is None:
            raise InvalidArgument(f"selinux_options.{name}: {value!r} is no part of a label")


def relabel(path: Path, label: str) -> None:
    """Give `path` and all below it a label; a file system that takes no labels is left as it is.

    Blocking, and long for large trees: call it from a thread.
    """
    value = label.encode()
    try:
        os.setxattr(path, _ATTRIBUTE, value, follow_symlinks=False)
    except OSError as error:
        if error.errno == 95:  # ENOTSUP
            return
        raise
    for directory, folders, files, fd in os.fwalk(path, follow_symlinks=False):
        for name in (*folders, *files):
            os.setxattr(f"/proc/self/fd/{fd}/{name}", _ATTRIBUTE, value, follow_symlinks=False)
        del directory


def _apply(options: api_pb2.SELinuxOption, base: Labels) -> Labels:
    user, role, kind, level = base.process.split(":", 3)
    process = ":".join(
        (options.user or user, options.role or role, options.type or kind, options.level or level)
    )
    return _with_level(Labels(process, base.mount), options.level or level)


def _with_level(labels: Labels, level: str) -> Labels:
    process = ":".join((*labels.process.split(":", 3)[:3], level))
    return Labels(process, ":".join((*labels.mount.split(":", 3)[:3], level)))


def _own_level(sandbox_id: str, process: str) -> str:
    seed = int.from_bytes(hashlib.sha256(sandbox_id.encode()).digest()[:8], "big")
    first = seed % 1024
    second = (first + 1 + seed // 1024 % 1023) % 1024
    low, high = sorted((first, second))
    return f"{process.split(':', 3)[3].partition(':')[0]}:c{low},c{high}"
