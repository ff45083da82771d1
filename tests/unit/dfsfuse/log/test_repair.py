"""Bringing a server up to date, step by step: which servers are asked, and what ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dfs_server.protocol.ballots import ZERO
from dfs_server.protocol.messages import (
    Batches,
    CopyItems,
    Done,
    EndCopy,
    Error,
    GetBatches,
    Items,
    Learn,
    Position,
    ReadRange,
    Reply,
    Request,
)
from dfs_server.protocol.status import Status
from dfsfuse.log.procedures import Ask, Event, Procedure, Receive
from dfsfuse.log.proposer import Point
from dfsfuse.log.repair import MapCopy, Passed, copy_page, pass_on

R = TypeVar("R")
TRIMMED = Error(Status.TRIMMED, "trimmed")
BEHIND = 4


def run(procedure: Procedure[R], answer: Callable[[int, Request], Reply | Error]) -> R:
    """Run the procedure to its end; `answer` replies to each request at once."""
    event: Event | None = None
    try:
        while True:
            match procedure.send(event):
                case Ask(requests):
                    ((server, request),) = requests.items()
                    event = None
                    reply = answer(server, request)
                case Receive():
                    is_error = isinstance(reply, Error)
                    event = Event(server, None if is_error else reply, "", reply.status if is_error else None)
    except StopIteration as stop:
        result: R = stop.value
        return result


def passed_on(logs: dict[int, Reply | Error]) -> Passed:
    """Pass on to a server at slot 0 what these servers say they have after it."""
    applied = [0]

    def answer(server: int, request: Request) -> Reply | Error:
        match request:
            case GetBatches(after):
                return logs[server] if not after else Batches(after + 1, (), after)
            case Learn(first, learnt):
                assert server == BEHIND
                applied[0] = first + len(learnt) - 1
        return Position(applied[0], b"", ZERO)

    return run(pass_on(BEHIND, tuple(logs)), answer)


def test_batches_come_from_the_first_server_whose_log_reaches_back() -> None:
    """A server that just got a copy of the map has no log: the next server's log shows that no copy is needed."""
    assert passed_on({1: TRIMMED, 2: Batches(1, (b"1", b"2"), 2)}) == Passed(2)
    assert passed_on({1: Error(Status.IO_ERROR, ""), 2: Batches(1, (b"1",), 1)}) == Passed(1)


def test_a_copy_is_needed_only_if_no_server_has_the_batches() -> None:
    assert passed_on({1: TRIMMED, 2: Error(Status.IO_ERROR, ""), 3: TRIMMED}) == Passed(0, trimmed=True)
    assert passed_on({1: Error(Status.IO_ERROR, "")}) == Passed(0)
    assert passed_on({1: Batches(1, (), 0)}) == Passed(0)


def copied(pages: dict[int, list[Reply | Error]]) -> tuple[bool, MapCopy]:
    """Copy all pages; each server answers with its own, in order. Returns whether the last step goes on, and the
    copy."""
    copy = MapCopy(BEHIND, b"id", Point(5, b"of 5"), read_until=5)
    items = [0]

    def answer(server: int, request: Request) -> Reply | Error:
        match request:
            case ReadRange():
                return pages[server].pop(0)
            case CopyItems(_, new):
                items[0] += len(new)
                return Done()
            case EndCopy(_, count, read_until):
                assert (count, read_until) == (items[0], copy.read_until)
        return Position(5, b"of 5", ZERO)

    goes_on = True
    while goes_on and not copy.applied:
        goes_on = run(copy_page(copy, tuple(pages)), answer)
    return goes_on, copy


def test_pages_may_be_of_several_servers_and_slots() -> None:
    away = Error(Status.IO_ERROR, "")
    first, last = Items(7, ((b"a", b"1"), (b"b", b"1")), more=True), Items(6, ((b"c", b"1"),), more=False)
    done, copy = copied({1: [first, away], 2: [last]})
    assert done
    assert (copy.applied, copy.items, copy.read_until) == (5, 3, 7)


def test_a_page_that_leads_nowhere_ends_the_copy() -> None:
    """Otherwise it would silently go on forever."""
    backwards = Items(5, ((b"a", b"1"),), more=True)
    assert copied({1: [Items(5, ((b"b", b"1"),), more=True), backwards]})[0] is False
    assert copied({1: [Items(5, (), more=True)]})[0] is False


def test_an_empty_map_is_copied_too() -> None:
    done, copy = copied({1: [Items(5, (), more=False)]})
    assert done
    assert (copy.applied, copy.items) == (5, 0)


def test_without_an_answer_nothing_is_known() -> None:
    assert run(pass_on(BEHIND, (1,)), lambda _server, _request: Error(Status.BUSY, "")) == Passed(0)
