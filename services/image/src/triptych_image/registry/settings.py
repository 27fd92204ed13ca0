"""`[registry]`: how registries are found and talked to."""

from __future__ import annotations

from typing import Annotated

import msgspec
from triptych_service.settings import Reload, Table, setting

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]
Bytes = Annotated[int, msgspec.Meta(ge=1)]


class RegistrySettings(Table):
    """`[registry]`; times in seconds, sizes in bytes. All of it is live."""

    config_path: tuple[str, ...] = setting(
        ("/etc/triptych/certs.d", "/etc/containerd/certs.d", "/etc/docker/certs.d"),
        "Directories with one directory per registry that holds `hosts.toml` as containerd reads it, or "
        "Docker's `*.crt`, `*.cert` and `*.key`; the first that has one for the registry is taken, else the "
        "first `_default`. Read on each pull.",
        reload=Reload.LIVE,
    )
    auth_files: tuple[str, ...] = setting(
        (
            "/etc/triptych/auth.json",
            "/run/containers/0/auth.json",
            "/root/.config/containers/auth.json",
            "/root/.docker/config.json",
        ),
        "Files with credentials in Docker's or Podman's format, asked in order when a pull brings none; "
        "credential helpers that they name are run. Read on each pull.",
        reload=Reload.LIVE,
    )
    credential_helper_seconds: Seconds = setting(
        20.0, "How long a credential helper may take.", reload=Reload.LIVE
    )
    dial_seconds: Seconds = setting(
        15.0,
        "How long a connection may take to open, TLS included, unless `dial_timeout` says otherwise.",
        reload=Reload.LIVE,
    )
    response_seconds: Seconds = setting(
        30.0, "How long a host may take to begin its answer.", reload=Reload.LIVE
    )
    stall_seconds: Seconds = setting(
        30.0,
        "A connection that brings less than `min_bytes_per_second` over this time is given up; the download "
        "goes on from there over another one.",
        reload=Reload.LIVE,
    )
    min_bytes_per_second: Annotated[int, msgspec.Meta(ge=0)] = setting(
        1024,
        "Least rate of a download while it waits for the network; 0 asks only for any byte within "
        "`stall_seconds`.",
        reload=Reload.LIVE,
    )
    host_seconds: Seconds = setting(
        45.0,
        "How long one host may spend without bringing a byte before the next one is tried.",
        reload=Reload.LIVE,
    )
    no_progress_seconds: Seconds = setting(
        300.0,
        "A download that no host brought a byte of for this long ends with an error.",
        reload=Reload.LIVE,
    )
    penalty_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = setting(
        30.0,
        "How long a host that could not be reached is tried last by others.",
        reload=Reload.LIVE,
    )
    attempts: Annotated[int, msgspec.Meta(ge=1, le=100)] = setting(
        6, "Requests per host for the same thing while it fails without progress.", reload=Reload.LIVE
    )
    max_manifest_bytes: Bytes = setting(
        4 << 20, "Largest manifest, index or image config taken.", reload=Reload.LIVE
    )
    parallel_chunks: Annotated[int, msgspec.Meta(ge=1, le=32)] = setting(
        4,
        "Connections at most for one large blob, where one is slow and the host serves ranges; 1 for one.",
        reload=Reload.LIVE,
    )
    chunk_bytes: Annotated[int, msgspec.Meta(ge=256 << 10, le=256 << 20)] = setting(
        4 << 20, "Size of a range when a blob comes over several connections.", reload=Reload.LIVE
    )
    chunk_memory_bytes: Annotated[int, msgspec.Meta(ge=0)] = setting(
        16 << 20,
        "Memory that ranges which arrived early may take, all downloads of the daemon together.",
        reload=Reload.LIVE,
    )
    parallel_below_bytes_per_second: Annotated[int, msgspec.Meta(ge=0)] = setting(
        64 << 20,
        "Rate of a single connection above which more of them are not tried.",
        reload=Reload.LIVE,
    )
    connections_per_host: Annotated[int, msgspec.Meta(ge=1, le=256)] = setting(
        16, "Connections to one host at most, all pulls together.", reload=Reload.LIVE
    )
    idle_connection_seconds: Seconds = setting(
        30.0, "How long an unused connection is kept for the next request.", reload=Reload.LIVE
    )
    proxy_environment: bool = setting(
        True, "Honour HTTP_PROXY, HTTPS_PROXY and NO_PROXY.", reload=Reload.LIVE
    )
