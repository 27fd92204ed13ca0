"""The built-in validator: what plugins may not do on this node, and which of them must have been asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from nri.v1alpha1 import nri_pb2

from triptych_runtime.nri.settings import ValidatorSettings

#: Annotation of a pod: plugins that must have handled its containers, as a list in YAML or JSON.
REQUIRED_PLUGINS: Final = "required-plugins.noderesource.dev"
_TRUE: Final = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "false", "FALSE", "False"))


def validate(rules: ValidatorSettings, request: nri_pb2.ValidateContainerAdjustmentRequest) -> str:
    """Why the container may not be created as the plugins want it, or "" when it may."""
    owners = request.owners.owners.get(request.container.id) or nri_pb2.FieldOwners()
    checks = (_hooks, _seccomp, _namespaces, _sysctls)
    reasons = (check(rules, request, owners) for check in checks if request.HasField("adjust"))
    return next(filter(None, reasons), "") or _required(rules, request)


def effective_annotation(pod: nri_pb2.PodSandbox, key: str, container: str) -> str | None:
    """The value for a container: KEY/container.NAME, else KEY/pod, else KEY; None where there is none."""
    for candidate in (f"{key}/container.{container}", f"{key}/pod", key):
        if candidate in pod.annotations:
            return pod.annotations[candidate]
    return None


def _hooks(
    rules: ValidatorSettings,
    request: nri_pb2.ValidateContainerAdjustmentRequest,
    owners: nri_pb2.FieldOwners,
) -> str:
    plugins = owners.simple.get(nri_pb2.Field.OciHooks)
    if not rules.reject_oci_hook_adjustment or plugins is None:
        return ""
    return f"OCI hooks may not be added: {_named(plugins.split(','))}"


def _seccomp(
    rules: ValidatorSettings,
    request: nri_pb2.ValidateContainerAdjustmentRequest,
    owners: nri_pb2.FieldOwners,
) -> str:
    plugin = owners.simple.get(nri_pb2.Field.SeccompPolicy)
    if plugin is None:
        return ""
    kinds = nri_pb2.SecurityProfile
    linux = request.container.linux
    kind = linux.seccomp_profile.profile_type if linux.HasField("seccomp_profile") else kinds.UNCONFINED
    rejected, what = {
        kinds.RUNTIME_DEFAULT: (rules.reject_runtime_default_seccomp_adjustment, "runtime default"),
        kinds.UNCONFINED: (rules.reject_unconfined_seccomp_adjustment, "unconfined"),
        kinds.LOCALHOST: (rules.reject_custom_seccomp_adjustment, "custom"),
    }.get(kind, (False, ""))
    return f"the {what} seccomp policy may not be adjusted: {_named([plugin])}" if rejected else ""


def _namespaces(
    rules: ValidatorSettings,
    request: nri_pb2.ValidateContainerAdjustmentRequest,
    owners: nri_pb2.FieldOwners,
) -> str:
    if not rules.reject_namespace_adjustment:
        return ""
    owned = owners.compound.get(nri_pb2.Field.Namespace)
    return _each("namespaces", "namespace", owned.owners if owned else {})


def _sysctls(
    rules: ValidatorSettings,
    request: nri_pb2.ValidateContainerAdjustmentRequest,
    owners: nri_pb2.FieldOwners,
) -> str:
    if not rules.reject_sysctl_adjustment:
        return ""
    owned = owners.compound.get(nri_pb2.Field.Sysctl)
    settled = {
        key: owned.owners[key] for key in request.adjust.linux.sysctl if owned and key in owned.owners
    }
    return _each("sysctls", "sysctl", settled)


def _required(rules: ValidatorSettings, request: nri_pb2.ValidateContainerAdjustmentRequest) -> str:
    name = request.container.name
    tolerant = rules.tolerate_missing_plugins_annotation
    value = effective_annotation(request.pod, tolerant, name) if tolerant else None
    if value in _TRUE:
        return ""
    if value is not None and value not in _FALSE:
        return f"annotation {tolerant}: {value!r} is neither true nor false"
    required = list(rules.required_plugins)
    if text := effective_annotation(request.pod, REQUIRED_PLUGINS, name):
        annotated = _list(text)
        if annotated is None:
            return f"annotation {REQUIRED_PLUGINS}: {text!r} is no list of plugins"
        required += annotated
    present = {form for p in request.plugins for form in (p.name, f"{p.index}-{p.name}")}
    missing = [plugin for plugin in dict.fromkeys(required) if plugin not in present]
    return f"required but not present: {_named(missing)}" if missing else ""


def _list(text: str) -> list[str] | None:
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        found = yaml.load(text, Loader=loader)  # a safe loader
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    if found is None:
        return []
    if not isinstance(found, list) or any(isinstance(entry, list | dict) for entry in found):
        return None
    return [str(entry) for entry in found]


def _each(what: str, one: str, owners: Mapping[str, str]) -> str:
    told = ", ".join(f'"{plugin}" ({one} "{key}")' for key, plugin in sorted(owners.items()))
    return f"{what} may not be adjusted: plugins {told}" if told else ""


def _named(plugins: Iterable[str]) -> str:
    names = [f'"{plugin}"' for plugin in plugins]
    return f"plugin{'s' if len(names) > 1 else ''} {', '.join(names)}"
