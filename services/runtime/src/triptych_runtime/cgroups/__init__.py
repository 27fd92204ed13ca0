"""Control groups: names, handles, resources and placement, the same on cgroup v1, hybrid and v2."""

from triptych_runtime.cgroups.errors import (
    BadParent,
    BadResources,
    CgroupFailed,
    MissingController,
    NoCgroups,
)
from triptych_runtime.cgroups.handle import Cgroup
from triptych_runtime.cgroups.layout import Layout, Mode
from triptych_runtime.cgroups.manager import CgroupManager, DriverSetting, require_driver
from triptych_runtime.cgroups.paths import Driver

__all__ = [
    "BadParent",
    "BadResources",
    "Cgroup",
    "CgroupFailed",
    "CgroupManager",
    "Driver",
    "DriverSetting",
    "Layout",
    "MissingController",
    "Mode",
    "NoCgroups",
    "require_driver",
]
