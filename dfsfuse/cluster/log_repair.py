"""Bringing a server's log up to date: the batches that it missed, or a copy of the whole map.

Pure procedures (`dfsfuse.cluster.procedures`). Needs no ballot: chosen batches are facts that anyone may pass on.

The copy is read page by page while the log goes on, so its pages are of different slots: it is a mixture. Batches
change keys absolutely, so applying those from the copy's first slot on makes the map right again at the slot of its
last page; until then the server answers no reads (`EndCopy.read_until`).
"""

from __future__ import annotations

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
from dfsfuse.cluster.procedures import ALL, RECEIVE, RECEIVE_SOFT, Ask, Procedure
from dfsfuse.cluster.proposer import Point

LAST_KEY: Final = b"\xff" * 16
PAGE_ITEMS: Final = 2000


def settle(
    point: Point, let_go: bytes = b"", *, silent: set[int] | None = None, enough: int = len(ALL)
) -> Procedure[dict[int, Position]]:
    """Tell all servers that this point is chosen. Returns where each stands afterwards that answered without delay.

    `let_go`: the client that gives up its writer lease. It does so at every pause, and others wait for it to end: it
    passes `LogState.silent`, whom nobody waits for, and how many answers are `enough`.
    """
    positions: dict[int, Position] = {}
    silent = set() if silent is None else silent
    waiting = set(ALL)
    yield Ask(dict.fromkeys(ALL, Chosen(point.slot, point.digest, let_go)))
    while waiting - silent and len(positions) < enough:
        event = yield RECEIVE_SOFT
        if event is None:  # they have been told, and that is all that matters
            silent |= waiting
            break
        waiting.discard(event.server)
        silent.discard(event.server)
        if isinstance(event.reply, Position):
            positions[event.server] = event.reply
    return positions


def bring_up_to_date(server: int, source: int, copy: bytes, *, patient: bool = True) -> Procedure[int]:
    """Give `server` what `source` has applied and it has not. Returns the slot that it has applied then.

    `copy` is a random id for a copy of the map, should it be needed. Without `patient` a short silence of one of the
    two is the end of it: somebody waits.
    """
    position = yield from _ask(server, GetPosition(), patient)
    if not isinstance(position, Position):
        return 0
    applied = position.applied
    while True:
        missing = yield from _ask(source, GetBatches(applied), patient)
        match missing:
            case Batches(first, found, _) if found:
                learnt = yield from _ask(server, Learn(first, found), patient)
                if not isinstance(learnt, Position) or learnt.applied <= applied:
                    return applied
                applied = learnt.applied
            case Error(status) if status == Status.TRIMMED:
                copied = yield from _copy_map(server, source, copy, patient)
                if copied <= applied:
                    return applied
                applied = copied
            case _:
                return applied


def _copy_map(server: int, source: int, copy: bytes, patient: bool) -> Procedure[int]:
    """Replace the server's map by a copy of the source's. Returns the slot of the copy; 0 if it failed."""
    position = yield from _ask(source, GetPosition(), patient)
    if not isinstance(position, Position) or position.applied == 0:
        return 0
    slot, digest = position.applied, position.digest
    if not isinstance((yield from _ask(server, BeginCopy(copy, slot, digest), patient)), Done):
        return 0
    start, count, read_until = b"\0", 0, slot
    while True:
        page = yield from _ask(source, ReadRange(slot, digest, start, LAST_KEY, PAGE_ITEMS), patient)
        if not isinstance(page, Items):
            return 0
        read_until = max(read_until, page.applied)
        count += len(page.items)
        if page.items and not isinstance((yield from _ask(server, CopyItems(copy, page.items), patient)), Done):
            return 0
        if not page.more:
            break
        start = page.items[-1][0] + b"\0"
    ended = yield from _ask(server, EndCopy(copy, count, read_until), patient=True)
    return ended.applied if isinstance(ended, Position) else 0


def _ask(server: int, request: Request, patient: bool) -> Procedure[Reply | Error | None]:
    yield Ask({server: request})
    event = yield RECEIVE if patient else RECEIVE_SOFT
    if event is None:
        return None
    if event.reply is None and event.status is not None:
        return Error(event.status, event.why)
    return event.reply
