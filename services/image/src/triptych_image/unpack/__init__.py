"""Unpacking layers: `pool` starts confined workers, `worker` is what runs in them.

Empty on purpose: the workers import their own modules through here and must stay small.
"""
