"""Refusing requests that cannot mean anything, before anything is made.

The checks are those of containerd's and CRI-O's CRI plugins plus those that they leave to the OCI runtime;
each message names the field.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from runtime.v1 import api_pb2
from triptych_errors import FailedPrecondition, InvalidArgument

from triptych_runtime.spec import (
    capabilities,
    cdi,
    devices,
    mounts,
    namespaces,
    process,
    profiles,
    resources,
    selinux,
    signals,
    users,
)
from triptych_runtime.spec.facts import HandlerFeatures, HostFacts

_HOST_NAME_MAX = 64
_PORTS = range(65536)


def validate_sandbox(config: api_pb2.PodSandboxConfig, host: HostFacts, handler: HandlerFeatures) -> None:
    """At RunPodSandbox, before anything is made. Sysctls are checked by `triptych_runtime.namespaces`.

    :raises InvalidArgument: naming the field.
    :raises FailedPrecondition: when the host or the handler lacks what it needs.
    """
    metadata = config.metadata
    if not config.HasField("metadata") or not metadata.name:
        raise InvalidArgument("config.metadata: the pod has no name")
    if len(config.hostname.encode()) > _HOST_NAME_MAX or "\0" in config.hostname or "/" in config.hostname:
        raise InvalidArgument(f"config.hostname: {config.hostname!r} is no host name of up to 64 bytes")
    context = config.linux.security_context
    if context.HasField("run_as_group") and not context.HasField("run_as_user"):
        raise InvalidArgument("config.linux.security_context: run_as_group is set without run_as_user")
    options = context.namespace_options
    if config.log_directory and not config.log_directory.startswith("/"):
        raise InvalidArgument(f"config.log_directory: {config.log_directory!r} is not an absolute path")
    _validate_names(metadata)
    _validate_ports(config.port_mappings)
    namespaces.validate_options(options, "namespace_options", is_pod=True)
    namespaces.validate_user_namespace_support(options, handler)
    selinux.validate(context.selinux_options)
    _validate_profile(profiles.seccomp_of(context), "seccomp", host.seccomp, privileged=context.privileged)
    _validate_profile(profiles.apparmor_of(context), "apparmor", host.apparmor, privileged=False)
    resources.validate(config.linux.resources, "config.linux.resources")
    resources.validate(config.linux.overhead, "config.linux.overhead")


def validate_container(
    config: api_pb2.ContainerConfig,
    sandbox: api_pb2.PodSandboxConfig,
    host: HostFacts,
    handler: HandlerFeatures,
) -> None:
    """At CreateContainer, before anything is made.

    :param sandbox: the pod's own config, not the one that CreateContainer repeats.
    :raises InvalidArgument: naming the field.
    :raises FailedPrecondition: when the host or the handler lacks what it needs.
    """
    if not config.HasField("metadata") or not config.metadata.name:
        raise InvalidArgument("config.metadata: the container has no name")
    if not config.image.image:
        raise InvalidArgument("config.image.image: the container has no image")
    if ".." in config.log_path.split("/") or "\0" in config.log_path:
        raise InvalidArgument(f"config.log_path: {config.log_path!r} leaves the log_directory of the pod")
    signals.stop_signal(config, "")
    process.checked_variables(config.envs)
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(f"working_dir: {config.working_dir!r} is not an absolute path")
    mounts.validate(config.mounts, handler)
    devices.validate(config.devices)
    cdi.requested(config)
    resources.validate(config.linux.resources, "config.linux.resources")
    _validate_security(config.linux.security_context, sandbox, host)


def validate_resources(limits: api_pb2.LinuxContainerResources, field: str) -> None:
    """At UpdateContainerResources and UpdatePodSandboxResources, and of every container and pod.

    :raises InvalidArgument: naming `field` and the part.
    """
    resources.validate(limits, field)


def _validate_security(
    context: api_pb2.LinuxContainerSecurityContext, sandbox: api_pb2.PodSandboxConfig, host: HostFacts
) -> None:
    pod = sandbox.linux.security_context
    if context.privileged and not pod.privileged:
        raise InvalidArgument("security_context.privileged: the pod is not privileged")
    namespaces.validate_options(context.namespace_options, "namespace_options", is_pod=False)
    namespaces.validate_pid(pod.namespace_options, context.namespace_options)
    namespaces.validate_of_host(pod.namespace_options, context.namespace_options)
    namespaces.validate_same_user_namespace(pod.namespace_options, context.namespace_options)
    users.validate(context)
    capabilities.validate(context.capabilities)
    selinux.validate(context.selinux_options)
    _validate_profile(profiles.seccomp_of(context), "seccomp", host.seccomp, privileged=context.privileged)
    _validate_profile(profiles.apparmor_of(context), "apparmor", host.apparmor, privileged=False)
    for field, paths in (("masked_paths", context.masked_paths), ("readonly_paths", context.readonly_paths)):
        for path in paths:
            if not path.startswith("/") or "\0" in path:
                raise InvalidArgument(f"security_context.{field}: {path!r} is not an absolute path")


def _validate_names(metadata: api_pb2.PodSandboxMetadata) -> None:
    """They become arguments of CNI plugins, where a semicolon would begin another one."""
    for field in ("name", "namespace", "uid"):
        value: str = getattr(metadata, field)
        if ";" in value or "\0" in value:
            raise InvalidArgument(f"config.metadata.{field}: {value!r} holds a semicolon or NUL")


def _validate_ports(mappings: Iterable[api_pb2.PortMapping]) -> None:
    for mapping in mappings:
        if mapping.protocol not in api_pb2.Protocol.values():
            raise InvalidArgument(f"port_mappings: protocol {int(mapping.protocol)} is unknown")
        if mapping.host_port not in _PORTS:
            raise InvalidArgument(f"port_mappings: host_port {mapping.host_port} is no port")
        # A mapping without a port of the host says nothing but that the container listens.
        if mapping.container_port not in _PORTS or (mapping.host_port and not mapping.container_port):
            raise InvalidArgument(f"port_mappings: container_port {mapping.container_port} is no port")
        if mapping.host_ip:
            try:
                ipaddress.ip_address(mapping.host_ip)
            except ValueError:
                message = f"port_mappings: host_ip {mapping.host_ip!r} is no IP address"
                raise InvalidArgument(message) from None


def _validate_profile(
    wanted: profiles.Profile | None, field: str, available: bool, *, privileged: bool
) -> None:
    confined = wanted is not None and wanted.kind != profiles.UNCONFINED
    if confined and not available and not privileged:
        raise FailedPrecondition(f"{field}: a profile is asked for, but the kernel has no {field}")
