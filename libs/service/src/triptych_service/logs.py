"""Logs: one line an event, fields from `extra`, the trace id in each line.

log = logging.getLogger(__name__)
log.info("pulled image", extra={"image": reference, "seconds": 1.2})
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import IO, Any

from triptych_service import tracing
from triptych_service.settings import LogFormat, LogSettings

_OWN_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "trace_id"}
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_JOURNAL = "/run/systemd/journal/socket"


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """The `extra` of a record, and the trace id of the request it was logged for."""
    found = {key: value for key, value in record.__dict__.items() if key not in _OWN_FIELDS}
    trace = tracing.current.get()
    if trace is not None:
        found.setdefault("trace_id", trace.trace_id)
    return found


class TextFormatter(logging.Formatter):
    """`15:04:05.123 INFO  image.pull: pulled image image=busybox seconds=1.2`"""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        name = record.name.removeprefix("triptych_")
        level = record.levelname
        if self._colour:
            shade = (
                "31"
                if record.levelno >= logging.ERROR
                else "33"
                if record.levelno >= logging.WARNING
                else "2"
            )
            level = f"\x1b[{shade}m{level}\x1b[0m"
        text = f"{moment}.{int(record.msecs):03d} {level} {name}: {_one_line(record.getMessage())}"
        for key, value in fields(record).items():
            text += f" {key}={_logfmt(value)}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line, times in UTC with microseconds."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{moment}.{int(record.created % 1 * 1e6):06d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in fields(record).items():
            entry.setdefault(key, value)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


class JournalHandler(logging.Handler):
    """Sends records to journald by its native protocol, fields and all.

    :raises OSError: when the journal's socket cannot be reached.
    """

    def __init__(self, identifier: str, path: str = _JOURNAL) -> None:
        super().__init__()
        self._identifier = identifier
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._send(journal_entry(record, self._identifier, self.format(record)))
        except Exception:  # as in the handlers of the standard library: no log call raises
            self.handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        return text

    def _send(self, entry: bytes) -> None:
        try:
            self._socket.send(entry)
        except OSError as error:
            # Too large for a datagram: journald takes the entry in a sealed memory file instead.
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_file(entry)

    def _send_file(self, entry: bytes) -> None:
        descriptor = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(descriptor, entry)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
            socket.send_fds(self._socket, [b""], [descriptor])
        finally:
            os.close(descriptor)

    def close(self) -> None:
        self._socket.close()
        super().close()


def journal_problem() -> str:
    """Why the journal cannot be reached, "" when it can."""
    try:
        JournalHandler("").close()
    except OSError as error:
        return f"{_JOURNAL}: {error.strerror}"
    return ""


def journal_entry(record: logging.LogRecord, identifier: str, message: str) -> bytes:
    """A record in journald's native format: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/"""
    priority = next((value for level, value in _PRIORITIES if record.levelno >= level), 7)
    values: dict[str, Any] = {
        "MESSAGE": message,
        "PRIORITY": priority,
        "SYSLOG_IDENTIFIER": identifier,
        "CODE_FILE": record.pathname,
        "CODE_LINE": record.lineno,
        "CODE_FUNC": record.funcName,
        "LOGGER": record.name,
    }
    for key, value in fields(record).items():
        values.setdefault(_journal_name(key), value)
    # File names and output of others need not be UTF-8, and a lone surrogate stands for such a byte.
    texts = ((key, str(value).encode(errors="backslashreplace")) for key, value in values.items())
    return b"".join(_journal_field(key, text) for key, text in texts)


def _journal_name(key: str) -> str:
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in key).upper().lstrip("_")
    return (name if name[:1].isalpha() else "F" + name)[:64]


def _journal_field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return name.encode() + b"=" + value + b"\n"
    return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def setup(identifier: str, settings: LogSettings, stream: IO[str] = sys.stderr) -> None:
    """Send all logs of this process to where `settings` says."""
    handler = _handler(identifier, settings.format, stream)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    logging.raiseExceptions = False  # a full disk or a closed terminal must not end an RPC
    set_levels(settings)


_adjusted: set[str] = set()


def set_levels(settings: LogSettings) -> None:
    """Apply `level` and `levels`; also at run time."""
    logging.getLogger().setLevel(settings.level.name)
    for name in _adjusted - settings.levels.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    _adjusted.clear()
    for name, level in settings.levels.items():
        logging.getLogger(name).setLevel(level.name)
        _adjusted.add(name)


def _handler(identifier: str, wanted: LogFormat, stream: IO[str]) -> logging.Handler:
    if wanted is LogFormat.JOURNALD or (wanted is LogFormat.AUTO and _journal_stream(stream, os.environ)):
        try:
            return JournalHandler(identifier)
        except OSError:
            if wanted is LogFormat.JOURNALD:
                raise
    handler = logging.StreamHandler(stream)
    terminal = stream.isatty()
    text = wanted is LogFormat.TEXT or (wanted is LogFormat.AUTO and terminal)
    handler.setFormatter(TextFormatter(colour=terminal) if text else JsonFormatter())
    return handler


def _journal_stream(stream: IO[str], environment: Mapping[str, str]) -> bool:
    """Whether the journal reads this very stream: `$JOURNAL_STREAM` holds its device and inode."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(stat.st_dev), str(stat.st_ino))


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")


def _logfmt(value: Any) -> str:
    text = str(value)
    plain = bool(text) and text.isprintable() and not any(c in text for c in ' "=')
    return text if plain else json.dumps(text, ensure_ascii=False)
