"""Container logs: rotation under load, partial lines, refusals that leave no file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import LogLine, parse_log, pod_config
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import DEADLINE, Driver, Pod, driving, refused, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
def driver(live_stack: Stack, live_image: str) -> Iterator[Driver]:
    with driving(live_stack, live_image) as made:
        yield made


@pytest.fixture(params=["crun", "runc"])
def pod(driver: Driver, tmp_path: Path, request: pytest.FixtureRequest) -> Pod:
    config = pod_config(f"logs-{request.param}", log_directory=str(tmp_path))
    return driver.run(config, handler=request.param)


def reopen(driver: Driver, container: str) -> None:
    request = cri.ReopenContainerLogRequest(container_id=container)
    driver.stub.ReopenContainerLog(request, timeout=DEADLINE)


def test_rotation_under_load_loses_no_line(driver: Driver, pod: Pod, tmp_path: Path) -> None:
    script = "i=0; while ! [ -e /tmp/stop ]; do echo line $i; i=$((i+1)); done; echo end $i"
    container = driver.launch(pod, driver.config("app", ("sh", "-c", f"mkdir -p /tmp; {script}")))
    log = tmp_path / "app" / "0.log"
    assert driver.status(container).log_path == str(log)
    rotated: list[Path] = []
    for number in range(10):
        wait_until(f"log {number} has lines", lambda: log.stat().st_size > 0)
        old = tmp_path / "app" / f"0.log.{number}"
        log.rename(old)
        rotated.append(old)
        reopen(driver, container)
        assert log.exists()
    driver.output(container, "touch", "/tmp/stop")
    driver.wait_exited(container, 60)
    lines = [line for file in (*rotated, log) for line in parse_log(file.read_text())]
    assert {line.stream for line in lines} == {"stdout"}
    *written, last = joined(lines)
    assert written == [f"line {i}" for i in range(len(written))]
    assert last == f"end {len(written)}"


def joined(lines: Sequence[LogLine]) -> list[str]:
    """Lines with their parts put together: conmon cuts one where its buffer of 8 KiB ends."""
    found = [""]
    for line in lines:
        found[-1] += line.text
        if line.whole:
            found.append("")
    assert found.pop() == ""
    return found


def test_a_container_that_has_ended_gets_no_new_file(driver: Driver, pod: Pod, tmp_path: Path) -> None:
    container = driver.launch(pod, driver.config("ended", ("echo", "last words")))
    driver.wait_exited(container)
    log = tmp_path / "ended" / "0.log"
    assert [line.text for line in parse_log(log.read_text())] == ["last words"]
    log.unlink()
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
        reopen(driver, container)
    assert container in refusal.text
    assert not log.exists()
    created = driver.create(pod, "created")
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        reopen(driver, created)
    assert not (tmp_path / "created").exists()
    with refused(grpc.StatusCode.NOT_FOUND):
        reopen(driver, "f" * 64)


def test_a_log_directory_that_is_gone_costs_no_monitor(driver: Driver, pod: Pod, tmp_path: Path) -> None:
    """conmon ends when it cannot make the new file, and output and exit code are lost with it."""
    script = "trap 'exit 7' TERM; while :; do echo line; sleep 0.02; done"
    container = driver.launch(pod, driver.config("app", ("sh", "-c", script)))
    aside = tmp_path / "aside"
    (tmp_path / "app").rename(aside)
    with refused(grpc.StatusCode.INTERNAL) as refusal:
        reopen(driver, container)
    assert str(tmp_path / "app") in refusal.text
    old = aside / "0.log"
    size = old.stat().st_size
    wait_until("it goes on writing the old file", lambda: old.stat().st_size > size)
    aside.rename(tmp_path / "app")
    log = tmp_path / "app" / "0.log"
    before = log.stat()
    reopen(driver, container)
    assert log.stat().st_ino != before.st_ino
    assert log.stat().st_mode == before.st_mode
    assert [path.name for path in log.parent.iterdir()] == [log.name]
    driver.stop(container, 20)
    assert driver.status(container).exit_code == 7


def test_long_lines_come_in_parts(driver: Driver, pod: Pod, tmp_path: Path) -> None:
    script = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo short; printf end >&2"
    container = driver.launch(pod, driver.config("long", ("sh", "-c", script)))
    driver.wait_exited(container)
    lines = parse_log((tmp_path / "long" / "0.log").read_text())
    out = [line for line in lines if line.stream == "stdout"]
    assert len(out) > 3
    assert joined(out) == ["x" * 40000, "short"]
    err = [line for line in lines if line.stream == "stderr"]
    assert "".join(line.text for line in err) == "end"


def test_a_terminal_logs_as_stdout(driver: Driver, pod: Pod, tmp_path: Path) -> None:
    command = ("sh", "-c", "test -t 1 && echo tty; echo error >&2")
    container = driver.launch(pod, driver.config("tty", command, tty=True))
    driver.wait_exited(container)
    log = tmp_path / "tty" / "0.log"
    wait_until("both lines are there", lambda: len(parse_log(log.read_text())) == 2)
    assert {line.stream for line in parse_log(log.read_text())} == {"stdout"}


def test_a_container_without_a_log_path(driver: Driver, pod: Pod, tmp_path: Path) -> None:
    config = driver.config("quiet", ("echo", "nothing"))
    config.log_path = ""
    container = driver.launch(pod, config)
    driver.wait_exited(container)
    assert driver.status(container).log_path == ""
    assert list(tmp_path.iterdir()) == []
