"""What the data layer needs of the cluster, and the one loop that runs a race with it.

The loop does what the race says and reports the outcomes. It waits on the exchange only, never longer than until the
race wants to be asked again or the deadline has come, and leaves nothing in flight: a call that is still unfinished
when it ends is abandoned with the exchange, so no buffer is written to or read from afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

from dfsfuse.data.race import Attempt, Race
from dfsfuse.net.asking import ExchangeLike
from dfsfuse.net.exchange import Answer, Call, Failure
from dfsfuse.net.health.health import Health, Spared

SHORTEST_WAIT_S: Final = 0.001


class ClusterLike(Protocol):
    """The four servers as one: see `dfsfuse.net.cluster.Cluster`."""

    @property
    def names(self) -> Mapping[int, str]: ...
    @property
    def health(self) -> Health: ...
    def usable(self) -> frozenset[int]: ...
    def recheck(self) -> frozenset[int]: ...
    def full(self) -> frozenset[int]: ...
    @property
    def excused_at(self) -> float: ...
    def note_fault(self, server: int, what: str) -> None: ...
    def exchange(self) -> ExchangeLike: ...
    def ask_one(self, call: Call, patience_s: float) -> Answer | ExchangeLike:
        """Return the answer, if it comes within `patience_s`; else an exchange, not yet entered, that has the call."""
        ...


class Job(Protocol):
    """The subject of a race: makes the calls and judges the replies."""

    @property
    def race(self) -> Race: ...

    def call(self, attempt: Attempt) -> Call:
        """Return the request for this attempt."""

    def finished(self, attempt: Attempt, result: Answer | Failure, now: float) -> None:
        """Judge the result and report it to the race."""

    def expired(self) -> None:
        """Time is up: consider everything pending lost."""

    def check(self) -> None:
        """Raise the user's error if there is no hope left."""


class Begun(NamedTuple):
    """A race's first attempt, made before there was a race: its call is with an exchange that was not entered yet."""

    attempt: Attempt
    call: Call
    exchange: ExchangeLike


def run(
    job: Job,
    cluster: ClusterLike,
    *,
    deadline_s: float,
    clock: Callable[[], float],
    begun: Begun | None = None,
) -> None:
    """Carry out the job. Returns when its race is done; raises what `job.check` raises."""
    race, spared = job.race, cluster.health.data
    attempts: dict[Call, Attempt] = {} if begun is None else {begun.call: begun.attempt}
    deadline = clock() + deadline_s
    with cluster.exchange() if begun is None else begun.exchange as exchange:
        try:
            while not race.done():
                now = clock()
                deadline = max(deadline, cluster.excused_at + deadline_s)
                if now >= deadline:
                    job.expired()
                while (attempt := race.take(now)) is not None:  # all of them before waiting
                    call = job.call(attempt)
                    attempts[call] = attempt
                    exchange.start(call)
                job.check()
                result = exchange.next(_wait_s(race, now, deadline))
                if result is not None:
                    _report(job, attempts.pop(result.call), result, spared, clock())
        finally:
            spared.lagged(race.laggards(clock()))


def _wait_s(race: Race, now: float, deadline: float) -> float:
    wake_in_s = race.wake_in_s(now)
    left_s = deadline - now
    return max(left_s if wake_in_s is None else min(left_s, wake_in_s), SHORTEST_WAIT_S)


def _report(job: Job, attempt: Attempt, result: Answer | Failure, spared: Spared, now: float) -> None:
    if isinstance(result, Answer) or result.status is not None:
        spared.answered(attempt.server)
    job.finished(attempt, result, now)
