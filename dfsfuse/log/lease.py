"""The writer lease as counted by its holder: while it is held, changes are answered before they are committed.

| state | event | next |
|---|---|---|
| NONE | committed, with the lease | HELD, until `begun` + `ANSWERS_S`. The turn begins, unless it goes on |
| HELD | committed, with the lease | HELD, until later |
| NONE, HELD | committed, another client waits, and the turn is spent | ENDING: answers only what is committed |
| HELD | its time is over | NONE |
| HELD, ENDING | ended: overtaken, lost, in doubt | NONE |
| any | released: all that was answered is committed, and the servers are told | NONE. The turn is over; if another \
client waits to write, this one stays back for `YIELD_S` |

A *turn* lasts from the first batch that brings the lease until it is released, or until this client has to become the
writer again (a later term). Another client that waits to write lets it last `TURN_S`; one that waits to see what was
answered lets it last `LOOK_TURN_S`.

Pure: the caller passes in the time, by a clock that keeps running while the machine sleeps (`clocks.lease_clock`), and
ensures that only one thread at a time is here.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from dfs_server.protocol.limits import LEASE_S

ANSWERS_S: Final = 0.75 * LEASE_S
"""How long a holder answers, counted from before it sent the batch. The servers count `LEASE_S` from when they got it,
which was later. The last quarter is a margin for clocks that run at different speeds."""
TURN_S: Final = 0.1
"""How long a writer goes on while another client waits to write: long enough that the 10 to 20 ms that a handover takes
(more on a crowded machine) are the lesser part, and too short to be noticed."""
LOOK_TURN_S: Final = 0.03
"""The same while another client waits to see what was answered: it waits each time that it opens a file."""
YIELD_S: Final = 0.016
"""How long a writer whose turn is over holds back: a client that waits for it asks again within this time
(`quorum_log`)."""
SETTLE_AFTER_S: Final = 0.005
"""A pause of this length ends a turn of writing."""
NEVER: Final = float("-inf")


class LeaseState(Enum):
    """See the module."""

    NONE = "none"
    HELD = "held"
    ENDING = "ending"


class Lease:
    """See the module."""

    def __init__(self, answers_s: float = ANSWERS_S) -> None:
        self._answers_s = answers_s
        self._until = NEVER
        """When it ends, if it is HELD; else NEVER."""
        self._is_ending = False
        self._term = 0
        """How often this client had become the writer when it last committed."""
        self._turn_began_at = NEVER
        """NEVER: not in a turn."""
        self._is_wanted = False
        """Whether another client waits to write."""
        self._is_recalled = False
        """Whether another client waits to see what was answered."""
        self._stays_back_until = NEVER
        self._committed_at = NEVER
        self.is_owed = False
        """Whether servers may have given this client a lease of whose end they were not told."""

    def state(self, now: float) -> LeaseState:
        """Return the state at this time."""
        if self._is_ending:
            return LeaseState.ENDING
        return LeaseState.HELD if self.holds(now) else LeaseState.NONE

    def holds(self, now: float) -> bool:
        """Return whether what is decided now may be answered before it is committed: no other client can commit."""
        return now < self._until

    def is_spent(self, now: float) -> bool:
        """Return whether another client waits, and this one has had its turn. A client that looks again and again must
        not keep this one from writing, so it waits for a turn too; a shorter one."""
        began = self._turn_began_at
        return (self._is_wanted and now >= began + TURN_S) or (self._is_recalled and now >= began + LOOK_TURN_S)

    def is_idle(self, now: float) -> bool:
        """Return whether nothing was committed for so long that the turn is considered over."""
        return now >= self._committed_at + SETTLE_AFTER_S

    def stays_back_s(self, now: float) -> float:
        """Return how long to wait before proposing, so that the client that waited has its turn first: otherwise the
        one that has just released the lease would take it again."""
        return max(self._stays_back_until - now, 0.0)

    # -------------------------------------------------------------- events

    def proposed(self) -> None:
        """Record that a batch is about to be sent. Whatever its outcome, servers may give a lease with it."""
        self.is_owed = True

    def committed(
        self, begun: float, now: float, *, term: int, leased: bool, wanted: bool, recalled: bool, may_answer: bool
    ) -> None:
        """Record that a batch of this client, which it began to propose at `begun`, is chosen. `leased`: a quorum gave
        the lease with it. `wanted`, `recalled`: what the servers said about other clients. `may_answer`: False if the
        caller knows a reason not to answer before it commits."""
        if term != self._term:
            self._term, self._turn_began_at = term, NEVER
            self._is_wanted = self._is_recalled = False
        self._is_wanted |= wanted
        self._is_recalled |= recalled
        self._committed_at = now
        self._until = NEVER
        if not leased:
            return
        if self._turn_began_at == NEVER:
            self._turn_began_at = now
        self._is_ending = self.is_spent(now)
        if may_answer and not self._is_ending:
            self._until = begun + self._answers_s

    def end_turn(self) -> None:
        """End the turn, which is spent: answer nothing more."""
        self._until, self._is_ending = NEVER, True

    def ended(self) -> None:
        """Record that another client has committed, or that what was answered is lost or in doubt."""
        self._until, self._is_ending = NEVER, False

    def released(self, now: float) -> None:
        """Record that all pending changes are committed, and that the servers were told that this client does not need
        the lease."""
        if self._is_wanted:
            self._stays_back_until = now + YIELD_S
        self._is_wanted = self._is_recalled = self.is_owed = False
        self._turn_began_at = NEVER
        self.ended()
