"""Which faults strike, when, and for how long: `plan` draws them from the seed (pure), `Nemesis` injects them.

As a rule there is one fault at a time, with healing in between. Now and then a fault affects two servers, or all: then
the promise is "never wrong, never stuck", and failures are excused for the time (`Weather`).
"""

from __future__ import annotations

import contextlib
import random as random_numbers
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from . import copies
from .field import SERVERS, USER, Field, damage
from .history import History
from .worker import Worker

ONE: Final = (
    "kill",
    "restart",
    "freeze",
    "cut off",
    "full disk",
    "empty disk",
    "flipped bits",
    "cut pieces",
    "swapped pieces",
    "removed pieces",
    "spoilt small pieces",
    "spoilt map rows",
    "spoilt promises",
    "killed mount",
)
TWO: Final = ("two killed", "two frozen", "two cut off", "two full disks", "killed and frozen", "power cut")
DAMAGE: Final = {"flipped bits": "flip", "cut pieces": "cut", "swapped pieces": "swap", "removed pieces": "remove"}
DAMAGED_PIECES: Final = 4
HANGS: Final = ("freeze", "cut off")
"""One server neither answers nor refuses: no operation may take longer than `PROMISED_S` because of it."""
SPOILT_ROWS: Final = {"spoilt map rows": copies.spoil_map_rows, "spoilt promises": copies.spoil_promises}
LEAVES_DAMAGE: Final = frozenset({*DAMAGE, *SPOILT_ROWS, "empty disk", "spoilt small pieces"})
"""After these a server lacks pieces or records, which only healing restores."""
ROUND: Final = 5
"""Number of single faults before each double one."""


@dataclass(frozen=True)
class Fault:
    """A fault to inject. `servers` are numbers, `mount` counts from 0."""

    kind: str
    servers: tuple[int, ...]
    mount: int
    lasts_s: float


def plan(seed: int, *, has_disks: bool, kinds: Sequence[str] = ONE + TWO) -> Iterator[Fault]:
    """Yield faults without end. Every kind comes once before any comes again."""
    random = random_numbers.Random(f"nemesis {seed}")
    bags: dict[bool, list[str]] = {True: [], False: []}
    position = 0
    while True:
        position += 1
        is_double = position % (ROUND + 1) == 0
        chosen = [kind for kind in (TWO if is_double else ONE) if kind in kinds and (has_disks or "full" not in kind)]
        if not chosen:
            continue
        if not bags[is_double]:
            bags[is_double] = random.sample(chosen, len(chosen))
        kind = bags[is_double].pop()
        count = SERVERS if kind == "power cut" else 2 if is_double else 1
        servers = tuple(random.sample(range(1, SERVERS + 1), count))
        yield Fault(kind, servers, random.randrange(2), round(random.uniform(1.5, 4.0), 1))


class Nemesis:
    """Carries a plan out."""

    def __init__(self, field: Field, history: History, workers: Sequence[Worker], seed: int) -> None:
        self._field = field
        self._history = history
        self._workers = workers
        self._random = random_numbers.Random(f"damage {seed}")

    def strike(self, fault: Fault) -> None:
        """Inject the fault, let it last, and undo it. Healing repairs what it leaves behind."""
        self._history.note(fault=fault.kind, servers=fault.servers, mount=fault.mount, lasts_s=fault.lasts_s)
        names = list(self._field.mounts)
        if fault.kind == "killed mount":
            with self._history.weather.spell(fault.kind, rough=True, mount=names[fault.mount]):
                self._kill_mount(names[fault.mount], fault.lasts_s)
            return
        is_rough = len(fault.servers) > 1
        with self._history.weather.spell(fault.kind, rough=is_rough), contextlib.ExitStack() as undo:
            if fault.kind == "power cut":
                self._field.cut_power()
            for server, kind in zip(fault.servers, self._each(fault), strict=True):
                self._begin(kind, server, undo)
            self._last(fault.lasts_s)

    def _each(self, fault: Fault) -> list[str]:
        """Apply the fault to each of its servers."""
        many = {"two killed": "kill", "two frozen": "freeze", "two cut off": "cut off", "two full disks": "full disk"}
        if fault.kind == "killed and frozen":
            return ["kill", "freeze"]
        if fault.kind == "power cut":
            return ["kill"] * SERVERS
        return [many.get(fault.kind, fault.kind)] * len(fault.servers)

    def _begin(self, kind: str, number: int, undo: contextlib.ExitStack) -> None:
        server = self._field.servers[number]
        match kind:
            case "kill":
                server.kill()
                undo.callback(server.start)
            case "restart":
                server.restart()
            case "freeze":
                server.freeze()
                undo.callback(server.thaw)
            case "cut off":
                self._field.network.cut(number)
                undo.callback(self._field.network.join, number)
            case "full disk":
                self._field.fill_disk(number)
                undo.callback(self._field.free_disk, number)
            case "empty disk":
                self._field.empty_disk(number)
                undo.callback(server.start)
            case "spoilt small pieces":
                server.kill()
                undo.callback(server.start)
                copies.spoil_small_pieces(server.root, USER, DAMAGED_PIECES)
            case "spoilt map rows" | "spoilt promises":
                server.kill()
                undo.callback(server.start)
                SPOILT_ROWS[kind](server.root, USER, self._random)
            case _:
                self._damage(DAMAGE[kind], number)

    def _damage(self, how: str, number: int) -> None:
        root = self._field.servers[number].root
        used = {
            f"{copy.segment.hex()}.{copy.number}"
            for copy in copies.due(root, USER, newest=False)
            if copy.server == number
        }
        files = [path for path in self._field.piece_files(number) if path.name in used]  # others await deletion
        self._random.shuffle(files)
        for path, other in zip(files[:DAMAGED_PIECES], files[DAMAGED_PIECES : 2 * DAMAGED_PIECES], strict=False):
            with contextlib.suppress(FileNotFoundError):
                damage(path, how, other, self._random)

    def _kill_mount(self, name: str, lasts_s: float) -> None:
        mount = self._field.mounts[name]
        mount.kill()
        with contextlib.ExitStack() as held:
            for worker in self._workers:
                if worker.mount_name == name:
                    held.enter_context(worker.lock)
                    worker.is_crashed = True
            self._last(lasts_s)
            mount.mount()

    def _last(self, seconds: float) -> None:
        """Let the fault last, or until the run is over."""
        self._history.stopped.wait(seconds)


def until(condition: Callable[[], bool], within_s: float, pause_s: float = 0.5) -> bool:
    """Poll; return whether the condition came to hold."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True
