"""What else the machine did during the measurement: numbers from a busy machine must say so. Linux's /proc only."""

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
    """Seconds of all processors together since the machine started."""

    when: float
    busy_s: float
    stolen_s: float


def usage() -> Usage:
    """Return the current values."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _waiting, irq, softirq, stolen = fields
    return Usage(time.monotonic(), (user + nice + system + irq + softirq) / _TICKS, stolen / _TICKS)


def cpu_seconds(pids: Sequence[int]) -> dict[int, float]:
    """Return the processor seconds used by each of these processes so far, without those that are gone."""
    used = {}
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        used[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
    return used


def cpu_between(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """Return the processor seconds used meanwhile by the processes in `after`; new ones began at 0."""
    return sum(used - before.get(pid, 0.0) for pid, used in after.items())


def resident_mib(pids: Sequence[int]) -> float:
    """Return the total resident memory of these processes, without those that are gone. Shared pages count for each."""
    total_kib = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total_kib += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return round(total_kib / 1024, 1)


class Facts(TypedDict):
    """The facts that readers of the numbers need. `busy` and `stolen` are fractions of all processors' time."""

    processors: int
    load_before: float
    kernel: str
    python: str
    when: str
    caches_dropped: bool
    busy: float
    stolen: float


def describe(*, caches_dropped: bool) -> Facts:
    """Return what is known before the measurement; `busy` and `stolen` are filled in afterwards."""
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
    """Empty the kernel's caches, which only root may do. Returns whether it was done."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True
