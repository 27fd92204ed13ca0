"""The SQLite database (WAL) of the runtime daemon.

One thread owns the connection; the event loop waits for it without blocking. A row holds a whole record,
so that a write is one statement and a crash leaves either the old record or the new one.
synchronous=NORMAL: a commit survives the death of the daemon at any moment, and a power failure leaves a
consistent older state, after which the boot ID has changed and everything counts as exited anyway
(https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from triptych_runtime.errors import StoreFailed
from triptych_runtime.model import ContainerRecord, SandboxRecord
from triptych_runtime.store.codec import decode, encode

log = logging.getLogger(__name__)
T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sandboxes (id TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS containers (id TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (kind TEXT, id TEXT, data BLOB, problem TEXT);
"""


@dataclass(slots=True)
class Snapshot:
    """What the database held at start."""

    boot_id: str = ""
    sandboxes: list[SandboxRecord] = field(default_factory=list)
    containers: list[ContainerRecord] = field(default_factory=list)


class Database:
    """Rows of records; every method returns when the row is written.

    :raises StoreFailed: out of every method, when the disk is full or broken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> Snapshot:
        """Open (or make) the database and read it. A damaged file is set aside, never fatal."""
        return await self._do(self._open)

    async def close(self) -> None:
        await self._do(self._close)
        self._thread.shutdown(wait=False)

    async def save(self, record: SandboxRecord | ContainerRecord) -> None:
        """Insert or replace a record."""
        table = "sandboxes" if isinstance(record, SandboxRecord) else "containers"
        data = encode(record)
        await self._do(
            lambda: self._execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (record.id, data))
        )

    async def delete(self, record: SandboxRecord | ContainerRecord) -> None:
        """Drop a record; a missing one is no error."""
        table = "sandboxes" if isinstance(record, SandboxRecord) else "containers"
        await self._do(lambda: self._execute(f"DELETE FROM {table} WHERE id = ?", (record.id,)))

    async def set_meta(self, key: str, value: str) -> None:
        await self._do(lambda: self._execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value)))

    async def get_meta(self, key: str) -> str:
        """The value of a key, "" for none."""
        return await self._do(lambda: self._meta(key))

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise StoreFailed(f"database {self._path}: {error}") from error

    def _execute(self, statement: str, values: tuple[object, ...]) -> None:
        assert self._connection is not None
        self._connection.execute(statement, values)

    def _meta(self, key: str) -> str:
        assert self._connection is not None
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else ""

    def _open(self) -> Snapshot:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            aside = self._path.with_suffix(f".damaged-{os.getpid()}")
            log.error(
                "the database is damaged and was set aside", extra={"path": str(aside), "error": str(error)}
            )
            for suffix in ("", "-wal", "-shm"):
                part = self._path.with_name(self._path.name + suffix)
                if part.exists():
                    part.rename(aside.with_name(aside.name + suffix))
            self._connect()
        return self._read()

    def _connect(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA cache_size=-512")
        connection.executescript(_SCHEMA)
        connection.execute("SELECT count(*) FROM sandboxes").fetchone()
        self._path.chmod(0o600)
        self._connection = connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read(self) -> Snapshot:
        return Snapshot(
            boot_id=self._meta("boot_id"),
            sandboxes=self._records("sandboxes", SandboxRecord),
            containers=self._records("containers", ContainerRecord),
        )

    def _records(self, table: str, kind: type[T]) -> list[T]:
        """Every record of a table; one that cannot be read is put into quarantine, not fatal."""
        assert self._connection is not None
        records: list[T] = []
        for identity, data in self._connection.execute(f"SELECT id, data FROM {table}").fetchall():
            try:
                records.append(decode(data, kind))
            except (msgspec.MsgspecError, ValueError, TypeError) as error:
                log.error(
                    "a record cannot be read", extra={"table": table, "id": identity, "error": str(error)}
                )
                self._execute(
                    "INSERT INTO quarantine VALUES (?, ?, ?, ?)", (table, identity, data, str(error))
                )
                self._execute(f"DELETE FROM {table} WHERE id = ?", (identity,))
        return records
