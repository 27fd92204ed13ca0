"""Each command that the documentation shows is run, or checked as far as this machine allows.

Commands are the lines of shell blocks, and what stands in a sentence or a table as code of several words.

A command that no rule below knows fails the test: whoever writes a new one decides how it is checked.

- `triptych ...` is run against live daemons, with a real image and pod in the place of the examples'.
- `grpcurl ...` is done by its own means, reflection, against live daemons, without the program.
- `./dev ...` would change the machine: its arguments are parsed by the command itself, nothing is done.
- systemctl and journalctl need a node: unit names are checked against deploy/systemd. The virtual machine of
  `./dev test node` restarts, stops and reloads these units.
- File arguments below deploy/ and dist/ must be files of the checkout, or what `./dev package` makes.
- What belongs to others (kubectl, kubeadm, apt-get, containerd's tools) is checked for its form only.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import grpc
import pytest
import yaml
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from triptych_dev.__main__ import cli as dev
from triptych_dev.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
UNITS = {path.name for path in (ROOT / "deploy/systemd").iterdir()}
FOREIGN_UNITS = {"kubelet.service", "containerd.service", "crio.service", "nftables.service"}
FOREIGN = {
    "apt-get",
    "crictl",
    "ctr",
    "git",
    "grpcurl",
    "kubeadm",
    "kubectl",
    "mkdir",
    "mount",
    "sed",
    "sudo",
}
DEBIAN = {
    *("conmon", "crun", "runc", "containernetworking-plugins", "iptables", "nftables", "mount", "catatonit"),
    *("golang-github-containers-common", "criu", "docker-registry", "busybox-static", "iproute2"),
    *("debootstrap", "qemu-system-x86", "e2fsprogs"),
}

RULED = {"triptych", "./dev", "systemctl", "journalctl", *FOREIGN}
_BLOCK = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(rf"`((?:{'|'.join(map(re.escape, sorted(RULED)))}) [^`]+)`")
_EXAMPLES = re.compile(r"registry\.example/app:v1|REFERENCE")


@dataclass(frozen=True)
class Command:
    """One line of a shell block, or a piece of code in a text."""

    page: str
    line: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line.partition(" > ")[0], comments=True)

    def __str__(self) -> str:
        return f"{self.page}: {self.line}"


def _blocks(*languages: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        if not page.exists():
            continue
        for _, language, text in _BLOCK.findall(page.read_text()):
            if language in languages:
                yield page.name, text


def _lines() -> Iterator[tuple[str, str]]:
    for page, text in _blocks("sh", "bash", "console", "shell"):
        for raw in text.replace("\\\n", " ").splitlines():
            line = raw.strip().removeprefix("$ ").removeprefix("sudo ")
            if line and not line.startswith("#"):
                yield page, line


def _inline() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for code in _INLINE.findall(_BLOCK.sub("", page.read_text())):
            yield page.name, re.sub(r"\s+", " ", code)


def _commands(*programs: str) -> list[Command]:
    found = [Command(page, line) for page, line in (*_lines(), *_inline())]
    return [command for command in found if not programs or command.words[0] in programs]


def _unique(commands: list[Command]) -> list[Command]:
    return list({command.line: command for command in commands}.values())


def test_every_command_has_a_rule() -> None:
    assert [*_lines()], "the pages show commands"
    assert {"triptych config check", "triptych image prune -a"} <= {line for _, line in _inline()}
    assert [str(command) for command in _commands() if command.words[0] not in RULED] == []


@pytest.mark.integration
@pytest.mark.requires("bridge", "busybox", "conmon", "docker-registry", "runc", "seccomp.json")
@pytest.mark.parametrize("command", _unique(_commands("triptych")), ids=str)
def test_triptych_commands_run(command: Command, live_stack: Stack, live_image: str, tmp_path: Path) -> None:
    words = [_EXAMPLES.sub(live_image, word) for word in command.words[1:]]
    if words == ["top"]:
        words += ["-n", "1"]  # has no end
    if words[:2] == ["image", "load"]:
        _run(live_stack, ["image", "pull", "-q", live_image], tmp_path)
        _run(live_stack, ["image", "save", "-f", "images.tar", live_image], tmp_path)
    if words[0] == "trace":
        words[1:1] = ["--config-dir", str(live_stack.root)]
        (tmp_path / "pod.json").write_text(
            json.dumps({"metadata": {"name": "docs", "namespace": "docs", "uid": f"{os.getpid()}"}})
        )
    expected = {0, 1} if words[0] == "doctor" else {0}
    done = _run(live_stack, words, tmp_path)
    assert done.returncode in expected, done.stdout + done.stderr
    assert done.stdout or words[:2] == ["image", "prune"]


def _run(stack: Stack, words: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    sockets = {
        f"TRIPTYCH_{name.upper()}_SOCKET": stack.socket(name) for name in ("image", "runtime", "streaming")
    }
    return subprocess.run(
        [sys.executable, "-m", "triptych_cli", *words],
        env={**os.environ, **sockets, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.integration
@pytest.mark.requires("bridge", "busybox", "conmon", "docker-registry", "runc", "seccomp.json")
@pytest.mark.parametrize("command", _unique(_commands("grpcurl")), ids=str)
def test_grpcurl_commands_work(command: Command, live_stack: Stack) -> None:
    """What grpcurl does: it asks by reflection for services, or for a method's messages, and calls it."""
    *options, address, wanted = command.words[1:]
    assert options == ["-plaintext", "-unix"]
    with grpc.insecure_channel(f"unix:{live_stack.socket(Path(address).stem)}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        if wanted == "list":
            assert {name.rpartition(".")[2] for name in database.get_services()} > {"Health"}
            return
        service, _, name = wanted.partition("/")
        method = DescriptorPool(database).FindServiceByName(service).FindMethodByName(name)
        call: Any = channel.unary_unary(
            f"/{wanted}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        assert call(GetMessageClass(method.input_type)(), timeout=60).ByteSize() > 0


@pytest.mark.parametrize("command", _unique(_commands("./dev")), ids=str)
def test_dev_commands_are_understood(command: Command) -> None:
    words = [word for word in command.words[1:] if word != "NAME"]
    if not words:
        return
    context = click.Context(dev, info_name="./dev")
    found = dev.get_command(context, words[0])
    assert found is not None, f"./dev has no command {words[0]}"
    arguments = [str(ROOT) if word == "dist/wheels" else word for word in words[1:]]
    with found.make_context(words[0], arguments, parent=context) as parsed:
        assert parsed.params is not None


@pytest.mark.parametrize("command", _unique(_commands("systemctl", "journalctl")), ids=str)
def test_units_exist(command: Command) -> None:
    words = command.words
    named = [words[i + 1] for i, word in enumerate(words) if word == "-u"]
    if words[0] == "systemctl":
        named = [word for word in words[2:] if not word.startswith("-")]
        verbs = {
            "daemon-reload",
            "disable",
            "edit",
            "enable",
            "kill",
            "reload",
            "restart",
            "start",
            "status",
            "stop",
        }
        assert words[1] in verbs
        sockets = [name for name in named if name.endswith(".socket")]
        assert words[1] != "disable" or not sockets, "their services want them: they start with them again"
    for name in (name.replace("NAME", "image") for name in named):
        unit = name if "." in name else f"{name}.service"
        template = re.sub(r"@[^.]+", "@", unit)
        assert {unit, template} & (UNITS | FOREIGN_UNITS) or fnmatch.filter(UNITS, unit), f"no unit {unit}"


@pytest.mark.parametrize("command", _unique(_commands(*FOREIGN)), ids=str)
def test_what_belongs_to_others_names_things_that_are(command: Command) -> None:
    if command.words[:2] == ["apt-get", "install"]:
        packages = {word for word in command.words[2:] if not word.startswith(("-", "./", "triptych_"))}
        assert packages <= DEBIAN
    for path in re.findall(r"\bdeploy/[\w./-]+", command.line):
        assert (ROOT / path).exists(), path
    sockets = set(re.findall(r"/run/triptych/[\w.-]+", command.line))
    assert sockets <= {f"/run/triptych/{name}.sock" for name in ("image", "runtime", "streaming")}


def test_loggers_that_are_named_are_there() -> None:
    pages = "".join(page.read_text() for page in PAGES)
    named = set(re.findall(r'"(triptych_[\w.]+)" = "\w+"', pages))
    assert named and [name for name in named if importlib.util.find_spec(name) is None] == []


def test_files_that_are_shown_are_the_files_that_are_shipped() -> None:
    """YAML on a page is found, document by document, in deploy/."""
    shipped = [
        document
        for path in (*(ROOT / "deploy/kubelet").glob("*.yaml"), ROOT / "deploy/crictl.yaml")
        for document in yaml.safe_load_all(path.read_text())
    ]
    shown = [(page, document) for page, text in _blocks("yaml") for document in yaml.safe_load_all(text)]
    assert shown
    for page, document in shown:
        assert any(_contains(whole, document) for whole in shipped), f"{page}: {document}"


def _contains(whole: object, part: object) -> bool:
    """Whether each key and entry of `part` is in `whole`."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and _contains(whole[key], value) for key, value in part.items()
        )
    if isinstance(part, list):
        return isinstance(whole, list) and all(any(_contains(w, p) for w in whole) for p in part)
    return whole == part


def test_configuration_that_is_shown_is_valid(tmp_path: Path) -> None:
    import tomllib

    checked = 0
    for page, text in _blocks("toml"):
        keys = set(tomllib.loads(text))
        if "hosts.toml" in text.partition("\n")[0]:
            continue  # of a registry: in containerd's format
        named = re.search(r"/etc/triptych/\{?([a-z,]+)\}?\.toml", text)
        daemons = named[1].split(",") if named else ["runtime"]
        for daemon in daemons:
            file = tmp_path / f"{daemon}.toml"
            file.write_text(text)
            done = subprocess.run(
                [sys.executable, "-m", f"triptych_{daemon}", "--check-config", "--config", file],
                capture_output=True,
                text=True,
                timeout=60,
            )
            # Certificates are not here, and only that is told of them.
            told = [
                x for x in done.stderr.splitlines() if not re.search(r"got /etc/triptych/tls/.*: No such", x)
            ]
            assert not told and (done.returncode == 0 or done.stderr), (
                f"{page} {sorted(keys)}: {done.stderr}"
            )
            checked += 1
    assert checked >= 4


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", (ROOT / "README.md").read_text()))
    assert linked == {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    named = re.findall(r"`((?:deploy|docs|libs|proto|services|tests|tools)/[\w./-]+)`", page.read_text())
    assert [path for path in named if not list(ROOT.glob(f"{path}*"))] == []
