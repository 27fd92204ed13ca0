"""Two peers, or a peer and a script, over a pair of sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from google.protobuf.message import Message
from nri.v1alpha1.nri_pb2 import ConfigureRequest, ConfigureResponse, Empty, SynchronizeRequest
from triptych_errors import Code, NotFound, TriptychError
from triptych_ttrpc import (
    MAX_MESSAGE,
    CallTimeout,
    Connection,
    ConnectionClosed,
    Event,
    Peer,
    ProtocolError,
    RemoteError,
    RequestReceived,
    ResponseReceived,
    Role,
    StateError,
    TooLarge,
)

SERVICE = "test.Service"
LONG = 60.0


@contextlib.asynccontextmanager
async def pair(
    **handlers: Callable[[ConfigureRequest], Awaitable[Message]],
) -> AsyncIterator[tuple[Peer, Peer]]:
    """A runtime's end that calls, and a plugin's end that serves; neither leaves a task."""
    before = asyncio.all_tasks()
    ours, theirs = socket.socketpair()
    runtime, plugin = Peer(ours), Peer(theirs, Role.PLUGIN)
    plugin.serve(SERVICE, {name: (ConfigureRequest, handler) for name, handler in handlers.items()})
    await runtime.start()
    await plugin.start()
    try:
        yield runtime, plugin
    finally:
        await runtime.close()
        await plugin.close()
        assert asyncio.all_tasks() == before and not runtime._answers and not plugin._answers
        assert ours.fileno() == theirs.fileno() == -1


class Script:
    """A plugin's end that does what the test says, byte by byte."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.connection = Connection(Role.PLUGIN)
        self.events: list[Event] = []

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def next(self) -> Event:
        while not self.events:
            data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
            assert data, "the peer closed the connection"
            self.events += self.connection.receive_data(data)
        return self.events.pop(0)

    async def next_request(self) -> RequestReceived:
        event = await self.next()
        assert isinstance(event, RequestReceived)
        return event

    async def next_response(self) -> ResponseReceived:
        event = await self.next()
        assert isinstance(event, ResponseReceived)
        return event


