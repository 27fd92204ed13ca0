"""What every daemon measures of itself."""

from __future__ import annotations

import asyncio

from triptych_service import tracing
from triptych_service.interceptors import ServerInterceptor
from triptych_service.metrics import SECONDS, Metrics

_INTERVAL = 1.0
_LAGS = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)


async def loop_metrics(metrics: Metrics, interceptor: ServerInterceptor) -> None:
    """Measure each RPC, and once a second how late the event loop is; runs until cancelled."""
    rpcs = metrics.histogram(
        "triptych_rpc_duration",
        "Time from the arrival of an RPC to the end of its answer, by method and gRPC code.",
        buckets=SECONDS,
    )
    steps = metrics.histogram(
        "triptych_step_duration",
        "Time of each step of the work, by step and outcome: what the spans of a trace are called.",
        buckets=SECONDS,
    )
    lag = metrics.histogram(
        "triptych_event_loop_lag",
        "How late a timer of the event loop fires, once a second: how long any RPC waits for its turn.",
        buckets=_LAGS,
    )

    def observe(method: str, code: str, seconds: float) -> None:
        service, _, name = method[1:].rpartition("/")
        rpcs.observe(seconds, service=service, method=name, code=code)

    def observe_step(name: str, seconds: float, succeeded: bool) -> None:
        steps.observe(seconds, step=name, outcome="ok" if succeeded else "error")

    interceptor.observe = observe
    tracing.measure(observe_step)
    loop = asyncio.get_running_loop()
    try:
        while True:
            due = loop.time() + _INTERVAL
            await asyncio.sleep(_INTERVAL)
            lag.observe(max(0.0, loop.time() - due))
    finally:
        tracing.measure(None)
