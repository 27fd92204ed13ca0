"""The SQLite database (WAL) of the runtime daemon.

One thread owns the connection; the event loop waits for it without blocking. A row holds a whole record,
so that a write is one statement and a crash leaves either the old record or the new one.
synchronous=NORMAL: a commit survives the death of the daemon at any moment, and a power failure leaves a
consistent older state, after which the boot ID has changed and everything counts as exited anyway
(https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from triptych_runtime import clock
from triptych_runtime.errors import StoreFailed
from triptych_runtime.model import ContainerRecord, SandboxRecord
from triptych_runtime.store.codec import decode, encode

log = logging.getLogger(__name__)
T = TypeVar("T")

#: The file itself is bad. Anything else (a full disk, a lock, an I/O error) says nothing about it.
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
#: The second is what a full disk does to the file that the log is indexed by.
_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sandboxes (id TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS containers (id TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (kind TEXT, id TEXT, data BLOB, problem TEXT);
"""
_REPLACE = "INSERT OR REPLACE INTO {} VALUES (?, ?)"


def _table(record: SandboxRecord | ContainerRecord) -> str:
    return "sandboxes" if isinstance(record, SandboxRecord) else "containers"


@dataclass(slots=True)
class Snapshot:
    """What the database held at start.

    :ivar unreadable: IDs of records that were left unread: damaged, or made by another version.
    :ivar incomplete: records were lost since the boot, so that what has none may well be alive.
    """

    boot_id: str = ""
    sandboxes: list[SandboxRecord] = field(default_factory=list)
    containers: list[ContainerRecord] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    incomplete: bool = False


class Database:
    """Rows of records; every method returns when the row is written.

    What has happened cannot wait for a disk: `note`, `delete` and `set_meta` keep in memory what cannot be
    written now, tell of it, and write it before the next record. A daemon that dies before finds an older
    record, and holds it against the kernel.

    :raises StoreFailed: out of the other methods, when the disk is full or broken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")
        self._connection: sqlite3.Connection | None = None
        self._owed: dict[tuple[str, str], tuple[str, tuple[object, ...]]] = {}

    async def open(self) -> Snapshot:
        """Open (or make) the database and read it.

        A damaged file is set aside. On a full disk it is read all the same, and written when there is room.
        """
        return await self._do(self._open)

    async def close(self) -> None:
        with contextlib.suppress(StoreFailed):
            await self._do(self._pay)
        await self._do(self._close)
        self._thread.shutdown(wait=False)

    async def save(self, record: SandboxRecord | ContainerRecord) -> None:
        """Insert or replace a record."""
        table, data = _table(record), encode(record)
        await self._do(lambda: self._execute(_REPLACE.format(table), (record.id, data)))

    async def note(self, record: SandboxRecord | ContainerRecord) -> bool:
        """Insert or replace the record of what has happened already; whether it is written."""
        table, data = _table(record), encode(record)
        return await self._write_or_owe(table, record.id, _REPLACE.format(table), (record.id, data))

    async def delete(self, record: SandboxRecord | ContainerRecord) -> None:
        """Drop a record of which nothing is left; a missing one is no error."""
        table = _table(record)
        await self._write_or_owe(table, record.id, f"DELETE FROM {table} WHERE id = ?", (record.id,))

    async def quarantine(self, identities: set[str]) -> None:
        """Put records that cannot be read where they are not looked at any more."""
        await self._do(lambda: self._quarantine(identities))

    async def set_meta(self, key: str, value: str) -> None:
        """Keep a value."""
        await self._write_or_owe("meta", key, _REPLACE.format("meta"), (key, value))

    async def _write_or_owe(
        self, table: str, identity: str, statement: str, values: tuple[object, ...]
    ) -> bool:
        def write() -> None:
            self._owed.pop((table, identity), None)
            self._owed[table, identity] = (statement, values)
            self._pay()

        try:
            await self._do(write)
        except StoreFailed as error:
            extra = {"table": table, "id": identity, "error": str(error)}
            log.error("a record is kept in memory for now", extra=extra)
            return False
        return True

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
        self._pay()
        self._connection.execute(statement, values)

    def _pay(self) -> None:
        """Write what could not be written so far, in its order."""
        assert self._connection is not None
        for subject, (statement, values) in list(self._owed.items()):
            self._connection.execute(statement, values)
            del self._owed[subject]

    def _meta(self, key: str) -> str:
        assert self._connection is not None
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else ""

    def _open(self) -> Snapshot:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._connect()
            return self._read()
        except sqlite3.DatabaseError as error:
            self._close()
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            if code in _FULL:
                log.error("the disk is full: nothing can be written down", extra={"error": str(error)})
                self._connect(shared=False)
            elif code & 0xFF in _DAMAGED:
                self._set_aside(error)
                self._connect()
            else:
                raise
        return self._read()

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        aside = self._aside(f"-{os.getpid()}")
        log.error(
            "the database is damaged and was set aside", extra={"path": str(aside), "error": str(error)}
        )
        for suffix in ("-wal", "-shm", ""):
            part = self._path.with_name(self._path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))

    def _aside(self, end: str) -> Path:
        """Where a damaged file goes; the name tells the boot on which its records were lost."""
        return self._path.with_suffix(f".damaged-{clock.boot_id()}{end}")

    def _connect(self, *, shared: bool = True) -> None:
        """Connect, and look whether the file is a database.

        :param shared: others may read it meanwhile, which takes one more file beside it.
        """
        self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        if not shared:
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("PRAGMA cache_size=-512")
        self._connection.executescript(_SCHEMA)
        self._path.chmod(0o600)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read(self) -> Snapshot:
        unreadable: set[str] = set()
        return Snapshot(
            boot_id=self._meta("boot_id"),
            sandboxes=self._records("sandboxes", SandboxRecord, unreadable),
            containers=self._records("containers", ContainerRecord, unreadable),
            unreadable=unreadable,
            incomplete=bool(unreadable) or any(self._path.parent.glob(self._aside("*").name)),
        )

    def _records(self, table: str, kind: type[T], unreadable: set[str]) -> list[T]:
        """Every record of a table. One that cannot be read stays, for the version that can."""
        assert self._connection is not None
        records: list[T] = []
        for identity, data in self._connection.execute(f"SELECT id, data FROM {table}").fetchall():
            try:
                records.append(decode(data, kind))
            except (msgspec.MsgspecError, ValueError, TypeError) as error:
                log.error(
                    "a record cannot be read", extra={"table": table, "id": identity, "error": str(error)}
                )
                unreadable.add(identity)
        return records

    def _quarantine(self, identities: set[str]) -> None:
        for table in ("sandboxes", "containers"):
            for identity in identities:
                self._execute(
                    f"INSERT INTO quarantine SELECT ?, id, data, '' FROM {table} WHERE id = ?",
                    (table, identity),
                )
                self._execute(f"DELETE FROM {table} WHERE id = ?", (identity,))
