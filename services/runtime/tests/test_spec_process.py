from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime.v1 import api_pb2
from triptych_errors import InvalidArgument
from triptych_oci import ContainerConfig as Image
from triptych_runtime.spec.process import (
    DEFAULT_PATH,
    arguments,
    environment,
    exec_arguments,
    merge_text,
    working_directory,
)

BOTH = Image(entrypoint=("/entry", "-e"), cmd=("cmd", "-c"))


@pytest.mark.parametrize(
    ("command", "args", "image", "expected"),
    [
        ([], [], BOTH, ["/entry", "-e", "cmd", "-c"]),
        (["run"], [], BOTH, ["run"]),
        ([], ["a", "b"], BOTH, ["/entry", "-e", "a", "b"]),
        (["run"], ["a"], BOTH, ["run", "a"]),
        ([], [], Image(cmd=("only",)), ["only"]),
        ([], [], Image(entrypoint=("",), cmd=("cmd",)), ["cmd"]),
        ([], ["a"], Image(), ["a"]),
    ],
)
def test_arguments(command: list[str], args: list[str], image: Image, expected: list[str]) -> None:
    assert arguments(api_pb2.ContainerConfig(command=command, args=args), image) == expected


def test_nothing_to_run() -> None:
    with pytest.raises(InvalidArgument, match="no command"):
        arguments(api_pb2.ContainerConfig(), Image(entrypoint=("",)))
    with pytest.raises(InvalidArgument, match="NUL"):
        arguments(api_pb2.ContainerConfig(command=["a\0b"]), Image())
    with pytest.raises(InvalidArgument, match="cmd"):
        exec_arguments([])


def test_working_directory() -> None:
    config = api_pb2.ContainerConfig
    assert working_directory(config(), Image()) == "/"
    assert working_directory(config(), Image(working_dir="/srv")) == "/srv"
    assert working_directory(config(), Image(working_dir="srv")) == "/srv"
    assert working_directory(config(working_dir="/w"), Image(working_dir="/srv")) == "/w"
    with pytest.raises(InvalidArgument, match="working_dir"):
        working_directory(config(working_dir="w"), Image())


def envs(**values: bytes) -> list[api_pb2.KeyValue]:
    return [api_pb2.KeyValue(key=key, value=value) for key, value in values.items()]


def test_environment_order_and_precedence() -> None:
    config = api_pb2.ContainerConfig(tty=True, envs=envs(B=b"request", C=b"new", HOSTNAME=b"mine"))
    image = Image(env=("A=image", "B=image", "PATH=/image"))
    assert environment(config, image, "host").text == [
        "PATH=/image",
        "TERM=xterm",
        "HOSTNAME=mine",
        "A=image",
        "B=request",
        "C=new",
    ]


def test_environment_defaults_and_removal() -> None:
    result = environment(api_pb2.ContainerConfig(), Image(env=("HOSTNAME", "E=")), "host")
    assert result.text == [f"PATH={DEFAULT_PATH}", "E="]
    twice = api_pb2.ContainerConfig(envs=[*envs(A=b"1"), *envs(A=b"2")])
    assert environment(twice, Image(), "h").text[-1] == "A=2"


@pytest.mark.parametrize("name", ["", "A=B", "A\0"])
def test_bad_names(name: str) -> None:
    config = api_pb2.ContainerConfig(envs=[api_pb2.KeyValue(key=name, value=b"secret")])
    with pytest.raises(InvalidArgument, match="envs") as caught:
        environment(config, Image(), "h")
    assert "secret" not in str(caught.value)


def test_nul_in_a_value_does_not_tell_it() -> None:
    config = api_pb2.ContainerConfig(envs=envs(TOKEN=b"secret\0"))
    with pytest.raises(InvalidArgument, match="TOKEN holds a NUL") as caught:
        environment(config, Image(), "h")
    assert "secret" not in str(caught.value)


@given(st.binary().filter(lambda value: b"\0" not in value))
def test_every_value_arrives_whole(value: bytes) -> None:
    result = environment(api_pb2.ContainerConfig(envs=envs(V=value)), Image(), "h")
    entries = [entry.encode() for entry in result.text] + result.raw
    assert b"V=" + value in entries
    assert len(entries) == 3


def test_merge_text() -> None:
    assert merge_text(["A=1", "B=2"], ["B=3", "C=4"]) == ["A=1", "B=3", "C=4"]
