"""Bringing a server's log up to date: the batches that it missed, or a copy of the whole map.

Pure procedures (`dfsfuse.log.procedures`). Needs no ballot: chosen batches are facts that anyone may pass on.

The copy is read page by page while the log goes on, so its pages are of different slots: it is a mixture. Batches
change keys absolutely, so applying those from the copy's first slot on makes the map right again at the slot of its
last page; until then the server answers no reads (`EndCopy.read_until`). It does not matter which server a page is of.

A copy may take minutes, so it is not a single procedure: `begin_copy`, then `copy_page` until it is over (`MapCopy`).
Between two pages the copier may do something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dfs_server.protocol.messages import (
    Batches,
    BeginCopy,
    Chosen,
    CopyItems,
    Done,
    EndCopy,
    Error,
    GetBatches,
    GetPosition,
    Items,
    Learn,
    Position,
    ReadRange,
    Reply,
    Request,
)
from dfs_server.protocol.status import Status
from dfsfuse.log.procedures import ALL, RECEIVE, RECEIVE_SOFT, Ask, Procedure
from dfsfuse.log.proposer import Point
from dfsfuse.net.health.health import Spared

LAST_KEY: Final = b"\xff" * 16
PAGE_ITEMS: Final = 2000


def settle(
    point: Point, spared: Spared, let_go: bytes = b"", *, enough: int = len(ALL)
) -> Procedure[dict[int, Position]]:
    """Tell all servers that this point is chosen. Returns the positions of those that answered without delay.

    Servers that are `spared` are not waited for. `let_go`: the client that releases its writer lease, as it does at
    every pause. Other clients wait for this to end, so it says how many answers are `enough`.
    """
    positions: dict[int, Position] = {}
    waiting = set(ALL)
    yield Ask(dict.fromkeys(ALL, Chosen(point.slot, point.digest, let_go)))
    while waiting - spared.now() and len(positions) < enough:
        event = yield RECEIVE_SOFT
        if event is None:  # they have been told, and that is all that matters
            spared.lagged(waiting)
            break
        waiting.discard(event.server)
        if event.is_answer:
            spared.answered(event.server)
        if isinstance(event.reply, Position):
            positions[event.server] = event.reply
    return positions


def look(point: Point) -> Procedure[dict[int, Position]]:
    """The same, but wait for every server that answers at all, however slow it is."""
    positions: dict[int, Position] = {}
    yield Ask(dict.fromkeys(ALL, Chosen(point.slot, point.digest)))
    for _ in ALL:
        event = yield RECEIVE
        if event is not None and isinstance(event.reply, Position):
            positions[event.server] = event.reply
    return positions


# ------------------------------------------------------------------ batches


@dataclass(frozen=True, slots=True)
class Passed:
    """The outcome of passing batches on: the slot that the server has applied now (0: it does not say)."""

    applied: int
    trimmed: bool = False
    """No log reaches back to what it lacks: it needs a copy of the map."""


def pass_on(server: int, sources: Sequence[int], *, patient: bool = True) -> Procedure[Passed]:
    """Give `server` the batches that it lacks, from the first of the sources that has them.

    Without `patient` a short silence of the server ends this: someone is waiting.
    """
    position = yield from _ask(server, GetPosition(), patient)
    if not isinstance(position, Position):
        return Passed(0)
    applied = position.applied
    trimmed = False
    left = list(sources)
    while left:
        missing = yield from _ask(left[0], GetBatches(applied), patient)
        if not isinstance(missing, Batches):
            trimmed = trimmed or (isinstance(missing, Error) and missing.status == Status.TRIMMED)
            del left[0]
            continue
        if not missing.batches:
            return Passed(applied)
        learnt = yield from _ask(server, Learn(missing.first, missing.batches), patient)
        if not isinstance(learnt, Position) or learnt.applied <= applied:
            return Passed(applied)
        applied, trimmed = learnt.applied, False
    return Passed(applied, trimmed)


# ------------------------------------------------------------------ the whole map


@dataclass(slots=True)
class MapCopy:
    """A copy of the map in progress to `server`: as of which point, and how far it has got."""

    server: int
    id: bytes
    point: Point
    next_key: bytes = b"\0"
    items: int = 0
    read_until: int = 0
    applied: int = 0
    """The slot that the server has applied when the copy is over; 0 until then."""


def begin_copy(server: int, sources: Sequence[int], id: bytes) -> Procedure[MapCopy | Error | None]:
    """Begin to replace the server's map by a copy of what the sources have. `id` must never have been used before.

    None, or the server's Error, if it cannot be: COPYING, if another client is about it.
    """
    for source in sources:
        position = yield from _ask(source, GetPosition())
        if isinstance(position, Position) and position.applied:
            point = Point(position.applied, position.digest)
            begun = yield from _ask(server, BeginCopy(id, point.slot, point.digest))
            if isinstance(begun, Done):
                return MapCopy(server, id, point, read_until=point.slot)
            return begun if isinstance(begun, Error) else None
    return None


def copy_page(copy: MapCopy, sources: Sequence[int]) -> Procedure[bool]:
    """Copy one more page, and end the copy after the last one. Returns False if it failed, and is of no further use."""
    page = yield from _read_page(copy, sources)
    if page is None:
        return False
    copy.read_until = max(copy.read_until, page.applied)
    if page.items and not isinstance((yield from _ask(copy.server, CopyItems(copy.id, page.items))), Done):
        return False
    copy.items += len(page.items)
    if page.more:
        copy.next_key = page.items[-1][0] + b"\0"
        return True
    ended = yield from _ask(copy.server, EndCopy(copy.id, copy.items, copy.read_until))
    if not isinstance(ended, Position):
        return False
    copy.applied = ended.applied
    return copy.applied > 0


def _read_page(copy: MapCopy, sources: Sequence[int]) -> Procedure[Items | None]:
    """Read the next page, from the first source that has it."""
    wanted = ReadRange(copy.point.slot, copy.point.digest, copy.next_key, LAST_KEY, PAGE_ITEMS)
    for source in sources:
        page = yield from _ask(source, wanted)
        if not isinstance(page, Items):
            continue
        # otherwise endless
        if (page.items and page.items[0][0] >= copy.next_key) or (not page.items and not page.more):
            return page
    return None


def _ask(server: int, request: Request, patient: bool = True) -> Procedure[Reply | Error | None]:
    yield Ask({server: request})
    event = yield RECEIVE if patient else RECEIVE_SOFT
    if event is None:
        return None
    if event.reply is None and event.status is not None:
        return Error(event.status, event.why)
    return event.reply
