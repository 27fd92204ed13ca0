"""`triptych doctor`: what this host lacks or does oddly for a container runtime, and what to do about it."""
