"""What the runtime daemon asks of the image daemon."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from triptych_runtime.clients import ImageClient


async def test_a_call_that_is_called_off_counts_as_missed() -> None:
    """Nobody knows whether it was done, or will be after it was taken back."""

    def unary(*_: Any, **__: Any) -> Any:
        return lambda *_, **__: asyncio.get_running_loop().create_future()

    client = ImageClient(cast(Any, SimpleNamespace(unary_unary=unary)), "image.sock")
    preparing = asyncio.create_task(client.prepare_rootfs("key", "image"))
    await asyncio.sleep(0)
    assert not client.missed.is_set()
    preparing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await preparing
    assert client.missed.is_set()
