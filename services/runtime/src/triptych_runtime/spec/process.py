"""Arguments, environment and working directory of a container's process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from runtime.v1 import api_pb2
from triptych_errors import InvalidArgument
from triptych_oci import ContainerConfig as ImageSettings

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Environment:
    """A process's environment.

    :ivar text: "NAME=value" entries for the document.
    :ivar raw: entries whose value is not UTF-8, which no JSON document can carry; see `launcher`.
    """

    text: list[str]
    raw: list[bytes]


def arguments(config: api_pb2.ContainerConfig, image: ImageSettings) -> list[str]:
    """The argument vector: `command` replaces the image's entrypoint and cmd, `args` its cmd.

    :raises InvalidArgument: when nothing is left to run.
    """
    command, args = list(config.command), list(config.args)
    if not command:
        entrypoint = list(image.entrypoint or ())
        command = [] if entrypoint == [""] else entrypoint
        args = args or list(image.cmd or ())
    if not command and not args:
        raise InvalidArgument("no command: neither the request nor the image names one")
    for argument in (*command, *args):
        _no_nul(argument, "command")
    return command + args


def exec_arguments(command: Sequence[str]) -> list[str]:
    """The argument vector of an exec.

    :raises InvalidArgument: when it is empty.
    """
    if not command or not command[0]:
        raise InvalidArgument("cmd: no command to run")
    return [_no_nul(argument, "cmd") for argument in command]


def working_directory(config: api_pb2.ContainerConfig, image: ImageSettings) -> str:
    """Where the process starts; "/" when nobody says.

    :raises InvalidArgument: for a relative path in the request.
    """
    if config.working_dir:
        if not config.working_dir.startswith("/"):
            raise InvalidArgument(f"working_dir: {config.working_dir!r} is not an absolute path")
        return _no_nul(config.working_dir, "working_dir")
    return "/" + image.working_dir.lstrip("/")


def environment(config: api_pb2.ContainerConfig, image: ImageSettings, hostname: str) -> Environment:
    """PATH, TERM (with a terminal) and HOSTNAME, then the image's variables, then the request's.

    A later value replaces an earlier one in its place; an image entry without "=" removes the variable.

    :raises InvalidArgument: for a name that is empty or holds "=" or NUL, or a value that holds NUL.
    """
    merged: dict[str, bytes] = {"PATH": DEFAULT_PATH.encode()}
    if config.tty:
        merged["TERM"] = b"xterm"
    merged["HOSTNAME"] = hostname.encode()
    for entry in image.env or ():
        name, equals, value = entry.partition("=")
        if equals:
            merged[name] = value.encode()
        else:
            merged.pop(name, None)
    merged.update(checked_variables(config.envs))
    text: list[str] = []
    raw: list[bytes] = []
    for name, content in merged.items():
        try:
            text.append(f"{name}={content.decode()}")
        except UnicodeDecodeError:
            raw.append(name.encode() + b"=" + content)
    return Environment(text, raw)


def checked_variables(variables: Iterable[api_pb2.KeyValue]) -> list[tuple[str, bytes]]:
    """Names and values of the request's environment.

    :raises InvalidArgument: naming the variable, never its value.
    """
    pairs: list[tuple[str, bytes]] = []
    for variable in variables:
        name = variable.key
        if not name or "=" in name or "\0" in name:
            raise InvalidArgument(f"envs: {name!r} is no name of an environment variable")
        if b"\0" in variable.value:
            raise InvalidArgument(f"envs: the value of {name} holds a NUL byte")
        pairs.append((name, variable.value))
    return pairs


def merge_text(current: Sequence[str], more: Iterable[str]) -> list[str]:
    """`current` with the entries of `more`, each replacing the one of its name in place."""
    merged = {entry.partition("=")[0]: entry for entry in current}
    merged.update((entry.partition("=")[0], entry) for entry in more)
    return list(merged.values())


def _no_nul(text: str, field: str) -> str:
    if "\0" in text:
        raise InvalidArgument(f"{field} holds a NUL byte")
    return text
