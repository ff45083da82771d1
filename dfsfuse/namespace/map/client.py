"""Transactions over the quorum log: optimistic concurrency, with the read set validated by key; and under the writer
lease, answers before the commit.

**Without the lease.** An operation runs on the state of one slot, the log's known point. What it needs and the cache
does not have is fetched, and it runs again. Its changes are proposed at the next slot. If another client's batch came
first, they are proposed again; or the operation runs again if what it has read has changed. An operation that changes
nothing, or raises (no such file, ...), has decided something all the same: its read set is checked against the newest
state.

**With the lease** (`Lease`) no other client can commit, so the cached state is the newest one. An operation runs on it
and is answered at once; its changes are applied to the cache and are pending in the `Journal`. They are committed in
order, several in a batch: by the caller that needs one to be durable, or by the worker after a moment.

The parts: `MapClient` runs operations. `Refresher` keeps the known state (`MapState`) new enough and fetches what it
lacks. `Committer` commits pending changes; `Worker` calls it when no operation does.

Pure: everything here is a procedure of the steps in `steps`, or runs between two steps: no locks, threads, sockets or
clocks of its own. One that uses the log is carried out within a step `WithLog`; its docstring says "With the log".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from dfsfuse.errors import DfsError, MaybeDoneError
from dfsfuse.log.lease import LOOK_TURN_S, NEVER
from dfsfuse.namespace.map.committing import KEEP_EVERY_S, Committer, KeptError
from dfsfuse.namespace.map.journal import Doubt, PendingChange, lost
from dfsfuse.namespace.map.losses import Witness
from dfsfuse.namespace.map.refreshing import Refresher
from dfsfuse.namespace.map.runs import RUNS_BESIDE, RUNS_FOR_S, Run, attempts
from dfsfuse.namespace.map.state import MapState
from dfsfuse.namespace.map.steps import Pause, Procedure, WithLog
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.map.views import CachedView, MissingError

T = TypeVar("T")
R = TypeVar("R")

FOLLOWED_S: Final = LOOK_TURN_S
"""At most this long does the worker leave a change to its caller, who will commit it together with the next one.
Another client that waits to see it waits no longer than for any other turn of writing."""


class Answered(NamedTuple, Generic[R]):
    """The outcome of an operation."""

    result: R
    change: PendingChange | None = None
    """Its changes, if they wait to be committed."""
    doubt: Doubt | None = None
    """The batch with its changes, if it is unknown whether it was made. The result counts if it was."""


class MapClient:
    """The namespace's map, over its log. `MapStore` documents what each operation promises."""

    def __init__(
        self, state: MapState, refresher: Refresher, committer: Committer, excused_ago_s: Callable[[], float]
    ) -> None:
        """`excused_ago_s`: how long ago the servers were last slow together, or this process stood still."""
        self._state = state
        self._refresher = refresher
        self._committer = committer
        self._clock = state.clock
        self._excused_ago_s = excused_ago_s

    # -------------------------------------------------------------- operations

    def read(
        self,
        work: Callable[[View], T],
        max_age_s: float,
        doubted: type[OSError] | None = None,
        answered: Callable[[T], None] | None = None,
    ) -> Procedure[T]:
        """See `MapStore.read`.

        The work is run before it is known whether the state is new enough. If it is not, what the run lacked is fetched
        along with the look at the end of the log. If it lacked nothing, and the look finds no change of anything that
        it has read, its outcome counts.
        """
        begun = self._clock()
        since = begun - max_age_s
        may_be_old = doubted or ()
        has_looked = False
        """Whether the state was the newest one at some moment after `since`, as this operation has ensured."""
        for attempt in range(RUNS_BESIDE):
            run = Run(work, CachedView(self._state.cache))
            if run.lacks and not attempt:
                self._state.cache.trim()
            if since < begun and isinstance(run.error, may_be_old):
                since, has_looked = begun, False
            recall = since == begun
            if not (has_looked or self._state.is_newest(since, recall=recall)):
                with self._state.cache.watched() as changes:
                    yield WithLog(self._refresher.become_newest(since, run.view, recall=recall))
                has_looked = True
                if not run.counts_after(changes):
                    continue
            elif run.lacks:
                if self._clock() > begun + RUNS_FOR_S or not (yield from self._refresher.fetch_beside(run.view)):
                    break
                continue
            try:
                return run.answer(answered)
            except may_be_old:
                if recall or self._state.is_newest(begun, recall=True):
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
            if answered.doubt is not None and not (yield from self._committer.wait_until_decided(answered.doubt)):
                answered = None  # it was not committed, and never will be: run again
        return answered

    def see_to(self, change: PendingChange, *, durable: bool, is_followed: bool = False) -> Procedure[None]:
        """Wait until this change is durable; or without `durable` only ensure that it will be. If it `is_followed` by
        something that commits it, the worker leaves it alone for a while. A failure is raised to every caller that
        waits for this change, and to no other."""
        if not durable and not self._state.journal.is_full:
            if is_followed:
                change.left_until = self._clock() + FOLLOWED_S
            self._committer.wake()
            return
        self._committer.waiting += 1
        try:
            while not change.done:
                try:
                    yield WithLog(self._committer.commit_pending(until=change))
                except KeptError:
                    if not durable:
                        return
                    yield Pause(KEEP_EVERY_S)
        finally:
            self._committer.waiting -= 1
        if change.failure is not None:
            raise change.failure

    def flush(self, witness: Witness | None = None) -> Procedure[None]:
        """See `MapStore.flush`."""
        last, waited_for = self._state.journal.last, None
        if last is not None and not last.done:
            yield WithLog(self._committer.commit_pending(until=last))
            waited_for = last.failure
        failure = self._state.journal.losses.take(witness)
        if waited_for is not None:
            raise lost(waited_for)
        if failure is not None:
            raise failure

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
            self._committer.lose(error)
        with contextlib.suppress(DfsError):
            yield from self._committer.settle()

    # -------------------------------------------------------------- answers under the lease

    def _answer_beside(self, work: Callable[[Transaction], T], durable: bool) -> Procedure[Answered[T] | None]:
        """Return the outcome of an operation under the lease; None if it cannot be determined without using the log."""
        self._state.cache.trim()  # not between two runs: what is fetched for the operation stays
        for _ in range(RUNS_BESIDE):
            view = CachedView(self._state.cache)
            answered = self._answer(work, durable, view)
            if answered is not None or not view.lacks_something():
                return answered
            if not (yield from self._refresher.fetch_beside(view)):
                break
        return None

    def _answer(
        self, work: Callable[[Transaction], T], durable: bool, view: CachedView | None = None
    ) -> Answered[T] | None:
        """Return the outcome of an operation on the cached state; None if there is no lease, or if the view lacks
        something."""
        if not self._state.lease.holds(self._clock()):
            return None
        try:
            return self._take(view or CachedView(self._state.cache), work, durable)
        except MissingError:
            return None

    def _take(self, view: CachedView, work: Callable[[Transaction], T], durable: bool) -> Answered[T]:
        """Run the operation on the cached state, and add its changes to the journal. There is a lease."""
        result = work(view)
        if not view.changes_anything():
            return Answered(result)
        contents = view.contents()
        change = self._state.journal.add(contents, view, is_awaited=durable)
        self._state.cache.changed_here(contents.puts, contents.deletes)
        return Answered(result, change)

    # -------------------------------------------------------------- one operation after the other (with the log)

    def _read_slowly(
        self, work: Callable[[View], T], since: float, answered: Callable[[T], None] | None, *, recall: bool
    ) -> Procedure[T]:
        """With the log. Under the lease no other client can commit: what the servers have, with the pending changes
        laid over it, is the newest state. Without the lease, pending changes are committed first."""
        is_drained = False
        for view in attempts(self._state, self._excused_ago_s):
            if not (is_drained or self._state.lease.holds(self._clock())):
                is_drained = True
                with contextlib.suppress(KeptError):
                    yield from self._committer.drain()
            if not self._state.is_newest(since, recall=recall):
                yield from self._refresher.catch_up(recall=recall)
            with contextlib.suppress(MissingError):
                result = work(view)
                if answered is not None:
                    answered(result)
                return result
            yield from self._refresher.fetch(view)
        raise AssertionError("unreachable: `attempts` raises when it gives up")

    def _transact_slowly(self, work: Callable[[Transaction], T], begun: float, durable: bool) -> Procedure[Answered[T]]:
        """With the log."""
        for view in attempts(self._state, self._excused_ago_s):
            if not self._state.lease.holds(self._clock()):
                yield from self._committer.drain()
            if self._state.fresh_at == NEVER:
                yield from self._refresher.catch_up(recall=False)
            refusal = None
            try:
                if self._state.lease.holds(self._clock()):  # others are answered meanwhile: it takes its turn with them
                    return self._take(view, work, durable)
                if self._state.journal:
                    continue  # the lease has just expired
                result = work(view)
            except MissingError:
                yield from self._refresher.fetch(view)
                continue
            except OSError as error:
                refusal = error
            if refusal is None and view.changes_anything():
                if (answered := (yield from self._propose_alone(view, result))) is not None:
                    return answered
            elif (yield from self._refresher.is_still_true(view, begun)):
                if refusal is not None:
                    raise refusal
                return Answered(result)
        raise AssertionError("unreachable: `attempts` raises when it gives up")

    def _propose_alone(self, view: CachedView, result: T) -> Procedure[Answered[T] | None]:
        """With the log. Commit one operation's changes. Returns None if it has to run again."""
        forgotten = self._state.forgotten
        try:
            if not (yield from self._committer.propose(view.contents(), view.touched_by)):
                return None
        except MaybeDoneError as error:
            doubt = self._committer.doubt_of(error, forgotten)
            if doubt is None:
                raise
            return Answered(result, doubt=doubt)
        yield from self._committer.hand_over_if_spent()
        return Answered(result)
