"""The process and the hooks: environment, arguments, limits and scheduling."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from nri.v1alpha1 import nri_pb2
from runtime.v1 import api_pb2

from triptych_runtime.errors import AdjustmentRefused
from triptych_runtime.nri.adjusting import Adjusting, enum_name
from triptych_runtime.nri.owners import unmark
from triptych_runtime.spec import resources
from triptych_runtime.spec.newer_fields import NewerField
from triptych_runtime.spec.process import checked_variables, exec_arguments, merge_text

_RLIMIT: Final = re.compile(r"RLIMIT_[A-Z]+")


def environment(made: Adjusting, wanted: Iterable[nri_pb2.KeyValue]) -> None:
    """Variables, each in the place of the one that it replaces.

    :raises InvalidArgument: for a name that is none, or a value that holds NUL.
    """
    variables = [api_pb2.KeyValue(key=e.key, value=e.value.encode()) for e in wanted]
    removed = {name for name, gone in (unmark(variable.key) for variable in variables) if gone}
    added = checked_variables(v for v in variables if not unmark(v.key)[1])
    forget_raw(made, (*removed, *(name for name, _ in added)))
    kept = [entry for entry in made.process["env"] if entry.partition("=")[0] not in removed]
    made.process["env"] = merge_text(kept, (f"{name}={value.decode()}" for name, value in added))


def forget_raw(made: Adjusting, names: Iterable[str]) -> None:
    """Drop variables that the document could not carry: they are set anew, or removed."""
    gone = {name.encode() for name in names}
    made.raw[:] = [entry for entry in made.raw if entry.partition(b"=")[0] not in gone]


def arguments(made: Adjusting, wanted: Sequence[str]) -> None:
    """:raises InvalidArgument: for an empty command."""
    if wanted:
        made.process["args"] = exec_arguments(wanted)


def hooks(made: Adjusting, wanted: nri_pb2.Hooks) -> None:
    """Hooks after those that are there.

    :raises AdjustmentRefused: for a path that is not absolute.
    """
    for field, entries in wanted.ListFields():
        held = made.document.setdefault("hooks", {}).setdefault(field.json_name, [])
        held += [_hook(entry, f"hooks.{field.name}") for entry in entries]


def _hook(hook: nri_pb2.Hook, field: str) -> dict[str, Any]:
    if not hook.path.startswith("/"):
        raise AdjustmentRefused(f"{field}: {hook.path!r} is not an absolute path")
    entry: dict[str, Any] = {"path": hook.path}
    if hook.args:
        entry["args"] = list(hook.args)
    if hook.env:
        entry["env"] = list(hook.env)
    if hook.timeout.value > 0:
        entry["timeout"] = hook.timeout.value
    return entry


def rlimits(made: Adjusting, wanted: Iterable[nri_pb2.POSIXRlimit]) -> None:
    """:raises AdjustmentRefused: for a type that is none, or a soft limit above the hard one."""
    for limit in wanted:
        if _RLIMIT.fullmatch(limit.type) is None:
            raise AdjustmentRefused(f"rlimits: {limit.type!r} is no type such as RLIMIT_NOFILE")
        if limit.soft > limit.hard:
            raise AdjustmentRefused(f"rlimits: {limit.type}: soft {limit.soft} is above hard {limit.hard}")
        kept = [entry for entry in made.process.get("rlimits", ()) if entry["type"] != limit.type]
        made.process["rlimits"] = [*kept, {"type": limit.type, "hard": limit.hard, "soft": limit.soft}]


def scheduling(made: Adjusting, linux: nri_pb2.LinuxContainerAdjustment) -> None:
    """OOM score, I/O priority and scheduler; NONE takes away what is there.

    :raises InvalidArgument: for a score that is none.
    :raises AdjustmentRefused: when the OCI runtime cannot set it.
    """
    if linux.HasField("oom_score_adj"):
        limits = api_pb2.LinuxContainerResources(oom_score_adj=linux.oom_score_adj.value)
        resources.validate(limits, "linux")
        made.process["oomScoreAdj"] = resources.oom_score_adj(limits, made.host)
    if linux.HasField("io_priority"):
        made.process.pop("ioPriority", None)
        if wanted := _io_priority(linux.io_priority):
            made.need(NewerField.IO_PRIORITY)
            made.process["ioPriority"] = wanted
    if linux.HasField("scheduler"):
        made.process.pop("scheduler", None)
        if wanted := _scheduler(linux.scheduler):
            made.need(NewerField.SCHEDULER)
            made.process["scheduler"] = wanted


def _io_priority(wanted: nri_pb2.LinuxIOPriority) -> dict[str, Any]:
    kind = getattr(wanted, "class")
    if kind == nri_pb2.IOPRIO_CLASS_NONE:
        return {}
    name = enum_name(nri_pb2.IOPrioClass, kind, "linux.io_priority.class")
    return {"class": name, "priority": wanted.priority}


def _scheduler(wanted: nri_pb2.LinuxScheduler) -> dict[str, Any]:
    if wanted.policy == nri_pb2.SCHED_NONE:
        return {}
    told = {
        "nice": wanted.nice,
        "priority": wanted.priority,
        "flags": [
            enum_name(nri_pb2.LinuxSchedulerFlag, flag, "linux.scheduler.flags") for flag in wanted.flags
        ],
        "runtime": wanted.runtime,
        "deadline": wanted.deadline,
        "period": wanted.period,
    }
    policy = enum_name(nri_pb2.LinuxSchedulerPolicy, wanted.policy, "linux.scheduler.policy")
    return {"policy": policy} | {key: value for key, value in told.items() if value}
