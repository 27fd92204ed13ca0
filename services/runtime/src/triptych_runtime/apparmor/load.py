"""Loading the default profile with apparmor_parser(8)."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from triptych_errors import TriptychError
from triptych_linux import process

from triptych_runtime.apparmor.profile import NAME, text

log = logging.getLogger(__name__)

_PROFILES = Path("/sys/kernel/security/apparmor/profiles")
_DEADLINE = 20.0


async def ensure_loaded(enabled: bool) -> None:
    """Load the default profile unless it is loaded. A failure is logged: pods run without it then.

    A profile of the same name that the node's owner has loaded is left alone.

    :param enabled: whether the kernel has AppArmor.
    """
    if not enabled or await asyncio.to_thread(_loaded):
        return
    parser = shutil.which("apparmor_parser")
    if parser is None:
        log.warning("no default AppArmor profile: apparmor_parser is not installed (package apparmor)")
        return
    try:
        await process.run(
            [parser, "--skip-cache", "--replace"],
            deadline=_DEADLINE,
            step="load AppArmor profile",
            stdin=text().encode(),
        )
    except TriptychError as error:
        log.warning("the default AppArmor profile was not loaded", extra={"error": str(error)})
        return
    log.info("loaded the default AppArmor profile", extra={"profile": NAME})


def _loaded() -> bool:
    try:
        lines = _PROFILES.read_text().splitlines()
    except OSError:
        return False
    return any(line.rpartition(" (")[0] == NAME for line in lines)
