"""Pods without a pause process: pinned namespaces, the pod's files, the init of a shared PID namespace."""

from triptych_runtime.namespaces.model import (
    IdMapping,
    InitProcess,
    NamespaceOptions,
    PinnedNamespaces,
    UserMappings,
)

__all__ = [
    "IdMapping",
    "InitProcess",
    "NamespaceOptions",
    "PinnedNamespaces",
    "UserMappings",
]
