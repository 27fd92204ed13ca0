"""Limits after an update."""

from __future__ import annotations

import asyncio
import json

from runtime.v1 import api_pb2

from triptych_runtime.bundles.write import write_document
from triptych_runtime.model import ContainerRecord
from triptych_runtime.node import Node
from triptych_runtime.spec import build_resources, encode, oom_score_adj
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


async def update_spec(
    node: Node, record: ContainerRecord, resources: api_pb2.LinuxContainerResources
) -> None:
    """Rewrite the limits in the spec of a container that has not started."""
    bundle = node.paths.bundle(record.id)

    def work() -> None:
        raw = (bundle / "config.json").read_bytes()
        document = json.loads(raw.decode(errors="surrogateescape"))
        held = document["linux"].get("resources", {})
        document["linux"]["resources"] = overlay(held, build_resources(resources, node.host))
        if resources.oom_score_adj:
            document["process"]["oomScoreAdj"] = oom_score_adj(resources, node.host)
        document["annotations"] = {**document["annotations"], **node.cgroups.spec_annotations(resources)}
        write_document(bundle, encode(document))

    await asyncio.to_thread(work)
