"""The `info` documents of verbose statuses, in the JSON keys that users of crictl know."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from triptych_runtime import __version__
from triptych_runtime.bundles.write import read_document
from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord
from triptych_runtime.network import NetworkResult
from triptych_runtime.node import Node

#: Pinned namespaces by file name, as the OCI runtime specification calls them.
_NAMESPACES = {"net": "network", "ipc": "ipc", "uts": "uts", "pid": "pid", "user": "user"}


def plain(message: Message) -> dict[str, Any]:
    """A message as peers print it: the proto's names, numbers as numbers, bytes as text, no empty fields."""
    return {field.name: _value(field, value) for field, value in message.ListFields()}


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [plain(item) if isinstance(item, Message) else item for item in value]
    return value


def status_info(node: Node) -> dict[str, str]:
    """`crictl info`: configuration, CNI configuration and what became of loading it."""
    network, settings = node.network.status(), node.settings
    handlers = {
        h.name: {"path": h.runtime.path, "version": h.version, "problem": h.problem}
        for h in node.handlers.all()
    }
    config = {
        "rootDir": settings.root,
        "stateDir": settings.state,
        "defaultRuntimeHandler": node.handlers.default,
        "runtimes": handlers,
        "cgroupDriver": node.cgroups.driver.value,
        "cgroupMode": node.cgroups.mode.value,
        "nri": {
            "enable": settings.nri.enabled,
            "socketPath": settings.nri.socket,
            "plugins": node.nri.names,
        },
        "version": __version__,
    }
    cni = {
        "PluginDirs": settings.network.bin_dirs,
        "PluginConfDir": ":".join(settings.network.conf_dirs),
        "PluginMaxConfNum": settings.network.max_conf_num,
        "Prefix": "eth",
        "Networks": [
            {"IFName": f"eth{index}", "Config": {"Name": name, "Source": source}}
            for index, (name, source) in enumerate(network.networks)
        ],
    }
    return {
        "config": json.dumps(config),
        "cniconfig": json.dumps(cni),
        "lastCNILoadStatus": json.dumps(network.message or "OK"),
    }


async def sandbox_info(node: Node, record: SandboxRecord) -> str:
    """`crictl inspectp`: pid, network, namespaces, handler, configuration.

    The pid is that of the init of a shared PID namespace, else of the first container that runs: whoever
    asks for it wants to enter the pod's namespaces.
    """
    result = node.network.result(record.id)
    handler = node.handlers.find(record.handler)
    running = (c.pid for c in node.state.containers_of(record.id) if c.running)
    return json.dumps(
        {
            "pid": record.init_pid or next(running, 0),
            "processStatus": "running" if record.phase is SandboxPhase.READY else "deleted",
            "netNamespaceClosed": "net" not in record.namespaces,
            "runtimeHandler": record.handler,
            "runtimeType": handler.runtime.path if handler else "",
            "cgroupParent": record.cgroup_parent,
            "cniResult": _cni(result) if result else None,
            "config": plain(record.config),
            "runtimeSpec": _pod_spec(record),
        }
    )


def _cni(result: NetworkResult) -> dict[str, Any]:
    """As containerd's library for CNI has it, and the plugins' own answers."""
    routes = [route for raw in result.raw.values() for route in raw.get("routes", ())]
    return {
        "Interfaces": {
            i.name: {
                "IPConfigs": [{"IP": ip.partition("/")[0]} for ip in i.addresses],
                "Mac": i.mac,
                "Sandbox": i.sandbox,
            }
            for i in result.interfaces
        },
        "DNS": [raw.get("dns", {}) for raw in result.raw.values()],
        "Routes": routes,
        "Networks": result.raw,
    }


def _pod_spec(record: SandboxRecord) -> dict[str, Any]:
    """A pod as the OCI spec of its pause container would show it, had it one."""
    namespaces = [
        {"type": _NAMESPACES[kind], "path": path} for kind, path in sorted(record.namespaces.items())
    ]
    return {
        "ociVersion": "1.0.2",
        "hostname": record.config.hostname,
        "annotations": dict(record.config.annotations),
        "linux": {
            "cgroupsPath": record.cgroup_parent,
            "namespaces": namespaces,
            "sysctl": dict(record.config.linux.sysctls),
        },
    }


async def container_info(node: Node, record: ContainerRecord) -> str:
    """`crictl inspect`: sandboxID, pid, snapshot key, OCI runtime spec, configuration."""
    bundle = node.paths.bundle(record.id)

    def read() -> Any:
        try:
            return read_document(bundle)
        except (OSError, ValueError):
            return None

    return json.dumps(
        {
            "sandboxID": record.sandbox_id,
            "pid": record.pid,
            "monitorPid": record.monitor_pid,
            "removing": record.phase is ContainerPhase.REMOVING,
            "snapshotKey": record.id,
            "snapshotter": "overlayfs",
            "bundle": str(bundle),
            "runtimeType": record.handler,
            "cgroupsPath": record.cgroups_path,
            "privileged": record.config.linux.security_context.privileged,
            "config": plain(record.config),
            "runtimeSpec": await asyncio.to_thread(read),
        }
    )
