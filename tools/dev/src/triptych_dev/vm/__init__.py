"""`./dev test node`: a virtual machine with systemd and cgroup v2 that runs the integration tests."""

from triptych_dev.vm.errors import MachineFailed, MachineUnavailable
from triptych_dev.vm.image import Image, ensure_image
from triptych_dev.vm.machine import MachineOptions, Outcome, run_job
from triptych_dev.vm.payload import make_payload

__all__ = [
    "Image",
    "MachineFailed",
    "MachineOptions",
    "MachineUnavailable",
    "Outcome",
    "ensure_image",
    "make_payload",
    "run_job",
]
