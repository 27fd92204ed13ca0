"""Devices in a user namespace, where no node can be made.

crun makes them outside. Other OCI runtimes bind the host's node of the same path, whatever device that is:
one that the container is to have under another name would be another device, or none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from triptych_errors import FailedPrecondition

from triptych_runtime.spec import default_mounts, mount_options
from triptych_runtime.spec.devices import read_device
from triptych_runtime.spec.facts import HandlerFeatures
from triptych_runtime.spec.inputs import Document
from triptych_runtime.spec.mounts import place

_SYSFS = {"c": "char", "u": "char", "b": "block"}


def bind_renamed(document: Document, handler: HandlerFeatures) -> None:
    """Mount the nodes of devices that have another path on the host, in place of `linux.devices`.

    :raises FailedPrecondition: for a device that the host has no node of.
    """
    linux = document["linux"]
    if not (handler.binds_devices and linux.get("uidMappings")):
        return
    for node in list(linux.get("devices", ())):
        if node["type"] not in _SYSFS or _is(node, node["path"]):
            continue
        source = _host_path(node)
        if source is None:
            raise FailedPrecondition(
                f"devices: {node['path']}: this host has no node of device {node['major']}:{node['minor']}, "
                f"which {handler.name or 'the runtime handler'} needs in a user namespace"
            )
        options = ["bind", "rprivate", *mount_options.of_mount(source)]
        mount = default_mounts.entry(node["path"], "bind", source, options)
        document["mounts"] = place(document["mounts"], mount)
        linux["devices"].remove(node)


def _is(node: dict[str, Any], path: str) -> bool:
    found = read_device(path)
    wanted = ("c" if node["type"] == "u" else node["type"], node["major"], node["minor"])
    return found is not None and (found.kind, found.major, found.minor) == wanted


def _host_path(node: dict[str, Any]) -> str | None:
    """Where the kernel says that the host has a device, if it has it there."""
    uevent = Path(f"/sys/dev/{_SYSFS[node['type']]}/{node['major']}:{node['minor']}/uevent")
    try:
        lines = uevent.read_text().splitlines()
    except OSError:
        return None
    names = [line.removeprefix("DEVNAME=") for line in lines if line.startswith("DEVNAME=")]
    return next((path for name in names if _is(node, path := f"/dev/{name}")), None)
