"""Writes control files so that either all take effect or none does."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re

from triptych_runtime.cgroups.errors import BadResources, CgroupFailed
from triptych_runtime.cgroups.handle import Cgroup, read, write
from triptych_runtime.cgroups.plan import Write

log = logging.getLogger(__name__)

_ORDER_MATTERS = (errno.EINVAL, errno.EBUSY, errno.ERANGE)
_DEVICE_LINES = re.compile(rb"\d+:\d+ ")


def apply(cgroup: Cgroup, writes: list[Write]) -> list[Write]:
    """Carry out writes; when one fails, put back what the others changed.

    The kernel checks some files against each other (memory against memory and swap, quota against
    period), so one that is refused is tried again after the others.

    :returns: what `revert` needs to put everything back.
    :raises BadResources: when the kernel says that a value is invalid.
    :raises CgroupFailed: when a file cannot be written, or the cgroup is gone.
    """
    done: list[Write] = []
    try:
        before = {(w.directory, w.name): read(w.directory, w.name) for w in writes}
    except OSError as error:
        raise _failure(cgroup, error) from error
    failed = _write_all(writes, done)
    undo = [
        Write(w.directory, w.name, value)
        for w in reversed(done)
        for value in _restoring(before[(w.directory, w.name)])
    ]
    if failed is not None:
        revert(cgroup, undo)
        step, refusal = failed
        raise _failure(cgroup, refusal, step) from refusal
    return undo


def revert(cgroup: Cgroup, undo: list[Write]) -> None:
    """Put back what `apply` changed; what cannot be put back is logged."""
    left = _write_all(undo, [])
    if left is not None:
        log.error("could not restore a cgroup", extra={"cgroup": cgroup.path, "file": left[0].name})


def _write_all(writes: list[Write], done: list[Write]) -> tuple[Write, OSError] | None:
    pending = writes
    while pending:
        refused: list[tuple[Write, OSError]] = []
        for item in pending:
            try:
                write(item.directory, item.name, item.value)
            except OSError as error:
                refused.append((item, error))
                if error.errno not in _ORDER_MATTERS:
                    return refused[-1]
            else:
                done.append(item)
        if len(refused) == len(pending):
            return refused[0]
        pending = [item for item, _ in refused]
    return None


def _restoring(content: bytes) -> list[bytes]:
    """What to write so that a file says again what it said."""
    lines = content.splitlines()
    if lines and all(_DEVICE_LINES.match(line) for line in lines):
        return lines
    return [content.strip() or b"\n"]


def _failure(cgroup: Cgroup, error: OSError, item: Write | None = None) -> BadResources | CgroupFailed:
    name = item.name if item is not None else os.path.basename(str(error.filename))
    what = f"update cgroup {cgroup.path}: {name}"
    if item is not None:
        what += f" = {item.value.decode(errors='replace')!r}"
    message = f"{what}: {error.strerror}"
    if item is not None and error.errno in (errno.EINVAL, errno.ERANGE):
        return BadResources(message)
    return CgroupFailed(message)


def set_oom_score(pids: list[int], score: int) -> None:
    """Set oom_score_adj of processes; ones that ended meanwhile are skipped.

    :raises CgroupFailed: when the kernel refuses (a value below what the daemon may give).
    """
    before: list[tuple[int, bytes]] = []
    try:
        for pid in pids:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                old = read(f"/proc/{pid}", "oom_score_adj").strip()
                if old != b"%d" % score:
                    write(f"/proc/{pid}", "oom_score_adj", b"%d" % score)
                    before.append((pid, old))
    except OSError as error:
        for pid, old in before:
            with contextlib.suppress(OSError):
                write(f"/proc/{pid}", "oom_score_adj", old)
        raise CgroupFailed(f"set oom_score_adj {score}: {error.strerror}") from error
