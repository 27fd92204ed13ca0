"""The start of the daemon: what the records say is held against what the kernel says."""

from triptych_runtime.recovery.load import load
from triptych_runtime.recovery.reconcile import clean_up, reconcile
from triptych_runtime.recovery.root_filesystems import keep_removing_root_filesystems

__all__ = ["clean_up", "keep_removing_root_filesystems", "load", "reconcile"]
