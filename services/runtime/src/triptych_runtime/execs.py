"""Process documents for exec, made from the container's own."""

from __future__ import annotations

import asyncio
from typing import Any

from triptych_runtime.bundles.write import read_document
from triptych_runtime.model import ContainerRecord
from triptych_runtime.node import Node
from triptych_runtime.spec import build_exec_process, encode

_LIMIT = 64


async def read_process(node: Node, record: ContainerRecord) -> dict[str, Any]:
    """The `process` document of a container's config.json. The last few are kept: probes ask again."""
    found = node.processes.get(record.id)
    if found is None:
        document = await asyncio.to_thread(read_document, node.paths.bundle(record.id))
        found = document["process"]
        while len(node.processes) >= _LIMIT:
            del node.processes[next(iter(node.processes))]
        node.processes[record.id] = found
    return found


def exec_process(template: dict[str, Any], cmd: list[str], *, terminal: bool) -> bytes:
    """The document of an exec'd process as the OCI runtime reads it."""
    return encode(build_exec_process(template, cmd, tty=terminal))
