"""seccomp profiles: from files in the format of containers-common (or of the OCI) to `linux.seccomp`.

The containers-common format (github.com/containers/common, pkg/seccomp) is Docker's: architectures in
`archMap`, and rules that hold or not by the container's capabilities, the architecture and the kernel.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
from runtime.v1 import api_pb2
from triptych_errors import FailedPrecondition, InvalidArgument, NotFound

from triptych_runtime.spec import profiles
from triptych_runtime.spec.facts import HandlerFeatures, HostFacts

# uname -m: the name of libseccomp, and the name (GOARCH) that conditions use.
_ARCHITECTURES: Final = {
    "x86_64": ("SCMP_ARCH_X86_64", "amd64"),
    "i686": ("SCMP_ARCH_X86", "x86"),
    "aarch64": ("SCMP_ARCH_AARCH64", "arm64"),
    "armv7l": ("SCMP_ARCH_ARM", "arm"),
    "ppc64le": ("SCMP_ARCH_PPC64LE", "ppc64le"),
    "riscv64": ("SCMP_ARCH_RISCV64", "riscv64"),
    "s390x": ("SCMP_ARCH_S390X", "s390x"),
    "loongarch64": ("SCMP_ARCH_LOONGARCH64", "loong64"),
    "mips64": ("SCMP_ARCH_MIPS64", "mips64"),
}

_ADMIN: Final = "CAP_SYS_ADMIN"
_CLOSED: Final = frozenset(
    (
        "clone clone3 unshare setns mount mount_setattr move_mount umount umount2 open_tree fsopen fsconfig "
        "fsmount fspick pivot_root"
    ).split()
)
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (include/uapi/linux/sched.h).
_CLONE_NEW: Final = 0x7E020000


class _Condition(msgspec.Struct, frozen=True, rename="camel"):
    caps: tuple[str, ...] | None = None
    arches: tuple[str, ...] | None = None
    min_kernel: str | None = None


class _Argument(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    index: int
    value: int
    op: str
    value_two: int = 0


class _Rule(msgspec.Struct, frozen=True, rename="camel"):
    action: str
    names: tuple[str, ...] | None = None
    name: str = ""
    args: tuple[_Argument, ...] | None = None
    errno_ret: int | None = None
    errno: str = ""
    includes: _Condition | None = None
    excludes: _Condition | None = None


class _ArchMap(msgspec.Struct, frozen=True, rename="camel"):
    architecture: str
    sub_architectures: tuple[str, ...] | None = None


class _ProfileFile(msgspec.Struct, frozen=True, rename="camel"):
    default_action: str
    default_errno_ret: int | None = None
    default_errno: str = ""
    architectures: tuple[str, ...] | None = None
    arch_map: tuple[_ArchMap, ...] | None = None
    flags: tuple[str, ...] | None = None
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[_Rule, ...] | None = None


def build(
    context: api_pb2.LinuxContainerSecurityContext,
    capabilities: Iterable[str],
    host: HostFacts,
    handler: HandlerFeatures,
    localhost_root: Path,
) -> dict[str, Any] | None:
    """`linux.seccomp`, or None for none: privileged, Unconfined, or nothing asked for.

    :param capabilities: the container's bounding set, for the profile's conditions.
    :param localhost_root: what a relative Localhost reference is below.
    :raises FailedPrecondition: when the kernel or the handler has no seccomp, or the default profile's file
        is missing.
    :raises NotFound: when a Localhost profile's file is missing.
    :raises InvalidArgument: when it is no profile, or cannot be read.
    """
    wanted = profiles.seccomp_of(context)
    if context.privileged or wanted is None or wanted.kind == profiles.UNCONFINED:
        return None
    if not (host.seccomp and handler.seccomp):
        whose = "the kernel" if not host.seccomp else handler.name
        raise FailedPrecondition(f"seccomp: a profile is asked for, but {whose} has no seccomp")
    if wanted.kind == profiles.RUNTIME_DEFAULT:
        return _default(host, frozenset(capabilities))
    path = _localhost_path(wanted.ref, localhost_root)
    try:
        return _convert(_load(path), host, frozenset(capabilities))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"seccomp: profile {path} does not exist") from error
    except OSError as error:
        raise InvalidArgument(f"seccomp: profile {path} cannot be read: {error.strerror}") from error


def _default(host: HostFacts, capabilities: frozenset[str]) -> dict[str, Any]:
    path = host.seccomp_profile
    try:
        profile = _convert(_load(path), host, capabilities)
        return profile if not host.seccomp_harden or _ADMIN in capabilities else _harden(profile, host)
    except FileNotFoundError as error:
        raise FailedPrecondition(
            f"seccomp: the RuntimeDefault profile {path} does not exist",
            hint="install containers-common (Debian: golang-github-containers-common)",
        ) from error
    except OSError as error:
        raise FailedPrecondition(
            f"seccomp: the RuntimeDefault profile {path} cannot be read: {error.strerror}"
        ) from error


def _harden(profile: dict[str, Any], host: HostFacts) -> dict[str, Any]:
    """Close what containers-common leaves open for nested podman: new namespaces and mounts.

    Docker and containerd allow these calls with CAP_SYS_ADMIN only; CRI-O closes the first group too.
    clone3 hides its flags from the filter, so it must not exist: libc then falls back to clone.
    """
    rules: list[dict[str, Any]] = []
    for rule in profile.get("syscalls", ()):
        names = [name for name in rule["names"] if name not in _CLOSED]
        if names:
            rules.append({**rule, "names": names})
    flags_index = 1 if host.machine == "s390x" else 0
    no_namespace = {"index": flags_index, "value": _CLONE_NEW, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    rules += [
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [no_namespace]},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
        {
            "names": sorted(_CLOSED - {"clone", "clone3"}),
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": errno.EPERM,
        },
    ]
    return {**profile, "syscalls": rules}


def _localhost_path(reference: str, root: Path) -> Path:
    path = Path(reference)
    if ".." in path.parts:
        raise InvalidArgument(f"seccomp.localhost_ref: {reference!r} leaves its directory")
    return path if path.is_absolute() else root / path


def _load(path: Path) -> _ProfileFile:
    info = os.stat(path)
    return _parse(path, info.st_mtime_ns, info.st_size)


@functools.lru_cache(maxsize=8)
def _parse(path: Path, mtime_ns: int, size: int) -> _ProfileFile:
    try:
        profile = msgspec.json.decode(path.read_bytes(), type=_ProfileFile)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"seccomp: {path} is not a profile: {error}") from error
    if profile.architectures and profile.arch_map:
        raise InvalidArgument(f"seccomp: {path} has both architectures and archMap")
    for rule in profile.syscalls or ():
        if rule.name and rule.names:
            raise InvalidArgument(f"seccomp: {path} has a rule with both name and names: {rule.name}")
    return profile


def _convert(profile: _ProfileFile, host: HostFacts, capabilities: frozenset[str]) -> dict[str, Any]:
    result: dict[str, Any] = {"defaultAction": profile.default_action}
    default_errno = _errno(profile.default_errno_ret, profile.default_errno)
    if default_errno is not None:
        result["defaultErrnoRet"] = default_errno
    native, goarch = _ARCHITECTURES.get(host.machine, ("", ""))
    architectures = list(profile.architectures or ())
    for entry in profile.arch_map or ():
        if entry.architecture == native:
            architectures += [native, *(entry.sub_architectures or ())]
    if architectures:
        result["architectures"] = architectures
    told = {
        "flags": list(profile.flags or ()),
        "listenerPath": profile.listener_path,
        "listenerMetadata": profile.listener_metadata,
    }
    result |= {key: value for key, value in told.items() if value}
    rules = [
        _rule(rule)
        for rule in profile.syscalls or ()
        if (rule.names or rule.name) and _holds(rule, goarch, host.kernel, capabilities)
    ]
    if rules:
        result["syscalls"] = rules
    return result


def _holds(rule: _Rule, arch: str, kernel: tuple[int, int], capabilities: frozenset[str]) -> bool:
    no = rule.excludes
    if no is not None and (
        arch in (no.arches or ())
        or any(cap in capabilities for cap in no.caps or ())
        or (no.min_kernel and kernel >= _kernel(no.min_kernel))
    ):
        return False
    yes = rule.includes
    return yes is None or (
        (not yes.arches or arch in yes.arches)
        and all(cap in capabilities for cap in yes.caps or ())
        and (not yes.min_kernel or kernel >= _kernel(yes.min_kernel))
    )


def _rule(rule: _Rule) -> dict[str, Any]:
    names = list(rule.names or ()) or [rule.name]
    result: dict[str, Any] = {"names": names, "action": rule.action}
    number = _errno(rule.errno_ret, rule.errno)
    if number is not None and rule.action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        result["errnoRet"] = number
    if rule.args:
        result["args"] = [msgspec.to_builtins(argument) for argument in rule.args]
    return result


def _errno(number: int | None, name: str) -> int | None:
    if number is not None or not name:
        return number
    value = getattr(errno, name, None)
    if not isinstance(value, int):
        raise InvalidArgument(f"seccomp: the profile names an unknown errno {name!r}")
    return value


def _kernel(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise InvalidArgument(f"seccomp: the profile's minKernel {text!r} is not MAJOR.MINOR")
    return int(major), int(minor)
