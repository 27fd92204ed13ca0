"""Boots the node with a job and brings back what the job left."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from triptych_dev.vm import recipe
from triptych_dev.vm.errors import MachineFailed
from triptych_dev.vm.image import Image

_KERNEL_ARGUMENTS = (
    "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=false systemd.unified_cgroup_hierarchy=1 "
    "apparmor=1 security=apparmor systemd.journald.forward_to_console=0 net.ifnames=0 panic=-1"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended.

    :param status: exit status of the job.
    :param results: the files that it left in $RESULTS, with the journal and the kernel's log.
    """

    status: int
    results: Path


@dataclass(frozen=True, slots=True)
class MachineOptions:
    """Size of the machine.

    :param deadline: seconds until a machine that does not end is killed.
    :param kvm: run it by KVM. Not by default: inside a virtual machine KVM may be there and not work.
    """

    memory_mib: int = 3072
    cpus: int = 2
    deadline: float = 3600.0
    kvm: bool = False


def run_job(
    image: Image, payload: Path, results: Path, options: MachineOptions, echo: Callable[[str], None]
) -> Outcome:
    """Boot the image, wait until the job has ended and the machine is off.

    :param payload: an ext4 image with checkout.path, checkout/ and job.sh; changes are thrown away.
    :param results: directory for what the job leaves; made, or emptied.
    :param echo: told each line of the console.
    :raises MachineFailed: when the machine does not come up, hangs, or ends without a result.
    """
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="triptych-node-", dir=payload.parent) as scratch:
        archive = Path(scratch, "results.tar")
        with archive.open("wb") as file:
            file.truncate(recipe.RESULTS_MIB << 20)
        env = {**os.environ, "TMPDIR": scratch}
        _run_qemu(_argv(image, payload, archive, options), env, options.deadline, results, echo)
        _unpack(archive, results)
    status = results / "status"
    if not status.exists():
        raise MachineFailed(f"the node ended without a result; its console is {results / 'console.txt'}")
    return Outcome(int(status.read_text()), results)


def _argv(image: Image, payload: Path, archive: Path, options: MachineOptions) -> list[str]:
    # An emulated processor is twice as fast without AVX, which programs use where it is.
    accelerator, processor = ("kvm", "host") if options.kvm else ("tcg,thread=multi", "Nehalem")
    return [
        "qemu-system-x86_64",
        *(
            "-accel",
            accelerator,
            "-cpu",
            processor,
            "-smp",
            str(options.cpus),
            "-m",
            str(options.memory_mib),
        ),
        *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-nic", "none"),
        *("-device", "virtio-rng-pci"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", _KERNEL_ARGUMENTS),
        # With snapshot=on what is written lasts over a reboot of the machine, and no longer.
        *("-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on,cache=unsafe"),
        *("-drive", f"file={payload},format=raw,if=virtio,snapshot=on,cache=unsafe"),
        *("-drive", f"file={archive},format=raw,if=virtio,cache=unsafe"),
    ]


def _run_qemu(
    argv: list[str], env: dict[str, str], deadline: float, results: Path, echo: Callable[[str], None]
) -> None:
    console = results / "console.txt"
    process = subprocess.Popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    timer = threading.Timer(deadline, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        with console.open("wb") as file:
            for line in process.stdout:
                file.write(line)
                file.flush()
                echo(line.decode(errors="replace").rstrip())
                if b"due to panic" in line:
                    raise MachineFailed(f"the node's kernel gave up; its console is {console}")
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        late = not timer.is_alive()
        timer.cancel()
    if late:
        raise MachineFailed(f"the node did not end in {deadline:g} s; its console is {console}")
    if code != 0:
        raise MachineFailed(f"qemu ended with status {code}; its output is {console}")


def _unpack(archive: Path, results: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.2 has none
            tar.extractall(results)
    except tarfile.ReadError:
        raise MachineFailed(f"the node left no results; its console is {results / 'console.txt'}") from None
