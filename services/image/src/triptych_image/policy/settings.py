"""`[policy]`: which images may be pulled."""

from __future__ import annotations

from triptych_service.settings import Reload, Table, setting


class PolicySettings(Table):
    """`[policy]`"""

    path: str = setting(
        "",
        "A containers `policy.json` (such as `/etc/containers/policy.json`) that every pull must satisfy; "
        "read on each pull. Empty accepts every image.",
        reload=Reload.LIVE,
    )
    unnamed_signatures: bool = setting(
        False,
        "Accept sigstore bundles as `cosign sign` of version 3 makes them. They hold the image's digest but "
        "no name, so `signedIdentity` cannot be checked: a key then vouches for an image in whatever "
        "repository it lies.",
        reload=Reload.LIVE,
    )
