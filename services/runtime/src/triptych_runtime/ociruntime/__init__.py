"""OCI runtimes by their command line: crun, runc and any other that takes the same."""

from triptych_runtime.ociruntime.command import OciRuntime
from triptych_runtime.ociruntime.handlers import Handler, Handlers
from triptych_runtime.ociruntime.probe_cache import ProbeCache
from triptych_runtime.ociruntime.prober import HandlerConfig, Prober

__all__ = ["Handler", "HandlerConfig", "Handlers", "OciRuntime", "ProbeCache", "Prober"]
