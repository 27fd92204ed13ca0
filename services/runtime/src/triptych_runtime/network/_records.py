"""What is known of attached pods, on disk from before the first plugin runs until the last DEL succeeded."""

from __future__ import annotations

import enum
import logging
import os
from pathlib import Path
from typing import Any

import msgspec

from triptych_runtime.network._config import NetworkConfig
from triptych_runtime.network.model import PodAttachment

log = logging.getLogger(__name__)

_SUFFIX = ".json"


class Phase(enum.Enum):
    """How far a pod's attachment has come."""

    ADDING = "adding"
    ADDED = "added"
    DELETING = "deleting"


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's attachment to one network.

    :param config: the network as it was when the pod was attached: DEL must see the same.
    :param arguments: capability arguments, likewise.
    :param result: of the last plugin; None before all have succeeded.
    """

    config: NetworkConfig
    ifname: str
    arguments: dict[str, Any]
    result: dict[str, Any] | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A pod and its attachments, in the order in which they were made."""

    phase: Phase
    pod: PodAttachment
    attachments: tuple[Attachment, ...]


def _encode(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"cannot encode {type(value).__name__}")


def _decode(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"cannot decode {kind.__name__}")


_encoder = msgspec.json.Encoder(enc_hook=_encode)
_decoder = msgspec.json.Decoder(Record, dec_hook=_decode)


class Records:
    """The records of this node: read from memory, written through. Blocking where it touches the disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, Record] = {}

    def load(self) -> None:
        """Read what a former run of the daemon left; a file that cannot be read is put aside."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._directory.glob("*.new"):
            path.unlink(missing_ok=True)
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            try:
                self._known[path.name.removesuffix(_SUFFIX)] = _decoder.decode(path.read_bytes())
            except msgspec.DecodeError as error:
                log.error("network record is damaged", extra={"path": str(path), "error": str(error)})
                os.replace(path, path.with_suffix(".damaged"))

    def get(self, sandbox_id: str) -> Record | None:
        """The record of a pod, from memory."""
        return self._known.get(sandbox_id)

    def all(self) -> dict[str, Record]:
        """All records by sandbox ID."""
        return dict(self._known)

    def put(self, record: Record) -> None:
        """Write a record; it is whole on disk, old or new, whenever the daemon ends."""
        sandbox_id = record.pod.sandbox_id
        path = self._path(sandbox_id)
        temporary = path.with_suffix(".new")
        temporary.write_bytes(_encoder.encode(record))
        os.replace(temporary, path)
        self._known[sandbox_id] = record

    def drop(self, sandbox_id: str) -> None:
        """Forget a pod; nothing happens when it is unknown."""
        self._path(sandbox_id).unlink(missing_ok=True)
        self._known.pop(sandbox_id, None)

    def _path(self, sandbox_id: str) -> Path:
        return self._directory / f"{sandbox_id}{_SUFFIX}"
