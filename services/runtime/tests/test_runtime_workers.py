"""The threads that block in the event loop's stead."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from triptych_runtime.workers import Workers


@pytest.fixture
def quiet() -> list[str]:
    """One entry for each thread that ended for want of work."""
    return []


@pytest.fixture
def workers(quiet: list[str]) -> Iterator[Workers]:
    made = Workers(
        4,
        "test",
        hung_seconds=30,
        idle_seconds=0.2,
        last_seconds=30,
        on_quiet=lambda: quiet.append(threading.current_thread().name),
    )
    yield made
    made.shutdown()


def test_results_and_errors_reach_the_caller(workers: Workers) -> None:
    assert workers.submit(divmod, 7, 3).result(5) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        workers.submit(divmod, 7, 0).result(5)


def test_one_thread_does_what_comes_one_after_another(workers: Workers) -> None:
    seen = set()
    for _ in range(50):
        seen.add(workers.submit(threading.get_ident).result(5))
        # The result may be there a moment before its thread is idle again.
        end = time.monotonic() + 5
        while not workers._idle and time.monotonic() < end:
            time.sleep(0.001)
    assert len(seen) == 1
    assert workers.alive == 1


def test_work_beyond_the_maximum_waits_and_is_all_done(workers: Workers) -> None:
    barrier = threading.Barrier(4)
    first = [workers.submit(barrier.wait, 5) for _ in range(4)]
    rest = [workers.submit(int, n) for n in range(100)]
    assert sorted(f.result(5) for f in first) == [0, 1, 2, 3]
    assert [f.result(5) for f in rest] == list(range(100))
    assert workers.alive <= 4


def test_a_hung_thread_leaves_the_others_to_work(workers: Workers) -> None:
    release = threading.Event()
    hung = workers.submit(release.wait, 30)
    try:
        assert [workers.submit(abs, -n).result(5) for n in range(20)] == list(range(20))
    finally:
        release.set()
    assert hung.result(5)


def test_threads_that_hang_take_no_place_of_others() -> None:
    workers = Workers(2, "test", hung_seconds=0.1, idle_seconds=30, last_seconds=30)
    release = threading.Event()
    hung = [workers.submit(release.wait, 60) for _ in range(2)]
    try:
        hung.append(workers.submit(release.wait, 60))
        assert [workers.submit(abs, -n).result(30) for n in range(20)] == list(range(20))
    finally:
        release.set()
    assert all(future.result(30) for future in hung)
    workers.shutdown()
    assert workers.alive == 0


def test_idle_threads_end_and_new_ones_come(workers: Workers, quiet: list[str]) -> None:
    barrier = threading.Barrier(4)
    for future in [workers.submit(barrier.wait, 5) for _ in range(4)]:
        future.result(5)
    deadline = time.monotonic() + 5
    while workers.alive and time.monotonic() < deadline:
        time.sleep(0.01)
    assert workers.alive == 0
    while len(quiet) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(quiet) == 4
    assert workers.submit(abs, -1).result(5) == 1


def test_none_is_lost_when_work_comes_as_a_thread_is_about_to_end() -> None:
    workers = Workers(2, "test", hung_seconds=30, idle_seconds=0.001, last_seconds=30)
    try:
        for number in range(300):
            time.sleep(0.001)
            assert workers.submit(abs, -number).result(5) == number
    finally:
        workers.shutdown()


def test_a_cancelled_job_that_waits_is_not_run(workers: Workers) -> None:
    release = threading.Event()
    busy = [workers.submit(release.wait, 30) for _ in range(4)]
    ran: list[int] = []
    waiting = workers.submit(ran.append, 1)
    assert waiting.cancel()
    release.set()
    assert all(future.result(5) for future in busy)
    assert workers.submit(abs, -2).result(5) == 2
    assert ran == []


def test_shutdown_waits_and_refuses_more(quiet: list[str]) -> None:
    workers = Workers(
        2, "test", hung_seconds=30, idle_seconds=30, last_seconds=30, on_quiet=lambda: quiet.append("ended")
    )
    done: list[int] = []

    def work() -> None:
        time.sleep(0.1)
        done.append(1)

    workers.submit(work)
    workers.shutdown()
    assert done == [1]
    assert workers.alive == 0
    assert quiet == []
    with pytest.raises(RuntimeError):
        workers.submit(abs, 1)


def test_shutdown_does_not_wait_for_what_hangs() -> None:
    workers = Workers(2, "test", hung_seconds=30, idle_seconds=30, last_seconds=0.1)
    release = threading.Event()
    try:
        workers.submit(release.wait)
        ending = threading.Thread(target=workers.shutdown, daemon=True)
        ending.start()
        ending.join(30)
        assert not ending.is_alive()
        assert workers.alive == 1
    finally:
        release.set()


async def test_asyncio_takes_it_as_its_default() -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(Workers(8, "test", hung_seconds=30, idle_seconds=1, last_seconds=30))
    results = await asyncio.gather(*(asyncio.to_thread(abs, -n) for n in range(200)))
    assert results == list(range(200))
    await loop.shutdown_default_executor()
