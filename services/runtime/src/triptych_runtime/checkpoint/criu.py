"""Whether CRIU works on this host (https://criu.org/Check)."""

from __future__ import annotations

import shutil

from triptych_errors import TriptychError
from triptych_linux import process

from triptych_runtime.checkpoint.errors import CheckpointImpossible
from triptych_runtime.ociruntime import Handler

_DEADLINE = 20.0


class Criu:
    """Looks once, at the first request."""

    def __init__(self, allowed: bool) -> None:
        self._allowed = allowed
        self._problem: str | None = None

    async def require(self, handler: Handler) -> None:
        """:raises CheckpointImpossible: naming what is missing."""
        if not self._allowed:
            raise CheckpointImpossible(
                "checkpointing is turned off", hint="containers.checkpoint = true allows it"
            )
        if not handler.checkpoint:
            raise CheckpointImpossible(
                f"the OCI runtime of handler {handler.name!r} was built without CRIU: {handler.version}"
            )
        if self._problem is None:
            self._problem = await _check()
        if self._problem:
            raise CheckpointImpossible(f"CRIU does not work on this host: {self._problem}")


async def _check() -> str:
    """What `criu check` finds wrong, "" for nothing."""
    path = shutil.which("criu")
    if path is None:
        return "it is not installed (package criu)"
    try:
        done = await process.run([path, "check"], deadline=_DEADLINE, step="criu check", check=False)
    except TriptychError as error:
        return str(error)
    if done.returncode == 0:
        return ""
    lines = (done.stderr + done.stdout).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else done.how
