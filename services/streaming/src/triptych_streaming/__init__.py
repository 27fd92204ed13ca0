"""The streaming daemon: exec, attach and port-forward."""
