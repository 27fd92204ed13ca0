"""The threads that block in the event loop's stead.

Some may hang in the kernel for ever, each create of a container whose storage is gone one more: those keep
no other work from its turn. A thread that has been idle for a while ends and gives back its stack, and the
one that was busy last is busy next: so a burst of pods leaves no more behind than it found.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Job = Callable[[], None]


class Workers(ThreadPoolExecutor):
    """An executor for asyncio, which insists on this class, whose threads come and go.

    :param maximum: threads at a time, beside those that hang; more work than that waits.
    :param hung_seconds: how long a thread works at one thing until it counts as one that hangs.
    :param idle_seconds: how long a thread waits for work before it ends.
    :param last_seconds: how long `shutdown` waits for work that runs: what hangs ends with the process.
    :param on_quiet: called in a thread that ends for want of work.
    """

    def __init__(
        self,
        maximum: int,
        name: str,
        *,
        hung_seconds: float,
        idle_seconds: float,
        last_seconds: float,
        on_quiet: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(maximum, name)
        self._maximum = maximum
        self._name = name
        self._hung_seconds = hung_seconds
        self._idle_seconds = idle_seconds
        self._last_seconds = last_seconds
        self._on_quiet = on_quiet
        self._guard = threading.Lock()
        self._idle: list[SimpleQueue[_Job | None]] = []
        self._waiting: deque[_Job] = deque()
        self._alive: set[threading.Thread] = set()
        self._begun: dict[threading.Thread, float] = {}
        self._relief: threading.Timer | None = None
        self._closed = False

    @property
    def alive(self) -> int:
        """How many threads there are now."""
        return len(self._alive)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in a thread.

        :raises RuntimeError: after `shutdown`, as its base class.
        """
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._guard:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._idle:
                self._idle.pop().put(job)
            else:
                self._waiting.append(job)
                self._relieve()
        return future

    def _relieve(self) -> None:
        """Start threads for the work that waits, as many as may be, and look again for the rest."""
        while self._waiting and len(self._alive) - self._hung() < self._maximum:
            self._start(self._waiting.popleft())
        if self._waiting and self._relief is None:
            self._relief = threading.Timer(self._hung_seconds, self._look_again)
            self._relief.daemon = True
            self._relief.start()

    def _look_again(self) -> None:
        with self._guard:
            self._relief = None
            self._relieve()

    def _hung(self) -> int:
        if len(self._alive) < self._maximum:
            return 0
        limit = time.monotonic() - self._hung_seconds
        return sum(begun < limit for begun in list(self._begun.values()))

    def _start(self, job: _Job) -> None:
        thread = threading.Thread(target=self._work, args=(job,), name=self._name, daemon=True)
        self._alive.add(thread)
        thread.start()

    def _work(self, first: _Job) -> None:
        inbox: SimpleQueue[_Job | None] = SimpleQueue()
        thread = threading.current_thread()
        job: _Job | None = first
        while job is not None:
            self._begun[thread] = time.monotonic()
            job()
            del job, self._begun[thread]  # what it holds goes now, not with the next one
            job = self._next(inbox)
        with self._guard:
            self._alive.discard(thread)
            closed = self._closed
        if not closed:
            self._on_quiet()

    def _next(self, inbox: SimpleQueue[_Job | None]) -> _Job | None:
        """The next job of a thread, None when it is to end."""
        with self._guard:
            if self._waiting:
                return self._waiting.popleft()
            if self._closed:
                return None
            self._idle.append(inbox)
        try:
            return inbox.get(timeout=self._idle_seconds)
        except Empty:
            with self._guard:
                if inbox in self._idle:
                    self._idle.remove(inbox)
                    return None
            return inbox.get()  # it came just now

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work and, with `wait`, wait a while for what there is."""
        with self._guard:
            self._closed = True
            if self._relief is not None:
                self._relief.cancel()
            if cancel_futures:
                self._waiting.clear()
            while self._idle:
                self._idle.pop().put(None)
            threads = list(self._alive)
        end = time.monotonic() + self._last_seconds
        for thread in threads if wait else ():
            thread.join(max(end - time.monotonic(), 0))
