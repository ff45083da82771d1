"""A process whose threads run one at a time, in virtual time: their interleaving is the same in every run.

`install()` replaces the locks, threads and clocks of the standard library. It needs a separate process, in which it
must be imported first: modules imported earlier have the real ones. From then on a thread runs until it waits: for a
lock, an event, a queue, the end of another thread, or a point in time. Then the thread that has been ready for longest
goes on; if none is ready, time advances to the first point that any thread waits for. A wait that nothing can end is
an error that shows all stacks, and never a hang.

It counts hand-overs: a thread that waited goes on because another thread did something (released a lock, set an
event, put something into a queue, ended), which costs a system call and a context switch on a real machine. A wait
that ends by its timeout is not a hand-over.

Threads run in the order of their waits and never in parallel, so a hand-over that a real machine may avoid (a worker
that is done before a thread waits for it) always happens here.
"""

from __future__ import annotations

import _thread
import heapq
import itertools
import os
import queue
import random
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

_start_thread = _thread.start_new_thread
_real_lock = _thread.allocate_lock
EPOCH_NS: Final = 1_700_000_000 * 10**9
LOOK_S: Final = 1e-8
"""Time that passes at each reading of the clock, so that later readings are strictly later."""
STUCK: Final = 3
"""The exit status of a process in which no thread can go on."""


class _Turn:
    """A thread, as the schedule sees it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.gate = _real_lock()
        """Held while the thread must not run."""
        self.gate.acquire()
        self.waits = 0
        """The number of its current wait; timeouts of earlier waits are void."""
        self.is_waiting = False
        self.was_woken = False


class Schedule:
    """Decides which thread runs. Only the running thread uses it, so it needs no lock."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.hand_overs: Counter[tuple[str, str]] = Counter()
        """By the names of the thread that went on and of the thread that let it go on."""
        self._running = _Turn("main")
        self._ready: deque[_Turn] = deque()
        self._timers: list[tuple[float, int, _Turn, int]] = []
        self._order = itertools.count()

    @property
    def running(self) -> _Turn:
        return self._running

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until another thread calls `wake`. Returns false if the timeout comes first."""
        me = self._running
        me.waits += 1
        me.is_waiting, me.was_woken = True, False
        if timeout_s is not None:
            heapq.heappush(self._timers, (self.now_s + max(timeout_s, 0.0), next(self._order), me, me.waits))
        self._pass_on(me)
        return me.was_woken

    def sleep(self, seconds: float) -> None:
        """Let time pass while other threads run."""
        self.wait(seconds)

    def wake(self, turn: _Turn) -> None:
        """Let this thread go on."""
        turn.is_waiting, turn.was_woken = False, True
        self._ready.append(turn)
        self.hand_overs[turn.name, self._running.name] += 1

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Add a new thread, ready to run."""
        turn = _Turn(name)

        def live() -> None:
            turn.gate.acquire()
            try:
                work()
            finally:
                self._running = self._next()
                self._running.gate.release()

        self._ready.append(turn)
        self.hand_overs[name, self._running.name] += 1
        _start_thread(live, ())

    def _pass_on(self, me: _Turn) -> None:
        self._running = self._next()
        if self._running is not me:
            self._running.gate.release()
            me.gate.acquire()

    def _next(self) -> _Turn:
        if self._ready:
            return self._ready.popleft()
        while self._timers:
            when, _, turn, which = heapq.heappop(self._timers)
            if turn.is_waiting and turn.waits == which:
                self.now_s = max(self.now_s, when)
                turn.is_waiting = False
                return turn
        print("no thread can go on, each waits for another one:", file=sys.stderr)
        for frame in sys._current_frames().values():
            print(*traceback.format_stack(frame)[-8:], sep="", file=sys.stderr)
        sys.stderr.flush()
        os._exit(STUCK)


schedule: Final = Schedule()


