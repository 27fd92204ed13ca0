"""Files whose reader waits for them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from triptych_linux.latefile import LateFile


@pytest.mark.parametrize("size", [0, 10, 1 << 20])
async def test_it_is_read_whole_when_it_is_given(size: int) -> None:
    data = os.urandom(size)
    file = LateFile(data)
    reading = asyncio.ensure_future(asyncio.to_thread(Path(file.path).read_bytes))
    done, _ = await asyncio.wait((reading,), timeout=0.1)
    assert not done
    file.give()
    assert await reading == data
    file.close()
    file.close()
    assert not Path(file.path).exists()


async def test_one_that_nobody_reads_is_closed() -> None:
    file = LateFile(bytes(1 << 20))
    file.give()
    file.close()
    assert not Path(file.path).exists()
