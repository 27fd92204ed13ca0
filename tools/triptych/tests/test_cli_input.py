"""Wrong input: a message that names it, and status 2, before anything is done. Other failures: status 1."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import pytest
from triptych_cli import ending
from triptych_cli.errors import CallFailed, DaemonDown
from triptych_errors import Code, TriptychError


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--timeout", "0", "status"), "'--timeout': 0.0 is not in the range x>0"),
        (("support-bundle", "-f", "/nonexistent/bundle.tgz"), "/nonexistent is not a directory"),
        (("image", "load", "/nonexistent"), "/nonexistent does not exist"),
        (("image", "push", "a:1", "--user", "me"), "there is no password"),
        (("trace", "listen", "localhost"), "'localhost' is not HOST:PORT"),
        (("trace", "listen", "127.0.0.1:65536"), "'127.0.0.1:65536' is not HOST:PORT"),
        (("trace", "call", "runtime.v1.RuntimeService/Nothing"), "has no method Nothing"),
        (
            ("trace", "call", "runtime.v1.RuntimeService/Status", "{"),
            "the body is no runtime.v1.StatusRequest",
        ),
        (("config", "check", "--config", "/dev/null"), "--config needs exactly one daemon"),
    ],
)
def test_wrong_input_is_named(
    node: Any, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], told: str
) -> None:
    monkeypatch.setattr("os.kill", lambda *_: pytest.fail("a daemon was told to reload"))
    done = node.run(*args)
    assert done.status == 2 and told in done.err
    assert done.out == ""


def test_a_pod_that_is_none_is_named(node: Any, tmp_path: Path) -> None:
    file = tmp_path / "pod.json"
    file.write_text('{"metadata": {"nmae": "typo"}}')
    done = node.run("trace", "--config-dir", str(tmp_path / "etc"), "run", str(file))
    assert done.status == 2 and "nmae" in done.err
    assert node.runtime.seen == []


def test_a_bundle_that_cannot_be_written_is_named(node: Any, tmp_path: Path) -> None:
    done = node.run("support-bundle", "-f", "/proc/bundle.tgz")
    assert done.status == 1 and done.err.startswith("triptych: /proc/bundle.tgz: ")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CallFailed("image: malformed", Code.INVALID_ARGUMENT), 2),
        (CallFailed("image: not here", Code.NOT_FOUND), 1),
        (DaemonDown("nobody"), 1),
        (click.UsageError("no"), 2),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
    ],
)
def test_how_a_command_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, status: int
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["failing"])
    monkeypatch.setattr(sys.stderr, "close", lambda: None)
    with pytest.raises(SystemExit) as ended:
        ending.run(failing, "failing")
    assert ended.value.code == status
    if isinstance(error, TriptychError):
        assert capsys.readouterr().err == f"failing: {error.message}\n"