class Lock:
    """`threading.Lock`. Releasing it hands it to the thread that has waited for longest."""

    def __init__(self) -> None:
        self._is_held = False
        self._waiting: deque[_Turn] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not self._is_held:
            self._is_held = True
            return True
        if not blocking or timeout == 0:
            return False
        me = schedule.running
        self._waiting.append(me)
        if schedule.wait(None if timeout < 0 else timeout):
            return True
        with suppress(ValueError):
            self._waiting.remove(me)
        return False

    def release(self) -> None:
        if not self._is_held:
            raise RuntimeError("release unlocked lock")
        if self._waiting:
            schedule.wake(self._waiting.popleft())
        else:
            self._is_held = False

    def locked(self) -> bool:
        return self._is_held

    def _at_fork_reinit(self) -> None:
        """Required by `concurrent.futures`; nothing forks here."""

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Thread:
    """The part of `threading.Thread` that is used here."""

    _numbers = itertools.count(1)

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self.name = name or f"Thread-{next(self._numbers)}"
        self.daemon = bool(daemon)
        self.ident: int | None = None
        self._target = target
        self._args = args
        self._kwargs = dict(kwargs or {})
        self._is_over = False
        self._joining: list[_Turn] = []

    def start(self) -> None:
        if self.ident is not None:
            raise RuntimeError("threads can only be started once")
        self.ident = next(self._numbers)
        schedule.start(self.name, self._live)

    def run(self) -> None:
        if self._target is not None:
            self._target(*self._args, **self._kwargs)

    def join(self, timeout: float | None = None) -> None:
        if self.ident is None:
            raise RuntimeError("cannot join thread before it is started")
        if not self._is_over:
            self._joining.append(schedule.running)
            schedule.wait(timeout)

    def is_alive(self) -> bool:
        return self.ident is not None and not self._is_over

    def _live(self) -> None:
        try:
            self.run()
        except BaseException:  # noqa: BLE001 (a thread's failure is a failure of the whole process here)
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        finally:
            self._is_over = True
            for turn in self._joining:
                if turn.is_waiting:
                    schedule.wake(turn)


class _SeededRandom(random.Random):
    """`random.Random`, with the same numbers in every run."""

    _seeds = itertools.count(1)

    def __init__(self, seed: object = None) -> None:
        super().__init__(next(self._seeds) if seed is None else seed)  # type: ignore[arg-type]


class _Current(NamedTuple):
    """The result of `threading.current_thread()`, with just enough for `logging`."""

    name: str


def _current_thread() -> _Current:
    return _Current(schedule.running.name)


def _clock_s(_clock: int = 0) -> float:
    schedule.now_s += LOOK_S
    return schedule.now_s


def _time_ns() -> int:
    return EPOCH_NS + round(schedule.now_s * 1e9)


def install() -> Schedule:
    """See the module."""
    late = [name for name in sys.modules if name.startswith(("dfsfuse", "dfs_server", "concurrent.futures"))]
    assert not late, f"imported before lockstep was installed: {late}"
    for module, names in {
        threading: {
            "Lock": Lock,
            "_allocate_lock": Lock,
            "_CRLock": None,
            "Thread": Thread,
            "_time": _clock_s,
            "current_thread": _current_thread,
        },
        queue: {"SimpleQueue": queue._PySimpleQueue, "time": _clock_s},  # type: ignore[attr-defined]
        time: {
            "monotonic": _clock_s,
            "perf_counter": _clock_s,
            "clock_gettime": _clock_s,
            "clock_gettime_ns": lambda _: _time_ns(),
            "time": lambda: _time_ns() / 1e9,
            "time_ns": _time_ns,
            "sleep": schedule.sleep,
        },
    }.items():
        for name, value in names.items():
            setattr(module, name, value)
    chance = _SeededRandom()
    os.urandom = random._urandom = chance.randbytes  # type: ignore[attr-defined]
    random.Random = _SeededRandom  # type: ignore[misc]
    return schedule
