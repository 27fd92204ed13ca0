"""`triptych status` and `triptych top` against fake daemons."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from triptych.image.v1 import image_pb2
from triptych_cli.status import process


def test_a_healthy_node(node: Any) -> None:
    done = node.run("status")
    assert done.status == 0, done.err
    lines = {line.split()[0]: line for line in done.out.splitlines() if line.strip()}
    assert lines["triptych-image"].split()[1:4] == ["serving", "9.8.7", str(os.getpid())]
    assert "2 ready" in lines["pods"] and "1 notready" in lines["pods"]
    assert "1 running" in lines["containers"]
    assert "15.0 MiB in 50 inodes below /var/lib/triptych/image" in lines["disk"]
    assert done.out.count("/var/lib/triptych/image") == 1, "one file system is told once"
    assert "1 active, 0 waiting" in lines["sessions"]
    assert "port-forward" in done.out and "default/shop" in done.out


def test_the_same_as_json(node: Any) -> None:
    document = json.loads(node.run("status", "-o", "json").out)
    assert document["healthy"] is True
    assert [daemon["state"] for daemon in document["daemons"]] == ["serving"] * 3
    assert document["runtime"]["pods"] == {"ready": 2, "notready": 1}
    assert document["images"]["filesystems"][0]["used_bytes"] == 15 << 20
    assert document["streaming"]["sessions"][0]["bytes_in"] == 2048
    assert json.loads(node.run("--output", "json", "status").out)["healthy"] is True


def test_every_streaming_instance_is_asked(node: Any) -> None:
    # No processes have these numbers: they are above the kernel's limit.
    node.add_streaming(4194401, "a", waiting="b")
    node.add_streaming(4194402, "b", waiting="c")
    (node.directory / "streaming.sock.4194403").touch()
    (node.directory / "streaming.sock.lock").touch()
    document = json.loads(node.run("status", "-o", "json").out)
    pids = [daemon["pid"] for daemon in document["daemons"] if daemon["name"] == "streaming"]
    assert pids == [4194401, 4194402]
    sessions = {session["id"]: session["active"] for session in document["streaming"]["sessions"]}
    assert sessions == {"a": True, "b": True, "c": False}, "b was claimed between the two questions"
    node.stop("streaming.4194401")
    alone = json.loads(node.run("status", "-o", "json").out)
    assert [daemon["socket"] for daemon in alone["daemons"]][2] == f"{node.directory}/streaming.sock"


def test_a_daemon_that_is_down_is_told_with_its_remedy(node: Any) -> None:
    node.stop("streaming")
    done = node.run("status")
    assert done.status == 1
    assert "triptych-streaming" in done.out and "down" in done.out
    assert "systemctl start triptych-streaming" in done.out
    assert "2 ready" in done.out, "the other two are told all the same"


def test_a_condition_that_does_not_hold(node: Any) -> None:
    node.runtime.network_ready = False
    done = node.run("status")
    assert done.status == 1
    assert "NetworkReady is false: NoConfig: no CNI configuration" in done.out


def test_running_pulls(node: Any) -> None:
    layer = image_pb2.LayerProgress(digest="sha256:1", total_bytes=2048, received_bytes=1024)
    node.images.running = [
        image_pb2.PullProgress(
            reference="registry.test/big:v1", stage=image_pb2.PULL_STAGE_FETCHING, layers=[layer], host="h"
        ),
        image_pb2.PullProgress(reference="registry.test/done:v1", done=True),
    ]
    done = node.run("status", "-o", "json")
    pulls = json.loads(done.out)["images"]["pulls"]
    assert [(pull["reference"], pull["received"], pull["total"]) for pull in pulls] == [
        ("registry.test/big:v1", 1024, 2048)
    ]
    assert "registry.test/big:v1" in node.run("image", "pulls").out


def test_top_gives_shares_from_two_samples(node: Any) -> None:
    done = node.run("top", "-n", "2", "-d", "0.5", "-o", "json")
    decoder, samples, text = json.JSONDecoder(), [], done.out
    while text.strip():
        document, end = decoder.raw_decode(text.strip())
        samples.append(document)
        text = text.strip()[end:]
    first, second = (sample["use"][0] for sample in samples)
    assert first["cpu"] == 0.0 and first["pod"] == "default/shop"
    assert 0.5 < second["cpu"] <= 2.0, "one CPU second in half a second or more"
    assert second["memory"] == 5 << 20


def test_top_as_text_sorts(node: Any) -> None:
    done = node.run("top", "-n", "1", "-s", "memory")
    assert done.status == 0
    assert "5.00 MiB" in done.out and "default/shop" in done.out


def test_the_own_process_is_known() -> None:
    assert process.uptime(os.getpid()) > 0
    assert process.proportional_set_size(os.getpid()) > 1 << 20
    assert process.uptime(0) == 0.0


@pytest.mark.parametrize("path", ["/nonexistent.sock", "/dev/null"])
def test_a_listener_that_is_not_there(path: str) -> None:
    assert process.listener_pid(path, "triptych-image") == 0
