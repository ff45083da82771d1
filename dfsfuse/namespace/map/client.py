"""Transactions over the quorum log: optimistic concurrency, with the read set validated by key; and under the writer
lease, answers before the commit.

**Without the lease.** An operation runs on the state of one slot, the log's known point. What it needs and the cache
does not have is fetched, and it runs again. Its changes are proposed at the next slot; if somebody else's batch came
first, the changes are proposed again, or the operation runs again if what it has read has changed. One that changes
nothing, or raises (no such file, ...), has decided something all the same: its read set is checked against the newest
state.

**With the lease** (`Lease`) nobody else can commit, so the cached state is the newest one. An operation runs on it and
is answered at once; its changes are applied to the cache and wait in the `Journal`. They are committed in order,
several in a batch: by the caller that needs one to be durable, else by the worker after a moment. If that fails, what
was answered is lost from that point on; the cache is forgotten, and everyone that had something open then is told once,
at its next fsync() or close() (`losses`).

**Without a quorum**, and with `wait_s` or before the end (`end_within`), what was answered is kept and tried again that
long, and a batch in doubt is decided as soon as there is a quorum (`_not_now`). Meanwhile nothing is held: reads go on,
changes are refused.

**What the cache lacks** is asked for beside others that use the log (`_fetch_beside`): several operations wait for
servers at once, and for no batch that is on its way. An answer of an earlier slot counts but for what has changed since
(`Changes`). Only what is not to be had so is fetched with the log.

Pure: everything here is a procedure of the steps in `steps`, or runs between two steps: no locks, threads, sockets or
clocks of its own. One that uses the log is carried out by a step `WithLog`; its docstring says "With the log".
Invariant: the cache is the state of the point `_at`, with the waiting changes applied. It moves on to a later point
only with the log; while others are told of that (`Tell`), there is no `_at`, and nothing newer comes into the cache.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, NoReturn, Protocol, TypeVar

from dfsfuse.errors import DfsError, MaybeDoneError, NoSpaceError, ReadOnlyError, UnavailableError
from dfsfuse.log.lease import LOOK_TURN_S, NEVER, SETTLE_AFTER_S, Lease
from dfsfuse.log.proposer import Point
from dfsfuse.log.state import Contents, LogState, News
from dfsfuse.namespace.map.cache import UNKNOWN, Changes, MapCache, Unknown
from dfsfuse.namespace.map.fetching import Fetcher
from dfsfuse.namespace.map.journal import Doubt, Journal, PendingChange, lost
from dfsfuse.namespace.map.losses import Witness
from dfsfuse.namespace.map.steps import (
    AwaitWork,
    Beside,
    CatchUp,
    Commit,
    FetchKeys,
    FetchRange,
    Lead,
    LearnUntil,
    Linger,
    Pause,
    Procedure,
    Settle,
    Tell,
    WithLog,
)
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.map.views import CachedView, MissingError

T = TypeVar("T")
R = TypeVar("R")

RUNS_BESIDE: Final = 20
"""How often an operation that lacks something runs before it is run with the log, where less interferes."""
RUNS: Final = 200
RUNS_FOR_S: Final = 10.0
KEEP_EVERY_S: Final = 0.3
"""How often what is kept for want of a quorum is retried."""
QUORUM_PAUSES_S: Final = (0.1, 0.2, 0.4)
"""The pauses before answered changes are given up for want of a quorum."""
LINGER_S: Final = 0.002
"""How long answered changes wait for more before they are on their way. Between batches too: what is answered in that
time is answered faster than beside a batch, for which this process and the servers work."""
FOLLOWED_S: Final = LOOK_TURN_S
"""The longest time for which the worker leaves a change alone whose caller will commit it with what he does next.
Another client that waits to see it waits no longer than for any other turn of writing."""
RETRY_S: Final = 1.0
"""How long the worker waits after an unexpected exception."""

log = logging.getLogger(__name__)


class KeptError(ReadOnlyError):
    """What was answered cannot be committed now. It is kept, and retried."""


class _NotToldError(Exception):
    """What was to be fetched beside the log must be asked for with the log."""


class Bell(Protocol):
    """Wakes the worker. Like `threading.Event`: neither call waits."""

    def set(self) -> None:
        """Signal that there is work."""
        ...

    def clear(self) -> None:
        """Signal that the worker has dealt with it."""
        ...


class Answered(NamedTuple, Generic[R]):
    """The outcome of an operation."""

    result: R
    change: PendingChange | None = None
    """Its changes, if they wait to be committed."""
    doubt: Doubt | None = None
    """The batch with its changes, if it is unknown whether it was made. The result counts if it was."""


class _Run(Generic[R]):
    """The outcome of an operation that changes nothing, on a state that is perhaps not the newest."""

    __slots__ = ("_result", "error", "lacks", "view")

    def __init__(self, work: Callable[[View], R], view: CachedView) -> None:
        self.view = view
        self.lacks = False
        """Whether the cache lacked something that it needs."""
        self.error: Exception | None = None
        try:
            self._result = work(view)
        except MissingError:
            self.lacks = True
        except Exception as error:  # noqa: BLE001 - raised by `answer`, if it counts
            self.error = error

    def counts_after(self, changes: Changes) -> bool:
        """Return whether the outcome would be the same after these changes. Otherwise it is void."""
        counts = not (self.lacks or self.view.is_touched(changes.keys, all_of_it=changes.all))
        if not counts:
            self.error = None  # it refers to this object through its traceback
        return counts

    def answer(self, answered: Callable[[R], None] | None) -> R:
        """Return it, or raise it."""
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None
        if answered is not None:
            answered(self._result)
        return self._result


class MapClient:
    """The namespace's map, over its log. `MapStore` documents what each operation promises."""

    def __init__(
        self,
        log_state: LogState,
        family_of: Callable[[bytes], bytes | None],
        clock: Callable[[], float],
        bell: Bell,
        excused_ago_s: Callable[[], float],
        is_newest: Callable[[View, frozenset[int]], bool] | None = None,
        wait_s: float = 0.0,
        together: Callable[[bytes], Sequence[bytes]] = lambda _: (),
    ) -> None:
        """`clock`: the lease's. `excused_ago_s`: how long ago the servers were last slow together, or this process
        stood still. `is_newest`: whether a state is the newest one if these servers, fewer than a quorum, show nothing
        newer. A state that it does not confirm is not shown (UnavailableError). Without it a state that may be old is
        shown. `wait_s`: how long what was answered is kept, and a doubt is to be decided, while too few servers answer.
        `together`: which keys are worth fetching with one that is missing; asked each time that one is.
        """
        self._log = log_state
        self._clock = clock
        self._bell = bell
        self._excused_ago_s = excused_ago_s
        self._confirms = is_newest
        self._wait_s = wait_s
        self.lease = Lease()
        self.journal = Journal()
        self.cache = MapCache(family_of)
        self.has_worker = False
        """Whether changes may be answered before they are committed: `work` ensures that they are."""
        self._is_awake = False
        """Whether the worker will check by itself for work."""
        self._waiting = 0
        """Number of operations that commit what they wait for, and with it all that was answered before."""
        self._fetcher = Fetcher(family_of, lambda: self.cache, lambda: self.journal, together)
        self._at: Point | None = log_state.known
        """The point that the cached state is of; None while others are being told about newer changes."""
        self._fresh_at = NEVER
        """When the cached state was last known to be the newest one that is in the log."""
        self._recalled_at = NEVER
        """When it was last known that no other client had answered anything newer either."""
        self._has_lost = False
        """Whether changes that were answered are lost, and `on_change` has not been called since."""
        self._forgotten = 0
        """How often news was missed."""
        self._remembered: dict[bytes, bytes | None] = {}
        """What was known when answered changes were lost and the cache was forgotten; until something is committed."""
        self._kept_until = NEVER
        """When what waits is given up unless there is a quorum by then; NEVER while there is one."""
        self._ends_at = float("inf")
        """When all waiting ends, as the mount ends. What was answered is kept until then in any case."""
        self._is_closing = False

    # -------------------------------------------------------------- operations

    def read(
        self,
        work: Callable[[View], T],
        max_age_s: float,
        doubted: type[OSError] | None = None,
        answered: Callable[[T], None] | None = None,
    ) -> Procedure[T]:
        """See `MapStore.read`.

        The work is run before it is known whether the state is new enough: if not, what it lacks is asked for along
        with the look at the end of the log; and if it lacked nothing, and that look tells of nothing that it has read,
        what came of it counts.
        """
        begun = self._clock()
        since = begun - max_age_s
        may_be_old = doubted or ()
        has_looked = False
        """Whether the state was the newest one at some moment after `since`, as this operation has ensured."""
        for attempt in range(RUNS_BESIDE):
            run = _Run(work, CachedView(self.cache))
            if run.lacks and not attempt:
                self.cache.trim()
            if since < begun and isinstance(run.error, may_be_old):
                since, has_looked = begun, False
            recall = since == begun
            if not (has_looked or self._is_newest(since, recall=recall)):
                with self.cache.watched() as changes:
                    yield WithLog(self._become_newest(since, run.view, recall=recall))
                has_looked = True
                if not run.counts_after(changes):
                    continue
            elif run.lacks:
                if self._clock() > begun + RUNS_FOR_S or not (yield from self._fetch_beside(run.view)):
                    break
                continue
            try:
                return run.answer(answered)
            except may_be_old:
                if recall or self._is_newest(begun, recall=True):
                    raise
                since, has_looked = begun, False
        if doubted is not None:
            since = begun
        found: T = yield WithLog(self._read_slowly(work, since, answered, recall=since == begun))
        return found

    def transact(self, work: Callable[[Transaction], T], *, durable: bool, is_followed: bool = False) -> Procedure[T]:
        """See `MapStore.transact`."""
        answered = yield from self.begin(work, durable=durable)
        if answered.change is not None:
            yield from self.see_to(answered.change, durable=durable, is_followed=is_followed)
        return answered.result

    def begin(self, work: Callable[[Transaction], T], *, durable: bool) -> Procedure[Answered[T]]:
        """Run the operation; if the answer has a change, `see_to` it. See `MapStore.begin`."""
        begun = self._clock()
        answered = yield from self._answer_beside(work, durable)
        while answered is None:
            answered = yield WithLog(self._transact_slowly(work, begun, durable))
            assert answered is not None
            if answered.doubt is not None and not (yield from self._wait_until_decided(answered.doubt)):
                answered = None  # it was not made, and never will be: run again
        return answered

    def see_to(self, change: PendingChange, *, durable: bool, is_followed: bool = False) -> Procedure[None]:
        """Wait until this change is durable, or ensure that it is on its way; soon, if it `is_followed` by something
        that commits it. Its failure is reported to all who wait for it, and to nobody else."""
        if not durable and not self.journal.is_full:
            if is_followed:
                change.rests_until = self._clock() + FOLLOWED_S
            self._wake()
            return
        self._waiting += 1
        try:
            while not change.done:
                try:
                    yield WithLog(self._commit_pending(until=change))
                except KeptError:
                    if not durable:
                        return
                    yield Pause(KEEP_EVERY_S)
        finally:
            self._waiting -= 1
        if change.failure is not None:
            raise change.failure

    def flush(self, witness: Witness | None = None) -> Procedure[None]:
        """See `MapStore.flush`."""
        last, waited_for = self.journal.last, None
        if last is not None and not last.done:
            yield WithLog(self._commit_pending(until=last))
            waited_for = last.failure
        failure = self.journal.losses.take(witness)
        if waited_for is not None:
            raise lost(waited_for)
        if failure is not None:
            raise failure

    def recall(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """See `MapStore.recall`."""
        before = self.journal.before()
        found = [self._recalled(key, before) for key in keys]
        known = [value for value in found if not isinstance(value, Unknown)]
        return known if len(known) == len(found) else None

    def _recalled(self, key: bytes, before: Mapping[bytes, bytes | Unknown | None]) -> bytes | Unknown | None:
        found = before[key] if key in before else self.cache.get(key)
        return self._remembered.get(key, UNKNOWN) if isinstance(found, Unknown) else found

    def end_within(self, patience_s: float) -> None:
        """See `MapStore.end_within`."""
        self._ends_at = min(self._ends_at, self._clock() + patience_s)

    def stop_working(self) -> None:
        """Have the worker end as soon as it can, and answer nothing more before its commit."""
        self._is_closing = True
        self.has_worker = False
        self._bell.set()

    def close(self) -> Procedure[None]:
        """See `MapStore.close`. The worker has ended."""
        try:
            yield from self.flush()
        except Exception as error:
            yield WithLog(self._end(error))
            raise
        yield WithLog(self._end())

    def _end(self, error: Exception | None = None) -> Procedure[None]:
        """With the log."""
        if isinstance(error, KeptError):
            self._lose(error)
        with contextlib.suppress(DfsError):
            yield from self._settle()

    # -------------------------------------------------------------- answers under the lease

    def _answer_beside(self, work: Callable[[Transaction], T], durable: bool) -> Procedure[Answered[T] | None]:
        """Return the outcome of an operation under the lease; None if it cannot be determined without using the log."""
        for _ in range(RUNS_BESIDE):
            view = CachedView(self.cache)
            answered = self._answer(work, durable, view)
            if answered is not None or not view.lacks_something() or not (yield from self._fetch_beside(view)):
                return answered
        return None

    def _answer(
        self, work: Callable[[Transaction], T], durable: bool, view: CachedView | None = None
    ) -> Answered[T] | None:
        """Return the outcome of an operation on the cached state; None if unknown: then the view says what it lacks."""
        if not self.lease.holds(self._clock()):
            return None
        self.cache.trim()
        try:
            return self._take(view or CachedView(self.cache), work, durable)
        except MissingError:
            return None

    def _take(self, view: CachedView, work: Callable[[Transaction], T], durable: bool) -> Answered[T]:
        """Run the operation as the newest of those that were answered. There is a lease."""
        result = work(view)
        if not view.changes_anything():
            return Answered(result)
        contents = view.contents()
        change = self.journal.add(contents, view, is_awaited=durable)
        self.cache.changed_here(contents.puts, contents.deletes)
        return Answered(result, change)

    def _is_newest(self, since: float, *, recall: bool) -> bool:
        """Return whether the cached state was the newest one at some moment after `since`; with `recall`, also counting
        what others have answered and not committed."""
        return (self._recalled_at if recall else self._fresh_at) > since or self.lease.holds(self._clock())

    # -------------------------------------------------------------- asking servers

    def _fetch_beside(self, view: CachedView) -> Procedure[bool]:
        """Bring what the view lacks into the cache, while others may use the log. Returns False if it must be asked for
        with the log."""
        try:
            yield from self._fetcher.fetch(view, self._ask_beside)
        except _NotToldError:
            return False
        return True

    def _ask_beside(self, fetch: FetchKeys | FetchRange, since: Changes) -> Procedure[Any]:
        if self._at is None:
            raise _NotToldError
        reply = yield Beside(self._at, fetch)
        if reply is not None and not self._has_reached(reply.applied):
            yield WithLog(self._learn_until(reply.applied))
        return self._checked(reply, since)

    def _learn_until(self, slot: int) -> Procedure[None]:
        """With the log."""
        if not self._has_reached(slot):
            with contextlib.suppress(DfsError):
                yield LearnUntil(slot)
            yield from self._absorb()

    def _has_reached(self, slot: int) -> bool:
        return self._at is not None and self._at.slot >= slot

    def _checked(self, reply: Any, since: Changes) -> Any:
        """Return the reply, if it can be put into the cache: it is as of one slot, and all changes since then are
        known."""
        if reply is None or since.all or not self._has_reached(reply.applied):
            raise _NotToldError
        return reply

    def _ask(self, fetch: FetchKeys | FetchRange, since: Changes) -> Procedure[Any]:
        """With the log. Afterwards the cache is as of the reply's slot."""
        reply = yield fetch
        yield from self._absorb()
        if not since.has_answer:
            since.has_answer = True
            since.begin_anew()
        return reply

    def _become_newest(self, since: float, view: CachedView, *, recall: bool) -> Procedure[None]:
        """With the log. Make the cached state the newest one, unless another operation has done so; and fetch along
        with it what this view lacks."""
        if not self.lease.holds(self._clock()):
            with contextlib.suppress(KeptError):
                yield from self._drain()
        if self._is_newest(since, recall=recall):
            return
        at = self._at

        def ask(fetch: FetchKeys | FetchRange, changes: Changes) -> Procedure[Any]:
            if at is None or self._is_newest(since, recall=recall):  # this is not the first request
                raise _NotToldError
            reply = yield from self._look(Beside(at, fetch), recall=recall)
            return self._checked(reply, changes)

        if view.lacks_something() and at is not None and at.slot:  # who knows nothing yet forgets what comes along
            with contextlib.suppress(_NotToldError):
                yield from self._fetcher.fetch(view, ask)
        else:
            yield from self._catch_up(recall=recall)

    # -------------------------------------------------------------- one operation after the other (with the log)

    def _read_slowly(
        self, work: Callable[[View], T], since: float, answered: Callable[[T], None] | None, *, recall: bool
    ) -> Procedure[T]:
        """With the log. Under the lease nobody else can commit: what the servers have, with what waits here laid over
        it, is the newest state. Without it, what was answered is committed first."""
        is_drained = False
        for view in self._views():
            if not (is_drained or self.lease.holds(self._clock())):
                is_drained = True
                with contextlib.suppress(KeptError):
                    yield from self._drain()
            if not self._is_newest(since, recall=recall):
                yield from self._catch_up(recall=recall)
            with contextlib.suppress(MissingError):
                result = work(view)
                if answered is not None:
                    answered(result)
                return result
            yield from self._fetcher.fetch(view, self._ask)
        raise AssertionError("unreachable: _views raises when it gives up")

    def _transact_slowly(self, work: Callable[[Transaction], T], begun: float, durable: bool) -> Procedure[Answered[T]]:
        """With the log."""
        for view in self._views():
            if not self.lease.holds(self._clock()):
                yield from self._drain()
            if self._fresh_at == NEVER:
                yield from self._catch_up(recall=False)
            refusal = None
            try:
                if self.lease.holds(self._clock()):  # others are answered meanwhile: it takes its turn with them
                    return self._take(view, work, durable)
                if self.journal:
                    continue  # the lease has just expired
                result = work(view)
            except MissingError:
                yield from self._fetcher.fetch(view, self._ask)
                continue
            except OSError as error:
                refusal = error
            if refusal is None and view.changes_anything():
                if (answered := (yield from self._propose_alone(view, result))) is not None:
                    return answered
            elif (yield from self._is_still_true(view, begun)):
                if refusal is not None:
                    raise refusal
                return Answered(result)
        raise AssertionError("unreachable: _views raises when it gives up")

    def _propose_alone(self, view: CachedView, result: T) -> Procedure[Answered[T] | None]:
        """With the log. Commit one operation's changes. Returns None if it has to run again."""
        forgotten = self._forgotten
        try:
            if not (yield from self._propose(view.contents(), view.touched_by)):
                return None
        except MaybeDoneError as error:
            if not self._wait_s or error.sequence is None or not _may_be_decided(error):
                raise
            return Answered(result, doubt=Doubt(error, error.sequence, forgotten))
        yield from self._hand_over_if_spent()
        return Answered(result)

    def _views(self) -> Iterator[CachedView]:
        """A fresh view for each run, while there is time: but who began in time and lacked something runs with it."""
        self.cache.trim()
        until = self._clock() + RUNS_FOR_S
        overtaken = False
        for _ in range(RUNS):
            now = self._clock()
            until = max(until, now - self._excused_ago_s() + RUNS_FOR_S)
            is_late = now > until
            view = CachedView(self.cache)
            yield view
            overtaken |= not view.lacks_something()
            if is_late:
                break
        if overtaken:
            raise UnavailableError("other clients change the same files without pause: try again")
        raise UnavailableError("the servers have not told in time all that this needs to know: try again")

    def _catch_up(self, *, recall: bool) -> Procedure[News]:
        """With the log. Make the cached state the newest one. Returns what is new."""
        begun = self._clock()
        is_newest, _ = yield CatchUp(recall)
        news = yield from self._absorb()
        yield from self._has_looked(begun, is_newest=is_newest, recall=recall)
        return news

    def _look(self, along: Beside, *, recall: bool) -> Procedure[Any]:
        """With the log. The same; returns the outcome of what was sent along."""
        begun = self._clock()
        is_newest, reply = yield CatchUp(recall, along)
        yield from self._absorb()
        yield from self._has_looked(begun, is_newest=is_newest, recall=recall)
        return reply

    def _has_looked(self, begun: float, *, is_newest: bool, recall: bool) -> Procedure[None]:
        if not is_newest:
            yield from self._confirm()
        if self.journal.doubt is None and self.journal.is_overtaken():
            self._lose(_overtaken())  # it must not be laid over what others have committed since
            yield from self._absorb()
        self._fresh_at = begun
        if recall:
            self._recalled_at = begun

    def _confirm(self) -> Procedure[None]:
        """With the log. No quorum has reported the log's end. Raises `UnavailableError` if the known state must not be
        shown then."""
        if self._confirms is None:
            return
        witnesses = self._log.witnesses
        if witnesses and (yield from self._confirms_known_state(self._confirms, witnesses)):
            return
        raise UnavailableError(
            "too few servers answer to tell whether what they have is the newest state, and nothing older is shown "
            "here: start the missing servers ('dfc status' names them)"
        )

    def _confirms_known_state(
        self, is_newest: Callable[[View, frozenset[int]], bool], servers: frozenset[int]
    ) -> Procedure[bool]:
        for view in self._views():
            with contextlib.suppress(MissingError):
                return is_newest(view, servers)
            yield from self._fetcher.fetch(view, self._ask)
        raise AssertionError("unreachable: _views raises when it gives up")

    def _is_still_true(self, view: CachedView, begun: float) -> Procedure[bool]:
        """With the log. Return whether what the view has read is the newest state at some moment since `begun`."""
        if self._is_newest(begun, recall=True):
            return True
        news = yield from self._catch_up(recall=True)
        return not view.touched_by(news)

    def _absorb(self) -> Procedure[News]:
        """With the log. Move the cache on to the known point."""
        news = self._log.take_news()
        others = [change for change in news.changes if change.author != self._log.client]
        for change in news.changes:
            if change.author == self._log.client:
                self.journal.is_chosen(change.sequence)
        if others or news.forget:
            self.lease.ended()
            self.journal.others_changed(others, forget=news.forget)
        if news.forget:
            self.cache.forget()
        for change in news.changes:
            self.cache.changed_elsewhere(change.keys)
        self._forgotten += news.forget
        self._at = None
        if news.forget or self._has_lost:
            self._has_lost = False
            yield Tell(None)
        elif news.changes:
            yield Tell([key for change in news.changes for key in change.keys])
        self._at = self._log.known
        return news

    # -------------------------------------------------------------- committing (with the log)

    def _propose(
        self, contents: Contents, touched_by: Callable[[News], bool], *, is_in_cache: bool = False
    ) -> Procedure[bool]:
        """With the log. Return whether the batch is chosen; if not, what it rests on has changed."""
        if (wait_s := self.lease.stays_back_s(self._clock())) > 0:
            yield Pause(wait_s)
        begun = self._clock()
        self.lease.proposed()
        done, failure = False, None
        try:
            done = yield Commit(contents, touched_by)
        except Exception as error:  # noqa: BLE001 - raised below
            failure = error
            if isinstance(error, MaybeDoneError) and error.sequence is not None:
                self.journal.is_in_doubt(error.sequence)
        news = yield from self._absorb()
        if done:
            self._is_made(contents, begun, news, is_in_cache=is_in_cache)
        self._wake()  # if it failed, some servers may have given a lease nevertheless: it must be released
        if failure is not None:
            raise failure
        return done

    def _is_made(self, contents: Contents, begun: float, news: News, *, is_in_cache: bool) -> None:
        """Record that a batch with these contents is chosen; `news` is what else was learnt."""
        self._fresh_at = self._recalled_at = begun
        self._kept_until = NEVER
        self._remembered = {}
        is_last = self._is_last(news)
        changed = [*(key for key, _ in contents.puts), *contents.deletes]
        if not is_last:  # another client may have finished our batch for us, and gone on from there
            self.cache.changed_elsewhere(changed)
        elif is_in_cache:
            self.cache.committed_here(changed)
        else:  # before the lease begins and others are answered
            self.cache.changed_here(contents.puts, contents.deletes)
        self.lease.committed(
            begun,
            self._clock(),
            term=self._log.terms,
            leased=self._log.leased,
            wanted=self._log.wanted,
            recalled=self._log.recalled,
            may_answer=is_last and self.has_worker and not self.journal.has_rivals,
        )

    def _is_last(self, news: News) -> bool:
        """Return whether the batch that was just committed comes after all these changes: it is not among them, and the
        servers that gave this client the lease for it have let nobody come after it."""
        if news.forget or any(change.author == self._log.client for change in news.changes):
            return False
        return not news.changes or self._log.leased

    def _commit_pending(self, until: PendingChange) -> Procedure[None]:
        """With the log. Commit what waits, in order, at least up to `until`. Raises `KeptError`."""
        while not until.done:
            if self.journal.doubt is not None:
                yield from self._decide_portion(self.journal.doubt)
                continue
            if self.journal.is_overtaken():
                self._lose(_overtaken())
                break
            portion = self.journal.portion()
            forgotten = self._forgotten
            try:
                done = yield from self._propose_patiently(Journal.merged(portion))
            except DfsError as error:
                self._not_now(error, portion, forgotten)
                continue
            self._kept_until = NEVER
            if not done:
                self._lose(_overtaken())
                break
            self.journal.committed(portion)
        yield from self._hand_over_if_spent()

    def _propose_patiently(self, contents: Contents) -> Procedure[bool]:
        """Propose without giving up what was answered as soon as a quorum is missing: a server may be about to
        return."""
        for pause_s in QUORUM_PAUSES_S if self._kept_until == NEVER else ():
            try:
                return (yield from self._propose(contents, self.journal.is_overtaken_by, is_in_cache=True))
            except ReadOnlyError:
                yield Pause(pause_s)
        return (yield from self._propose(contents, self.journal.is_overtaken_by, is_in_cache=True))

    def _not_now(self, error: DfsError, portion: list[PendingChange], forgotten: int) -> None:
        """What waits cannot be committed now: keep it if that may help, else it is lost. Raises `KeptError`."""
        if isinstance(error, MaybeDoneError) and error.sequence is not None and self.journal.was_made(error.sequence):
            self.journal.committed(portion)  # what was learnt since says so
            self._kept_until = NEVER
            return
        is_doubtful = isinstance(error, MaybeDoneError) and _may_be_decided(error)
        if not (is_doubtful or isinstance(error, ReadOnlyError)) or not self._has_time_left():
            self._lose(error, portion)
            return
        self.lease.ended()
        self._fresh_at = self._recalled_at = NEVER
        if isinstance(error, MaybeDoneError) and error.sequence is not None:
            self.journal.doubt = Doubt(error, error.sequence, forgotten, portion)
        self._keep(error)

    def _has_time_left(self) -> bool:
        """Return whether what waits may be kept any longer. The time begins when this is first called; once the mount
        ends, it is the time left until the end, even without `wait_s`."""
        now = self._clock()
        if self._kept_until == NEVER:
            self._kept_until = now + self._wait_s
        return now < (self._ends_at if self._is_ending else self._kept_until)

    @property
    def _is_ending(self) -> bool:
        """Return whether the mount is about to end (`end_within`)."""
        return self._ends_at < float("inf")

    def _keep(self, error: DfsError) -> NoReturn:
        self._wake()
        raise KeptError(f"changes that were answered wait for servers: {error}") from error

    def _lose(self, error: DfsError, sent: list[PendingChange] | None = None) -> None:
        """What waits cannot be committed: it was answered, and is lost. `sent`: see `Journal.lose`."""
        self._kept_until = NEVER
        self.lease.ended()
        self._fresh_at = self._recalled_at = NEVER
        self._has_lost = True
        before = self.journal.before()
        count = self.journal.lose(error, sent)
        known: dict[bytes, bytes | Unknown | None] = {**self.cache.forget(), **before}
        self._remembered.update((key, value) for key, value in known.items() if not isinstance(value, Unknown))
        log.error("%d changes that were answered, and not yet asked to be durable, are lost: %s", count, error)

    def _drain(self) -> Procedure[None]:
        """With the log. Commit all that waits by now. Under the lease others may be answered continuously: what they
        add meanwhile is not waited for. A failure is kept for whoever asks for durability."""
        last = self.journal.last
        if last is not None and not last.done:
            yield from self._commit_pending(until=last)

    def _hand_over_if_spent(self) -> Procedure[None]:
        """With the log. If another client waits, and this one has had its turn: answer nothing more, commit what was
        answered, and release the lease."""
        if not self.lease.is_spent(self._clock()):
            return
        self.lease.end_turn()
        with contextlib.suppress(KeptError):
            yield from self._drain()
        with contextlib.suppress(DfsError):  # what was to be committed is; the lease ends by itself
            yield from self._settle()

    def _settle(self) -> Procedure[None]:
        """With the log. Release the lease, unless something waits."""
        if self.journal:
            return
        self.lease.ended()
        if self.lease.is_owed:
            yield Settle()
            self.lease.let_go(self._clock())

    # -------------------------------------------------------------- doubt

    def _decide_portion(self, doubt: Doubt) -> Procedure[None]:
        """With the log. Find out whether the first portion was made. Raises `KeptError` if that is not known yet."""
        try:
            was_made = yield from self._decide(doubt)
        except MaybeDoneError as error:
            self._lose(error, list(doubt.portion))
        except DfsError as error:
            if self._has_time_left():
                self._keep(error)
            self._lose(doubt.error, list(doubt.portion))
        else:
            self._kept_until = NEVER
            if not was_made:
                self.journal.doubt = None  # it is proposed once more

    def _decide(self, doubt: Doubt) -> Procedure[bool]:
        """With the log. Return whether it was made; if not, it never will be. Raises what `QuorumLog.lead` does, and
        the doubt's error if it can never be known."""
        if not self.journal.was_made(doubt.sequence):
            yield Lead()
            yield from self._absorb()
            if self._forgotten != doubt.forgotten and not self.journal.was_made(doubt.sequence):
                raise doubt.error
        return self.journal.was_made(doubt.sequence)

    def _wait_until_decided(self, doubt: Doubt) -> Procedure[bool]:
        """Return whether it was made, as soon as there is a quorum; until then others may use the log. Raises the
        doubt's error after `wait_s`."""
        until = self._clock() + self._wait_s
        while self._clock() < min(until, self._ends_at) and not self._is_closing:
            yield Pause(KEEP_EVERY_S)
            with contextlib.suppress(UnavailableError, NoSpaceError):
                was_made: bool = yield WithLog(self._decide(doubt))
                return was_made
        raise doubt.error

    # -------------------------------------------------------------- the worker

    def work(self) -> Procedure[None]:
        """Commit what was answered before its commit, and let go of the lease when writing pauses; until the end.

        It is woken for the first of many operations only: as long as they go on, it looks once in `SETTLE_AFTER_S`. It
        leaves the log to them if there is nothing to do, or if somebody who waits for it does it anyway.
        """
        while self.has_worker:
            yield AwaitWork(None)
            self._bell.clear()
            self._is_awake = True
            wait_s = LINGER_S
            while self.has_worker and self._is_awake:
                yield Linger(wait_s)
                if not self.has_worker:
                    return
                wait_s = SETTLE_AFTER_S
                if self._waiting:
                    continue
                try:
                    if self.journal.rests(self._clock()) or not (yield from self.commit_waiting()):
                        yield from self.settle_if_idle()
                    else:
                        wait_s = LINGER_S
                except Exception:
                    log.exception("what was answered is not committed yet, or the lease not let go of")
                    wait_s = RETRY_S

    def _wake(self) -> None:
        """Signal that there is work for the worker."""
        if not self._is_awake:
            self._bell.set()

    def commit_waiting(self) -> Procedure[bool]:
        """Commit what was answered so far and nobody waits for; but not if all of it will be committed by those who
        answered it. Returns True if something waits again."""
        if self.journal.rests(self._clock()):
            return False
        try:
            more: bool = yield WithLog(self._commit_waiting())
        except KeptError:
            yield Pause(KEEP_EVERY_S)
            return True
        return more

    def _commit_waiting(self) -> Procedure[bool]:
        """With the log."""
        yield from self._drain()
        return bool(self.journal)

    def settle_if_idle(self) -> Procedure[bool]:
        """Release the lease if nothing waits. Returns False if something does, or was committed while the log was busy:
        whoever has waited for his turn must not lose it to what was idle before."""
        if self.journal or not self.lease.is_idle(self._clock()):
            return False
        settled: bool = yield WithLog(self._settle_if_idle())
        return settled

    def _settle_if_idle(self) -> Procedure[bool]:
        """With the log."""
        if self.journal or not self.lease.is_idle(self._clock()):
            return False
        with contextlib.suppress(DfsError):
            yield from self._settle()
        self._is_awake = False  # still with the log: whoever commits next wakes the worker
        return True


def _may_be_decided(error: MaybeDoneError) -> bool:
    """Return whether the outcome of the change may become known later. On full disks it would be waited for in vain."""
    return error.sequence is not None and error.errno != errno.ENOSPC


def _overtaken() -> UnavailableError:
    return UnavailableError("another client changed the same files while this one was not heard")
