"""The scripts that dpkg runs around the package's files (Debian Policy, chapter 6).

All heed DPKG_ROOT (dpkg(1), --force-script-chrootless): then the node is a directory, and nothing of this
machine is touched.
"""

from __future__ import annotations

import shlex

from triptych_dev.node.files import CNI_CONFIG
from triptych_dev.node.manager import LIST_INSTANCES, NAT, SERVICES, SLICE, SOCKETS
from triptych_dev.node.places import DEBIAN

EXAMPLES = DEBIAN.docs / "examples"
"""What belongs to others or to an operator lies here instead of in its place."""

CONFLIST = CNI_CONFIG / "10-triptych.conflist"
_UNITS = " ".join((*SERVICES, *SOCKETS))
_INSTANCES = f"instances() {{ systemctl {shlex.join(LIST_INSTANCES)} | cut -d' ' -f1; }}"
"""Further streaming instances, by a function of the shell."""
_NETWORK = f"""\
networks=$DPKG_ROOT{CONFLIST.parent}
conflist=$DPKG_ROOT{CONFLIST}
# The digest of the file as this package placed it.
placed=$DPKG_ROOT/var/lib/triptych/conflist.sha256
digest() {{ sha256sum <"$1" | cut -d' ' -f1; }}
unchanged() {{ [ -f "$placed" ] && [ -f "$conflist" ] && [ "$(cat "$placed")" = "$(digest "$conflist")" ]; }}
"""
_AFTER_INSTALL = f"""\
#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
systemd-tmpfiles --root="${{DPKG_ROOT:-/}}" --create triptych.conf || true
{_NETWORK}
# The first file by name is the node's network: ours is placed only where there is none of another runtime.
none() {{
    ! find "$networks" -maxdepth 1 \\( -name '*.conf' -o -name '*.conflist' -o -name '*.json' \\) \\
        2>/dev/null | grep -q .
}}
if none || unchanged; then
    mkdir -p "$networks" "${{placed%/*}}"
    cp "$DPKG_ROOT{EXAMPLES}/cni/{CONFLIST.name}" "$conflist.dpkg-new"
    mv "$conflist.dpkg-new" "$conflist"
    digest "$conflist" >"$placed"
fi
if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl enable -q {_UNITS}
    /usr/lib/systemd/systemd-sysctl 60-triptych.conf || true
    systemctl start {" ".join(SOCKETS)}
    systemctl restart {" ".join(SERVICES)}
    {_INSTANCES}
    for instance in $(instances); do systemctl try-restart "$instance"; done
else
    systemctl --root="${{DPKG_ROOT:-/}}" enable -q {_UNITS} || true
fi
"""
_BEFORE_REMOVE = f"""\
#!/bin/sh
set -e
# An upgrade restarts the daemons when the new files are there; containers go on.
[ "$1" = remove ] || exit 0
if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
    {_INSTANCES}
    systemctl disable -q --now $(instances) {_UNITS} {NAT} || true
    systemctl stop {SLICE} || true
else
    systemctl --root="${{DPKG_ROOT:-/}}" disable -q {_UNITS} || true
fi
"""
_AFTER_REMOVE = f"""\
#!/bin/sh
set -e
[ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ] && systemctl daemon-reload
{_NETWORK}
# An edited one stays until the configuration goes, as edited files do.
if [ "$1" = remove ] && unchanged; then rm -f "$conflist" "$placed"; fi
if [ "$1" = purge ]; then
    [ ! -f "$placed" ] || rm -f "$conflist"
    if [ -z "$DPKG_ROOT" ]; then
        # The daemons mount below their directories; what is mounted at one is an operator's disk.
        mounts=$(grep -o ' /\\(run\\|var/lib\\)/triptych/[^/ ]*/[^ ]*' /proc/self/mounts | sort -r)
        for mount in $mounts; do umount -l "$mount" || true; done
    fi
    for directory in /etc/triptych /var/lib/triptych /run/triptych /var/cache/triptych; do
        # Such a disk stays, emptied: rm says so.
        rm -rf "$DPKG_ROOT$directory" || true
    done
    # Of NRI, whichever runtime serves it.
    rmdir "$DPKG_ROOT/run/nri" 2>/dev/null || true
fi
exit 0
"""
SCRIPTS = {"postinst": _AFTER_INSTALL, "prerm": _BEFORE_REMOVE, "postrm": _AFTER_REMOVE}
"""Each by the name that dpkg knows it by."""
