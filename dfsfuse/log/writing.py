"""The client's side of writing the log, step by step: what to ask, in which order, and what follows.

Pure: procedures (`dfsfuse.log.procedures`), which the same code drives over real connections and in the simulation.

Procedures:
- `lead`: become the client that may propose (phase 1), finishing what a predecessor left.
- `commit`: propose a batch until it is chosen, or until what it was based on has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from dfs_server.protocol import batches
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import Batch
from dfs_server.protocol.messages import Accept, Change, Learn, Promise
from dfsfuse.errors import MaybeDoneError, NoSpaceError, ReadOnlyError, UnavailableError, too_few_to_write
from dfsfuse.log.procedures import Ask, Await, DeadlineError, Pause, Procedure
from dfsfuse.log.proposer import IsChosen, Leased, NoQuorum, Outranked, Overtaken, Point, Prepare, Propose, Won
from dfsfuse.log.repair import pass_on
from dfsfuse.log.rounds import follow, gather
from dfsfuse.log.state import Contents, LogState, News

QUORUM_TRIES: Final = 4
"""How often a promise is requested if too few answer: when one server dies just after another came back, that one
may not have been noticed yet, and what was sent under the last ballot would be in doubt."""


def lead(log: LogState) -> Procedure[None]:
    """Get the promise of a quorum, learn what was chosen before, and finish what may be chosen.

    Afterwards `log.ballot` is set and `log.known` is the end of the log. Waits while another client has the writer
    lease. Raises ReadOnlyError without a quorum that can accept, after several tries.
    """
    attempt = missed = 0
    while True:
        try:
            if (yield from try_to_lead(log)):
                return
        except ReadOnlyError:
            missed += 1
            if missed == QUORUM_TRIES:
                raise
            log.spared.needed()  # they are needed, and may only be slow
            yield Await(missed)
        else:
            attempt += 1
            yield Pause(attempt)


def try_to_lead(log: LogState) -> Procedure[bool]:
    """`lead`, once. Returns False if another client has the lease, or a higher ballot."""
    log.ballot = None
    log.wanted = log.recalled = False
    ballot = log.highest = log.highest.above(log.client)
    prepare = Prepare(log.quorum, ballot=ballot)
    match (yield from gather(log, prepare, prepare.verdict, Promise(ballot))):
        case NoQuorum(answered):
            raise _refusal(log, too_few_to_write(answered), answered)
        case Outranked(higher):
            log.highest = max(log.highest, higher)
        case Leased():
            pass
        case Won(base, holders, behind, unfinished):
            yield from follow(log, base, holders)
            able = len(prepare.promised) - len(behind)
            if able < log.quorum:
                applied = {server: prepare.promised[server].applied for server in behind}
                able += yield from _bring_up_to_date(applied, holders, base, log.quorum - able)
            if able < log.quorum:
                raise _refusal(log, _too_few_able(able), able)
            if unfinished is None or unfinished.slot != log.known.slot + 1:
                log.ballot = ballot
                log.terms += 1
                return True
            digest = batches.digest(unfinished.batch)
            match (yield from _propose(log, ballot, unfinished.batch, digest)):
                case IsChosen():
                    log.learnt(_change(unfinished.slot, unfinished.batch))
                    log.ballot = ballot
                    log.terms += 1
                    return True
                case NoQuorum(answered):
                    raise _refusal(log, too_few_to_write(answered), answered)
    return False


def _propose(
    log: LogState, ballot: Ballot, encoded: bytes, digest: bytes
) -> Procedure[IsChosen | Outranked | Overtaken | NoQuorum]:
    """Phase 2 at the slot after `log.known`. Unless it is chosen for certain, it may still have been chosen."""
    slot = log.known.slot + 1
    for last in (False, True):
        propose = Propose(log.quorum, slot=slot, digest=digest)
        found = yield from gather(log, propose, propose.verdict, Accept(ballot, slot, encoded, log.wants_lease))
        match found:
            case IsChosen():
                log.proposed(slot, encoded)
                log.leased = log.wants_lease and len(propose.leasing) >= log.quorum
                log.wanted = log.wanted or propose.wanted
                log.recalled = log.recalled or propose.recalled
                yield from _top_up(log, propose.behind)
                return found
            case Outranked(higher):
                log.highest = max(log.highest, higher)
                return found
            case NoQuorum() if propose.behind and propose.accepted and not last:
                # Servers that came back are needed for the quorum: they get what they missed, then they are asked
                # again.
                needed = log.quorum - len(propose.accepted)
                if not (yield from _bring_up_to_date(propose.behind, propose.accepted, log.known, needed)):
                    return found
            case Overtaken() | NoQuorum():
                return found
    raise AssertionError("unreachable: the last round has returned")


def _bring_up_to_date(behind: Mapping[int, int], sources: Collection[int], point: Point, needed: int) -> Procedure[int]:
    """Pass on what they lack before the slot after `point` to as many servers as are needed, those that lack the least
    first. `behind` has the slot that each has applied. Returns how many have caught up.

    An operation waits for this, so a server that lacks thousands of batches, which takes seconds, is used only if there
    is no other. A server that needs a copy of the whole map is left to a `Repairer`.
    """
    helped = 0
    for server in sorted(behind, key=lambda server: (-behind[server], server)):
        if helped == needed:
            break
        passed = yield from pass_on(server, sorted(sources), patient=False)
        helped += passed.applied >= point.slot
    return helped


def _top_up(log: LogState, behind: Mapping[int, int]) -> Procedure[None]:
    """Send servers that lack only a few batches these, without waiting: they take part again at the next accept."""
    requests = {server: Learn(at + 1, found) for server, at in behind.items() if (found := log.recent_from(at + 1))}
    if requests:
        yield Ask(requests)


def commit(log: LogState, contents: Contents, conflicts: Callable[[News], bool], time_ns: int) -> Procedure[bool]:
    """Get a batch with these contents chosen. False: what it was based on has changed, and it is not chosen.

    `conflicts` says whether news (all since the caller last took them) touch what the contents were made from. Raises
    ReadOnlyError if nothing was done, MaybeDoneError if it may have been.
    """
    log.leased = log.wanted = log.recalled = False
    log.sequence += 1
    sequence = log.sequence
    uncertain = False
    missed = 0
    try:
        while True:
            if log.ballot is None:
                yield from lead(log)
                if any(change.author == log.client and change.sequence == sequence for change in log.news.changes):
                    return True
                if uncertain and log.news.forget:
                    raise MaybeDoneError("the log was trimmed before it told whether the change was made")
                uncertain = False
            if conflicts(log.news):
                return False
            ballot = log.ballot
            assert ballot is not None
            batch = Batch(
                batches.FORMAT,
                log.known.digest,
                log.client,
                sequence,
                time_ns,
                contents.puts,
                contents.deletes,
                contents.drops,
                contents.pieces,
            )
            encoded = batches.encode(batch)
            digest = batches.digest(encoded)
            uncertain = True
            log.ballot = None  # however this ends: under one ballot there is only one batch for a slot
            match (yield from _propose(log, ballot, encoded, digest)):
                case IsChosen():
                    log.known = Point(log.known.slot + 1, digest)
                    log.ballot = ballot
                    return True
                case NoQuorum(answered):
                    missed += 1
                    if missed == QUORUM_TRIES:
                        raise _refusal(log, too_few_to_write(answered), answered)
                    yield Await(missed)
    except (UnavailableError, NoSpaceError, DeadlineError) as error:
        log.ballot = None
        if uncertain:
            maybe = MaybeDoneError(f"the change was sent, but too few servers confirmed it in time ({error})")
            maybe.sequence = sequence
            if isinstance(error, NoSpaceError):
                maybe.errno = error.errno
            raise maybe from error
        raise


def _change(slot: int, encoded: bytes) -> Change:
    batch = batches.decode(encoded)
    return Change(slot, batches.digest(encoded), batch.author, batch.sequence, tuple(batch.changed_keys()))


def _refusal(log: LogState, why: str, servers: int) -> ReadOnlyError | NoSpaceError:
    """Return the reason why nothing can be written when only this many servers can take it."""
    if servers + len(log.full) >= log.quorum:
        return NoSpaceError(f"the disks of {len(log.full)} servers are full to the last: make room there")
    return ReadOnlyError(why)


def _too_few_able(able: int) -> str:
    return (
        f"only {able} of 4 servers {'is' if able == 1 else 'are'} up to date, and writing needs three: "
        "'dfc status' shows which are behind, and a mount brings them up to date"
    )
