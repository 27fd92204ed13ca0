"""Kernel interfaces: mounts, namespaces, pidfds, and the one place that runs processes.

Submodules are imported by name (`from triptych_linux import mounts, process`) so that a helper which must
start fast pays only for what it uses. `mounts`, `namespaces`, `pidfd` and `syscalls` need nothing but the
standard library without asyncio.
"""
