"""What NRI plugins of the node want of a container that is being created. Loaded with the first plugin."""

from __future__ import annotations

import asyncio

import msgspec
from nri.v1alpha1 import nri_pb2

from triptych_runtime.cgroups.errors import BadParent
from triptych_runtime.errors import AdjustmentRefused
from triptych_runtime.lifecycle import Undo, fault
from triptych_runtime.model import ContainerRecord, SandboxRecord, User
from triptych_runtime.node import Node
from triptych_runtime.nri.adjust import adjust_spec
from triptych_runtime.nri.limits import to_cri
from triptych_runtime.ociruntime import Handler
from triptych_runtime.resources import merge
from triptych_runtime.spec import ContainerInputs, ContainerSpec


async def ask_plugins(
    node: Node,
    sandbox: SandboxRecord,
    handler: Handler,
    record: ContainerRecord,
    inputs: ContainerInputs,
    spec: ContainerSpec,
    undo: Undo,
) -> tuple[ContainerRecord, ContainerSpec]:
    """The container as the plugins want it.

    :raises RefusedByPlugin: a plugin does not want it at all. :raises PluginConflict: two cannot agree.
    :raises FailedPrecondition, InvalidArgument: for what cannot be done, naming the field.
    """
    asked = msgspec.structs.replace(record, user=User(spec.user.uid, spec.user.gid, tuple(spec.user.groups)))
    undo.push("NRI plugins", lambda: node.nri.remove_container(sandbox, asked))
    adjustment = await node.nri.create_container(sandbox, asked, spec.document)
    fault("create_container.nri")
    if adjustment is None:
        node.nri.container_unasked(record)  # the last one has just left
        return record, spec
    spec = await asyncio.to_thread(
        adjust_spec, spec, adjustment, node.host, handler.features, inputs.cdi_dirs
    )
    record = _adjusted(record, spec, adjustment)
    if adjustment.linux.cgroups_path:
        record = _in_own_cgroup(node, record)
        spec.document["linux"]["cgroupsPath"] = record.cgroups_path
        await node.state.show(record)  # so that the next one sees that the cgroup is taken
    if record.resources is not None:
        spec.document["annotations"].update(node.cgroups.spec_annotations(record.resources))
    return record, spec


def _adjusted(
    record: ContainerRecord, spec: ContainerSpec, adjustment: nri_pb2.ContainerAdjustment
) -> ContainerRecord:
    """The record with what it keeps of the spec: later updates, the exit and the removal go by it."""
    limits = to_cri(adjustment.linux.resources)
    if adjustment.linux.HasField("oom_score_adj"):
        limits.oom_score_adj = adjustment.linux.oom_score_adj.value
    return msgspec.structs.replace(
        record,
        cgroups_path=spec.document["linux"]["cgroupsPath"],
        resources=merge(record.resources, limits) if limits.ByteSize() else record.resources,
    )


def _in_own_cgroup(node: Node, record: ContainerRecord) -> ContainerRecord:
    """The record with a cgroup that is the container's alone, since all that is in it ends with it.

    :raises AdjustmentRefused: for one that is there already, or holds others, or is no cgroup.
    """
    try:
        path = node.cgroups.check_path(record.cgroups_path)
    except BadParent as error:
        raise AdjustmentRefused(f"linux.cgroups_path: {error.message}") from error
    cgroup = node.cgroups.resolve(path)
    others = (c.cgroups_path for c in node.state.containers.values() if c.id != record.id)
    if cgroup.exists() or any(_nested(cgroup.path, node.cgroups.resolve(other).path) for other in others):
        raise AdjustmentRefused(f"linux.cgroups_path: {path} is not this container's alone")
    return msgspec.structs.replace(record, cgroups_path=path)


def _nested(one: str, other: str) -> bool:
    return one == other or f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
