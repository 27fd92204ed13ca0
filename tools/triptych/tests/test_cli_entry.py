"""The command itself: help, completion, sizes, start-up cost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from triptych_cli import render
from triptych_cli.__main__ import COMMANDS, cli


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "doctor"])
def test_every_command_has_help(node: Any, name: str) -> None:
    done = node.run(name, "--help")
    assert done.status == 0, done.err
    assert "Usage: triptych " + name in done.out


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['triptych', '--help']\n"
        "from triptych_cli.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'grpc', 'rich', 'asyncio', 'runtime', 'opentelemetry', 'msgspec'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_code_of_the_shell(node: Any, shell: str) -> None:
    done = node.run("completion", shell)
    assert done.status == 0
    assert "_TRIPTYCH_COMPLETE" in done.out


def test_completion_completes(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import ShellComplete

    found = ShellComplete(cli, {}, "triptych", "_TRIPTYCH_COMPLETE").get_completions(["image"], "pu")
    assert [item.value for item in found] == ["pull", "pulls", "push"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1023, "1.00 KiB"),
        (1 << 20, "1.00 MiB"),
        (123 << 20, "123 MiB"),
        (5e15, "4.44 PiB"),
    ],
)
def test_sizes(number: float, text: str) -> None:
    assert render.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2e-6, "2 µs"), (0.0123, "12.3 ms"), (59.94, "59.9 s"), (60, "1m"), (3661, "1h 1m"), (200000, "2d 7h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


def test_ago() -> None:
    now = time.time()
    assert render.ago(0) == "-"
    assert render.ago(int((now - 90) * 1e9), now) == "1m 30s"


def test_config_check_asks_the_daemons(node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, status in (("image", 0), ("runtime", 78), ("streaming", 0)):
        program = tmp_path / f"triptych-{name}"
        bad = f'echo "file: bad key" >&2; exit {status}'
        program.write_text(f'#!/bin/sh\n[ {status} = 0 ] && echo "valid $*" || {{ {bad}; }}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere/python"))
    done = node.run("config", "check")
    assert done.status == 1
    assert done.out.splitlines() == ["valid --check-config", "file: bad key", "valid --check-config"]
    assert node.run("config", "check", "image").status == 0
    shown = node.run("config", "show", "runtime")
    assert shown.status == 1 and "file: bad key" in shown.err
    assert node.run("config", "show", "image").out == "valid --print-config\n"


def test_config_show_as_json(node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a daemon prints is TOML with the origin of each key behind it."""
    program = tmp_path / "triptych-image"
    program.write_text(
        "#!/bin/sh\n"
        "cat <<'END'\n"
        'pinned = ["a  # b"]  # /etc/triptych/image.toml\n'
        "\n[log]\n"
        'level = "info"  # default\n'
        'levels = {"x.y" = "debug"}  # /etc/one.toml, /etc/two.toml\n'
        "END\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere/python"))
    done = node.run("config", "show", "image", "-o", "json")
    assert done.status == 0, done.err
    assert json.loads(done.out) == {
        "settings": {"pinned": ["a  # b"], "log": {"level": "info", "levels": {"x.y": "debug"}}},
        "origins": {
            "pinned": "/etc/triptych/image.toml",
            "log.level": "default",
            "log.levels": "/etc/one.toml, /etc/two.toml",
        },
    }
