"""Applying what plugins want to a built container, before its bundle is written."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nri.v1alpha1 import nri_pb2
from triptych_errors import FailedPrecondition, InvalidArgument, NotFound
from triptych_linux.mounts import MountEntry, mount_of

from triptych_runtime.errors import AdjustmentRefused
from triptych_runtime.nri import adjust_linux, adjust_mounts, adjust_process, adjust_resources
from triptych_runtime.nri.adjusting import Adjusting
from triptych_runtime.nri.owners import split
from triptych_runtime.spec import (
    ContainerSpec,
    HandlerFeatures,
    HostFacts,
    ResolvedUser,
    cdi,
    cdi_edits,
    launcher,
    userns_devices,
)
from triptych_runtime.spec.inputs import BundleFile, Relabel


def adjust_spec(
    spec: ContainerSpec,
    adjustment: nri_pb2.ContainerAdjustment,
    host: HostFacts,
    handler: HandlerFeatures,
    cdi_dirs: Sequence[Path],
    *,
    find_mount: Callable[[str], MountEntry] = mount_of,
) -> ContainerSpec:
    """The container as the plugins want it; `spec` stays as it is. Reads files as building does.

    :param adjustment: merged (`CreateMerge.response`); what it sets replaces, "-" before a key removes.
    :param find_mount: tells the mount that a host path lies on; only called for shared propagation.
    :raises AdjustmentRefused: naming the field that cannot be honoured on this host or by this handler.
    """
    if not adjustment.ListFields():
        return spec
    made = Adjusting(copy.deepcopy(spec.document), list(spec.raw_environment), host, handler)
    if spec.raw_environment:
        launcher.uninstall(made.document)
    try:
        _annotations(made, adjustment.annotations)
        adjust_process.environment(made, adjustment.env)
        adjust_process.arguments(made, adjustment.args)
        adjust_process.hooks(made, adjustment.hooks)
        _cdi_devices(made, adjustment.CDI_devices, cdi_dirs)
        adjust_process.scheduling(made, adjustment.linux)
        adjust_process.rlimits(made, adjustment.rlimits)
        adjust_linux.adjust(made, adjustment.linux)
        adjust_resources.adjust(made, adjustment.linux.resources)
        adjust_linux.rdt(made, adjustment.linux.rdt)
        adjust_mounts.adjust(made, adjustment.mounts, find_mount)
        userns_devices.bind_renamed(made.document, handler)
        files, relabels = _carried(spec, made)
    except (InvalidArgument, NotFound, FailedPrecondition) as error:
        raise AdjustmentRefused(f"adjustment by NRI plugins: {error.message}", hint=error.hint) from error
    return replace(
        spec,
        document=made.document,
        user=ResolvedUser.of_process(made.process),
        files=files,
        relabels=(*relabels, *made.relabels),
        raw_environment=tuple(made.raw),
    )


def _annotations(made: Adjusting, wanted: Mapping[str, str]) -> None:
    annotations: dict[str, str] = made.document["annotations"]
    removed, added = split(wanted)
    for key in removed:
        annotations.pop(key, None)
    annotations |= added


def _cdi_devices(made: Adjusting, wanted: Iterable[nri_pb2.CDIDevice], directories: Sequence[Path]) -> None:
    names = list(dict.fromkeys(device.name for device in wanted))
    for name in names:
        cdi.check_name(name)
    if not names:
        return
    edits = list(cdi.Registry.load(directories).edits(names))
    cdi_edits.apply(made.document, edits)
    adjust_process.forget_raw(made, (entry.partition("=")[0] for edit in edits for entry in edit.env or ()))


def _carried(spec: ContainerSpec, made: Adjusting) -> tuple[tuple[BundleFile, ...], tuple[Relabel, ...]]:
    """Files and labels, with a new program for the variables that are still to be carried by one."""
    old = next((file for file in spec.files if file.path.name == launcher.PROGRAM), None)
    if old is None:
        return spec.files, spec.relabels
    others = tuple(file for file in spec.files if file != old)
    if not made.raw:
        return others, tuple(entry for entry in spec.relabels if entry.path != old.path)
    program = launcher.install(made.document, made.raw, old.path.parent, made.host.machine)
    return (*others, program), spec.relabels
