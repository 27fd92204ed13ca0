"""Building the OCI runtime-spec document (config.json) of a container.

Pure but for the documented file reads: no asyncio, no subprocesses, no change to the host. The caller
creates what `ContainerSpec` lists, writes `encode(spec.document)` to the bundle, and runs the OCI runtime.
"""

from triptych_runtime.spec.build import build_container_spec, build_exec_process, encode
from triptych_runtime.spec.facts import CgroupVersion, HandlerFeatures, HostFacts
from triptych_runtime.spec.inputs import (
    AnonymousVolume,
    BundleFile,
    ContainerInputs,
    ContainerSpec,
    Document,
    NamespacePaths,
    PreparedMount,
    Relabel,
    ResolvedUser,
    SandboxContext,
    StopSignal,
)
from triptych_runtime.spec.launcher import PROGRAM as ENVIRONMENT_PROGRAM
from triptych_runtime.spec.mounts import is_image
from triptych_runtime.spec.resources import build as build_resources
from triptych_runtime.spec.resources import oom_score_adj
from triptych_runtime.spec.rootfs import RootfsView
from triptych_runtime.spec.selinux import labels_of_pod
from triptych_runtime.spec.validate import validate_container, validate_resources, validate_sandbox

__all__ = [
    "ENVIRONMENT_PROGRAM",
    "AnonymousVolume",
    "BundleFile",
    "CgroupVersion",
    "ContainerInputs",
    "ContainerSpec",
    "Document",
    "HandlerFeatures",
    "HostFacts",
    "NamespacePaths",
    "PreparedMount",
    "Relabel",
    "ResolvedUser",
    "RootfsView",
    "SandboxContext",
    "StopSignal",
    "build_container_spec",
    "build_exec_process",
    "build_resources",
    "encode",
    "is_image",
    "labels_of_pod",
    "oom_score_adj",
    "validate_container",
    "validate_resources",
    "validate_sandbox",
]
