"""The one edge where errors become gRPC status codes, and where an RPC becomes a span and a measurement."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio
from triptych_errors import Code, TriptychError

from triptych_service import tracing
from triptych_service.tracing import TraceContext

log = logging.getLogger(__name__)

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_LONGEST_MESSAGE = 4096
"""A status message travels in an HTTP/2 header, and peers refuse headers above 8 KiB or 16 KiB."""

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Any
"""A grpc.RpcMethodHandler; its fields are not the same in gRPC and in its stubs."""


class Observer(Protocol):
    """Told of each RPC that ends."""

    def __call__(self, method: str, code: str, seconds: float) -> None: ...


def status_code(error: TriptychError) -> grpc.StatusCode:
    """The gRPC code of an error."""
    return _CODES[int(error.code)]


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Wraps each method once; what is wrapped is kept, so that an RPC costs no more than its own work.

    :param observe: called at the end of each RPC, or None to measure nothing.
    :param stopping: set when the daemon shuts down; ends the methods in `endless`.
    """

    def __init__(self, stopping: asyncio.Event, observe: Observer | None = None) -> None:
        self._stopping = stopping
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}
        self.observe = observe
        self.endless: set[str] = set()
        """Full names of methods that stream until the client goes away, and so must be ended by a stop."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = (handler, self._wrap(method, handler))
            self._wrapped[method] = known
        return known[1]

    def _wrap(self, method: str, handler: Handler) -> Handler:
        serialize = handler.response_serializer
        parse = handler.request_deserializer
        if handler.response_streaming:
            behavior = handler.stream_stream if handler.request_streaming else handler.unary_stream
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(self._streaming(method, behavior), parse, serialize)
        behavior = handler.stream_unary if handler.request_streaming else handler.unary_unary
        make_unary = (
            grpc.stream_unary_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make_unary(self._unary(method, behavior), parse, serialize)

    def _unary(self, method: str, behavior: Any) -> Any:
        async def serve(request: Any, context: Context) -> Any:
            call = _Call(self, method, context)
            try:
                with call:
                    return await behavior(request, context)
            except Exception as error:
                await _abort(method, context, error)

        return serve

    def _streaming(self, method: str, behavior: Any) -> Any:
        async def serve(request: Any, context: Context) -> AsyncIterator[Any]:
            call = _Call(self, method, context)
            try:
                with call:
                    messages = _messages(behavior, request, context)
                    if method in self.endless:
                        messages = _until(self._stopping, messages)
                    async for message in messages:
                        yield message
            except Exception as error:
                await _abort(method, context, error)

        return serve


async def _messages(behavior: Any, request: Any, context: Context) -> AsyncIterator[Any]:
    """The messages of a streaming method, whether it yields them or writes them."""
    if inspect.isasyncgenfunction(behavior):
        async for message in behavior(request, context):
            yield message
    else:
        await behavior(request, context)


async def _until(stop: asyncio.Event, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Messages until `stop` is set, then UNAVAILABLE, which tells clients to come back."""
    iterator = messages.__aiter__()
    waiter = asyncio.ensure_future(stop.wait())
    upcoming: asyncio.Future[Any] | None = None
    try:
        while True:
            upcoming = asyncio.ensure_future(_next(iterator))
            await asyncio.wait((upcoming, waiter), return_when=asyncio.FIRST_COMPLETED)
            if not upcoming.done():
                raise _Stopping
            message = upcoming.result()
            if message is _END:
                return
            yield message
    finally:
        waiter.cancel()
        if upcoming is not None and not upcoming.done():
            upcoming.cancel()
            await asyncio.wait((upcoming,))


_END = object()


async def _next(iterator: AsyncIterator[Any]) -> Any:
    return await anext(iterator, _END)


class _Stopping(TriptychError):
    code = Code.UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("the daemon is shutting down")


async def _abort(method: str, context: Context, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError | grpc.aio.BaseError):
        raise error
    if isinstance(error, TriptychError):
        log.debug("refused", extra={"method": method, "code": error.code.name, "error": str(error)})
        await context.abort(status_code(error), shorten(str(error)))
    if isinstance(error, NotImplementedError):
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not implemented")
    log.error("unexpected error", exc_info=error, extra={"method": method})
    await context.abort(grpc.StatusCode.INTERNAL, shorten(f"{type(error).__name__}: {error}"))


def shorten(message: str) -> str:
    """A message that fits a header: the start names the step, the end the cause, so the middle goes.

    A file name in it that is not UTF-8 is told with escapes: gRPC sends nothing else.
    """
    text = message.encode(errors="backslashreplace")
    if len(text) <= _LONGEST_MESSAGE:
        return text.decode()
    half = _LONGEST_MESSAGE // 2 - 8
    start, end = text[:half].decode(errors="ignore"), text[-half:].decode(errors="ignore")
    return f"{start} [...] {end}"


class _Call:
    """One RPC being served: its trace identity, its span, its time."""

    __slots__ = ("_context", "_interceptor", "_method", "_span", "_started", "_token")

    def __init__(self, interceptor: ServerInterceptor, method: str, context: Context) -> None:
        self._interceptor = interceptor
        self._method = method
        self._context = context

    def __enter__(self) -> None:
        caller = _caller(self._context.invocation_metadata())
        recorder = tracing.recorder()
        self._started = time.perf_counter()
        self._span: Any = None
        self._token = tracing.current.set(caller if caller or recorder else TraceContext.new())
        if recorder is not None:
            self._span = recorder.server(self._method)
            self._span.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any
    ) -> None:
        code = _outcome(error, self._context)
        if self._span is not None:
            self._span.set("rpc.grpc.status_code", _NUMBERS[code])
            # Only failures of the server are errors of its span; a NOT_FOUND is a good answer.
            failed = code in _SERVER_FAILURES
            self._span.finish(f"{code}: {error}"[:1024] if failed else None)
        tracing.leave(self._token)
        if self._interceptor.observe is not None:
            self._interceptor.observe(self._method, code, time.perf_counter() - self._started)


_NUMBERS = {code.name: code.value[0] for code in grpc.StatusCode}
_SERVER_FAILURES = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)


def _outcome(error: BaseException | None, context: Context) -> str:
    if isinstance(error, TriptychError):
        return error.code.name
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "CANCELLED"
    if error is not None and not isinstance(error, grpc.aio.AbortError):
        return "INTERNAL"
    number = context.code()
    return number.name if isinstance(number, grpc.StatusCode) else _CODES[number or 0].name


def _caller(metadata: Iterable[tuple[str, str | bytes]] | None) -> TraceContext | None:
    header = state = ""
    for key, value in metadata or ():
        if key == tracing.TRACEPARENT:
            header = str(value)
        elif key == tracing.TRACESTATE:
            state = str(value)
    return TraceContext.parse(header, state) if header else None
