"""An OTLP gRPC receiver of spans in this process."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import grpc

from triptych_cli.errors import CliError
from triptych_cli.trace.model import Span, spans_of


class Collector:
    """Listens while it is open, and keeps the spans that arrive.

    :param address: host:port to listen on; port 0 takes a free one.
    """

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self._address = address
        self._spans: list[Span] = []
        self._arrival = threading.Condition()
        self._server: grpc.Server | None = None
        self.endpoint = ""
        """What exporters are told, once it is open: "http://127.0.0.1:43170"."""

    def __enter__(self) -> Collector:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb

        handler = grpc.unary_unary_rpc_method_handler(
            self._export,
            pb.ExportTraceServiceRequest.FromString,
            pb.ExportTraceServiceResponse.SerializeToString,
        )
        name = "opentelemetry.proto.collector.trace.v1.TraceService"
        server = grpc.server(ThreadPoolExecutor(max_workers=4))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": handler}),))
        try:
            port = server.add_insecure_port(self._address)
        except RuntimeError:
            raise CliError(f"cannot listen on {self._address}", hint="is another collector there?") from None
        server.start()
        self._server = server
        self.endpoint = f"http://{self._address.rpartition(':')[0]}:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.stop(None).wait()

    def _export(self, request: Any, _context: grpc.ServicerContext) -> Any:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb

        with self._arrival:
            self._spans.extend(spans_of(request))
            self._arrival.notify_all()
        return pb.ExportTraceServiceResponse()

    def spans(self, trace: str | None = None) -> list[Span]:
        """What has arrived, of one trace or of all."""
        with self._arrival:
            return [span for span in self._spans if trace is None or span.trace == trace]

    def settle(self, trace: str, *, quiet: float, deadline: float) -> list[Span]:
        """Wait until a trace has spans and no more have come for `quiet` seconds, or until the deadline."""
        ends = time.monotonic() + deadline
        count, since = -1, time.monotonic()
        while True:
            found = self.spans(trace)
            now = time.monotonic()
            if len(found) != count:
                count, since = len(found), now
            left = min(ends, since + quiet if found else ends) - now
            if left <= 0:
                return found
            with self._arrival:
                self._arrival.wait(left)

    def take(self) -> list[Span]:
        """Give what has arrived, and forget it."""
        with self._arrival:
            taken, self._spans = self._spans, []
            return taken

    def wait(self, seconds: float) -> None:
        """Sleep until something arrives, at most for some time."""
        with self._arrival:
            self._arrival.wait(seconds)
