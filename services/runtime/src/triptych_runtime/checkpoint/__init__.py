"""Checkpoint and restore with CRIU, through the OCI runtime's own commands.

Import the modules where they are used, not here: what they need is half a megabyte that few nodes need.
"""
