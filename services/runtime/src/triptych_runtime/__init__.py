"""The runtime daemon: pod sandboxes, containers, networks and cgroups."""

__version__ = "0.1.0"
