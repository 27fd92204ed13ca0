"""The database file: one connection, one thread."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from triptych_image.errors import DiskFull, StoreUnusable
from triptych_image.store._schema import SCHEMA, VERSION
from triptych_image.store.ballast import Ballast

T = TypeVar("T")

# The second is what a full disk does to the file that the log is indexed by.
_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})


class DatabaseBroken(StoreUnusable):
    """The file is no database, or a damaged one."""


class Database:
    """Runs functions against the connection, one after the other, in the database's own thread.

    Commits are written to the log but not waited for on the disk (`synchronous=NORMAL`): after a power loss
    the last ones may be missing, never torn. `durable` is for those that must not be missing, because
    something is deleted next.

    :param ballast: given up for what frees space, and for opening.
    """

    def __init__(self, path: Path, ballast: Ballast) -> None:
        self._path = path
        self._ballast = ballast
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    async def run(self, work: Callable[[sqlite3.Connection], T], *, frees: bool = False) -> T:
        """Run a function in the thread; it runs to its end even if the caller is cancelled.

        :param frees: it makes room on the disk, so that it must work on a full one: it is run again with the
            ballast's room.
        :raises DiskFull: when there is no room to record what it does.
        """
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._thread, self._call, work, frees)
        # A caller who was cancelled will not ask how it ended.
        running.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([running])
        return running.result()

    def post(self, work: Callable[[], None]) -> None:
        """Run a function in the thread after what was asked for before; nobody waits for it."""
        if not self._closed:
            self._thread.submit(work)

    def _call(self, work: Callable[[sqlite3.Connection], T], frees: bool) -> T:
        try:
            if self._connection is None:
                frees = True
                self._connection = self._open()
            return work(self._connection)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in _FULL:
                raise
            if frees and self._ballast.drop():
                return self._call(work, frees)
            raise DiskFull(f"{self._path}: {error} (no space left on device)") from error

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        try:
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
            if error.sqlite_errorcode in _FULL:
                raise
            raise StoreUnusable(f"{self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise DatabaseBroken(f"{self._path}: {error}") from error

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
            connection.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled it back already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    finally:
        if durable:
            connection.execute("PRAGMA synchronous=NORMAL")
