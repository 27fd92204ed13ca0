"""Work that several callers want is done once, and stops when nobody wants it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_OTHERS_FAILURES = 3


@dataclass(slots=True, eq=False)
class _Flight(Generic[T]):
    result: asyncio.Future[T]
    task: asyncio.Task[None] | None = None
    waiters: int = 0


class Flights(Generic[K, T]):
    """Shared work by key.

    :param tasks: where the work runs, so that it belongs to no single caller.
    """

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self._flights: dict[K, _Flight[T]] = {}
        self._ending: dict[K, asyncio.Future[T]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    async def join(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, bool]:
        """Do the work, or wait for who does it already.

        The work is cancelled when its last caller is. Its error reaches all callers.

        :returns: its result, and whether this caller began it.
        :raises Joined: with the work's error, for those who joined.
        """
        flight = self._flights.get(key)
        began = flight is None
        if flight is None:
            flight = _Flight(asyncio.get_running_loop().create_future())
            self._flights[key] = flight
            flight.task = self._tasks.create_task(self._run(key, flight, work))
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.result), began
        except asyncio.CancelledError:
            if flight.result.cancelled() and not began:
                raise Joined(InterruptedError("the work was stopped")) from None
            raise
        except Exception as error:
            if began:
                raise
            raise Joined(error) from error
        finally:
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.result.done():
                self._forget(key, flight)
                # Where one is ending already this one did not begin, and the next waits for that one too.
                self._ending.setdefault(key, flight.result)
                if flight.task is not None:
                    flight.task.cancel()

    async def insist(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do the work, or wait for who does it already, and do it oneself where others failed.

        They may have failed for reasons of their own: credentials, a bad mirror.

        :raises Exception: the work's error, or that of the third who failed.
        """
        for _ in range(_OTHERS_FAILURES):
            try:
                result, _ = await self.join(key, work)
            except Joined as joined:
                last = joined.error
            else:
                return result
        raise last

    async def _run(self, key: K, flight: _Flight[T], work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """Never fails: the error belongs to the callers, not to the group."""
        try:
            previous = self._ending.get(key)
            if previous is not None:
                await asyncio.wait([previous])
            result = await work()
        except asyncio.CancelledError:
            flight.result.cancel()
            raise
        except Exception as error:
            flight.result.set_exception(error)
            flight.result.exception()  # the last caller may be gone
        else:
            flight.result.set_result(result)
        finally:
            self._forget(key, flight)
            if self._ending.get(key) is flight.result:
                del self._ending[key]

    def _forget(self, key: K, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


class Joined(Exception):
    """Somebody else's work failed; `error` says how. Another attempt may be worth it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Slots:
    """A semaphore whose size may change while it is used."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._waiting: list[asyncio.Future[None]] = []

    def resize(self, size: int) -> None:
        """Allow for more or fewer; who is in stays."""
        self._size = size
        self._wake()

    async def __aenter__(self) -> None:
        while self._taken >= self._size:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                else:
                    self._wake()
                raise
        self._taken += 1

    async def __aexit__(self, *_: object) -> None:
        self._taken -= 1
        self._wake()

    def _wake(self) -> None:
        free = self._size - self._taken
        while free > 0 and self._waiting:
            turn = self._waiting.pop(0)
            if not turn.done():
                turn.set_result(None)
                free -= 1


async def gather(work: list[Coroutine[Any, Any, Any]]) -> None:
    """Run all at once; the first error ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for item in work:
                group.create_task(item)
    except BaseExceptionGroup as failed:
        error: BaseException = failed
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
