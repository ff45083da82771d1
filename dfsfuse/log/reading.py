"""The client's side of reading the log and the map, step by step: what to ask, in which order, and what follows.

Pure: procedures (`dfsfuse.log.procedures`), which the same code drives over real connections and in the simulation.

Procedures:
- `catch_up`: learn how far the log goes, and what changed since we last looked (a linearizable read). What stays in
  doubt is finished: the reader leads for a moment (`writing`).
- `read`: ask a server for values at the known point or later, and the next ones if it is slow or does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dfs_server.protocol import batches
from dfs_server.protocol.messages import GetPosition, Items, ReadKeys, ReadRange, Values
from dfs_server.protocol.status import Status
from dfsfuse.errors import NoSpaceError, ReadOnlyError, UnavailableError
from dfsfuse.log import key_portions
from dfsfuse.log.key_portions import TooMuchAtOnceError
from dfsfuse.log.procedures import Pause, Procedure
from dfsfuse.log.proposer import NoQuorum, Point
from dfsfuse.log.rounds import first_of, follow, gather, learn_from
from dfsfuse.log.state import LogState
from dfsfuse.log.survey import InDoubt, Newest, Survey
from dfsfuse.log.writing import try_to_lead

DOUBTS: Final = 6
"""How often a reader waits for an active writer before it finishes that writer's batch itself."""


def catch_up(log: LogState, *, recall: bool = True) -> Procedure[bool]:
    """Learn everything that was acknowledged before this began. Returns False if too few servers answer: then it is
    what they know, and `log.witnesses` are servers that show this to be everything, if they have forgotten nothing.

    `recall`: also learn what another client has answered under its lease: it is told to commit that. Raises
    UnavailableError if no server answers.
    """
    attempt = doubts = goal = 0
    leases: dict[int, int] = {}
    log.witnesses = frozenset()
    while True:
        survey = Survey(log.quorum, known=log.known, leases=leases if recall else None)
        found = yield from gather(log, survey, survey.verdict, GetPosition(log.client if recall else b""))
        if survey.is_free():
            match found:
                case Newest(point, holders):
                    yield from follow(log, point, holders)
                    return True
                case NoQuorum():
                    if not survey.positions:
                        raise UnavailableError("no server answers")
                    yield from follow(log, survey.best(), survey.appliers())
                    log.witnesses = survey.witnesses()
                    return False
                case InDoubt():
                    # What was acknowledged before we began is at or before the slot in doubt: once that slot is
                    # decided, doubts about later ones do not matter.
                    if goal and survey.best().slot >= goal:
                        yield from follow(log, survey.best(), survey.appliers())
                        return True
                    goal = goal or survey.best().slot + 1
                    doubts += 1
                    if doubts > DOUBTS:
                        try:
                            if (yield from try_to_lead(log)):
                                return True
                        # enough answer, but too few can write: full disks, for example
                        except (ReadOnlyError, NoSpaceError):
                            yield from follow(log, survey.best(), survey.appliers())
                            return False
        attempt += 1
        yield Pause(min(attempt, 4))


def read(
    log: LogState, order: tuple[int, ...], make: Callable[[Point], ReadKeys | ReadRange]
) -> Procedure[Values | Items]:
    """Return the reply of a server that is at `log.known` or later; they are asked in this order.

    If it is later, the changes in between are learnt first. Raises UnavailableError if no server can answer, and
    TooMuchAtOnceError if a reply has no room for the values.
    """
    reasons: list[str] = []
    has_room = True
    left = list(order)
    while left:
        spared = log.spared.now()
        left.sort(key=lambda server: server in spared)
        request = make(log.known)
        event = yield from first_of(log, left, request)
        server, reply = event.server, event.reply
        left.remove(server)
        if not isinstance(reply, Values | Items):
            reasons.append(event.why or f"server {server} is behind")
            if isinstance(request, ReadKeys) and key_portions.may_lack_room(event.status, request.keys):
                has_room = False
                if event.status == Status.TOO_MUCH:  # the others have the same values
                    break
            continue
        others = [other for other in order if other != server]
        if (yield from learn_from(log, [server, *others], Point(reply.applied, batches.NO_BATCH))):
            return reply
        reasons.append(f"server {server} is further, and no longer knows what changed in between")
    failure = UnavailableError if has_room else TooMuchAtOnceError
    raise failure("no server can answer this read: " + "; ".join(reasons))
