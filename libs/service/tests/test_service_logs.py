from __future__ import annotations

import array
import io
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from triptych_service import logs, tracing
from triptych_service.interceptors import shorten
from triptych_service.logs import JournalHandler, JsonFormatter, TextFormatter
from triptych_service.settings import LogFormat, LogLevel, LogSettings
from triptych_service.tracing import TraceContext


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    logger = logging.getLogger()
    handlers, level, raise_exceptions = logger.handlers[:], logger.level, logging.raiseExceptions
    yield logger
    logs.set_levels(LogSettings())
    logger.handlers[:], logging.raiseExceptions = handlers, raise_exceptions
    logger.setLevel(level)


def record(message: str = "pulled image", **extra: Any) -> logging.LogRecord:
    logger = logging.getLogger("triptych_image.pull")
    return logger.makeRecord(
        logger.name, logging.INFO, "file.py", 7, message, (), None, func="pull", extra=extra
    )


def test_text_is_one_line_with_fields() -> None:
    line = TextFormatter(colour=False).format(record("pulled\nimage", image="a b", seconds=1.2, empty=""))
    assert line.partition(" ")[2] == 'INFO image.pull: pulled\\nimage image="a b" seconds=1.2 empty=""'


def test_json_has_fields_and_the_trace() -> None:
    trace = TraceContext.new()
    token = tracing.current.set(trace)
    try:
        entry = json.loads(JsonFormatter().format(record(image="busybox", message_id="x")))
    finally:
        tracing.current.reset(token)
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "info",
        "logger": "triptych_image.pull",
        "message": "pulled image",
        "image": "busybox",
        "message_id": "x",
        "trace_id": trace.trace_id,
    }


def test_an_exception_is_told() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        info = sys.exc_info()
    logger = logging.getLogger("x")
    failed = logger.makeRecord("x", logging.ERROR, "f", 1, "no", (), info)
    assert "ValueError: broken" in json.loads(JsonFormatter().format(failed))["exception"]
    assert "ValueError: broken" in TextFormatter(colour=False).format(failed)


def test_the_journal_gets_fields_by_its_native_protocol(datagrams: socket.socket) -> None:
    handler = JournalHandler("triptych-image", datagrams.getsockname())
    try:
        handler.emit(record(image="busybox", _odd="x", text="a\nb"))
        entry = datagrams.recv(8192)
    finally:
        handler.close()
    for line in (
        b"MESSAGE=pulled image\n",
        b"PRIORITY=6\n",
        b"SYSLOG_IDENTIFIER=triptych-image\n",
        b"CODE_LINE=7\n",
        b"IMAGE=busybox\n",
        b"ODD=x\n",
        b"TEXT\n\x03\0\0\0\0\0\0\0a\nb\n",
    ):
        assert line in entry


def test_what_is_not_utf8_reaches_the_journal_with_escapes(datagrams: socket.socket) -> None:
    handler = JournalHandler("triptych-image", datagrams.getsockname())
    try:
        handler.handle(record("read \udcff", path="/a/\udcfe"))
        entry = datagrams.recv(8192)
    finally:
        handler.close()
    assert b"MESSAGE=read \\udcff\n" in entry
    assert b"PATH=/a/\\udcfe\n" in entry


def test_a_record_that_cannot_be_told_does_not_fail_its_caller(
    root: logging.Logger, datagrams: socket.socket
) -> None:
    class Broken:
        def __str__(self) -> str:
            raise ValueError("no text")

    logs.setup("x", LogSettings(), io.StringIO())
    root.addHandler(JournalHandler("x", datagrams.getsockname()))
    logging.getLogger("y").info("broken", extra={"what": Broken()})
    logging.getLogger("y").info("%d", "no number")
    logging.getLogger("y").info("on")
    assert b"MESSAGE=on\n" in datagrams.recv(8192)
    root.handlers[-1].close()


def test_a_huge_entry_goes_to_the_journal_as_a_sealed_file(datagrams: socket.socket) -> None:
    handler = JournalHandler("triptych-image", datagrams.getsockname())
    try:
        handler.emit(record("x" * (8 << 20)))
        data, ancillary, _, _ = datagrams.recvmsg(1024, socket.CMSG_LEN(4))
    finally:
        handler.close()
    assert data == b""
    descriptor = array.array("i", ancillary[0][2])[0]
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        assert file.read(20) == b"MESSAGE=xxxxxxxxxxxx"


def test_levels_change_at_run_time(root: logging.Logger) -> None:
    stream = io.StringIO()
    logs.setup("x", LogSettings(format=LogFormat.TEXT), stream)
    logging.getLogger("some.part").debug("unseen")
    logs.set_levels(LogSettings(levels={"some": LogLevel.DEBUG}))
    logging.getLogger("some.part").debug("seen")
    logging.getLogger("other").debug("unseen")
    logs.set_levels(LogSettings(level=LogLevel.WARNING))
    logging.getLogger("some.part").info("unseen")
    assert [line.split(": ")[1] for line in stream.getvalue().splitlines()] == ["seen"]


def test_auto_is_json_without_terminal_and_text_on_one(root: logging.Logger) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, start in ((io.StringIO(), "{"), (Terminal(), "")):
        logs.setup("x", LogSettings(), stream)
        logging.getLogger("y").info("hello")
        assert stream.getvalue().startswith(start)
    assert "\x1b[2mINFO\x1b[0m y: hello" in stream.getvalue()


def test_the_journal_is_recognised_by_device_and_inode(tmp_path: Any) -> None:
    with (tmp_path / "f").open("w") as stream:
        stat = os.fstat(stream.fileno())
        assert logs._journal_stream(stream, {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"})
        assert not logs._journal_stream(stream, {"JOURNAL_STREAM": f"{stat.st_dev}:1"})
        assert not logs._journal_stream(io.StringIO(), {"JOURNAL_STREAM": "1:1"})


def test_long_status_messages_keep_start_and_end() -> None:
    text = "start " + "ä" * 5000 + " end"
    cut = shorten(text)
    assert len(cut.encode()) <= 4096
    assert cut.startswith("start ä")
    assert cut.endswith("ä end")
    assert shorten("short") == "short"
    assert shorten("file \udcff") == "file \\udcff"
