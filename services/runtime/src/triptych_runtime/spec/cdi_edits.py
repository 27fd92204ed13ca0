"""Applying CDI container edits to a document."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec
from triptych_errors import FailedPrecondition, NotFound

from triptych_runtime.spec import default_mounts
from triptych_runtime.spec.cdi import CdiMount, ContainerEdits, DeviceNode, Hook, IntelRdt
from triptych_runtime.spec.devices import Device, read_device
from triptych_runtime.spec.inputs import Document
from triptych_runtime.spec.mounts import bind_options, place
from triptych_runtime.spec.process import merge_text


def apply(document: Document, edits: Iterable[ContainerEdits]) -> None:
    """Change the document as CDI's SPEC.md says; in the order of the edits.

    :raises NotFound: when a device node neither tells its numbers nor exists on the host.
    """
    process, linux = document["process"], document["linux"]
    for edit in edits:
        process["env"] = merge_text(process["env"], edit.env or ())
        for node in edit.device_nodes or ():
            _add_node(linux, process["user"], node)
        for net in edit.net_devices or ():
            linux.setdefault("netDevices", {})[net.host_interface_name] = {"name": net.name}
        for mount in edit.mounts or ():
            _add_mount(document, mount)
        for hook in edit.hooks or ():
            hooks = document.setdefault("hooks", {})
            hooks.setdefault(hook.hook_name, []).append(_hook(hook))
        if edit.intel_rdt is not None:
            linux["intelRdt"] = _rdt(edit.intel_rdt)
        groups = process["user"]["additionalGids"]
        groups += [gid for gid in edit.additional_gids or () if gid and gid not in groups]


def _add_node(linux: Document, user: Document, node: DeviceNode) -> None:
    device = _device(node)
    owned = replace(
        device,
        uid=node.uid if node.uid is not None else (user["uid"] or device.uid),
        gid=node.gid if node.gid is not None else (user["gid"] or device.gid),
    )
    nodes = linux.setdefault("devices", [])
    nodes[:] = [entry for entry in nodes if entry["path"] != node.path]
    nodes.append(owned.node())
    if owned.kind in ("b", "c"):
        linux["resources"]["devices"].append(owned.rule(node.permissions or "rwm"))


def _device(node: DeviceNode) -> Device:
    """The device, with what the spec leaves out filled in from the host's node."""
    kind = "c" if node.type == "u" else node.type
    if kind == "p" or (kind and node.major):
        mode = 0o666 if node.file_mode is None else node.file_mode
        return Device(node.path, kind, node.major or 0, node.minor or 0, stat.S_IMODE(mode), 0, 0)
    host_path = node.host_path or node.path
    found = read_device(host_path)
    if found is None:
        raise NotFound(f"CDI device node {node.path}: {host_path} is no device of this host")
    if kind and kind != found.kind:
        raise FailedPrecondition(
            f"CDI device node {node.path}: {host_path} is of type {found.kind}, not {kind}"
        )
    mode = found.mode if node.file_mode is None else node.file_mode
    return replace(found, path=node.path, mode=stat.S_IMODE(mode))


def _add_mount(document: Document, mount: CdiMount) -> None:
    kind = mount.type or "bind"
    options = bind_options(kind, mount.options, mount.host_path, document)
    entry = default_mounts.entry(mount.container_path, kind, mount.host_path, options)
    document["mounts"] = place(document["mounts"], entry)


def _hook(hook: Hook) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": hook.path}
    if hook.args:
        entry["args"] = list(hook.args)
    if hook.env:
        entry["env"] = list(hook.env)
    if hook.timeout is not None:
        entry["timeout"] = hook.timeout
    return entry


def _rdt(rdt: IntelRdt) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(rdt)
    return {key: value for key, value in told.items() if value}
