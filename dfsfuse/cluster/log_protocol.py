"""The client's side of the log, step by step: what to ask, in which order, and what follows.

Pure: procedures (`dfsfuse.cluster.procedures`), which the same code drives over real connections and in the simulation.

Procedures:
- `lead`: become the one who may propose (phase 1), finishing what a predecessor left.
- `commit`: propose a batch until it is chosen, or until what it was based on has changed.
- `catch_up`: learn how far the log goes, and what changed since we last looked (a linearizable read).
- `read`: ask a server for values at the known point or later, and the next ones if it is slow or cannot tell.

A server that hangs costs one short silence: wherever the others can do without it, it is waited for no longer, and
remembered in `LogState.silent`. Only a quorum that is not there is waited for until the last server's stall.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from dfs_server.protocol import batches
from dfs_server.protocol.ballots import ZERO, Ballot
from dfs_server.protocol.batches import Batch, InlinePiece
from dfs_server.protocol.messages import (
    Accept,
    Change,
    Changes,
    GetChanges,
    GetPosition,
    Items,
    Learn,
    Promise,
    ReadKeys,
    ReadRange,
    Reply,
    Request,
    Values,
)
from dfs_server.protocol.status import Status
from dfsfuse.cluster.log_repair import bring_up_to_date
from dfsfuse.cluster.procedures import ALL, RECEIVE, RECEIVE_SOFT, Ask, Await, DeadlineError, Event, Pause, Procedure
from dfsfuse.cluster.proposer import (
    QUORUM,
    InDoubt,
    IsChosen,
    Leased,
    Newest,
    NoQuorum,
    Outranked,
    Overtaken,
    Pending,
    Point,
    Prepare,
    Propose,
    Survey,
    Won,
)
from dfsfuse.errors import MaybeDoneError, NoSpaceError, ReadOnlyError, UnavailableError

MAX_GAP: Final = 2000
"""A reader that is further behind forgets what it knew instead of learning each change."""
RECENT_BATCHES: Final = 64
LEASE_S: Final = 2.0
"""How long servers refuse others after a writer's last accept (`dfs_server.acceptor.LEASE_S`)."""
DOUBTS: Final = 6
"""How often a reader waits for a writer at work before it finishes that writer's batch itself."""
QUORUM_TRIES: Final = 4
"""How often too few answers to a promise are asked for: when one server dies just after another came back, that one may
not have been noticed yet, and what was sent under the last ballot would be in doubt."""


START: Final = Point(0, batches.NO_BATCH)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a batch is to change."""

    puts: tuple[tuple[bytes, bytes], ...] = ()
    deletes: tuple[bytes, ...] = ()
    drops: tuple[bytes, ...] = ()
    pieces: tuple[InlinePiece, ...] = ()


@dataclass(slots=True)
class News:
    """What was learnt of others' (and of our own recovered) batches since it was last taken."""

    changes: list[Change] = field(default_factory=list)
    forget: bool = False
    """We were too far behind to learn every change: anything may have changed."""


