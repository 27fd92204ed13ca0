"""Settings of the Node Resource Interface: the table `[nri]` of runtime.toml."""

from __future__ import annotations

from typing import Annotated

import msgspec
from triptych_service import Reload, Table, setting

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class ValidatorSettings(Table):
    """`[nri.validator]`: adjustments that no plugin may make"""

    reject_oci_hook_adjustment: bool = setting(False, "Refuse OCI hooks.", reload=Reload.LIVE)
    reject_runtime_default_seccomp_adjustment: bool = setting(
        False, "Refuse another seccomp policy in place of RuntimeDefault.", reload=Reload.LIVE
    )
    reject_unconfined_seccomp_adjustment: bool = setting(
        False,
        "Refuse a seccomp policy for containers that ask for none, or for Unconfined.",
        reload=Reload.LIVE,
    )
    reject_custom_seccomp_adjustment: bool = setting(
        False, "Refuse another seccomp policy in place of a Localhost one.", reload=Reload.LIVE
    )
    reject_namespace_adjustment: bool = setting(False, "Refuse other namespaces.", reload=Reload.LIVE)
    reject_sysctl_adjustment: bool = setting(False, "Refuse other sysctls.", reload=Reload.LIVE)
    required_plugins: tuple[str, ...] = setting(
        (),
        "Plugins, named with or without index, without which no container is created; the annotation "
        "`required-plugins.noderesource.dev` of a pod requires more.",
        reload=Reload.LIVE,
    )
    tolerate_missing_plugins_annotation: str = setting(
        "", "Annotation by which a pod does without required plugins; empty for none.", reload=Reload.LIVE
    )


class NriSettings(Table):
    """`[nri]`: plugins of the node (Node Resource Interface)"""

    enabled: bool = setting(True, "Start the plugins that are installed, and listen for others.")
    socket: str = setting(
        "/var/run/nri/nri.sock",
        "Where plugins connect; empty takes no connections. Where another runtime listens, plugins are left "
        "to it.",
    )
    plugin_dir: str = setting(
        "/opt/nri/plugins", "Plugins to start, named INDEX-NAME: two digits, in whose order they are asked."
    )
    plugin_config_dir: str = setting(
        "/etc/nri/conf.d", "Their configuration: `INDEX-NAME.conf`, or else `NAME.conf`."
    )
    registration_timeout: Seconds = setting(
        5.0,
        "Seconds that a plugin has to register, and again to take in what there is: no container is created "
        "meanwhile, so that it misses none.",
        reload=Reload.LIVE,
    )
    request_timeout: Seconds = setting(
        2.0,
        "Seconds that a plugin has for one request; one that takes longer is dropped.",
        reload=Reload.LIVE,
    )
    validator: ValidatorSettings = setting(ValidatorSettings(), "The built-in validator.")

    @property
    def validates(self) -> bool:
        """Whether the built-in validator has anything to look at."""
        return self.enabled and self.validator != ValidatorSettings()
