"""What a run has shown, as lines for a person (and for docs/reliability.md). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Report:
    """Counts of one run. `longest`: the longest operation under each kind of fault, in seconds, and what it was."""

    seed: int
    minutes: float = 0.0
    network: str = ""
    faults: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    longest: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    healing_s: Mapping[str, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.violations

    def lines(self) -> list[str]:
        """The report."""
        text = [f"Seed {self.seed}, {self.minutes:.1f} minutes, {self.network}."]
        text.append(f"{sum(self.faults.values())} faults, {sum(self.operations.values())} operations.")
        text += ["", "| fault | survived | longest operation under it | longest healing after it |"]
        text.append("|---|---:|---:|---:|")
        for kind in sorted({*self.faults, *self.longest}):
            took_s, what = self.longest.get(kind, (0.0, ""))
            verb = f" ({what.split(' ')[0]})" if what else ""
            healing = f"{self.healing_s[kind]:.1f} s" if kind in self.healing_s else ""
            count = self.faults[kind] or ""
            text.append(f"| {kind} | {count} | {took_s:.2f} s{verb} | {healing} |")
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
