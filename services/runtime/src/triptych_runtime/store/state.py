"""The state in memory: what lists and statuses read.

Readers see immutable records in plain dictionaries on the event loop, so they never wait for a lock that
is held over I/O. Writers save the row first and show the record afterwards, but for what has happened
already: that is shown, and written down as soon as the disk takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from triptych_runtime.errors import AmbiguousId, ContainerNotFound, EmptyId, SandboxNotFound
from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord
from triptych_runtime.store.database import Database

R = TypeVar("R", SandboxRecord, ContainerRecord)


class State:
    """Every sandbox and container of the node."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.sandboxes: dict[str, SandboxRecord] = {}
        self.containers: dict[str, ContainerRecord] = {}
        self._members: dict[str, dict[str, None]] = {}
        self._keys: dict[str, str] = {}

    def load(self, sandboxes: list[SandboxRecord], containers: list[ContainerRecord]) -> None:
        """Take over what the database held at start."""
        for sandbox in sandboxes:
            self._show(sandbox)
        for container in containers:
            self._show(container)

    async def save(self, record: SandboxRecord | ContainerRecord) -> None:
        """Make a record durable, then show it."""
        await self._database.save(record)
        self._show(record)

    async def show(self, record: SandboxRecord | ContainerRecord) -> bool:
        """Show a record at once, then write it down: for what has happened or must, like an exit or an end.

        A full disk keeps nobody from ending. Whether it is written.
        """
        self._show(record)
        return await self._database.note(record)

    async def delete(self, record: SandboxRecord | ContainerRecord) -> None:
        """Forget a record of which nothing is left, on disk first."""
        await self._database.delete(record)
        if self._keys.get(record.key) == record.id:
            del self._keys[record.key]
        if isinstance(record, SandboxRecord):
            self.sandboxes.pop(record.id, None)
            self._members.pop(record.id, None)
        else:
            self.containers.pop(record.id, None)
            self._members.get(record.sandbox_id, {}).pop(record.id, None)

    def _show(self, record: SandboxRecord | ContainerRecord) -> None:
        self._keys[record.key] = record.id
        if isinstance(record, SandboxRecord):
            self.sandboxes[record.id] = record
            self._members.setdefault(record.id, {})
        else:
            self.containers[record.id] = record
            self._members.setdefault(record.sandbox_id, {})[record.id] = None

    def by_key(self, key: str) -> str | None:
        """The ID that a name and attempt belong to."""
        return self._keys.get(key)

    def containers_of(self, sandbox_id: str) -> list[ContainerRecord]:
        """The containers of a sandbox in the order of their creation, visible or not."""
        return [self.containers[i] for i in self._members.get(sandbox_id, ()) if i in self.containers]

    def sandbox(self, prefix: str) -> SandboxRecord:
        """The sandbox of an ID or an unambiguous prefix of one.

        :raises SandboxNotFound: when there is none. :raises AmbiguousId: when there are several.
        """
        record = _lookup(self.sandboxes, prefix, "pod sandbox")
        if record is None or record.phase is SandboxPhase.CREATING:
            raise SandboxNotFound(prefix)
        return record

    def container(self, prefix: str) -> ContainerRecord:
        """The container of an ID or an unambiguous prefix of one.

        :raises ContainerNotFound: when there is none. :raises AmbiguousId: when there are several.
        """
        record = _lookup(self.containers, prefix, "container")
        if record is None or record.phase is ContainerPhase.CREATING:
            raise ContainerNotFound(prefix)
        return record

    def visible_sandboxes(self) -> Iterator[SandboxRecord]:
        return (s for s in self.sandboxes.values() if s.visible)

    def visible_containers(self) -> Iterator[ContainerRecord]:
        return (c for c in self.containers.values() if c.visible)


def _lookup(records: dict[str, R], prefix: str, kind: str) -> R | None:
    if not prefix:
        raise EmptyId(kind)
    exact = records.get(prefix)
    if exact is not None or len(prefix) >= 64:
        return exact
    found = [record for identity, record in records.items() if identity.startswith(prefix)]
    if len(found) > 1:
        raise AmbiguousId(kind, prefix)
    return found[0] if found else None
