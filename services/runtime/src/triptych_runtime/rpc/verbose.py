"""The `info` documents of verbose statuses, in the JSON keys that users of crictl know."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord
from triptych_runtime.node import Node


def _plain(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, default=str)


async def sandbox_info(node: Node, record: SandboxRecord) -> str:
    """`crictl inspectp`: pid, network, namespaces, handler, configuration."""
    result = node.network.result(record.id)
    handler = node.handlers.find(record.handler)
    return _json(
        {
            "pid": record.init_pid,
            "processStatus": "running" if record.phase is SandboxPhase.READY else "deleted",
            "netNamespaceClosed": "net" not in record.namespaces,
            "runtimeHandler": record.handler,
            "runtimeType": handler.runtime.path if handler else "",
            "cgroupParent": record.cgroup_parent,
            "namespaces": record.namespaces,
            "cniResult": result.raw if result else None,
            "config": _plain(record.config),
        }
    )


async def container_info(node: Node, record: ContainerRecord) -> str:
    """`crictl inspect`: sandboxID, pid, snapshot key, OCI runtime spec, configuration."""
    path = node.paths.bundle(record.id) / "config.json"

    def read() -> Any:
        try:
            return json.loads(path.read_bytes().decode(errors="surrogateescape"))
        except (OSError, ValueError):
            return None

    return _json(
        {
            "sandboxID": record.sandbox_id,
            "pid": record.pid,
            "monitorPid": record.monitor_pid,
            "removing": record.phase is ContainerPhase.REMOVING,
            "snapshotKey": record.id,
            "bundle": str(path.parent),
            "runtimeType": record.handler,
            "cgroupsPath": record.cgroups_path,
            "config": _plain(record.config),
            "runtimeSpec": await asyncio.to_thread(read),
        }
    )
