"""The demo is a test: every step of it checks its own effect."""

from __future__ import annotations

import pytest
from triptych_dev import leftovers
from triptych_dev.collector import collecting, new_trace
from triptych_dev.demo import setting
from triptych_dev.demo.command import play, take_down
from triptych_dev.demo.narrator import Narrator
from triptych_dev.patience import PATIENCE
from triptych_dev.testing import needs

pytestmark = [pytest.mark.integration, pytest.mark.requires(*needs.LIVE), pytest.mark.timeout(180)]


async def test_the_demo_plays_and_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator()
    story = await play(narrator, trace=True)
    output = capsys.readouterr().out
    assert len(story.pod.containers) == 2
    assert "✓ processes: nothing left" in output
    for step in (
        "runtime: runtime.v1.RuntimeService/RunPodSandbox",
        "runtime: cni.add",
        "image: triptych.rootfs.v1.RootfsService/PrepareRootfs",
        "runtime: runtime start",
    ):
        assert step in output
    assert narrator.times["RunPodSandbox"] < 5 * PATIENCE


async def test_keep_leaves_it_up_and_down_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    before = leftovers.snapshot()
    stack = setting.stack()
    marks = leftovers.Marks({str(setting.ROOT), str(stack.state), setting.NAME}, stack.bridge)
    try:
        story = await play(Narrator(), keep=True)
        marks.learn(story.pod.sandbox, *story.pod.containers.values())
        output = capsys.readouterr().out
        assert f"crictl -r {stack.endpoint('runtime')} -i {stack.endpoint('image')} ps" in output
        assert f"grpcurl -plaintext -unix {stack.socket('runtime')} list" in output
        with stack.runtime() as runtime:
            from runtime.v1 import api_pb2

            listed = runtime.ListContainers(api_pb2.ListContainersRequest(), timeout=10 * PATIENCE)
        assert {c.id for c in listed.containers} == set(story.pod.containers.values())
    finally:
        take_down()
    assert leftovers.compare(before, marks).clean


def test_a_collector_keeps_traces_apart() -> None:
    with collecting() as collector:
        first, metadata = new_trace()
        second, _ = new_trace()
        assert first != second
        assert metadata[0][1].startswith(f"00-{first}-")
        assert collector.spans(first) == []
