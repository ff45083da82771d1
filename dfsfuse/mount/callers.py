"""What can be found out about the process that asks, beyond what a request says: by /proc. No state."""

from __future__ import annotations

from pathlib import Path

from dfsfuse.fusekernel.values import Context


def is_in_group(context: Context, gid: int) -> bool:
    """Whether the caller is in the group, by his group or by a supplementary one. One of whom that cannot be found out
    (he lives in another pid namespace, or is gone) is not."""
    if context.gid == gid:
        return True
    if not context.pid:
        return False
    try:
        status = Path(f"/proc/{context.pid}/status").read_bytes()
    except OSError:
        return False
    groups = next((line for line in status.splitlines() if line.startswith(b"Groups:")), b"")
    return b"%d" % gid in groups.split()[1:]
