"""What else the machine did while we measured: a number from a busy machine must say so. Linux's /proc only."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Seconds since the machine started: of all processors together."""

    when: float
    busy_s: float
    stolen_s: float


def usage() -> Usage:
    """Now."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _waiting, irq, softirq, stolen = fields
    return Usage(time.monotonic(), (user + nice + system + irq + softirq) / _TICKS, stolen / _TICKS)


def cpu_seconds(pids: Sequence[int]) -> dict[int, float]:
    """What each of these processes has used so far; ones that are gone are left out."""
    used = {}
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        used[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
    return used


def cpu_between(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """What the processes that are there afterwards have used since; one that is new began at 0."""
    return sum(used - before.get(pid, 0.0) for pid, used in after.items())


def resident_mib(pids: Sequence[int]) -> float:
    """What these processes have in memory together; ones that are gone are left out. Shared pages count for each."""
    total_kib = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total_kib += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return round(total_kib / 1024, 1)


class Facts(TypedDict):
    """What a reader of the numbers needs. `busy` and `stolen` are parts of all processors' time."""

    processors: int
    load_before: float
    kernel: str
    python: str
    when: str
    caches_dropped: bool
    busy: float
    stolen: float


def describe(*, caches_dropped: bool) -> Facts:
    """What can be said before; `busy` and `stolen` are filled in afterwards."""
    return {
        "processors": os.cpu_count() or 1,
        "load_before": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "caches_dropped": caches_dropped,
        "busy": 0.0,
        "stolen": 0.0,
    }


def drop_caches() -> bool:
    """Empty the kernel's caches; only root may. Says whether it was done."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True
