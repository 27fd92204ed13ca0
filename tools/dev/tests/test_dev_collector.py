from __future__ import annotations

from triptych_dev.collector import Span, draw


def span(identity: str, parent: str, name: str, start: float, end: float, **more: str) -> Span:
    return Span(
        trace="t",
        identity=identity,
        parent=parent,
        service=more.get("service", "triptych-runtime"),
        name=name,
        kind="server",
        start=int(start * 1e6),
        end=int(end * 1e6),
        failure=more.get("failure", ""),
        attributes={"rpc.system": "grpc", "network": "pods"} if name == "cni" else {},
    )


def test_the_tree_shows_times_owners_and_failures() -> None:
    spans = [
        span("1", "caller", "RunPodSandbox", 10, 40),
        span("2", "1", "cni", 12, 30.5),
        span("3", "2", "inner", 13, 14, failure="it broke"),
        span("4", "caller", "Create", 50, 60, service="triptych-image"),
    ]
    lines = draw(spans)
    assert lines[1:] == [
        "    0.0    50.0 ms  client: the calls that start the pod",
        "    0.0    30.0 ms    runtime: RunPodSandbox",
        "    2.0    18.5 ms      runtime: cni [network=pods]",
        "    3.0     1.0 ms        runtime: inner  FAILED: it broke",
        "   40.0    10.0 ms    image: Create",
    ]
    assert draw([]) == ["  (no spans)"]
