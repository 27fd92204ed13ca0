"""The database file: one connection, one thread."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from triptych_image.errors import StoreUnusable
from triptych_image.store._schema import SCHEMA, VERSION

T = TypeVar("T")


class DatabaseBroken(StoreUnusable):
    """The file is no database, or a damaged one."""


class Database:
    """Runs functions against the connection, one after the other, in the database's own thread.

    Commits are written to the log but not waited for on the disk (`synchronous=NORMAL`): after a power loss
    the last ones may be missing, never torn. `durable` is for those that must not be missing, because
    something is deleted next.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function in the thread; it runs to its end even if the caller is cancelled."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._call, work)
        return await asyncio.shield(running)

    def post(self, work: Callable[[], None]) -> None:
        """Run a function in the thread after what was asked for before; nobody waits for it."""
        if not self._closed:
            self._thread.submit(work)

    def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._open()
        return work(self._connection)

    def _open(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA cache_size=-512")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise StoreUnusable(
                    f"{self._path}: made by a later version of triptych ({version} > {VERSION})"
                )
            if version == 0:
                with transaction(connection):
                    for statement in filter(str.strip, SCHEMA.split(";")):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.OperationalError as error:
            raise StoreUnusable(f"{self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise DatabaseBroken(f"{self._path}: {error}") from error
        return connection

    async def close(self) -> None:
        """Write the log back and close; a cancelled caller does not stop it."""

        def end() -> None:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

        if self._closed:
            return
        self._closed = True
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, end))
        self._thread.shutdown(wait=False)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, *, durable: bool = False) -> Iterator[None]:
    """All or nothing.

    :param durable: on the disk before it returns.
    """
    if durable:
        connection.execute("PRAGMA synchronous=FULL")
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    finally:
        if durable:
            connection.execute("PRAGMA synchronous=NORMAL")
