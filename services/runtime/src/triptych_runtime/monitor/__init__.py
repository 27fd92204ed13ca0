"""conmon: one small C process a container that holds its stdio, writes its log and records its exit."""

from triptych_runtime.monitor.conmon import Conmon, MonitorPaths, Started
from triptych_runtime.monitor.ending import kill_monitor
from triptych_runtime.monitor.exits import Exit, ExitWatch

__all__ = ["Conmon", "Exit", "ExitWatch", "MonitorPaths", "Started", "kill_monitor"]