@contextlib.asynccontextmanager
async def scripted(*, start: bool = True) -> AsyncIterator[tuple[Peer, Script]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    peer = Peer(ours)
    if start:
        await peer.start()
    try:
        with theirs:
            yield peer, Script(theirs)
    finally:
        await peer.close()
        assert not peer._answers and ours.fileno() == -1


def configure(
    peer: Peer, name: str = "", method: str = "Echo", timeout: float = LONG
) -> asyncio.Task[ConfigureResponse]:
    request = ConfigureRequest(runtime_name=name)
    return asyncio.create_task(peer.call(SERVICE, method, request, ConfigureResponse, timeout))


async def count(request: ConfigureRequest) -> ConfigureResponse:
    return ConfigureResponse(events=len(request.runtime_name))


async def forever(_: Message) -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def test_calls_overlap_and_each_gets_its_answer() -> None:
    turn: dict[str, asyncio.Event] = {"a": asyncio.Event(), "bb": asyncio.Event()}

    async def wait(request: ConfigureRequest) -> ConfigureResponse:
        await turn[request.runtime_name].wait()
        return await count(request)

    async with pair(Echo=wait) as (runtime, _):
        first, second = configure(runtime, "a"), configure(runtime, "bb")
        turn["bb"].set()
        assert (await second).events == 2
        assert not first.done()
        turn["a"].set()
        assert (await first).events == 1


async def test_both_ends_call_each_other_with_messages_of_mebibytes_at_once() -> None:
    async with pair(Echo=count) as (runtime, plugin):
        runtime.serve(SERVICE, {"Echo": (ConfigureRequest, count)})
        sizes = [3 << 20, 10, 2 << 20, 5_000]
        calls = [configure(peer, "x" * size) for size in sizes for peer in (runtime, plugin)]
        assert [answer.events for answer in await asyncio.gather(*calls)] == [n for n in sizes for _ in "ab"]


async def test_more_calls_at_once_than_are_allowed_wait_for_each_other() -> None:
    async with pair(Echo=count) as (runtime, _):
        answers = await asyncio.gather(*(configure(runtime, "x" * size) for size in range(300)))
        assert [answer.events for answer in answers] == list(range(300))


async def test_the_largest_message_goes_and_a_larger_is_refused_with_its_size() -> None:
    async with pair(Echo=count) as (runtime, _):
        with pytest.raises(TooLarge) as refused:
            await configure(runtime, "x" * MAX_MESSAGE)
        assert refused.value.length > refused.value.maximum == MAX_MESSAGE
        assert refused.value.code == Code.RESOURCE_EXHAUSTED
        fits = MAX_MESSAGE - (refused.value.length - MAX_MESSAGE)
        assert (await configure(runtime, "x" * fits)).events == fits
        with pytest.raises(TooLarge):
            await configure(runtime, "x" * (fits + 8))
        assert (await configure(runtime, "on")).events == 2


@pytest.mark.parametrize(
    "error, code, text",
    [
        (NotFound("no pod", hint="look again"), Code.NOT_FOUND, "no pod (look again)"),
        (ValueError("bad value"), Code.UNKNOWN, "bad value"),
        (ValueError(), Code.UNKNOWN, "ValueError"),
        (TimeoutError("of another"), Code.UNKNOWN, "of another"),
        (asyncio.CancelledError(), Code.CANCELLED, "Echo was cancelled"),
    ],
)
async def test_an_error_of_a_handler_is_the_callers(error: BaseException, code: Code, text: str) -> None:
    async def fail(_: Message) -> Message:
        raise error

    async with pair(Echo=fail) as (runtime, _):
        with pytest.raises(RemoteError) as raised:
            await configure(runtime)
        assert raised.value.code == code and str(raised.value) == text


async def test_an_answer_that_is_too_large_is_an_error_to_the_caller_alone() -> None:
    async def swell(_: Message) -> Message:
        return ConfigureRequest(config="x" * MAX_MESSAGE)

    async with pair(Swell=swell, Echo=count) as (runtime, _):
        with pytest.raises(RemoteError) as raised:
            await configure(runtime, method="Swell")
        assert raised.value.code == Code.RESOURCE_EXHAUSTED
        assert (await configure(runtime, "on")).events == 2


@pytest.mark.parametrize("service, method", [(SERVICE, "Other"), ("other.Service", "Echo")])
async def test_what_is_not_served_is_unimplemented(service: str, method: str) -> None:
    async with pair(Echo=count) as (runtime, _):
        with pytest.raises(RemoteError) as raised:
            await runtime.call(service, method, Empty(), Empty, LONG)
        assert raised.value.code == Code.UNIMPLEMENTED


async def test_a_payload_of_another_type_is_the_senders_fault() -> None:
    async with scripted() as (peer, script):
        peer.serve(SERVICE, {"Echo": (ConfigureRequest, count)})
        await script.send(script.connection.request(SERVICE, "Echo", b"\xff")[1])
        assert (await script.next_response()).code == Code.INVALID_ARGUMENT
        call = configure(peer)
        request = await script.next_request()
        await script.send(script.connection.response(request.stream_id, b"\xff"))
        with pytest.raises(ProtocolError):
            await call
        assert not peer.closed.is_set()


async def test_a_status_with_a_number_that_is_none_is_unknown() -> None:
    assert RemoteError(5, "x").code is Code.NOT_FOUND
    assert RemoteError(99, "x").code is Code.UNKNOWN


async def test_requests_wait_in_the_socket_until_the_start() -> None:
    async with scripted(start=False) as (peer, script):
        await script.send(script.connection.request(SERVICE, "Echo", b"")[1])
        with pytest.raises(StateError):
            await configure(peer)
        peer.serve(SERVICE, {"Echo": (ConfigureRequest, count)})
        await peer.start()
        assert (await script.next_response()).code == 0


async def test_a_late_answer_and_one_to_nobody_are_dropped() -> None:
    async with scripted() as (peer, script):
        late = configure(peer, timeout=0.01)
        with pytest.raises(CallTimeout) as raised:
            await late
        assert raised.value.code == Code.DEADLINE_EXCEEDED
        request = await script.next_request()
        assert 0 < request.timeout_nano <= 10_000_000
        cancelled = configure(peer)
        gone = await script.next_request()
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert not peer._answers
        answered = configure(peer)
        last = await script.next_request()
        for stream_id in (request.stream_id, gone.stream_id, 2, 4001):
            await script.send(
                script.connection.response(stream_id, ConfigureResponse(events=1).SerializeToString())
            )
        await script.send(
            script.connection.response(last.stream_id, ConfigureResponse(events=2).SerializeToString())
        )
        await script.send(script.connection.response(last.stream_id, b""))
        assert (await answered).events == 2


async def test_a_peer_that_does_not_read_ends_in_a_timeout_and_what_waits_is_bounded() -> None:
    async with scripted() as (peer, script):
        calls = [configure(peer, "x" * (1 << 20), timeout=0.2) for _ in range(20)]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, CallTimeout)
        transport = peer._wire._transport
        assert transport is not None and transport.get_write_buffer_size() < 2 << 20
        # What was never begun was never sent: the streams that the script hears rise without a gap.
        call = configure(peer, "last")
        heard = [await script.next_request()]
        while ConfigureRequest.FromString(heard[-1].payload).runtime_name != "last":
            heard.append(await script.next_request())
        assert [request.stream_id for request in heard] == list(range(1, 2 * len(heard), 2))
        assert len(heard) < 20
        await script.send(script.connection.response(heard[-1].stream_id, b""))
        await call


