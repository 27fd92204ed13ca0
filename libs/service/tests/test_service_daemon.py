"""The bootstrap as a process: what an operator and a service manager see of it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from runtime.v1 import api_pb2, api_pb2_grpc
from triptych_dev.patience import PATIENCE
from triptych_service import connect

SAMPLE = Path(__file__).with_name("sample_daemon.py")
Start = Callable[..., Any]


@asynccontextmanager
async def images(path: Path) -> AsyncIterator[Any]:
    channel = connect(str(path))
    try:
        yield api_pb2_grpc.ImageServiceStub(channel)
    finally:
        await channel.close()


def named(image: str) -> api_pb2.ImageStatusRequest:
    return api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=image))


def sleep(seconds: str) -> api_pb2.RemoveImageRequest:
    return api_pb2.RemoveImageRequest(image=api_pb2.ImageSpec(image=seconds))


async def ask(path: Path, **metadata: str) -> dict[str, str]:
    async with images(path) as stub:
        answer = await stub.ImageStatus(
            named("busybox"), metadata=tuple(metadata.items()), timeout=60 * PATIENCE
        )
        return dict(answer.info)


async def test_errors_become_codes_and_large_messages_pass(start: Start) -> None:
    daemon = start()
    async with images(daemon.socket) as stub:
        for image, code, details in (
            ("missing", grpc.StatusCode.NOT_FOUND, "image missing"),
            ("broken", grpc.StatusCode.INTERNAL, "ValueError: it broke"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.ImageStatus(named(image))
            assert (raised.value.code(), raised.value.details()) == (code, details)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ImageFsInfo(api_pb2.ImageFsInfoRequest())
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        await stub.ImageStatus(named("x" * (15 << 20)))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ImageStatus(named("x" * (17 << 20)))
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        # What is sent is limited by who receives it.
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ImageStatus(named("large"))
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    channel = connect(str(daemon.socket), max_message_bytes=33 << 20)
    answer = await api_pb2_grpc.ImageServiceStub(channel).ImageStatus(named("large"))
    assert len(answer.info["large"]) == 32 << 20
    await channel.close()
    assert "it broke" in daemon.wait_for("unexpected error")["exception"]


async def test_the_socket_is_private_and_goes_with_the_daemon(start: Start) -> None:
    daemon = start()
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o600
    assert sorted(path.name for path in daemon.socket.parent.iterdir()) == [
        "log",
        "sample.sock",
        "sample.sock.lock",
        "sample.toml",
    ]
    assert daemon.stop() == 0
    assert not daemon.socket.exists()
    assert [line["message"] for line in daemon.lines()][-4:] == [
        "stopping",
        "background ended",
        "closed",
        "stopped",
    ]


async def test_a_live_socket_is_refused_with_its_owner_and_a_stale_one_replaced(start: Start) -> None:
    daemon = start()
    second = start(wait=False)
    assert second.process.wait(timeout=60 * PATIENCE) == 1
    refusal = second.lines()[-1]["message"]
    assert f"is served by process {daemon.process.pid} (python" in refusal
    assert (await ask(daemon.socket))["greeting"] == "hello"

    daemon.stop(signal.SIGKILL)
    assert daemon.socket.exists()
    third = start()
    assert (await ask(third.socket))["greeting"] == "hello"


async def test_a_stranger_on_the_socket_is_refused_by_pid(start: Start, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(tmp_path / "a" / "sample.sock"))
        stranger.listen()
        daemon = start(wait=False)
        assert daemon.process.wait(timeout=60 * PATIENCE) == 1
        assert f"is served by process {os.getpid()}" in daemon.lines()[-1]["message"]
    assert daemon.socket.exists()


async def test_a_file_at_the_socket_path_is_left_alone(start: Start, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "sample.sock").write_text("precious")
    daemon = start(wait=False)
    assert daemon.process.wait(timeout=60 * PATIENCE) == 1
    assert "exists and is not a socket" in daemon.lines()[-1]["message"]
    assert daemon.socket.read_text() == "precious"


async def test_stop_finishes_what_is_in_flight_and_ends_endless_streams(start: Start) -> None:
    daemon = start()
    async with images(daemon.socket) as stub:
        slow = asyncio.ensure_future(stub.RemoveImage(sleep("3.0")))
        stream = stub.StreamImages(api_pb2.StreamImagesRequest())
        await stream.read()
        await asyncio.to_thread(daemon.wait_for, "sleeping")
        daemon.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stream.read()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not slow.done()
        await slow
    assert daemon.stop() == 0


async def test_stop_cancels_what_outlasts_the_grace(start: Start) -> None:
    daemon = start("grace_seconds = 0.3")
    async with images(daemon.socket) as stub:
        call = asyncio.ensure_future(stub.RemoveImage(sleep("60")))
        await asyncio.to_thread(daemon.wait_for, "sleeping")
        before = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    assert daemon.stop() == 0
    assert time.monotonic() - before < 15


async def test_a_failed_background_task_ends_the_daemon_after_its_cleanup(start: Start) -> None:
    daemon = start('greeting = "crash"', wait=False)
    assert daemon.process.wait(timeout=60 * PATIENCE) == 1
    lines = daemon.lines()
    assert "closed" in [line["message"] for line in lines]
    assert "LookupError: the background broke" in lines[-1]["exception"]
    assert not daemon.socket.exists()


async def test_reload_applies_live_keys_and_names_the_others(start: Start) -> None:
    daemon = start('greeting = "hello"')
    text = daemon.config.read_text()
    daemon.config.write_text(
        text.replace("hello", "good day") + '\nroot = "/elsewhere"\n[log]\nlevel = "debug"\n'
    )
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("reloaded", greeting="good day")
    daemon.wait_for("setting changed", key="greeting", old="hello", new="good day", outcome="applied")
    daemon.wait_for("setting changed", key="log.level", outcome="applied")
    daemon.wait_for("setting changed, but needs a restart", key="root")
    answer = await ask(daemon.socket)
    assert (answer["greeting"], answer["root"]) == ("good day", "/nowhere")
    async with images(daemon.socket) as stub:
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.ImageStatus(named("missing"))
    daemon.wait_for("refused", level="debug", code="NOT_FOUND")

    daemon.config.write_text(text + "\ngreting = 3\n")
    daemon.process.send_signal(signal.SIGHUP)
    refused = daemon.wait_for("reload refused, the old settings stay")
    assert refused["problem"].endswith("unknown key `greting`, did you mean `greeting`?")
    assert (await ask(daemon.socket))["greeting"] == "good day"


def test_settings_that_the_daemon_cannot_work_with_stop_the_start_for_good(start: Start) -> None:
    daemon = start('greeting = ""\npeer = ""\n', wait=False)
    assert daemon.process.wait(timeout=60 * PATIENCE) == 78
    assert daemon.text().splitlines() == [
        f"{daemon.config}: `greeting`: expected something to say, got ''",
        f"{daemon.config}: `peer`: expected another daemon",
    ]
    late = start('greeting = "too late"\n', wait=False)
    assert late.process.wait(timeout=60 * PATIENCE) == 78
    assert "greeting: expected it in time" in late.lines()[-1]["message"]


def test_settings_that_the_daemon_cannot_work_with_are_refused_by_a_reload(start: Start) -> None:
    daemon = start('greeting = "hello"')
    text = daemon.config.read_text()
    daemon.config.write_text(text.replace("hello", "") + '\nroot = "/elsewhere"\npeer = "x"\n')
    daemon.process.send_signal(signal.SIGHUP)
    refused = daemon.wait_for("reload refused, the old settings stay")
    assert refused["problem"] == f"{daemon.config}: `greeting`: expected something to say, got ''"
    assert not any(line["message"].startswith("setting changed") for line in daemon.lines())


async def test_health_of_the_daemon_and_of_each_service(start: Start) -> None:
    daemon = start()
    channel = connect(str(daemon.socket))
    stub: Any = health_pb2_grpc.HealthStub(channel)
    for service in ("", "runtime.v1.ImageService"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    call = stub.Check(health_pb2.HealthCheckRequest())
    told = dict(await call.initial_metadata())
    assert (told["triptych-version"], told["triptych-pid"]) == ("1.2.3", str(daemon.process.pid))
    assert told["triptych-reloads"] == "0"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.Check(health_pb2.HealthCheckRequest(service="other"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="runtime.v1.ImageService"))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.stop() == 0
    await channel.close()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_every_service(start: Start, version: str) -> None:
    daemon = start()
    with grpc.insecure_channel(f"unix:{daemon.socket}") as channel:
        if version == "v1":
            method = channel.stream_stream(
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                request_serializer=bytes,
                response_deserializer=bytes,
            )
            (listing,) = method(iter([b"\x3a\x00"]))  # list_services
            assert b"runtime.v1.ImageService" in listing
            return
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == {
            "runtime.v1.ImageService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("runtime.v1.ImageService")
        request = GetMessageClass(service.FindMethodByName("ImageStatus").input_type)
        answer = channel.unary_unary(
            "/runtime.v1.ImageService/ImageStatus",
            request_serializer=request.SerializeToString,
            response_deserializer=api_pb2.ImageStatusResponse.FromString,
        )(request(verbose=True))
        assert answer.info["greeting"] == "hello"
        assert pool.FindServiceByName("grpc.health.v1.Health") is not None


async def test_service_manager_hears_of_each_change(
    start: Start, datagrams: socket.socket, tmp_path: Path
) -> None:
    env = {"NOTIFY_SOCKET": str(datagrams.getsockname()), "WATCHDOG_USEC": "300000"}
    daemon = start("grace_seconds = 300", env=env)
    seen: list[str] = []

    def until(text: str) -> None:
        while text not in "\n".join(seen):
            seen.append(datagrams.recv(4096).decode())

    until(f"READY=1\nSTATUS=serving on {daemon.socket}")
    until("WATCHDOG=1")
    seen.clear()
    daemon.process.send_signal(signal.SIGHUP)
    until("RELOADING=1\nMONOTONIC_USEC=")
    until("READY=1")
    daemon.process.send_signal(signal.SIGTERM)
    until("STOPPING=1")
    until("EXTEND_TIMEOUT_USEC=325000000")
    assert daemon.stop() == 0


@pytest.mark.parametrize("name", ["grpc", "triptych-image.socket"])
async def test_socket_activation_serves_the_passed_socket(start: Start, tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "sample.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_INET) as http:
        listener.bind(str(path))
        listener.listen(64)
        http.bind(("127.0.0.1", 0))
        early = asyncio.ensure_future(ask(path))
        await asyncio.sleep(0.2)
        inode = path.stat().st_ino
        for _ in range(2):  # the second time: a restart, the socket stays
            daemon = await asyncio.to_thread(start, sockets={"http": http, name: listener})
            for _ in range(3):
                assert (await ask(path))["greeting"] == "hello"
            assert path.stat().st_ino == inode
            assert sorted(p.name for p in path.parent.glob(".*")) == []
            daemon.config.write_text(daemon.config.read_text() + '\ngreeting = "hello "\n')
            daemon.process.send_signal(signal.SIGHUP)
            assert list(daemon.wait_for("reloaded")["passed"]) == ["http"]
            assert daemon.stop() == 0
            assert path.exists()
        assert (await early)["greeting"] == "hello"


async def test_instances_that_share_a_socket_have_an_address_each(start: Start, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "sample.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)

        def addresses() -> set[str]:
            return {found.name for found in path.parent.glob("sample.sock.*[0-9]")}

        first = await asyncio.to_thread(start, sockets={"grpc": listener})
        first.process.kill()
        first.process.wait()
        assert addresses() == {f"sample.sock.{first.process.pid}"}, "nobody could remove it"
        started = [await asyncio.to_thread(start, sockets={"grpc": listener}) for _ in range(2)]
        pids = [daemon.process.pid for daemon in started]
        assert addresses() == {f"sample.sock.{pid}" for pid in pids}
        for pid in pids:
            own = path.with_name(f"sample.sock.{pid}")
            assert stat.S_IMODE(own.stat().st_mode) == 0o600
            async with connect(str(own)) as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                call = stub.Check(health_pb2.HealthCheckRequest())
                assert dict(await call.initial_metadata())["triptych-pid"] == str(pid)
        assert started[0].stop() == 0
        assert addresses() == {f"sample.sock.{pids[1]}"}
        assert (await ask(path))["greeting"] == "hello"
        assert started[1].stop() == 0
        assert addresses() == set() and path.exists()


def test_command_line(tmp_path: Path) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(SAMPLE), *arguments], capture_output=True, text=True, timeout=30
        )

    assert call("--version").stdout == "triptych-sample 1.2.3\n"
    text = call("--help").stdout
    assert "/etc/triptych/sample.toml" in text
    assert (
        '  greeting = "hello"\n      What it says.\n      a string; a change takes effect on SIGHUP' in text
    )
    config = tmp_path / "x.toml"
    config.write_text("greeting = 3\n")
    wrong = call("--check-config", "--config", str(config))
    assert (wrong.returncode, wrong.stderr) == (
        78,
        f"{config}: `greeting`: expected a string, got integer 3\n",
    )
    config.write_text(f'greeting = ""\nsocket = "/{"x" * 98}"\n[telemetry]\nendpoint = "http://[x"\n')
    (tmp_path / "x.toml.d").mkdir()
    (tmp_path / "x.toml.d" / "m.toml").write_text('metrics.address = "x"\n')
    wrong = call("--check-config", "--config", str(config))
    assert wrong.returncode == 78
    assert [line.split(": expected")[0] for line in wrong.stderr.splitlines()] == [
        f"{config}: `socket`",
        f"{config}: `telemetry.endpoint`",
        f"{tmp_path}/x.toml.d/m.toml: `metrics.address`",
        f"{config}: `greeting`",
        "default: `peer`",
    ]
    assert 'greeting = ""' in call("--print-config", "--config", str(config)).stdout
    (tmp_path / "x.toml.d" / "m.toml").unlink()
    config.write_text('greeting = "x"\n')
    right = call("--check-config", "--config", str(config))
    assert (right.returncode, right.stdout) == (
        0,
        f"triptych-sample: the configuration is valid; read: {config}\n",
    )
    printed = call("--print-config", "--config", str(config)).stdout
    assert f'greeting = "x"  # {config}\n' in printed
    assert 'root = "/nowhere"  # default\n' in printed
    assert '\n[log]\nlevel = "info"  # default\n' in printed
    assert tomllib.loads(printed)["telemetry"]["headers"] == {}
    assert call("--config-reference").stdout.startswith("## triptych-sample\n")


async def test_trace_ids_reach_logs_and_the_next_daemon(start: Start) -> None:
    first = start(name="a")
    second = start(f'peer = "{first.socket}"', name="b")
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with images(second.socket) as stub:
        answer = await stub.ListImages(
            api_pb2.ListImagesRequest(), metadata=(("traceparent", f"00-{trace}-b7ad6b7169203331-01"),)
        )
        assert answer.images[0].id == trace
        first.wait_for("asked", trace_id=trace)
        unasked = await stub.ListImages(api_pb2.ListImagesRequest())
        assert len(unasked.images[0].id) == 32
        first.wait_for("asked", trace_id=unasked.images[0].id)
