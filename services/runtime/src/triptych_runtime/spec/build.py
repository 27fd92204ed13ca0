"""Putting the document together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from runtime.v1 import api_pb2

from triptych_runtime.spec import (
    apparmor,
    capabilities,
    cdi,
    cdi_edits,
    devices,
    launcher,
    mounts,
    namespaces,
    process,
    resources,
    seccomp,
    selinux,
    signals,
    userns_devices,
    users,
)
from triptych_runtime.spec.annotations import build as build_annotations
from triptych_runtime.spec.facts import HandlerFeatures, HostFacts
from triptych_runtime.spec.inputs import (
    BundleFile,
    ContainerInputs,
    ContainerSpec,
    Document,
    Relabel,
    ResolvedUser,
    SandboxContext,
)

OCI_VERSION: Final = "1.0.2"


def build_container_spec(
    host: HostFacts, handler: HandlerFeatures, sandbox: SandboxContext, inputs: ContainerInputs
) -> ContainerSpec:
    """The OCI runtime-spec document of a container, and what must exist before it is created.

    Reads files only: the image's passwd and group, seccomp profiles, CDI specs, the mount table, and stats
    of the request's host paths and devices. A few milliseconds at most; changes nothing.

    :raises InvalidArgument: when a field of the request cannot be honoured as given; names the field.
    :raises FailedPrecondition: when the host or the handler lacks what the request needs.
    :raises NotFound: when a profile, device or CDI device that it names does not exist.
    """
    config, context = inputs.config, inputs.security
    labels = _labels(host, handler, sandbox, context)
    user = users.resolve_user(context, inputs.image.user, inputs.files)
    signal = signals.stop_signal(config, inputs.image.stop_signal)
    made = mounts.build(host, handler, sandbox, inputs, labels.mount)
    running, raw = _process(host, handler, sandbox, inputs, user, labels.process)
    document: Document = {
        "ociVersion": OCI_VERSION,
        "process": running,
        "root": {"path": str(inputs.rootfs), "readonly": context.readonly_rootfs},
        "mounts": made.entries,
        "linux": _linux(host, handler, sandbox, inputs, running["capabilities"]["bounding"]),
        "annotations": build_annotations(sandbox, inputs),
    }
    if made.rootfs_propagation:
        document["linux"]["rootfsPropagation"] = made.rootfs_propagation
    if labels.mount:
        document["linux"]["mountLabel"] = labels.mount
    wanted = cdi.requested(config)
    if wanted:
        cdi_edits.apply(document, cdi.Registry.load(inputs.cdi_dirs).edits(wanted))
    userns_devices.bind_renamed(document, handler)
    files: list[BundleFile] = []
    if raw:
        files.append(launcher.install(document, raw, inputs.bundle, host.machine))
        made.relabels += [Relabel(file.path, labels.mount) for file in files if labels.mount]
    return ContainerSpec(
        document=document,
        user=ResolvedUser.of_process(running),
        stop_signal=signal,
        mounts=tuple(config.mounts),
        directories=tuple(made.directories),
        anonymous_volumes=tuple(made.volumes),
        relabels=tuple(made.relabels),
        prepared=tuple(made.prepared),
        files=tuple(files),
        raw_environment=tuple(raw),
    )


def build_exec_process(
    running: Document, command: Sequence[str], *, tty: bool, env: Mapping[str, str] | None = None
) -> Document:
    """The process document of an exec in a container, from `document["process"]` of its config.json.

    User, capabilities, labels, limits and environment are those of the container; `tty` sets the terminal,
    and TERM where the container has none. The OOM score stays the container's.

    :raises InvalidArgument: for an empty command.
    """
    more = [f"{name}={value}" for name, value in (env or {}).items()]
    current: list[str] = running["env"]
    if tty and not any(entry.startswith("TERM=") for entry in current):
        more.insert(0, "TERM=xterm")
    return {
        **running,
        "terminal": tty,
        "args": launcher.wrap_exec(running["args"], process.exec_arguments(command)),
        "env": process.merge_text(current, more),
    }


def encode(document: Document) -> bytes:
    """The document as JSON (UTF-8)."""
    return msgspec.json.encode(document)


def _process(
    host: HostFacts,
    handler: HandlerFeatures,
    sandbox: SandboxContext,
    inputs: ContainerInputs,
    user: ResolvedUser,
    process_label: str,
) -> tuple[Document, list[bytes]]:
    config, context = inputs.config, inputs.security
    hostname = sandbox.hostname or sandbox.config.hostname or host.hostname
    env = process.environment(config, inputs.image, hostname)
    document: Document = {
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": process.arguments(config, inputs.image),
        "env": env.text,
        "cwd": process.working_directory(config, inputs.image),
        "capabilities": capabilities.build(
            context, host.bounding, user_namespace=sandbox.user_namespace is not None
        ),
        "noNewPrivileges": context.no_new_privs,
    }
    if config.linux.HasField("resources"):
        document["oomScoreAdj"] = resources.oom_score_adj(config.linux.resources, host)
    profile = apparmor.profile_name(context, host, handler, inputs.apparmor_default)
    if profile:
        document["apparmorProfile"] = profile
    if process_label and not context.privileged:
        document["selinuxLabel"] = process_label
    return document, env.raw


def _linux(
    host: HostFacts,
    handler: HandlerFeatures,
    sandbox: SandboxContext,
    inputs: ContainerInputs,
    bounding: list[str],
) -> Document:
    context = inputs.security
    given = devices.build(
        inputs.config,
        privileged=context.privileged,
        host_devices=inputs.privileged_host_devices,
        ownership=inputs.device_ownership,
    )
    linux: dict[str, Any] = {
        "namespaces": namespaces.build(sandbox, inputs, host),
        "resources": {**resources.build(inputs.config.linux.resources, host), "devices": given.rules},
        **namespaces.user_mappings(sandbox),
    }
    if given.nodes:
        linux["devices"] = given.nodes
    if inputs.cgroups_path:
        linux["cgroupsPath"] = inputs.cgroups_path
    if not context.privileged:
        linux["maskedPaths"] = list(context.masked_paths)
        linux["readonlyPaths"] = list(context.readonly_paths)
    profile = seccomp.build(context, bounding, host, handler, inputs.seccomp_root)
    if profile is not None:
        linux["seccomp"] = profile
    return linux


def _labels(
    host: HostFacts,
    handler: HandlerFeatures,
    sandbox: SandboxContext,
    context: api_pb2.LinuxContainerSecurityContext,
) -> selinux.Labels:
    if not (host.selinux and handler.selinux):
        return selinux.Labels()
    options = context.selinux_options if context.HasField("selinux_options") else None
    pod = selinux.Labels(sandbox.process_label, sandbox.mount_label)
    return selinux.container_labels(options, pod, selinux.contexts()) if pod.process else pod