async def test_the_callers_deadline_ends_a_handler() -> None:
    async with scripted() as (peer, script):
        peer.serve(SERVICE, {"Hang": (Empty, forever)})
        for timeout in (1_000, -1):
            await script.send(script.connection.request(SERVICE, "Hang", b"", timeout)[1])
            assert (await script.next_response()).code == Code.DEADLINE_EXCEEDED


@pytest.mark.parametrize("who", ["ours", "theirs", "their socket"])
async def test_calls_under_way_and_later_ones_end_with_the_connection(who: str) -> None:
    started = asyncio.Event()
    ended: list[str] = []

    async def hang(_: Message) -> Message:
        started.set()
        try:
            return await forever(_)
        finally:
            await asyncio.sleep(0)
            ended.append("handler")

    async with pair(Hang=hang) as (runtime, plugin):
        calls = [configure(runtime, method="Hang") for _ in range(3)]
        await started.wait()
        if who == "their socket":
            assert plugin._wire._transport is not None
            plugin._wire._transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        else:
            await (runtime if who == "ours" else plugin).close()
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, ConnectionClosed) and f"{SERVICE}.Hang" in str(result)
            assert result.__cause__ is runtime.reason
        await runtime.closed.wait()
        await plugin.closed.wait()
        with pytest.raises(ConnectionClosed):
            await configure(runtime)
        await plugin.close()
        assert ended == ["handler"] * 3


@pytest.mark.parametrize("who", ["server", "caller"])
async def test_handlers_are_cancelled_when_the_connection_goes_and_awaited_by_close(who: str) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()
    ended: list[str] = []

    async def hang(_: Message) -> Message:
        started.set()
        try:
            return await forever(_)
        finally:
            cancelled.set()
            for _turn in range(10):
                await asyncio.sleep(0)
            ended.append("handler")

    async with pair(Hang=hang) as (runtime, plugin):
        call = configure(runtime, method="Hang")
        await started.wait()
        await (plugin if who == "server" else runtime).close()
        if who == "server":
            assert ended == ["handler"]
        await cancelled.wait()
        with pytest.raises(ConnectionClosed):
            await call


