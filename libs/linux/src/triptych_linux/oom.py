"""Whom the kernel kills first when memory lacks (proc_pid_oom_score_adj(5))."""

from __future__ import annotations

import contextlib
from pathlib import Path


def follow(pid: int, model: int) -> None:
    """Give process `pid` the score adjustment of `model`; whom it starts from then on inherits it.

    An OCI runtime's exec needs it: else its command has the adjustment of a daemon, which is to be spared.
    Nothing happens when either is gone, or this process may not set so low a one.
    """
    with contextlib.suppress(OSError):
        _file(pid).write_bytes(_file(model).read_bytes())


def _file(pid: int) -> Path:
    return Path(f"/proc/{pid}/oom_score_adj")
