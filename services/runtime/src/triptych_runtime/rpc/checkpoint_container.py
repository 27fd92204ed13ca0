"""CheckpointContainer (KEP-2008): a running container into an archive; it goes on running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from runtime.v1 import api_pb2
from triptych_linux.process import shielded

from triptych_runtime.checkpoint.archive import write_archive
from triptych_runtime.checkpoint.capture import capture
from triptych_runtime.errors import ContainerNotRunning, InvalidArgument
from triptych_runtime.node import Node

DEFAULT_DEADLINE = 300.0
_REMOVAL_DEADLINE = 60.0


async def checkpoint_container(
    node: Node, request: api_pb2.CheckpointContainerRequest
) -> api_pb2.CheckpointContainerResponse:
    """Write a checkpoint of a running container to `location`, a tar in the form that checkpointctl reads.

    :raises ContainerNotRunning: for a container that does not run. :raises InvalidArgument: for a location
        that is no absolute path of a file to be. :raises CheckpointImpossible: where CRIU is missing.
    :raises CheckpointFailed: with the end of CRIU's log.
    """
    record = node.state.container(request.container_id)
    location = _location(request.location)
    if not record.running:
        raise ContainerNotRunning(record.id, record.phase.value)
    handler = node.handlers.get(record.handler)
    await node.criu.require(handler)
    seconds = float(request.timeout) if request.timeout > 0 else DEFAULT_DEADLINE
    async with node.locks.hold(record.id):
        async with scratch(node.paths.scratch) as directory:
            # CRIU freezes the container, and thaws it unless it is killed at the deadline.
            async with node.pauses.held(handler.runtime, record.id):
                await capture(handler.runtime, record, node.paths.bundle(record.id), directory, seconds)
            await asyncio.to_thread(write_archive, directory, location)
    return api_pb2.CheckpointContainerResponse()


def _location(text: str) -> Path:
    if not os.path.isabs(text):
        raise InvalidArgument(f"location: {text!r} is no absolute path")
    if not os.path.isdir(os.path.dirname(text)):
        raise InvalidArgument(f"location: the directory of {text!r} does not exist")
    return Path(text)


@contextlib.asynccontextmanager
async def scratch(parent: Path) -> AsyncIterator[Path]:
    """A directory that is gone afterwards, whatever happens."""
    directory = await asyncio.to_thread(_make_scratch, parent)
    try:
        yield directory
    finally:
        removal = asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        await shielded(removal, _REMOVAL_DEADLINE)


def _make_scratch(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Path(tempfile.mkdtemp(dir=parent))
