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