@pytest.mark.parametrize("when", ["first", "last"])
async def test_a_handler_may_close_its_own_peer(when: str) -> None:
    holder: list[Peer] = []
    ended: list[str] = []

    async def leave(_: Message) -> Message:
        try:
            if when == "first":
                await holder[0].close()
            else:
                holder[0]._wire.abort()
                await holder[0].closed.wait()
        finally:
            await holder[0].close()
            ended.append("handler")
        raise AssertionError

    async with pair(Leave=leave) as (runtime, plugin):
        holder.append(plugin)
        with pytest.raises(ConnectionClosed):
            await configure(runtime, method="Leave")
        await plugin.close()
        assert ended == ["handler"]


@pytest.mark.parametrize("end", ["close", "half", "reset"])
async def test_calls_that_wait_for_a_peer_that_does_not_read_end_with_the_connection(end: str) -> None:
    async with scripted() as (peer, script):
        calls = [configure(peer, "x" * (1 << 20)) for _ in range(5)]
        while not peer._wire.congested:
            await asyncio.sleep(0)
        if end == "close":
            await peer.close()
        elif end == "half":
            script.sock.shutdown(socket.SHUT_WR)
        else:
            script.sock.close()
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, ConnectionClosed)
        await peer.closed.wait()


async def test_requests_one_after_the_other_are_served_whatever_they_sum_up_to() -> None:
    async with pair(Echo=count) as (runtime, _):
        for _turn in range(6):
            assert (await configure(runtime, "x" * 4_000_000)).events == 4_000_000
        for _turn in range(70):
            assert (await configure(runtime, "x")).events == 1


async def test_a_peer_that_breaks_the_protocol_is_left() -> None:
    async with scripted() as (peer, script):
        call = configure(peer)
        await script.next()
        await script.send(b"\xff" * 8)
        with pytest.raises(ConnectionClosed) as raised:
            await call
        assert isinstance(raised.value.__cause__, ProtocolError) and "a frame of" in str(raised.value)
        await peer.closed.wait()
        assert await asyncio.get_running_loop().sock_recv(script.sock, 1) == b""


async def test_requests_at_once_are_bounded_in_number_and_in_bytes() -> None:
    async with scripted() as (peer, script):
        peer.serve(SERVICE, {"Hang": (SynchronizeRequest, forever)})
        for _ in range(65):
            await script.send(script.connection.request(SERVICE, "Hang", b"")[1])
        refused = await script.next_response()
        assert (refused.stream_id, refused.code) == (129, Code.RESOURCE_EXHAUSTED)
    async with scripted() as (peer, script):
        peer.serve(SERVICE, {"Hang": (ConfigureRequest, forever)})
        payload = ConfigureRequest(config="x" * (4_000_000)).SerializeToString()
        for _ in range(5):
            await script.send(script.connection.request(SERVICE, "Hang", payload)[1])
        refused = await script.next_response()
        assert (refused.stream_id, refused.code) == (9, Code.RESOURCE_EXHAUSTED)


async def test_who_asks_without_end_and_reads_nothing_is_left() -> None:
    async with scripted() as (peer, script):
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                await script.send(script.connection.request("none", "x" * 4000, b"")[1])
        await peer.closed.wait()
        assert isinstance(peer.reason, ProtocolError)


async def test_close_is_for_a_peer_that_was_not_started_and_for_a_second_time() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        peer = Peer(ours)
        await peer.close()
        await peer.close()
        assert peer.closed.is_set() and ours.fileno() == -1 and theirs.recv(1) == b""


def test_every_error_is_one_of_the_tree() -> None:
    for error in (
        ProtocolError("x"),
        ConnectionClosed("x"),
        CallTimeout("x"),
        TooLarge(2, 1),
        StateError("x"),
    ):
        assert isinstance(error, TriptychError) and str(error).startswith("ttrpc: ")
