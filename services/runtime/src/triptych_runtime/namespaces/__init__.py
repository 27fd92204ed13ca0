"""Pods without a pause process: pinned namespaces, the pod's files, the init of a shared PID namespace."""

from triptych_runtime.namespaces.files import DEFAULT_SHM_SIZE, PodFilePaths, PodFiles, PodFilesOptions
from triptych_runtime.namespaces.init import PodInit
from triptych_runtime.namespaces.model import (
    IdMapping,
    InitProcess,
    NamespaceOptions,
    PinnedNamespaces,
    UserMappings,
)
from triptych_runtime.namespaces.settings import NamespaceSettings
from triptych_runtime.namespaces.store import PodNamespaces

__all__ = [
    "DEFAULT_SHM_SIZE",
    "IdMapping",
    "InitProcess",
    "NamespaceOptions",
    "NamespaceSettings",
    "PinnedNamespaces",
    "PodFilePaths",
    "PodFiles",
    "PodFilesOptions",
    "PodInit",
    "PodNamespaces",
    "UserMappings",
]
