"""The manifest of a pod checkpoint: `pod.json` beside one directory a container."""

from __future__ import annotations

from pathlib import Path

import msgspec

from triptych_runtime.checkpoint.errors import CheckpointUnreadable

NAME = "pod.json"
VERSION = 1


class ContainerEntry(msgspec.Struct, frozen=True):
    """A container of the checkpoint.

    :param directory: below the checkpoint, where `capture` wrote.
    """

    name: str
    id: str
    image_id: str
    directory: str


class PodManifest(msgspec.Struct, frozen=True):
    """What a checkpoint holds."""

    version: int
    pod_name: str
    pod_namespace: str
    pod_uid: str
    handler: str
    created_at: int
    containers: tuple[ContainerEntry, ...]


def write_manifest(directory: Path, manifest: PodManifest) -> None:
    """Write the manifest, last of all: a checkpoint without it is none."""
    (directory / NAME).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))


def read_manifest(directory: Path) -> PodManifest:
    """:raises CheckpointUnreadable: when it is missing, damaged, or of another version."""
    try:
        manifest = msgspec.json.decode((directory / NAME).read_bytes(), type=PodManifest)
    except OSError as error:
        raise CheckpointUnreadable(f"checkpoint {directory}: {error}") from error
    except msgspec.MsgspecError as error:
        raise CheckpointUnreadable(f"checkpoint {directory}: {NAME}: {error}") from error
    if manifest.version != VERSION:
        raise CheckpointUnreadable(f"checkpoint {directory}: version {manifest.version}, not {VERSION}")
    for entry in manifest.containers:
        if Path(entry.directory).is_absolute() or ".." in Path(entry.directory).parts:
            raise CheckpointUnreadable(
                f"checkpoint {directory}: directory {entry.directory!r} is not inside it"
            )
    return manifest