@dataclass(slots=True)
class LogState:
    """What a client knows of its namespace's log."""

    client: bytes
    quorum: int = QUORUM
    known: Point = START
    """The last batch we know to be chosen, and all before it."""
    ballot: Ballot | None = None
    """The ballot under which a quorum lets us propose, as far as we know."""
    highest: Ballot = ZERO
    wants_lease: bool = False
    """Whether this client will answer operations before it commits them."""
    leased: bool = False
    """Whether a quorum gave us the lease with the last commit. (Not if another client finished our batch.)"""
    wanted: bool = False
    """Another client waits for the writer lease."""
    recalled: bool = False
    """Another client waits to see what was answered under the lease."""
    sequence: int = 0
    full: set[int] = field(default_factory=set)
    """Servers whose disk is so full that not even the log can go on there."""
    silent: set[int] = field(default_factory=set)
    """Servers that let us wait lately: they are not waited for again where it is possible to go on without them."""
    copies: int = 0
    """How many copies of the map this client has begun; with its id, the id of the next one."""
    news: News = field(default_factory=News)
    recent: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=RECENT_BATCHES))
    """The last batches that this client got chosen, with their slots, for servers that lack no more than these."""

    def proposed(self, slot: int, encoded: bytes) -> None:
        """A batch of ours is chosen."""
        if self.recent and self.recent[-1][0] != slot - 1:
            self.recent.clear()
        self.recent.append((slot, encoded))
        while sum(len(kept) for _, kept in self.recent) > batches.MAX_BATCH_BYTES:
            self.recent.popleft()  # more is too much for a frame

    def recent_from(self, slot: int) -> tuple[bytes, ...]:
        """The recent batches from this slot on; none if they do not reach back so far."""
        if not self.recent or slot < self.recent[0][0]:
            return ()
        return tuple(encoded for at, encoded in self.recent if at >= slot)

    def learnt(self, change: Change) -> None:
        """The next batch is known to be chosen."""
        self.news.changes.append(change)
        self.known = Point(change.slot, change.digest)

    def next_copy(self) -> bytes:
        """An id for a copy of the map."""
        self.copies += 1
        return self.client + self.copies.to_bytes(4, "big")

    def jump(self, point: Point) -> None:
        """Much was missed: forget, and go on from here."""
        self.news.forget = True
        self.known = point


class _Round(Protocol):
    waiting: set[int]

    def ask(self, server: int) -> None: ...
    def fail(self, server: int) -> None: ...
    def receive(self, server: int, reply: Reply) -> None: ...
    def could_decide(self) -> bool: ...
    def give_up_waiting(self) -> None: ...


Rnd = TypeVar("Rnd", bound=_Round)
V = TypeVar("V")


def _gather(log: LogState, round_: _Round, verdict: Callable[[], V | Pending], request: Request) -> Procedure[V]:
    """Send `request` to all servers and feed the replies to the round until it has a verdict."""
    for server in ALL:
        round_.ask(server)
    yield Ask(dict.fromkeys(ALL, request))
    while isinstance(found := verdict(), Pending):
        dispensable = round_.could_decide()
        if dispensable and round_.waiting <= log.silent:
            round_.give_up_waiting()
            continue
        event = yield RECEIVE_SOFT if dispensable else RECEIVE
        if event is None:
            log.silent |= round_.waiting
            round_.give_up_waiting()
            continue
        log.silent.discard(event.server)
        if event.status == Status.NO_SPACE:
            log.full.add(event.server)
        else:
            log.full.discard(event.server)
        if event.reply is None:
            round_.fail(event.server)
        else:
            round_.receive(event.server, event.reply)
    return found


def _first_of(log: LogState, servers: Sequence[int], request: Request) -> Procedure[Event]:
    """The first answer, whatever it is. The next server is asked too when those before it are silent."""
    for index, server in enumerate(servers):
        yield Ask({server: request}, also=index > 0)
        event = yield RECEIVE_SOFT if server != servers[-1] else RECEIVE
        if event is not None:
            log.silent.discard(event.server)
            return event
        log.silent.add(server)
    raise AssertionError("unreachable: the last one is waited for")


# ------------------------------------------------------------------ writing


def lead(log: LogState) -> Procedure[None]:
    """Get the promise of a quorum, learn what was chosen before, and finish what may be chosen.

    Afterwards `log.ballot` is set and `log.known` is the end of the log. Waits while another client has the writer
    lease. Raises ReadOnlyError without a quorum.
    """
    attempt = missed = 0
    while True:
        try:
            if (yield from _try_to_lead(log)):
                return
        except ReadOnlyError:
            missed += 1
            if missed == QUORUM_TRIES:
                raise
            yield Await(missed)
        else:
            attempt += 1
            yield Pause(attempt)


