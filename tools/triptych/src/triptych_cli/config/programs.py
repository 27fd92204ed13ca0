"""Running a daemon's program for one of its questions about configuration.

The daemons' settings are not imported: the command must not need their packages, and the installed program
is the one whose answer counts.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

from triptych_linux import process

from triptych_cli.context import DaemonName
from triptych_cli.errors import CliError

_SECONDS = 30.0


def program(daemon: DaemonName) -> str:
    """The daemon's program: beside this command's Python, else on the PATH.

    :raises CliError: it is not installed.
    """
    beside = Path(sys.executable).parent / daemon.unit
    found = str(beside) if beside.exists() else shutil.which(daemon.unit)
    if found is None:
        raise CliError(f"{daemon.unit} is not installed")
    return found


def ask(daemon: DaemonName, question: str, config: Path | None = None) -> process.Completed:
    """Run the program with one of its flags, such as --check-config.

    :param config: instead of the daemon's default file.
    """
    argv = [program(daemon), question, *(("--config", str(config)) if config else ())]
    return asyncio.run(
        process.run(
            argv, deadline=_SECONDS, step=f"{daemon.unit} {question}", check=False, max_output=8 << 20
        )
    )
