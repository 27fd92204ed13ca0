"""The few things asked of systemd over D-Bus, by its own `busctl`.

None is on the way of an ordinary container: the OCI runtime makes its scope, and the kubelet the slice
of its pod. A D-Bus client in the daemon would cost more memory than these calls cost time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from runtime.v1.api_pb2 import LinuxContainerResources
from triptych_linux import process
from triptych_linux.errors import ProcessFailed

from triptych_runtime.cgroups import arithmetic
from triptych_runtime.cgroups.errors import CgroupFailed
from triptych_runtime.cgroups.layout import Mode

_DEADLINE = 10.0
_SETTLE_DEADLINE = 5.0
_MANAGER = (
    "busctl",
    "--quiet",
    "call",
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
)

Property = tuple[str, ...]
"""Name, D-Bus type and value words of a unit's property, as busctl takes them."""


async def start_scope(name: str, slice_name: str, pids: list[int], description: str) -> None:
    """Ask for a transient scope around running processes; the job is done some time later.

    :raises CgroupFailed: when systemd refuses.
    """
    properties: list[Property] = [
        ("Description", "s", description),
        ("Slice", "s", slice_name),
        ("Delegate", "b", "true"),
        ("PIDs", "au", str(len(pids)), *map(str, pids)),
    ]
    await _start_transient(name, properties)


async def start_slice(name: str, description: str, properties: list[Property]) -> None:
    """Start a slice, with its parents; one that runs gets the properties.

    :raises CgroupFailed: when systemd refuses.
    """
    try:
        await _start_transient(name, [("Description", "s", description), *properties])
    except _UnitExists:
        if properties:
            await set_properties(name, properties)


async def settle(done: Callable[[], bool], what: str) -> None:
    """Wait for the job behind `start_scope` or `start_slice` by looking at what it makes.

    :param done: whether it is made; called in a thread.
    :raises CgroupFailed: when it is not after some seconds.
    """

    def wait() -> None:
        end = time.monotonic() + _SETTLE_DEADLINE
        while not done():
            if time.monotonic() > end:
                raise CgroupFailed(f"systemd: {what}: not done after {_SETTLE_DEADLINE:g} s")
            time.sleep(0.002)

    await asyncio.to_thread(wait)


async def set_properties(unit: str, properties: list[Property]) -> None:
    """Change properties of a running unit until the next boot.

    :raises CgroupFailed: when systemd refuses or knows no such unit.
    """
    words = [word for prop in properties for word in prop]
    await _call("SetUnitProperties", "sba(sv)", unit, "true", str(len(properties)), *words)


async def stop(unit: str) -> None:
    """Stop a unit; one that systemd does not know is no error."""
    with contextlib.suppress(_NoSuchUnit):
        await _call("StopUnit", "ss", unit, "replace")


def resource_properties(resources: LinuxContainerResources, mode: Mode) -> list[Property]:
    """The properties that systemd would write back when it next applies a unit (daemon-reload)."""
    v2 = mode is Mode.UNIFIED
    found: list[Property] = []
    if resources.cpu_shares:
        if v2:
            found.append(("CPUWeight", "t", str(arithmetic.weight_from_shares(resources.cpu_shares))))
        else:
            found.append(("CPUShares", "t", str(resources.cpu_shares)))
    if resources.cpu_quota:
        period = resources.cpu_period or arithmetic.DEFAULT_PERIOD
        found.append(("CPUQuotaPeriodUSec", "t", str(period)))
        if resources.cpu_quota > 0:
            found.append(
                _number("CPUQuotaPerSecUSec", arithmetic.quota_per_second(resources.cpu_quota, period))
            )
        else:
            found.append(_number("CPUQuotaPerSecUSec", arithmetic.UNLIMITED))
    memory = resources.memory_limit_in_bytes
    if memory:
        found.append(_number("MemoryMax" if v2 else "MemoryLimit", memory))
    if not v2:
        return found
    if memory > 0:
        both = resources.memory_swap_limit_in_bytes
        found.append(_number("MemorySwapMax", arithmetic.swap_max(memory, both or memory)))
    for name, cpus in (
        ("AllowedCPUs", resources.cpuset_cpus),
        ("AllowedMemoryNodes", resources.cpuset_mems),
    ):
        if cpus:
            mask = arithmetic.cpu_mask(cpus)
            found.append((name, "ay", str(len(mask)), *map(str, mask)))
    for key, name in _UNIFIED.items():
        value = resources.unified.get(key, "").strip()
        if value == "max" or value.isdigit():
            found.append(_number(name, arithmetic.UNLIMITED if value == "max" else int(value)))
    return found


def scope_annotations(resources: LinuxContainerResources | None, mode: Mode) -> dict[str, str]:
    """Annotations of the OCI document for a container in a scope, read by crun and runc.

    crun makes a child cgroup in the scope otherwise, whose limits nobody finds; neither sets all of the
    scope's properties, and so a daemon-reload would lift limits; and systemd gives scopes a limit of tasks.
    """
    found = {"run.oci.systemd.subgroup": "", f"{_PROPERTY}TasksMax": f"uint64 {_INFINITY}"}
    for name, kind, *words in resource_properties(resources or LinuxContainerResources(), mode):
        # Weights are set by the runtimes themselves, each by its own curve; sets of CPUs by both.
        if kind == "t" and name not in ("CPUWeight", "CPUShares"):
            found[_PROPERTY + name] = f"uint64 {words[0]}"
    return found


_PROPERTY = "org.systemd.property."
_UNIFIED = {
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.max": "MemoryMax",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
}


def _number(name: str, value: int) -> Property:
    return (name, "t", str(value if value >= 0 else _INFINITY))


_INFINITY = (1 << 64) - 1


class _NoSuchUnit(CgroupFailed):
    pass


class _UnitExists(CgroupFailed):
    pass


_KINDS: tuple[tuple[bytes, type[CgroupFailed]], ...] = (
    (b"not loaded", _NoSuchUnit),
    (b"NoSuchUnit", _NoSuchUnit),
    (b"was already loaded", _UnitExists),
)
"""How busctl's messages are told apart; it does not print the D-Bus error's name."""


async def _start_transient(name: str, properties: list[Property]) -> None:
    words = [word for prop in properties for word in prop]
    signature = "ssa(sv)a(sa(sv))"
    await _call(
        "StartTransientUnit", signature, name, "replace", str(len(properties)), *words, "0", unit=name
    )


async def _call(method: str, signature: str, *words: str, unit: str = "") -> None:
    unit = unit or words[0]
    try:
        await process.run(
            # What follows "--" may begin with a dash, as the root slice "-.slice" does.
            [*_MANAGER, method, signature, "--", *words],
            deadline=_DEADLINE,
            step=f"systemd {method} {unit}",
        )
    except ProcessFailed as error:
        said = error.completed.stderr
        kind = next((kind for text, kind in _KINDS if text in said), CgroupFailed)
        text = said.decode(errors="replace").strip()
        raise kind(f"systemd {method} {unit}: {text}") from error
