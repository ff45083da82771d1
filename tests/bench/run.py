"""Run the steps side by side on a plain folder, on our mount and on other file systems, as often as requested.

Everything (servers, mounts, the plain folder) is in a temporary folder on the disk that the results are written to, and
is removed at the end, however it ends. All places take turns at each step, so that they see the same conditions.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from bench import binding_costs, machine, two_mounts
from bench.peers.peer import Peer
from bench.place import Place
from bench.show import show_costs, show_shares, show_steps
from bench.steps import STEPS
from bench.steps.content import FULL, QUICK, Sizes, Step
from bench.table import Measurement, Memory, rows_of
from rich.console import Console
from support.mounts import Grid

PLAIN = "plain"
OURS = "dfsfuse"
LAST_GROUP = "degraded"
"""Its steps leave a place with one server less, so they run once, after all others."""


@dataclass(frozen=True)
class Options:
    """The command line's options."""

    runs: int
    quick: bool
    only: str
    results: Path
    mount_options: tuple[str, ...]
    peers: tuple[type[Peer], ...] = ()


def run(options: Options, console: Console) -> Path:
    """Measure, show the tables, and return the content of the result file."""
    steps = [step for step in STEPS if options.only in ("", step.group)]
    sizes: Sizes = QUICK if options.quick else FULL
    facts = machine.describe(caches_dropped=machine.drop_caches())
    before = machine.usage()
    results = _Results(facts, options)
    try:
        if steps:
            with _places(options, console) as places:
                for measurement in _measure(steps, places, sizes, options, console):
                    results.found.append(measurement)
                results.memory = [Memory(place.name, machine.resident_mib(place.pids())) for place in places]
        if options.only in ("", "bindings"):
            with console.status("the bindings over a no-op file system"):
                results.costs = binding_costs.measure(sizes, options.runs)
        if options.only in ("", "two"):
            with console.status("two mounts that write"):
                results.shares = two_mounts.measure(options.runs, options.results)
    finally:  # half an hour's figures are not lost because the last part failed
        after = machine.usage()
        elapsed = (after.when - before.when) * (os.cpu_count() or 1)
        facts["busy"] = round((after.busy_s - before.busy_s) / elapsed, 3)
        facts["stolen"] = round((after.stolen_s - before.stolen_s) / elapsed, 3)
        results.show(steps, console)
        file = results.write(steps)
    return file


@dataclass
class _Results:
    """What has been measured so far."""

    facts: dict[str, Any]
    options: Options
    found: list[Measurement] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    costs: list[binding_costs.Cost] = field(default_factory=list)
    shares: list[two_mounts.Shares] = field(default_factory=list)

    def show(self, steps: Sequence[Step], console: Console) -> None:
        """Print the tables."""
        rows = rows_of(steps, self.found)
        if rows:
            show_steps(console, rows, self.memory, self.facts, self.options.runs)
        if self.costs:
            show_costs(console, self.costs, self.options.runs)
        if self.shares:
            show_shares(console, self.shares)

    def write(self, steps: Sequence[Step]) -> Path:
        """Write everything to a file, and return its path."""
        options, rows = self.options, rows_of(steps, self.found)
        options.results.mkdir(exist_ok=True)
        name = f"{self.facts['when'].replace(':', '')}{'-quick' if options.quick else ''}.json"
        document = {
            "machine": self.facts,
            "runs": options.runs,
            "quick": options.quick,
            "mount_options": list(options.mount_options),
            "medians": [asdict(row) for row in rows],
            "memory": [asdict(one) for one in self.memory],
            "bindings over a no-op file system": [asdict(cost) for cost in self.costs],
            "two mounts that write without pause": [asdict(share) for share in self.shares],
            "measurements": [asdict(measurement) for measurement in self.found],
        }
        file = options.results / name
        file.write_text(json.dumps(document, indent=1) + "\n")
        return file


@contextmanager
def _places(options: Options, console: Console) -> Iterator[list[Place]]:
    """The plain folder, our mount, and the peers' mounts."""
    options.results.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="work-", dir=options.results)).resolve()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with contextlib.ExitStack() as running:
            plain = folder / "plain"
            plain.mkdir()
            ours = running.enter_context(_our_mount(folder / "grid", options.mount_options))
            places = [Place(PLAIN, plain, machine.drop_caches), ours]
            for kind in options.peers:
                with console.status(f"{kind.name}: starting"):
                    places.append(_place_of(running.enter_context(kind(folder / kind.name))))
            yield places
    finally:
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _our_mount(folder: Path, options: tuple[str, ...]) -> Iterator[Place]:
    with Grid(folder) as grid:
        mount = grid.mount(options=options)

        def remount() -> None:
            mount.unmount()
            machine.drop_caches()
            mount.mount()

        yield Place(
            OURS,
            mount.path,
            remount,
            lambda: [*(server.pid for server in grid.servers if server.is_running()), mount.pid],
            grid.servers[4].kill,
        )


def _place_of(peer: Peer) -> Place:
    def remount() -> None:
        peer.remount()
        machine.drop_caches()

    stop = peer.stop_a_server if peer.can_lose_a_server else None
    return Place(peer.name, peer.mountpoint, remount, peer.pids, stop)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _measure(
    steps: Sequence[Step], places: Sequence[Place], sizes: Sizes, options: Options, console: Console
) -> Iterator[Measurement]:
    for turn in range(options.runs):
        is_last = turn == options.runs - 1
        for step in steps:
            if step.group == LAST_GROUP and not is_last:
                continue
            for place in places:
                if step.group == LAST_GROUP and place.stop_a_server is None:
                    continue
                os.sync()  # so that no place pays for writes that another has answered but not flushed
                with console.status(f"run {turn + 1} of {options.runs}: {step.name}, {place.name}"):
                    cpu_before = machine.cpu_seconds(place.pids())
                    count, seconds = step.run(place, sizes)
                    cpu = machine.cpu_between(cpu_before, machine.cpu_seconds(place.pids()))
                yield Measurement(step.name, place.name, turn, count / seconds, seconds, round(cpu, 2))
        if not is_last:
            for place in places:
                _empty(place.folder)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and path.name != ".trash":
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
