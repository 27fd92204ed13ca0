"""How bytes are moved between descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator

import pytest
from triptych_streaming.protocol.channels import Buffer
from triptych_streaming.workers.pump import Sink, Source, reader_of

PIECE = 4096


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    yield ends
    for end in ends:
        os.close(end)


def nothing() -> None:
    pass


async def test_a_pipe_that_nobody_reads_any_more_costs_no_time(pipe: tuple[int, int]) -> None:
    read, write = pipe
    attempts = 0

    def attempt(data: Buffer) -> int:
        nonlocal attempts
        attempts += 1
        return os.write(write, data)

    sink = Sink(write, attempt, limit=0, on_full=nothing, on_room=nothing, on_closed=nothing)
    sink.write(bytes(1 << 20))
    waiting = len(sink.pending)
    assert os.read(read, PIECE)
    while len(sink.pending) == waiting:
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)  # as long as it takes to look many times
    before = attempts
    await asyncio.sleep(0.2)
    assert attempts == before
    while sink.pending:  # and what waits goes on when somebody does
        with contextlib.suppress(BlockingIOError):
            os.read(read, 1 << 16)
        await asyncio.sleep(0)


async def test_an_output_that_others_go_on_writing_is_drained_to_an_end(pipe: tuple[int, int]) -> None:
    read, write = pipe

    def take(data: memoryview) -> None:
        os.write(write, data)  # who holds the output never stops
        source.pause()  # and its client is slow

    source = Source(read, reader_of(read), take, nothing)
    os.write(write, bytes(PIECE))
    for _ in range(10 * (1 << 20) // PIECE):
        source.resume()
        if source.drain():
            break
    else:
        pytest.fail("it is drained for ever")
    source.close()
