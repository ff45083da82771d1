"""The health of one server: takes facts, and answers whether the server is worth asking.

Pure but for the clocks passed in. Not thread-safe: `Health` holds its lock around whatever changes something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from dfsfuse.net.health.circuit import Circuit
from dfsfuse.net.stalls import PIECE_S

ASK_FOR_ROOM_EVERY_S: Final = 1.0
"""How often a full server, to which nothing is sent any more, is asked whether it has room again."""
FIRST_SPARED_S: Final = PIECE_S + 1.0
"""How long a server that kept a caller waiting is spared at first: longer than a call may stall for which another
server can stand in, so that by then it is known to be down, or it answers."""
LONGEST_SPARED_S: Final = 60.0
MAX_FAULT_TEXT: Final = 300

Work = Literal["log", "data"]
"""The kinds of work in which a server is spared."""


class Fault(NamedTuple):
    """What one server did wrong since this client began: how often, when last (ns since 1970), and what that was."""

    times: int
    last_ns: int
    text: str


class Lapse(NamedTuple):
    """A server kept a caller waiting: until when it is spared for that, and for how long in all."""

    until: float
    span_s: float


class ServerHealth:
    """See the module."""

    __slots__ = ("_circuit", "_clock", "_room_due_at", "_time_ns", "comebacks", "fault", "lapses")

    def __init__(self, clock: Callable[[], float], time_ns: Callable[[], int]) -> None:
        self._clock = clock
        self._time_ns = time_ns
        self._circuit = Circuit(clock)
        self._room_due_at: float | None = None  # when a full server is to be asked for room; None: it has room
        self.comebacks = 0
        """How often it has answered again after it had been missing: each time it may have missed something."""
        self.lapses: dict[Work, Lapse] = {}
        """By kind of work, since it last answered."""
        self.fault: Fault | None = None
        """What it did wrong, for people: each time it was caught, and another server made up for it."""

    # ------------------------------------------------------------------ whether it answers

    @property
    def is_up(self) -> bool:
        """Return whether it is believed to answer."""
        return self._circuit.up

    @property
    def why_down(self) -> str:
        """Return why it is down, from its last failure."""
        return self._circuit.reason

    @property
    def trial_due_at(self) -> float:
        """Return the time of the next trial, if it is down."""
        return self._circuit.due_at

    def answered(self) -> bool:
        """Record a complete answer. Returns whether this is what brought it back."""
        is_back = self._circuit.answered()
        self.comebacks += is_back
        return is_back

    def failed(self, reason: str, *, quick: bool, tried: bool = True) -> bool:
        """Record that it did not answer (see `Circuit.failed`). Returns whether this is what took it down."""
        return self._circuit.failed(reason, quick=quick, tried=tried)

    def moved(self) -> None:
        """Record that it has another address: it may answer now, for a reason that has nothing to do with the past."""
        self._circuit.try_soon()

    def claim(self, *, late_s: float = 0.0, eager: bool = False) -> bool:
        """Return whether the caller may try it, when it is down; if so, no other caller may for a while. See
        `Circuit.claim`."""
        return self._circuit.claim(late_s=late_s, eager=eager)

    # ------------------------------------------------------------------ whether it has room

    @property
    def is_full(self) -> bool:
        """Return whether it is believed to have no room for data: then its part goes to others."""
        return self._room_due_at is not None

    def said_room(self, *, full: bool) -> bool:
        """Record whether, in an answer, it said it has room. Returns whether that is news."""
        is_news = full != self.is_full
        self._room_due_at = self._clock() + ASK_FOR_ROOM_EVERY_S if full else None
        return is_news

    def claim_asking_for_room(self) -> bool:
        """Return whether the caller should ask it now whether it has room; if so, no other caller should for a
        while."""
        now = self._clock()
        if self._room_due_at is None or now < self._room_due_at:
            return False
        self._room_due_at = now + ASK_FOR_ROOM_EVERY_S
        return True

    # ------------------------------------------------------------------ whether it is waited for

    def is_spared(self, work: Work) -> bool:
        """Return whether it recently kept a caller waiting in this kind of work, so that it is not waited for where
        others do."""
        lapse = self.lapses.get(work)
        return lapse is not None and self._clock() < lapse.until

    def lagged(self, work: Work) -> None:
        """Record that it kept a caller waiting for too long. Each consecutive time it is spared for twice as long."""
        now = self._clock()
        until, span_s = self.lapses.get(work, Lapse(now, FIRST_SPARED_S / 2))
        if now >= until:
            span_s = min(2 * span_s, LONGEST_SPARED_S)
            self.lapses[work] = Lapse(now + span_s, span_s)

    def was_prompt(self, work: Work) -> None:
        """Record that it answered a request of this kind that a caller waited for."""
        self.lapses.pop(work, None)

    # ------------------------------------------------------------------ what it did wrong

    def did_wrong(self, text: str) -> None:
        """Record that its answer was not what it should be. Nothing is decided by this: `dfc status` names the
        server."""
        times = self.fault.times if self.fault else 0
        self.fault = Fault(times + 1, self._time_ns(), text[:MAX_FAULT_TEXT])
