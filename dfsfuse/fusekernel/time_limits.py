"""How long the kernel lets a request wait before it ends the whole mount: a sysctl, from Linux 6.15 on.

A program that waits for a lock is an unanswered request, and may legitimately wait for days. So if the administrator
has set a default for all FUSE mounts, this mount requests the longest possible time. If there is no default, it
requests nothing: then requests have no limit. `fs.fuse.max_request_timeout` overrides whatever is requested.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

SETTINGS: Final = Path("/proc/sys/fs/fuse")
LONGEST_S: Final = 65_535
"""The maximum of the field in INIT: 18 hours."""


def wanted_s(settings: Path = SETTINGS) -> int:
    """The time limit to request; 0: none."""
    return LONGEST_S if _read(settings / "default_request_timeout") else 0


def in_force_s(settings: Path = SETTINGS) -> int:
    """The time after which the kernel ends a mount that requests `wanted_s`; 0: never."""
    limits = [limit for limit in (wanted_s(settings), _read(settings / "max_request_timeout")) if limit]
    return min(limits, default=0)


def _read(setting: Path) -> int:
    """0 if there is no such setting."""
    try:
        return int(setting.read_text())
    except (OSError, ValueError):
        return 0
