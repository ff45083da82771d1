"""Run the steps beside each other on a plain folder and on a mount, as often as asked, and show medians and ratios.

Everything (four servers on free ports, the mount, the plain folder) is in one temporary folder of the disk that the
results are written to, and is gone when this ends, however it ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from bench import binding_costs, machine, two_mounts
from bench.binding_costs import Cost
from bench.two_mounts import Shares
from bench.workloads import FULL, QUICK, STEPS, Place, Sizes, Step
from rich.console import Console
from rich.table import Table
from support.mounts import Grid


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    runs: int
    quick: bool
    only: str
    results: Path
    mount_options: tuple[str, ...]


@dataclass(frozen=True)
class Measurement:
    """One step at one place in one run."""

    step: str
    place: str
    run: int
    per_second: float
    seconds: float
    cpu_s: float
    """Used by the servers and the mount together; of a mount that is mounted anew in the step, by the new one."""


@dataclass(frozen=True)
class Row:
    """One line of the table: medians, all per second."""

    step: str
    unit: str
    plain: float
    mount: float
    ratio: float
    lowest: float
    highest: float
    cpu_s: float


def run(options: Options, console: Console) -> Path:
    """Measure, show the table, and give the file with everything in it."""
    steps = [step for step in STEPS if options.only in ("", step.group)]
    sizes: Sizes = QUICK if options.quick else FULL
    facts = machine.describe(caches_dropped=machine.drop_caches())
    before = machine.usage()
    found, costs, shares = [], [], []
    if steps:
        with _places(options) as (places, pids):
            found = list(_measure(steps, places, pids, sizes, options, console))
    if options.only in ("", "bindings"):
        with console.status("the bindings over a no-op file system"):
            costs = binding_costs.measure(sizes, options.runs)
    if options.only in ("", "two"):
        with console.status("two mounts that write"):
            shares = two_mounts.measure(options.runs, options.results)
    after = machine.usage()
    elapsed = (after.when - before.when) * (os.cpu_count() or 1)
    facts["busy"] = round((after.busy_s - before.busy_s) / elapsed, 3)
    facts["stolen"] = round((after.stolen_s - before.stolen_s) / elapsed, 3)
    table = _medians(steps, found)
    if table:
        _show(console, table, facts, options)
    if costs:
        _show_costs(console, costs, options)
    if shares:
        _show_shares(console, shares)
    options.results.mkdir(exist_ok=True)
    file = options.results / f"{facts['when'].replace(':', '')}{'-quick' if options.quick else ''}.json"
    document = {
        "machine": facts,
        "runs": options.runs,
        "quick": options.quick,
        "mount_options": list(options.mount_options),
        "medians": [asdict(row) for row in table],
        "bindings over a no-op file system": [asdict(cost) for cost in costs],
        "two mounts that write without pause": [asdict(run) for run in shares],
        "measurements": [asdict(measurement) for measurement in found],
    }
    file.write_text(json.dumps(document, indent=1) + "\n")
    return file


@contextmanager
def _places(options: Options) -> Iterator[tuple[list[Place], list[int]]]:
    """The plain folder and the mount, and a list that always has the pids of servers and mount."""
    options.results.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="work-", dir=options.results)).resolve()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        plain = folder / "plain"
        plain.mkdir()
        with Grid(folder / "grid") as grid:
            mount = grid.mount(options=options.mount_options)
            pids = [server.pid for server in grid.servers] + [mount.pid]

            def remount() -> None:
                mount.unmount()
                machine.drop_caches()
                mount.mount()
                pids[-1] = mount.pid

            yield [Place("plain", plain, machine.drop_caches), Place("mount", mount.path, remount)], pids
    finally:
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(folder, ignore_errors=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _measure(
    steps: Sequence[Step],
    places: Sequence[Place],
    pids: list[int],
    sizes: Sizes,
    options: Options,
    console: Console,
) -> Iterator[Measurement]:
    for turn in range(options.runs):
        for step in steps:
            for place in places:
                with console.status(f"run {turn + 1} of {options.runs}: {step.name}, {place.name}"):
                    cpu_before = machine.cpu_seconds(pids)
                    count, seconds = step.run(place, sizes)
                    cpu = machine.cpu_between(cpu_before, machine.cpu_seconds(pids))
                yield Measurement(step.name, place.name, turn, count / seconds, seconds, round(cpu, 2))
        for place in places:
            for path in place.folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _medians(steps: Sequence[Step], found: Sequence[Measurement]) -> list[Row]:
    rows = []
    for step in steps:
        plain = [m for m in found if (m.step, m.place) == (step.name, "plain")]
        mount = [m for m in found if (m.step, m.place) == (step.name, "mount")]
        rates = [statistics.median(m.per_second for m in measured) for measured in (plain, mount)]
        rows.append(
            Row(
                step=step.name,
                unit=f"{step.unit}/s",
                plain=round(rates[0], 1),
                mount=round(rates[1], 1),
                ratio=round(rates[1] / rates[0], 3),
                lowest=round(min(m.per_second for m in mount), 1),
                highest=round(max(m.per_second for m in mount), 1),
                cpu_s=statistics.median(m.cpu_s for m in mount),
            )
        )
    return rows


def _show(console: Console, rows: Sequence[Row], facts: machine.Facts, options: Options) -> None:
    table = Table(title=f"One folder on four servers, beside a plain folder (median of {options.runs})")
    table.add_column("step")
    for heading in ("unit", "plain", "mount", "ratio", "lowest-highest", "CPU s"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.step,
            row.unit,
            f"{row.plain:,.0f}",
            f"{row.mount:,.0f}",
            f"{row.ratio:.2f}",
            f"{row.lowest:,.0f}-{row.highest:,.0f}",
            f"{row.cpu_s:.1f}",
        )
    console.print(table)
    cold = "dropped before cold steps" if facts["caches_dropped"] else "NOT dropped (needs root): cold is warm"
    console.print(
        f"{facts['processors']} processors, busy {facts['busy']:.0%}, stolen by other machines {facts['stolen']:.0%}, "
        f"load before {facts['load_before']}; caches {cold}.\n"
        "CPU is of the four servers and the mount. Every byte goes to two disks and is read back checked."
    )


def _show_costs(console: Console, costs: Sequence[Cost], options: Options) -> None:
    table = Table(title=f"The bindings by themselves, over a no-op file system (median of {options.runs})")
    table.add_column("step")
    for heading in ("unit", *binding_costs.BINDINGS):
        table.add_column(heading, justify="right")
    for cost in costs:
        table.add_row(cost.step, cost.unit, *(f"{cost.per_second[binding]:,.0f}" for binding in binding_costs.BINDINGS))
    console.print(table)


def _show_shares(console: Console, shares: Sequence[Shares]) -> None:
    table = Table(title="Two mounts that write without pause (each run)")
    table.add_column("shape")
    for heading in ("one alone /s", "both at once /s", "the slower one, of one alone"):
        table.add_column(heading, justify="right")
    for run in shares:
        both = " and ".join(f"{rate:,.0f}" for rate in run.both)
        table.add_row(run.shape, f"{run.alone:,.0f}", both, f"{run.least:.2f}")
    console.print(table)
