"""docs/metrics.md, the dashboard and the alert rules against what the daemons declare."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from triptych_image.metrics import ImageMetrics
from triptych_runtime.metrics import RuntimeMetrics, declare_state
from triptych_service.loop import loop_metrics
from triptych_service.metrics import Counter, Gauge, Histogram, Metrics
from triptych_streaming.sessions import Sessions

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/metrics.md"
DASHBOARD = ROOT / "deploy/grafana/triptych.json"
ALERTS = ROOT / "deploy/prometheus/alerts.yml"

_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*?)\| (.*?) \|$", re.MULTILINE)
_UNITS = {"s": "_seconds", "By": "_bytes", "1": ""}
_FROM_ELSEWHERE = {"up", "target_info"}


@pytest.fixture
async def declared() -> dict[str, Counter | Histogram | Gauge]:
    """Every instrument of the three daemons, by the name that Prometheus sees."""
    metrics = Metrics()
    interceptor: Any = SimpleNamespace(observe=None)
    lag = asyncio.create_task(loop_metrics(metrics, interceptor))
    await asyncio.sleep(0)
    lag.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await lag
    nothing: Any = SimpleNamespace(
        sandboxes={},
        containers={},
        puller=SimpleNamespace(board=SimpleNamespace(), layers=SimpleNamespace()),
    )
    RuntimeMetrics(metrics)
    declare_state(metrics, nothing)
    ImageMetrics(metrics, nothing)
    Sessions(metrics, 1)
    return {_prometheus_name(each): each for each in metrics.instruments}


def _prometheus_name(instrument: Counter | Histogram | Gauge) -> str:
    total = "_total" if isinstance(instrument, Counter) else ""
    return f"{instrument.name}{_UNITS[instrument.unit]}{total}"


async def test_the_page_names_every_metric_with_its_own_words(
    declared: dict[str, Counter | Histogram | Gauge],
) -> None:
    rows = {name: (kind, meaning) for name, kind, _, meaning in _ROW.findall(PAGE.read_text())}
    assert rows == {name: (type(each).__name__.lower(), each.help) for name, each in declared.items()}


def _queries() -> list[tuple[str, str]]:
    board = json.loads(DASHBOARD.read_text())
    found = [
        (panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", ())
    ]
    rules = yaml.safe_load(ALERTS.read_text())
    return found + [(rule["alert"], rule["expr"]) for group in rules["groups"] for rule in group["rules"]]


async def test_the_dashboard_and_the_alerts_ask_for_what_there_is(
    declared: dict[str, Counter | Histogram | Gauge],
) -> None:
    labels = {
        name: set(re.findall(r"`(\w+)`", cells)) for name, _, cells, _ in _ROW.findall(PAGE.read_text())
    }
    used: set[str] = set()
    for title, query in _queries():
        for name, selector in re.findall(r"\b((?:triptych|process)_\w+|up)\b(?:\{(.*?)\})?", query):
            metric = re.sub(r"_(bucket|count|sum)$", "", name)
            if metric.startswith("process_") or metric in _FROM_ELSEWHERE:
                continue
            assert metric in declared, f"{title}: {name}"
            used.add(metric)
            asked = set(re.findall(r"(\w+)\s*[=!]", selector)) - {"job", "instance"}
            assert asked <= labels[metric], f"{title}: {name} has no {asked - labels[metric]}"
    assert used == set(declared), "every metric is on the dashboard or in an alert"


@pytest.mark.integration
@pytest.mark.requires("prometheus")
def test_alerts_fire_on_the_series_that_they_are_for(tmp_path: Path) -> None:
    shutil.copy(ALERTS, tmp_path)
    cases = shutil.copy(Path(__file__).with_name("alerts_test.yml"), tmp_path)
    done = subprocess.run(["promtool", "test", "rules", cases], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
