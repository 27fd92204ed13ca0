"""What the forked children do, one job each, and how they report it.

A report is lines of JSON on a pipe: any number of `{"unpacked": bytes, "entries": n}`, then one line with
`result` or `error`. A pipe that ends without one means that the child died.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator

from triptych_image.unpack.worker import confine, source
from triptych_image.unpack.worker.apply import Applier
from triptych_image.unpack.worker.archive import Archive
from triptych_image.unpack.worker.check import Checker
from triptych_image.unpack.worker.errors import DISK, LIMIT, SYSTEM, Refused, limit, refused_by_kernel
from triptych_image.unpack.worker.limits import Limits
from triptych_image.unpack.worker.output import write_all
from triptych_image.unpack.worker.tape import NoTape, TapeWriter, play

_INTERVAL = 0.2
_MEMORY = 1 << 30
_CHUNK = 1 << 18

Request = dict[str, object]


def forward(request: Request, fds: list[int], out: int) -> dict[str, object]:
    """Hash compressed bytes on their way, so that no byte of the layer has a say in its digest.

    `fds`: input, and optionally a spool file that keeps the bytes; what the spool has already goes first.
    """
    confine.confine(None, (), _MEMORY)
    digest = hashlib.new(str(request["algorithm"]))
    total = 0
    spool = fds[1] if len(fds) > 1 else -1

    def pump(fd: int, spool: int) -> None:
        nonlocal total
        while data := os.read(fd, _CHUNK):
            digest.update(data)
            total += len(data)
            if spool >= 0:
                write_all(spool, data)
            try:
                write_all(out, data)
            except BrokenPipeError:
                raise Refused(SYSTEM, "the unpacker ended early") from None

    if spool >= 0:
        pump(spool, -1)
    pump(fds[0], spool)
    return {"digest": f"{request['algorithm']}:{digest.hexdigest()}", "size": total}


def unpack(request: Request, fds: list[int], tell: Callable[[object], None]) -> dict[str, object]:
    """Unpack a layer. `fds`: compressed input, root directory, tape."""
    feed, root, tape_fd = fds
    confine.confine(root, confine.UNPACK_CAPABILITIES, _MEMORY)
    limits = _limits(request)
    tape = TapeWriter(tape_fd)
    compressed = source.Input(feed)
    archive = Archive(source.chunks(compressed), tape, limits, _progress(tell, compressed, limits))
    applier = Applier(archive, tape, limits)
    applier.run()
    while compressed.read():
        pass  # so that the forwarder sees the end of the blob and not a closed pipe
    return {
        "diff_id": archive.diff_id(),
        "unpacked": archive.total,
        "entries": archive.entries,
        "bytes": applier.counts.bytes,
        "inodes": applier.counts.inodes,
        "tape_bytes": tape.written,
        "complete": tape.complete,
        "implied": [os.fsdecode(path) for path in sorted(applier.implied)],
        "opaque": [os.fsdecode(path) for path in sorted(applier.opaque)],
        "skipped_xattrs": applier.skipped_xattrs,
    }


def inflate(request: Request, fds: list[int], tell: Callable[[object], None]) -> dict[str, object]:
    """Unpack a packed archive of whatever it holds. `fds`: the archive, the file that it goes to."""
    packed, out = fds
    confine.confine(None, (), _MEMORY)
    compressed = source.Input(packed)
    on_chunk = _progress(tell, compressed, _limits(request))
    written = 0
    for chunk in source.chunks(compressed):
        write_all(out, chunk)
        written += len(chunk)
        on_chunk(written, 0)
    return {"written": written}


def verify(request: Request, fds: list[int], tell: Callable[[object], None]) -> dict[str, object]:
    """Play a layer's tape, compare names and attributes, and hash. `fds`: root directory, tape."""
    root, tape_fd = fds
    confine.confine(root, confine.READ_CAPABILITIES, _MEMORY)
    archive = Archive(play(tape_fd), NoTape(), Limits(), _progress(tell, None, Limits()))
    checker = Checker(archive)
    checker.run()
    return {
        "diff_id": archive.diff_id(),
        "problems": checker.problems,
        "inodes": checker.count_inodes(),
        "opaque": [os.fsdecode(path) for path in sorted(checker.opaque)],
    }


def export(request: Request, fds: list[int], tell: Callable[[object], None]) -> dict[str, object]:
    """Play a layer's tape into a pipe. `fds`: root directory, tape, output."""
    root, tape_fd, out = fds
    confine.confine(root, confine.READ_CAPABILITIES, _MEMORY)
    digest = hashlib.sha256()
    on_chunk = _progress(tell, None, Limits())
    total = 0
    for chunk in _packed(play(tape_fd), bool(request.get("gzip")), digest.update):
        write_all(out, chunk)
        total += len(chunk)
        on_chunk(total, 0)
    return {"diff_id": "sha256:" + digest.hexdigest(), "written": total}


def _packed(chunks: Iterator[bytes], gzip: bool, observe: Callable[[bytes], None]) -> Iterator[bytes]:
    if not gzip:
        for chunk in chunks:
            observe(chunk)
            yield chunk
        return
    from isal import isal_zlib

    packer = isal_zlib.compressobj(2, wbits=31)
    for chunk in chunks:
        observe(chunk)
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()


def run(job: Callable[[], dict[str, object]], tell: Callable[[object], None]) -> None:
    """Run a job and tell its end."""
    try:
        tell({"result": job()})
    except Refused as error:
        tell({"error": error.kind, "message": str(error)})
    except MemoryError:
        tell({"error": LIMIT, "message": f"unpacking takes more than {_MEMORY >> 20} MiB of memory"})
    except OSError as error:
        refused = refused_by_kernel(error, "unpack")
        tell({"error": refused.kind if refused.kind == DISK else SYSTEM, "message": str(refused)})


def teller(fd: int) -> Callable[[object], None]:
    """Writes lines to a report pipe; nobody listening is no error."""

    def tell(message: object) -> None:
        try:
            write_all(fd, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            os._exit(1)

    return tell


def _progress(
    tell: Callable[[object], None], compressed: source.Input | None, limits: Limits
) -> Callable[[int, int], None]:
    due = time.monotonic() + _INTERVAL

    def on_chunk(total: int, entries: int) -> None:
        nonlocal due
        if compressed is not None and limits.ratio and total > limits.ratio_floor:
            if total > limits.ratio * compressed.received:
                raise limit(f"it unpacks to more than {limits.ratio} times its size")
        now = time.monotonic()
        if now >= due:
            due = now + _INTERVAL
            tell({"unpacked": total, "entries": entries})

    return on_chunk


def _limits(request: Request) -> Limits:
    given = request.get("limits")
    return Limits(**given) if isinstance(given, dict) else Limits()


__all__ = ["export", "forward", "inflate", "run", "teller", "unpack", "verify"]