def _try_to_lead(log: LogState) -> Procedure[bool]:
    """`lead`, once. False: another client has the lease, or a higher ballot."""
    log.ballot = None
    log.wanted = log.recalled = False
    ballot = log.highest = log.highest.above(log.client)
    prepare = Prepare(log.quorum, ballot=ballot)
    match (yield from _gather(log, prepare, prepare.verdict, Promise(ballot))):
        case NoQuorum(answered):
            if answered + len(log.full) >= log.quorum:
                raise NoSpaceError(f"the disks of {len(log.full)} servers are full to the last: make room there")
            raise ReadOnlyError(_too_few(answered))
        case Outranked(higher):
            log.highest = max(log.highest, higher)
        case Leased():
            pass
        case Won(base, holders, unfinished):
            yield from _follow(log, base, holders)
            if unfinished is None or unfinished.slot != log.known.slot + 1:
                log.ballot = ballot
                return True
            if (yield from _propose(log, ballot, unfinished.batch)):
                log.learnt(_change(unfinished.slot, unfinished.batch))
                log.ballot = ballot
                return True
    return False


def _propose(log: LogState, ballot: Ballot, encoded: bytes) -> Procedure[bool]:
    """Phase 2 at the slot after `log.known`. False: outranked, or too few answered; it may be chosen all the same."""
    slot = log.known.slot + 1
    for _ in range(2):
        propose = Propose(log.quorum, slot=slot, digest=batches.digest(encoded))
        match (yield from _gather(log, propose, propose.verdict, Accept(ballot, slot, encoded, log.wants_lease))):
            case IsChosen():
                log.proposed(slot, encoded)
                log.leased = log.wants_lease and len(propose.leasing) >= log.quorum
                log.wanted = log.wanted or propose.wanted
                log.recalled = log.recalled or propose.recalled
                yield from _top_up(log, propose.behind)
                return True
            case Outranked(higher):
                log.highest = max(log.highest, higher)
                return False
            case NoQuorum() if propose.behind and propose.accepted:
                # Servers that came back are needed for the quorum: they get what they missed, then it is asked again.
                source = min(propose.accepted)
                for server in propose.behind:
                    yield from bring_up_to_date(server, source, log.next_copy(), patient=False)
            case Overtaken() | NoQuorum():
                return False
    return False


def _top_up(log: LogState, behind: Mapping[int, int]) -> Procedure[None]:
    """Send servers that lack only a few batches these, without waiting: at the next accept they take part again."""
    requests = {server: Learn(at + 1, found) for server, at in behind.items() if (found := log.recent_from(at + 1))}
    if requests:
        yield Ask(requests)


def commit(log: LogState, contents: Contents, conflicts: Callable[[News], bool], time_ns: int) -> Procedure[bool]:
    """Get a batch with these contents chosen. False: what it was based on has changed, and it is not chosen.

    `conflicts` says whether news (all since the caller last took them) touch what the contents were made from. Raises
    ReadOnlyError if nothing was done, MaybeDoneError if it may have been.
    """
    log.leased = False
    log.sequence += 1
    sequence = log.sequence
    uncertain = False
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
            uncertain = True
            log.ballot = None  # however this ends: under one ballot there is only one batch for a slot
            if (yield from _propose(log, ballot, encoded)):
                log.known = Point(log.known.slot + 1, batches.digest(encoded))
                log.ballot = ballot
                return True
    except (UnavailableError, NoSpaceError, DeadlineError) as error:
        log.ballot = None
        if uncertain:
            maybe = MaybeDoneError(f"the change was sent, but too few servers confirmed it in time ({error})")
            if isinstance(error, NoSpaceError):
                maybe.errno = error.errno
            raise maybe from error
        raise


def _change(slot: int, encoded: bytes) -> Change:
    batch = batches.decode(encoded)
    return Change(slot, batches.digest(encoded), batch.author, batch.sequence, tuple(batch.changed_keys()))


# ------------------------------------------------------------------ reading


