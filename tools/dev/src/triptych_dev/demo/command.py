"""The command `./dev demo`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import click

from triptych_dev import leftovers
from triptych_dev.collector import Collector, collecting, draw, new_trace
from triptych_dev.demo import image, setting
from triptych_dev.demo.narrator import Narrator
from triptych_dev.demo.story import Story
from triptych_dev.errors import DevError, StepFailed
from triptych_dev.kubelet import connect
from triptych_dev.stack import DAEMONS, Registry, Stack, StackError, pss


@click.command()
@click.option("--keep", is_flag=True, help="Leave pod and daemons up, and say how to look at them.")
@click.option("--down", is_flag=True, help="Take down what --keep left.")
@click.option("--trace", is_flag=True, help="Record the pod's start, and draw where its time went.")
def demo(keep: bool, down: bool, trace: bool) -> None:
    """Run a pod through the three daemons: pull, run, exec, attach, port-forward, stop; nothing is left.

    Uses a registry, sockets, directories, a bridge and cgroups of its own, so it disturbs no other runtime.
    """
    if os.geteuid() != 0:
        raise DevError("the demo needs root: it makes namespaces, mounts and a bridge")
    if down:
        take_down()
        click.echo("the demo is down")
        return
    try:
        asyncio.run(play(Narrator(), keep=keep, trace=trace))
    except StackError as error:
        raise StepFailed(str(error)) from None


async def play(narrator: Narrator, *, keep: bool = False, trace: bool = False) -> Story:
    """Play it all.

    :raises StepFailed: a step did not do what it should, or something is left behind.
    """
    take_down()
    before = leftovers.snapshot()
    stack, registry = setting.stack(), setting.registry()
    marks = leftovers.Marks({str(setting.ROOT), str(stack.state), setting.NAME, "10.94."}, stack.bridge)
    kept = False
    try:
        with _collector(trace) as collector:
            reference = _start(narrator, stack, registry, collector)
            identity, metadata = new_trace() if trace else ("", ())
            async with connect(stack.socket("runtime"), stack.socket("image")) as kubelet:
                story = Story(kubelet, narrator, metadata)
                await _run(narrator, story, reference, marks)
                if keep:
                    kept = True
                    _say_how(narrator, stack, registry, story)
                    return story
                narrator.title("The end of the pod")
                await story.stop()
            with narrator.step("stop the daemons and the registry"):
                stack.stop()
                registry.stop()
        if collector is not None:
            narrator.title("Where the time went: the start of the pod as one trace")
            for line in draw(collector.spans(identity)):
                narrator.line(line)
    finally:
        if not kept:
            registry.stop()
            take_down(stack)
    prove_clean(narrator, before, marks)
    return story


def _start(narrator: Narrator, stack: Stack, registry: Registry, collector: Collector | None) -> str:
    narrator.title("The stage")
    with narrator.step("start a registry, build an image of busybox, push it") as step:
        registry.start()
        reference = image.push(registry.host)
        step.say(f"{reference}: a manifest list; a gzip, a zstd and a plain layer")
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint} if collector else {}
    with narrator.step("start the three daemons") as step:
        stack.write_configuration()
        stack.start(env=environment)
        for daemon in DAEMONS:
            size = pss([stack.processes[daemon].popen.pid])
            step.say(f"triptych-{daemon}: {stack.socket(daemon)}, {size / 1e6:.1f} MB")
    return reference


async def _run(narrator: Narrator, story: Story, reference: str, marks: leftovers.Marks) -> None:
    narrator.title("A kubelet arrives")
    await story.look_around()
    await story.pull(reference)
    narrator.title("A pod")
    await story.run_pod()
    marks.learn(story.pod.sandbox, *story.pod.containers.values())
    narrator.title("What people do with it")
    await story.exec_sync()
    await story.streams()
    await story.logs()
    await story.stats()


def prove_clean(narrator: Narrator, before: leftovers.State, marks: leftovers.Marks) -> None:
    """Compare the host with how it was.

    :raises StepFailed: something of ours is left.
    """
    narrator.title("Is anything left?")
    difference = leftovers.compare(before, marks)
    for kind, things in difference.ours.items():
        others = len(difference.others[kind])
        note = f" ({others} new ones of others on this host)" if others else ""
        narrator.line(f"  {'✗' if things else '✓'} {kind}: {len(things) or 'nothing'} left{note}")
        for thing in things:
            narrator.line(f"      {thing}")
    if not difference.clean:
        raise StepFailed("the demo left something behind")


def take_down(stack: Stack | None = None) -> None:
    """Remove every trace of the demo, also of one that was killed."""
    stack = stack or setting.stack()
    setting.end_kept()
    _end_monitors()
    stack.clean()
    with contextlib.suppress(OSError):
        setting.remove_cgroups()
    shutil.rmtree(setting.ROOT, ignore_errors=True)


def _end_monitors() -> None:
    """End monitors and containers that outlived their daemon: they name the demo's directories."""
    import signal

    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read()
            with open(f"/proc/{pid}/cgroup") as file:
                group = file.read()
        except OSError:
            continue
        ours = b"/run/triptych-demo/" in command and b"conmon" in command.split(b"\0")[0]
        if ours or f"{setting.CGROUP}/" in group:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _say_how(narrator: Narrator, stack: Stack, registry: Registry, story: Story) -> None:
    pids = [process.popen.pid for process in stack.processes.values()]
    setting.keep([*pids, *registry.pids])
    runtime, images = stack.endpoint("runtime"), stack.endpoint("image")
    narrator.title("It stays up; try")
    sockets = " ".join(f"--{daemon}-socket {stack.socket(daemon)}" for daemon in DAEMONS)
    crictl = f"crictl -r {runtime} -i {images}"
    for line in (
        f"{crictl} pods",
        f"{crictl} ps",
        f"{crictl} exec -it {story.pod.containers['web'][:12]} sh",
        f"{crictl} logs {story.pod.containers['worker'][:12]}",
        f"{crictl} images",
        f"crictl -r {runtime} images        # one endpoint is enough",
        f"curl http://{story.pod.ip}:8080/",
        *(f"grpcurl -plaintext -unix {stack.socket(daemon)} list" for daemon in DAEMONS),
        f"grpcurl -plaintext -unix {stack.socket('runtime')} runtime.v1.RuntimeService/Version",
        f"triptych {sockets} status",
        "./dev demo --down        # the end",
    ):
        narrator.line(f"  {line}")


@contextmanager
def _collector(wanted: bool) -> Iterator[Collector | None]:
    if not wanted:
        yield None
        return
    with collecting() as collector:
        yield collector
