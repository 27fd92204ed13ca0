"""Limits after an update."""

from __future__ import annotations

import asyncio

import msgspec
from runtime.v1 import api_pb2

from triptych_runtime.bundles.write import document_if_any, write_document
from triptych_runtime.errors import ContainerNotFound, WrongContainerState
from triptych_runtime.model import ContainerPhase, ContainerRecord
from triptych_runtime.node import Node
from triptych_runtime.spec import build_resources, encode, oom_score_adj, validate_resources
from triptych_runtime.spec.resources import overlay


def merge(
    old: api_pb2.LinuxContainerResources | None, new: api_pb2.LinuxContainerResources
) -> api_pb2.LinuxContainerResources:
    """The limits in force after `new`: what it leaves out stays as it was.

    But for swap: a memory limit without a word about swap means none, whatever was before.
    """
    merged = api_pb2.LinuxContainerResources()
    if old is not None:
        merged.CopyFrom(old)
    pages = {limit.page_size: limit.limit for limit in merged.hugepage_limits}
    pages.update({limit.page_size: limit.limit for limit in new.hugepage_limits})
    merged.MergeFrom(new)
    if new.memory_limit_in_bytes and not new.memory_swap_limit_in_bytes:
        merged.ClearField("memory_swap_limit_in_bytes")
    del merged.hugepage_limits[:]
    for size, limit in pages.items():
        merged.hugepage_limits.add(page_size=size, limit=limit)
    return merged


def check_resizable(record: ContainerRecord) -> None:
    """:raises WrongContainerState: for a container that has no limits any more, or none yet."""
    if record.phase not in (ContainerPhase.CREATED, ContainerPhase.RUNNING):
        raise WrongContainerState(f"update container {record.id}: it is {record.phase.value}")


async def resize(node: Node, container_id: str, changes: api_pb2.LinuxContainerResources) -> ContainerRecord:
    """Change the limits of a container, or those it will start with: all of them or, on an error, none.

    :raises ContainerNotFound, WrongContainerState: when it cannot be changed.
    :raises InvalidArgument: naming the field. :raises FailedPrecondition: for what the node cannot limit.
    """
    validate_resources(changes, "linux")
    identity = node.state.container(container_id).id
    async with node.locks.hold(identity):
        record = node.state.container(identity)
        check_resizable(record)
        merged = merge(record.resources, changes)
        if record.running:
            await _update_cgroup(node, record, changes, merged)
        else:
            await update_spec(node, record, merged)
        record = msgspec.structs.replace(record, resources=merged)
        await node.state.save(record)
    return record


async def _update_cgroup(
    node: Node,
    record: ContainerRecord,
    changes: api_pb2.LinuxContainerResources,
    merged: api_pb2.LinuxContainerResources,
) -> None:
    kept = record.resources
    score = oom_score_adj(changes, node.host) if changes.oom_score_adj else None
    # What the change itself writes must not be taken back.
    node.cgroups.group_kills.drop(record.cgroups_path)
    try:
        await node.cgroups.update(record.cgroups_path, changes, score)
        kept = merged
    finally:
        node.cgroups.group_kills.keep(record.cgroups_path, kept)


async def update_spec(
    node: Node, record: ContainerRecord, resources: api_pb2.LinuxContainerResources
) -> None:
    """Rewrite the limits in the spec of a container that has not started."""
    bundle = node.paths.bundle(record.id)

    def work() -> None:
        document = document_if_any(bundle)
        if document is None:
            raise ContainerNotFound(record.id)
        held = document["linux"].get("resources", {})
        document["linux"]["resources"] = overlay(held, build_resources(resources, node.host))
        if resources.oom_score_adj:
            document["process"]["oomScoreAdj"] = oom_score_adj(resources, node.host)
        document["annotations"] = {**document["annotations"], **node.cgroups.spec_annotations(resources)}
        write_document(bundle, encode(document))

    await asyncio.to_thread(work)
