"""Capturing one container: CRIU images, spec, facts and changed files, in a directory."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from triptych_runtime import clock
from triptych_runtime.checkpoint.errors import CheckpointFailed
from triptych_runtime.checkpoint.rootfs import save_diff
from triptych_runtime.errors import RuntimeFailed
from triptych_runtime.model import ContainerRecord
from triptych_runtime.ociruntime import OciRuntime

IMAGES = "checkpoint"
SPEC = "spec.dump"
CONFIG = "config.dump"
LOG = "dump.log"


async def capture(
    runtime: OciRuntime, record: ContainerRecord, bundle: Path, target: Path, deadline: float
) -> None:
    """Checkpoint a running container into the empty directory `target`; it goes on running.

    :raises CheckpointFailed: with the end of CRIU's log.
    """
    images, work = target / IMAGES, target / "work"
    images.mkdir()
    work.mkdir()
    paths = ["--image-path", str(images), "--work-path", str(work)]
    # As other CRI runtimes: the container goes on, connections are not carried over.
    flags = ["--leave-running", "--file-locks", "--tcp-skip-in-flight"]
    try:
        await _checkpoint(runtime, record.id, [*paths, *flags], deadline)
    except RuntimeFailed as error:
        raise CheckpointFailed(f"checkpoint container {record.id}: {error}: {_log(work)}") from error
    await asyncio.to_thread(_complete, record, bundle, target, work)


async def _checkpoint(runtime: OciRuntime, container_id: str, options: list[str], deadline: float) -> None:
    step = f"{runtime.name} checkpoint"
    try:
        await runtime.call("checkpoint", *options, container_id, step=step, deadline=deadline)
    except RuntimeFailed as error:
        # --tcp-skip-in-flight is newer than runc 1.1.
        if "flag provided but not defined" not in str(error):
            raise
        known = [option for option in options if option != "--tcp-skip-in-flight"]
        await runtime.call("checkpoint", *known, container_id, step=step, deadline=deadline)


def _complete(record: ContainerRecord, bundle: Path, target: Path, work: Path) -> None:
    shutil.copy(bundle / "config.json", target / SPEC)
    (target / CONFIG).write_text(json.dumps(facts(record)))
    save_diff(bundle / "rootfs", target)
    for name in (LOG, "stats-dump"):
        if (work / name).exists():
            shutil.copy(work / name, target / name)
    shutil.rmtree(work)


def facts(record: ContainerRecord) -> dict[str, Any]:
    """The document that tools for container checkpoints read (checkpointctl)."""
    return {
        "id": record.id,
        "name": record.name,
        "rootfsImage": record.image_id,
        "rootfsImageRef": record.image_ref,
        "rootfsImageName": record.config.image.user_specified_image or record.config.image.image,
        "runtime": record.handler,
        "createdTime": record.created_at,
        "checkpointedTime": clock.now(),
        "restored": bool(record.restored_from),
        "containerConfig": MessageToDict(record.config, preserving_proto_field_name=True),
    }


def _log(work: Path) -> str:
    try:
        lines = (work / LOG).read_text(errors="replace").splitlines()
    except OSError:
        return "CRIU wrote no log"
    errors = [line for line in lines if "Error" in line]
    return "; ".join((errors or lines)[-3:])