def catch_up(log: LogState, *, recall: bool = True) -> Procedure[bool]:
    """Learn everything that was acknowledged before this began. False: only as far as the servers that answer know.

    `recall`: also what another client has answered under its lease and not committed yet; it is made to. Raises
    UnavailableError if no server answers.
    """
    attempt = doubts = goal = 0
    leases: dict[int, int] = {}
    while True:
        survey = Survey(log.quorum, known=log.known, leases=leases if recall else None)
        found = yield from _gather(log, survey, survey.verdict, GetPosition(log.client if recall else b""))
        if survey.is_free():
            match found:
                case Newest(point, holders):
                    yield from _follow(log, point, holders)
                    return True
                case NoQuorum():
                    if not survey.positions:
                        raise UnavailableError("no server answers")
                    yield from _follow(log, survey.best(), survey.appliers())
                    return False
                case InDoubt():
                    # What was acknowledged before we began is at or before the slot in doubt: once that is decided,
                    # what is in doubt after it does not matter.
                    if goal and survey.best().slot >= goal:
                        yield from _follow(log, survey.best(), survey.appliers())
                        return True
                    goal = goal or survey.best().slot + 1
                    doubts += 1
                    if doubts > DOUBTS:
                        try:
                            if (yield from _try_to_lead(log)):
                                return True
                        except (ReadOnlyError, NoSpaceError):  # enough answer, and too few can write: full disks, say
                            yield from _follow(log, survey.best(), survey.appliers())
                            return False
        attempt += 1
        yield Pause(min(attempt, 4))


def _follow(log: LogState, point: Point, holders: frozenset[int]) -> Procedure[None]:
    """Learn the changes up to `point`, which is chosen, from servers that have it."""
    if log.known.slot >= point.slot:
        return
    if log.known.slot == 0 or point.slot - log.known.slot > MAX_GAP:
        log.jump(point)
        return
    order = sorted(holders, key=lambda server: (server in log.silent, server))
    if not (yield from _learn_from(log, order, point)):
        log.jump(point)


def _learn_from(log: LogState, servers: Sequence[int], point: Point) -> Procedure[bool]:
    """Learn the changes up to `point` from these servers, asked in this order. False: none of them can tell.

    However slow they are: who gives up and forgets loses track of what became of an own batch that is in doubt.
    """
    left = list(servers)
    while log.known.slot < point.slot:
        if not left:
            return False
        event = yield from _first_of(log, left, GetChanges(log.known.slot, point.slot, point.digest))
        if not isinstance(event.reply, Changes) or not event.reply.changes:
            left.remove(event.server)  # it cannot tell all of them, or not now
            continue
        for change in event.reply.changes:
            # Not beyond `point`: what the caller has read is of that slot.
            if log.known.slot + 1 == change.slot <= point.slot:
                log.learnt(change)
    return True


def read(
    log: LogState, order: tuple[int, ...], make: Callable[[Point], ReadKeys | ReadRange]
) -> Procedure[Values | Items]:
    """The reply of a server that is at `log.known` or later, asked in this order.

    If it is later, the changes in between are learnt first. Raises UnavailableError if no server can tell.
    """
    reasons: list[str] = []
    left = list(order)
    while left:
        left.sort(key=lambda server: server in log.silent)
        event = yield from _first_of(log, left, make(log.known))
        server, reply = event.server, event.reply
        left.remove(server)
        if not isinstance(reply, Values | Items):
            reasons.append(event.why or f"server {server} is behind")
            continue
        others = [other for other in order if other != server]
        if (yield from _learn_from(log, [server, *others], Point(reply.applied, batches.NO_BATCH))):
            return reply
        reasons.append(f"server {server} went on and no longer tells what changed")
    raise UnavailableError("no server can answer this read: " + "; ".join(reasons))


def _too_few(answered: int) -> str:
    return (
        f"only {answered} of 4 servers answer and three are needed to write: what is there can be read; "
        "'dfc status' shows which servers are missing"
    )
