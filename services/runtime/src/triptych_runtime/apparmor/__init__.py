"""The default AppArmor profile of containers, loaded at start where the kernel has AppArmor."""

from triptych_runtime.apparmor.load import ensure_loaded
from triptych_runtime.apparmor.profile import NAME, text

__all__ = ["NAME", "ensure_loaded", "text"]
