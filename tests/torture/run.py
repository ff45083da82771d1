"""One run: writers and contestants at work in two mounts, a nemesis, healing, and checks throughout and at the end.

After each fault the servers must agree again, and, if the fault left damage, `dfc heal` and `dfc verify --heal` repair
it, until both copies of every piece are on the disks and good. Then all writers pause, and each writer's folder is
compared through the other mount. At the end everything is compared once more, through a new mount and through
`dfc get`. The first broken promise ends the run.

Threads: this one drives; the others are daemon threads, which end when it tells them to. A watch ends the run if an
operation does not end: it kills the mounts, which releases everything that waits in them.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import contest, copies
from .choices import Choices
from .contest import Contestant, Scores
from .field import USER, Field
from .history import HEALING, History, ViolationError, Weather
from .model import Variant
from .nemesis import LEAVES_DAMAGE, ONE, SPOILT_ROWS, TWO, Fault, Nemesis, plan, until
from .report import Report
from .worker import Worker
from .writer import Writer

WRITERS_PER_MOUNT: Final = 2
NUMBERS_PER_WRITER: Final = 1_000_000
MOUNTS: Final = ("one", "two")
CALM_S: Final = 6.0
"""A mount may take at most this long after a fault to notice that a server is back: it tries every 5 s."""
AGREE_S: Final = 60.0
HEALED_S: Final = 180.0
SEEN_ELSEWHERE_S: Final = 15.0
"""A change is visible in another mount within a second; on a machine as busy as during this run, within this time."""


@dataclass(frozen=True)
class Options:
    """How to run. With `faults` 0, until the time is over."""

    seed: int
    seconds: float
    logs: Path
    faults: int = 0
    kinds: Sequence[str] = ONE + TWO
    say: Callable[[str], None] = print


class Run:
    """See the module."""

    def __init__(self, options: Options, field: Field) -> None:
        self._options = options
        self._field = field
        self.history = History(options.logs / "history.jsonl", Weather())
        self.scores = Scores()
        self.writers: list[Writer] = []
        self.contestants: list[Contestant] = []
        self.faults: Counter[str] = Counter()
        self._healing_s: dict[str, float] = {}

    # ------------------------------------------------------------------ the whole run

    def run(self) -> Report:
        """Run everything. A broken promise raises nothing, but is in the report."""
        begin = time.monotonic()
        watch = threading.Thread(target=self._watch, daemon=True, name="watch")
        with contextlib.suppress(ViolationError):
            self._prepare()
            watch.start()
            for worker in self._workers():
                worker.start()
                worker.go()
            self._torture(begin)
            with self.paused():
                self._check_everything()
        for worker in self._workers():
            worker.finish()
        self.history.stopped.set()
        for worker in self._workers():
            if worker.ident is not None:
                worker.join(self._field_wait_s())
        self.history.close()
        return self.report((time.monotonic() - begin) / 60)

    def _field_wait_s(self) -> float:
        return 1.0 if self.history.violations else 60.0

    def report(self, minutes: float) -> Report:
        """Return the results so far."""
        history = self.history
        return Report(
            self._options.seed,
            minutes,
            self._field.network.name,
            self.faults,
            history.operations,
            history.checks,
            history.excused,
            history.met,
            self._healing_s,
            list(history.violations),
        )

    def _workers(self) -> list[Worker]:
        return [*self.writers, *self.contestants]

    def _prepare(self) -> None:
        for name in MOUNTS:
            self._field.mount(name)
        for number in range(WRITERS_PER_MOUNT * len(MOUNTS)):
            mount_name = MOUNTS[number % len(MOUNTS)]
            choices = Choices(f"writer {number} {self._options.seed}", number * NUMBERS_PER_WRITER)
            writer = Writer(f"w{number}", mount_name, self._field.mounts[mount_name], self.history, choices)
            writer.folder.mkdir()
            self.writers.append(writer)
        for writer in self.writers:
            writer.others = [other for other in self.writers if other is not writer]
        (self._field.mounts[MOUNTS[0]].path / contest.FOLDER).mkdir()
        for number, name in enumerate(MOUNTS):
            mounted_at = self._field.mounts[name].path
            self.contestants.append(Contestant(f"c{number}", name, mounted_at, self.history, self.scores))

    def _torture(self, begin: float) -> None:
        nemesis = Nemesis(self._field, self.history, self._workers(), self._options.seed)
        faults = plan(self._options.seed, has_disks=self._field.has_disks, kinds=self._options.kinds)
        self.history.stopped.wait(2.0)  # something to lose first
        for number, fault in enumerate(faults, 1):
            if self.history.stopped.is_set() or time.monotonic() - begin > self._options.seconds:
                return
            self._options.say(f"{time.monotonic() - begin:6.0f} s  {_words(fault)}")
            nemesis.strike(fault)
            self.faults[fault.kind] += 1
            self.recover(fault)
            if number == self._options.faults:
                return

    # ------------------------------------------------------------------ between faults

    def recover(self, fault: Fault) -> None:
        """Wait until everything is well again; otherwise the run ends."""
        begin = time.monotonic()
        until(self._mounts_see_all_servers, CALM_S)
        self._demand(until(self._servers_agree, AGREE_S), f"after {fault.kind} the servers did not agree again")
        if fault.kind in SPOILT_ROWS:
            self._dfc("fsck")  # it reads all records of every server, including those that nothing else reads
        if fault.kind in LEAVES_DAMAGE:
            self.heal()
        with self.paused():
            self.settle_all()
            self._check_elsewhere()
            if fault.kind in LEAVES_DAMAGE or len(fault.servers) > 1:
                self.check_copies()
        took_s = time.monotonic() - begin
        self._healing_s[fault.kind] = max(took_s, self._healing_s.get(fault.kind, 0.0))

    def heal(self) -> None:
        """Find damage, and repair it, with commands."""
        with self.history.weather.spell(HEALING):
            for command in (["heal"], ["verify", "--heal"]):  # what is on the disks counts, not what they report
                self._dfc(*command)

    def _dfc(self, *command: str) -> None:
        done = self._field.dfc(*command)
        said = (done.stdout + done.stderr).decode(errors="replace")[-3000:]
        self.history.note(dfc=" ".join(command), exit=done.returncode, said=said)

    def _mounts_see_all_servers(self) -> bool:
        """Whether each mount has noticed that the fault is over."""
        return self.history.stopped.is_set() or not any(mount.misses() for mount in self._field.mounts.values())

    def _servers_agree(self) -> bool:
        """Whether all four answer and have nearly the same slot; the writers go on meanwhile."""
        if self.history.stopped.is_set():
            return True
        found = self._field.dfc("status", "--json")
        if not found.stdout:
            return False
        servers = json.loads(found.stdout)["servers"]
        slots = [server.get("applied_slot", 0) for server in servers if server["answers"]]
        return len(slots) == len(servers) and max(slots) - min(slots) < 200

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Pause all writers and contestants for the length of the block."""
        with contextlib.ExitStack() as held:
            for worker in self._workers():
                worker.pause()
            for worker in self._workers():
                held.enter_context(worker.lock)
            yield
        for worker in self._workers():
            worker.go()

    def settle_all(self) -> None:
        """Wait until no writer has anything in doubt."""
        for writer in self.writers:
            settled = until(lambda writer=writer: not writer.is_unsettled or writer.settle(), HEALED_S)
            self._demand(settled, f"{writer.name} could not look at its folder")

    def _check_elsewhere(self) -> None:
        """Check each writer's folder through the other mount."""
        for writer in self.writers:
            elsewhere = next(name for name in MOUNTS if name != writer.mount_name)
            self.check(writer, self._field.mounts[elsewhere].path, elsewhere)

    def check(self, writer: Writer, mounted_at: Path, mount_name: str) -> None:
        """Check a writer's folder through a mount."""
        problems: list[str] = []

        def is_right() -> bool:
            try:
                found = writer.look(mounted_at, mount_name=mount_name)
            except OSError as error:
                problems[:] = [f"cannot be examined: {error}"]
                return False
            problems[:] = Variant(writer.journal.current).problems(found)
            return not problems

        right = until(is_right, SEEN_ELSEWHERE_S)
        self._demand(right, f"{writer.name} seen in {mount_name}: {'; '.join(problems[:5])}\n{writer.recently()}")
        self.history.checked("files elsewhere", len(writer.journal.current.contents))

    def check_copies(self) -> None:
        """Check that both copies of every piece are on their homes' disks, while all writers are paused."""
        wrong: list[str] = []
        count = 0

        def is_whole() -> bool:
            nonlocal count
            roots = self._field.roots()
            slots = {number: copies.maps_digest(root, USER) for number, root in roots.items()}
            if len(set(slots.values())) != 1:
                wrong[:] = [f"the servers' maps differ: {slots}"]
                return False
            count, wrong[:] = copies.problems(roots, USER, by=1)
            return not wrong

        whole = until(is_whole, HEALED_S)
        self._demand(whole, f"{len(wrong)} of {count} copies are not as they should be: {'; '.join(wrong[:5])}")
        self.history.checked("copies of pieces", count)

    # ------------------------------------------------------------------ the end

    def _check_everything(self) -> None:
        self.settle_all()
        fresh = self._field.mount("fresh")
        for writer in self.writers:
            self.check(writer, fresh.path, "fresh")
        count, wrong = contest.problems(fresh.path / contest.FOLDER, self.scores)
        self._demand(not wrong, f"names and records that two mounts made: {'; '.join(wrong[:5])}")
        self.history.checked("names and records", count)
        self._check_with_dfc()
        self.heal()
        self.check_copies()

    def _check_with_dfc(self) -> None:
        """Check every file of one writer through `dfc`."""
        writer = self.writers[0]
        target = self._options.logs / "got"
        got = self._field.dfc("get", "-r", f"/{writer.name}", target)
        self._demand(got.returncode == 0, f"dfc get: {got.stderr.decode(errors='replace')[-1000:]}")
        for path, entry in writer.journal.current.names.items():
            if entry.number:
                content = writer.journal.current.contents[entry.number]
                self._demand((target / path).read_bytes() == content, f"dfc get: {path} is another one")
                self.history.checked("files through dfc")

    def _demand(self, is_so: bool, text: str) -> None:
        if self.history.stopped.is_set():
            raise ViolationError("ended")
        if not is_so:
            self.history.violation(text)
            raise ViolationError(text)

    def _watch(self) -> None:
        while not self.history.stopped.wait(1.0):
            for late in self.history.late():
                self.history.violation(f"{late.who} on {late.mount}: {late.what} does not end")
        if self.history.violations and self.history.late():
            for mount in list(self._field.mounts.values()):
                mount.end()


def _words(fault: Fault) -> str:
    if fault.kind == "killed mount":
        return f"{fault.kind} {MOUNTS[fault.mount]}"
    return f"{fault.kind}: {', '.join(f'DFS{server}' for server in fault.servers)}"
