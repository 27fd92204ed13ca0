"""A plugin written in Go (containerd/nri 0.12, containerd/ttrpc 1.2) and this runtime's end, on the wire."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nri.v1alpha1 import nri_pb2
from triptych_ttrpc import Connection, Event, RequestReceived, ResponseReceived, Role

SESSION = json.loads((Path(__file__).parent / "recorded/nri-plugin-session.json").read_text())
CALLS = ["Configure", "Synchronize", *["CreateContainer"] * 3, "Nothing", "Shutdown"]


def replay(size: int) -> tuple[list[Event], list[Event]]:
    """What the runtime's end hears of the plugin, and a plugin's of the runtime."""
    ends = {"P": Connection(Role.RUNTIME), "R": Connection(Role.PLUGIN)}
    heard: dict[str, list[Event]] = {"P": [], "R": []}
    for side, text in SESSION:
        data = bytes.fromhex(text)
        for at in range(0, len(data), size):
            heard[side] += ends[side].receive_data(data[at : at + size])
    return heard["P"], heard["R"]


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_both_ends_are_understood(size: int) -> None:
    of_plugin, of_runtime = replay(size)
    registered, *answers = of_plugin
    assert isinstance(registered, RequestReceived) and registered.stream_id == 1
    assert (registered.service, registered.method) == ("nri.pkg.api.v1alpha1.Runtime", "RegisterPlugin")
    assert 0 < registered.timeout_nano <= 5_000_000_000
    plugin = nri_pb2.RegisterPluginRequest.FromString(registered.payload)
    assert (plugin.plugin_name, plugin.plugin_idx) == ("nritest", "07")

    empty, *calls = of_runtime
    assert empty == ResponseReceived(1, 0, "", b"")
    assert [event.method for event in calls if isinstance(event, RequestReceived)] == CALLS
    assert [event.stream_id for event in answers] == [event.stream_id for event in calls]
    codes = [event.code for event in answers if isinstance(event, ResponseReceived)]
    assert codes == [0, 0, 0, 2, 0, 12, 0]


def test_messages_above_4096_bytes_came_whole_both_ways() -> None:
    of_plugin, of_runtime = replay(4096)
    asked = [
        event for event in of_runtime if isinstance(event, RequestReceived) and len(event.payload) > 4096
    ]
    answered = [
        event for event in of_plugin if isinstance(event, ResponseReceived) and len(event.payload) > 4096
    ]
    [container] = [nri_pb2.CreateContainerRequest.FromString(event.payload).container for event in asked]
    [adjust] = [nri_pb2.CreateContainerResponse.FromString(event.payload).adjust for event in answered]
    assert container.annotations["x"] == adjust.annotations["x"] == "z" * 4200


def test_the_engine_makes_the_bytes_that_the_plugin_understood() -> None:
    asked = [event for event in replay(1 << 16)[1] if isinstance(event, RequestReceived)]
    connection, made = Connection(), b""
    for event in asked:
        made += connection.request(event.service, event.method, event.payload, event.timeout_nano)[1]
    sent = b"".join(bytes.fromhex(text) for side, text in SESSION if side == "R")
    assert connection.response(1, b"") + made == sent


def test_the_plugin_cuts_its_messages_as_the_engine_does() -> None:
    sent = b"".join(bytes.fromhex(text) for side, text in SESSION if side == "P")
    sizes = []
    while sent:
        sizes.append(int.from_bytes(sent[4:8], "big"))
        sent = sent[8 + sizes[-1] :]
    assert [size for size in sizes if size > 100] == [4096, 10 + 0x1087 - 4096]
