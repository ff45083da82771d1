"""How long the kernel lets a request wait before it ends the whole mount: from Linux 6.15 on, by sysctl.

A program that waits for a lock is a request without an answer, and may rightly wait for days. So where the
administrator has set a default for all FUSE mounts, this one asks for the longest time there is. Where there is none it
asks for nothing: then no request has a limit. `fs.fuse.max_request_timeout` holds whatever is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

SETTINGS: Final = Path("/proc/sys/fs/fuse")
LONGEST_S: Final = 65_535
"""What the field of INIT holds: 18 hours."""


def wanted_s(settings: Path = SETTINGS) -> int:
    """What to ask for; 0: nothing."""
    return LONGEST_S if _read(settings / "default_request_timeout") else 0


def in_force_s(settings: Path = SETTINGS) -> int:
    """After so long the kernel ends a mount that asks for `wanted_s`; 0: never."""
    limits = [limit for limit in (wanted_s(settings), _read(settings / "max_request_timeout")) if limit]
    return min(limits, default=0)


def _read(setting: Path) -> int:
    """0 where there is no such setting."""
    try:
        return int(setting.read_text())
    except (OSError, ValueError):
        return 0
