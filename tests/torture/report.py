"""The results of a run, as lines to read (and for docs/reliability.md). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from .history import CALM, PROMISED_S, Met
from .nemesis import HANGS


@dataclass
class Report:
    """The counts of one run. `met` has the operations during each kind of fault."""

    seed: int
    minutes: float = 0.0
    network: str = ""
    faults: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    met: Mapping[str, Met] = field(default_factory=dict)
    healing_s: Mapping[str, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.violations

    def lines(self) -> list[str]:
        """The report."""
        text = [f"Seed {self.seed}, {self.minutes:.1f} minutes, {self.network}."]
        text.append(f"{sum(self.faults.values())} faults, {sum(self.operations.values())} operations.")
        slow = f"longer than {PROMISED_S:g} s"
        text += ["", f"| fault | survived | operations under it | {slow} | longest | longest healing after it |"]
        text.append("|---|---:|---:|---:|---:|---:|")
        for kind in sorted({*self.faults, *self.met}):
            met = self.met.get(kind, Met())
            healing = f"{self.healing_s[kind]:.1f} s" if kind in self.healing_s else ""
            count = self.faults[kind] or ""
            text.append(f"| {kind} | {count} | {met.count:,} | {met.slow:,} | {_longest(met)} | {healing} |")
        text += ["", self._promised()]
        for title, counts in (
            ("Operations", self.operations),
            ("Compared and found right", self.checks),
            ("Failed while two servers, or the mount, were gone", self.excused),
        ):
            shown = ", ".join(f"{what} {count:,}" for what, count in counts.most_common()) or "none"
            text += ["", f"{title}: {shown}."]
        text.append("")
        if self.passed:
            text.append("Passed: nothing lost, nothing wrong, nothing stuck.")
        else:
            text += [f"FAILED, seed {self.seed}:", *self.violations]
        return text

    def _promised(self) -> str:
        """The delays caused by one hanging server, beside those without faults."""
        seen = [self.met[kind] for kind in HANGS if kind in self.met]
        worst = max(seen, key=lambda met: met.longest_s, default=Met())
        calm = self.met.get(CALM, Met())
        count, slow = sum(met.count for met in seen), sum(met.slow for met in seen)
        return (
            f"While one server hung, of {count:,} operations {slow:,} took longer than {PROMISED_S:g} s, the longest "
            f"{_longest(worst)}; in calm, of {calm.count:,} operations {calm.slow:,}, the longest {_longest(calm)}."
        )


def _longest(met: Met) -> str:
    verb = f" ({met.longest.split(' ')[0]})" if met.longest else ""
    return f"{met.longest_s:.2f} s{verb}"
