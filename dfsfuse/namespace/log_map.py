"""Transactions over the quorum log: optimistic concurrency, with the read set validated by key; and under the writer
lease, answers before the commit.

**Without the lease.** An operation runs on the state of one slot, the log's known point. What it needs and the cache
does not have is fetched, and it runs again. Its changes are proposed at the next slot; if somebody else's batch came
first, the changes are proposed again, or the operation runs again if what it has read has changed. One that changes
nothing, or raises (no such file, ...), has decided something all the same: its read set is checked against the newest
state.

**With the lease** nobody else can commit, so the cached state is the newest one. An operation runs on it and is
answered at once; its changes are applied to the cache and wait in `_pending`. They are committed in order, several in a
batch: by whoever needs one to be durable, else by the committer after a moment. If that fails, what was answered is
lost from that point on; the cache is forgotten, and each who had something open then is told once, at its next fsync()
or close() (`losses`).

**Without a quorum**, and with `wait_s`, what was answered is kept and tried again that long, and a batch in doubt is
decided as soon as there is a quorum (`_not_now`). Meanwhile nothing is held: reads go on, changes are refused.

Threads and locks: `_log_lock` is held while the log is used, over the network; `_lock` for the cache and what waits,
never over the network. Who holds `_lock` does not wait for `_log_lock`. The cache moves on to a later slot only under
both. Invariant under `_log_lock`: the cache is the state of the known point, with the waiting changes applied.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, NoReturn, TypeVar

from dfsfuse.cluster.clocks import lease_clock
from dfsfuse.cluster.log_state import Contents, News
from dfsfuse.cluster.quorum_log import NEVER, QuorumLog
from dfsfuse.errors import DfsError, MaybeDoneError, NoSpaceError, ReadOnlyError, UnavailableError
from dfsfuse.namespace.committer import SETTLE_AFTER_S, Committer
from dfsfuse.namespace.fetching import Fetcher
from dfsfuse.namespace.losses import Witness
from dfsfuse.namespace.map_cache import UNKNOWN, MapCache, Unknown
from dfsfuse.namespace.pending import Pending, PendingChange, lost
from dfsfuse.namespace.transactions import Begun, Transaction, View
from dfsfuse.namespace.views import CachedView, MissingError

T = TypeVar("T")

RUNS: Final = 200
RUNS_FOR_S: Final = 10.0

DOUBTFUL_MAX: Final = 10_000
"""Of so many batches that may have been made it is remembered whether they were."""

KEEP_EVERY_S: Final = 0.3
"""How often what is kept for want of a quorum is tried again."""

QUORUM_PAUSES_S: Final = (0.1, 0.2, 0.4)
"""Before answered changes are given up for want of a quorum."""

log = logging.getLogger(__name__)


class _KeptError(ReadOnlyError):
    """What was answered cannot be committed now. It is kept, and tried again."""


class _Doubt(NamedTuple):
    """A batch that may have been made."""

    error: MaybeDoneError
    sequence: int
    forgotten: int
    """How often news had been missed before."""
    portion: list[PendingChange]


class LogMap:
    """The namespace's map, over its log. Implements `MapStore`."""

    def __init__(
        self,
        quorum_log: QuorumLog,
        family_of: Callable[[bytes], bytes | None],
        clock: Callable[[], float] = lease_clock,
        sleep: Callable[[float], None] = time.sleep,
        is_newest: Callable[[View, frozenset[int]], bool] | None = None,
        wait_s: float = 0.0,
    ) -> None:
        """`is_newest`: whether a state is the newest one if these servers, fewer than a quorum, show nothing newer. A
        state that it does not confirm is not shown (UnavailableError). Without it a state that may be old is shown.
        `wait_s`: how long what was answered is kept, and a doubt is to be decided, while too few servers answer."""
        self._wait_s = wait_s
        self._kept_until = NEVER
        """When what waits is given up if there is no quorum by then; NEVER while there is one."""
        self._ends_at = float("inf")
        """When nothing is waited for any more, as the mount ends."""
        self._in_doubt: _Doubt | None = None
        """The first portion of what waits was sent, and may have been made."""
        self._forgotten = 0
        """How often news were missed."""
        self._is_closing = False
        self._log = quorum_log
        self._confirms = is_newest
        self._clock = clock
        self._sleep = sleep
        self._log_lock = threading.Lock()
        self._lock = threading.Lock()
        self._cache = MapCache(family_of)
        self._pending = Pending()
        self._rivals = News()
        """What others changed while something waits, and that is not compared with it yet."""
        self._doubtful: dict[int, bool] = {}
        """Batches of ours that may have been made, by number: whether they are known to be."""
        self._lease_until = NEVER
        self._fresh_at = NEVER
        """When the cached state was last known to be the newest one."""
        self._remembered: dict[bytes, bytes | None] = {}
        """What was known when answered changes were lost and the cache was forgotten; until something is committed."""
        self._unsettled = False
        self._committed_at = NEVER
        self.on_change: Callable[[list[bytes] | None], None] = lambda _: None
        """Called with the keys that another client has changed (None: perhaps all), before anybody is told what is
        newer. It must not wait for anything, nor use this map."""
        self._committer = Committer(self)
        self._fetcher = Fetcher(quorum_log, family_of, lambda: self._cache, self._absorb, self._insert)

    def start(self) -> None:
        """Start the committer, a thread. Without it changes are committed before they are answered."""
        self._log.want_lease()
        self._committer.start()

    # -------------------------------------------------------------- for users (see `MapStore`)

    def read(self, work: Callable[[View], T], *, max_age_s: float = 0.0) -> T:
        """See `MapStore.read`."""
        begun = self._clock()
        with self._lock:
            if self._is_newest(begun - max_age_s):
                with contextlib.suppress(MissingError):
                    return work(CachedView(self._cache))
        with self._log_lock:
            with contextlib.suppress(_KeptError):
                self._drain()
            for view in self._views():
                if not self._is_newest(begun - max_age_s):
                    self._catch_up(recall=not max_age_s)
                with contextlib.suppress(MissingError):
                    return self._run(view, work)
                self._fetcher.fetch(view)
        raise AssertionError("unreachable: _views raises when it gives up")

    def transact(self, work: Callable[[Transaction], T], *, durable: bool = True) -> T:
        """See `MapStore.transact`."""
        result, change = self._begin(work, durable)
        if change is not None:
            self._see_to(change, durable=durable)
        return result

    def begin(self, work: Callable[[Transaction], T]) -> Begun[T]:
        """See `MapStore.begin`."""
        result, change = self._begin(work, True)
        if change is None:
            return Begun(result, lambda: None)
        return Begun(result, lambda: self._see_to(change, durable=True))

    def _begin(self, work: Callable[[Transaction], T], durable: bool) -> tuple[T, PendingChange | None]:
        begun = self._clock()
        answered = self._answer(work, durable)
        if answered is None:
            with self._log_lock:
                self._drain()
                answered = self._transact_slowly(work, begun, durable)
        return answered

    def witness(self) -> Witness:
        """See `MapStore.witness`."""
        with self._lock:
            return self._pending.losses.witness()

    def flush(self, witness: Witness | None = None) -> None:
        """See `MapStore.flush`."""
        with self._lock:
            last = self._pending.last
            waits = last is not None and not last.done
        if last is not None and waits:
            with self._log_lock:
                self._commit_pending(until=last)
        with self._lock:
            failure = self._pending.losses.take(witness)
            if last is not None and waits and last.failure is not None:
                failure = lost(last.failure)
        if failure is not None:
            raise failure

    def recall(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """See `MapStore.recall`."""
        with self._lock:
            before = self._pending.before()
            found = [self._recalled(key, before) for key in keys]
        known = [value for value in found if not isinstance(value, Unknown)]
        return known if len(known) == len(found) else None

    def _recalled(self, key: bytes, before: Mapping[bytes, bytes | Unknown | None]) -> bytes | Unknown | None:
        found = before[key] if key in before else self._cache.get(key)
        return self._remembered.get(key, UNKNOWN) if isinstance(found, Unknown) else found

    def was_made(self, sequence: int) -> bool:
        """See `MapStore.was_made`."""
        return self._doubtful.get(sequence, False)

    def writable(self) -> bool:
        """See `MapStore.writable`."""
        return self._log.writable()

    def end_within(self, patience_s: float) -> None:
        """See `MapStore.end_within`."""
        self._ends_at = min(self._ends_at, self._clock() + patience_s)

    def close(self) -> None:
        """See `MapStore.close`."""
        self._is_closing = True
        self._committer.close()
        try:
            self.flush()
        except _KeptError as error:
            with self._log_lock:
                self._lose(error)
            raise
        finally:
            with self._log_lock, contextlib.suppress(DfsError):
                self._settle()
            self._log.close()

    # -------------------------------------------------------------- answers under the lease

    def _answer(self, work: Callable[[Transaction], T], durable: bool) -> tuple[T, PendingChange | None] | None:
        """The result of an operation on the cached state, and what it changes. None if it cannot be had there."""
        with self._lock:
            if self._clock() >= self._lease_until:
                return None
            self._cache.trim()
            try:
                return self._take(CachedView(self._cache), work, durable)
            except MissingError:
                return None

    def _take(
        self, view: CachedView, work: Callable[[Transaction], T], durable: bool
    ) -> tuple[T, PendingChange | None]:
        """Run the operation as the newest of those that were answered. Holds `_lock`; there is a lease."""
        result = work(view)
        if not view.changes_anything():
            return result, None
        contents = view.contents()
        change = self._pending.add(contents, view, is_awaited=durable)
        self._cache.changed_here(contents.puts, contents.deletes)
        return result, change

    def _see_to(self, change: PendingChange, *, durable: bool) -> None:
        """Wait until this change is durable, or see that it is on its way. Its failure is told to all who wait for it,
        and to nobody else."""
        if not durable and not self._pending.is_full:
            self._committer.wake()
            return
        while not change.done:
            try:
                with self._log_lock:
                    self._commit_pending(until=change)
            except _KeptError:
                if not durable:
                    return
                self._sleep(KEEP_EVERY_S)
        if change.failure is not None:
            raise change.failure

    def _commit_pending(self, until: PendingChange | None = None) -> None:
        """Commit what waits, in order, at least up to `until`. Holds `_log_lock`. Raises `_KeptError`."""
        while until is None or not until.done:
            if self._in_doubt is not None:
                self._decide_portion(self._in_doubt)
                continue
            with self._lock:
                overtaken, self._rivals = self._overtaken_by(News()), News()
                portion = self._pending.portion()
            if overtaken:
                self._lose(_overtaken())
                return
            if not portion:
                break
            try:
                done = self._propose_patiently(Pending.merged(portion))
            except DfsError as error:
                self._not_now(error, portion)
                return
            self._kept_until = NEVER
            if not done:
                self._lose(_overtaken())
                return
            with self._lock:
                self._pending.committed(portion)
        if self._log.turn_is_over:
            self._hand_over()

    def _propose_patiently(self, contents: Contents) -> bool:
        """What was answered is not given up as soon as a quorum is missed: a server may be about to return."""
        for pause_s in QUORUM_PAUSES_S if self._kept_until == NEVER else ():
            try:
                return self._propose(contents, self._overtaken_by, is_in_cache=True)
            except ReadOnlyError:
                self._sleep(pause_s)
        return self._propose(contents, self._overtaken_by, is_in_cache=True)

    def _not_now(self, error: DfsError, portion: list[PendingChange]) -> None:
        """What waits cannot be committed now: keep it if that may help, else it is lost. Raises `_KeptError`."""
        is_doubtful = isinstance(error, MaybeDoneError) and _may_be_decided(error)
        if not self._wait_s or not (is_doubtful or isinstance(error, ReadOnlyError)) or not self._has_time_left():
            self._lose(error, portion)
            return
        with self._lock:
            self._lease_until = self._fresh_at = NEVER
        if isinstance(error, MaybeDoneError) and error.sequence is not None:
            self._in_doubt = _Doubt(error, error.sequence, self._forgotten, portion)
        self._keep(error)

    def _has_time_left(self) -> bool:
        """Whether what waits may be kept any longer. The time begins when this is first asked."""
        if self._kept_until == NEVER:
            self._kept_until = self._clock() + self._wait_s
        return self._clock() < min(self._kept_until, self._ends_at)

    def _keep(self, error: DfsError) -> NoReturn:
        self._committer.wake()
        raise _KeptError(f"changes that were answered wait for servers: {error}") from error

    def _decide_portion(self, doubt: _Doubt) -> None:
        """Find out whether the first portion was made. Raises `_KeptError` if that cannot be told yet."""
        try:
            was_made = self._was_made_after_all(doubt)
        except MaybeDoneError as error:
            self._lose(error, doubt.portion)
        except DfsError as error:
            if self._has_time_left():
                self._keep(error)
            self._lose(doubt.error, doubt.portion)
        else:
            self._in_doubt, self._kept_until = None, NEVER
            if was_made:
                with self._lock:
                    self._pending.committed(doubt.portion)

    def _was_made_after_all(self, doubt: _Doubt) -> bool:
        """Decide it. Raises what `QuorumLog.lead` does, and the doubt's error if it can never be told. Holds
        `_log_lock`."""
        if not self._doubtful.get(doubt.sequence, False):
            self._log.lead()
            self._absorb()
            if self._forgotten != doubt.forgotten and not self._doubtful.get(doubt.sequence, False):
                raise doubt.error
        return self._doubtful.get(doubt.sequence, False)

    def _overtaken_by(self, news: News) -> bool:
        """Whether others changed what the waiting operations have read: now, or since it was last asked."""
        return self._pending.touched_by(news) or self._pending.touched_by(self._rivals)

    def _drain(self) -> None:
        """Commit all that waits by now. Holds `_log_lock`. Under the lease others may be answered without pause: what
        they add meanwhile is not waited for. A failure is kept for who asks for durability."""
        last = self._pending.last
        if last is not None and not last.done:
            self._commit_pending(until=last)

    def _lose(self, error: DfsError, sent: list[PendingChange] | None = None) -> None:
        """What waits cannot be committed: it was answered, and is lost. `sent`: see `Pending.lose`."""
        self._in_doubt, self._kept_until = None, NEVER
        with self._lock:
            self._lease_until = self._fresh_at = NEVER
            before = self._pending.before()
            count = self._pending.lose(error, sent)
            known: dict[bytes, bytes | Unknown | None] = {**self._cache.forget(), **before}
            self._remembered.update((key, value) for key, value in known.items() if not isinstance(value, Unknown))
        log.error("%d changes that were answered, and not yet asked to be durable, are lost: %s", count, error)

    def _hand_over(self) -> None:
        """Another client waits: answer nothing more, commit what was answered, and let go. Holds `_log_lock`."""
        with self._lock:
            self._lease_until = NEVER
            more = bool(self._pending)
        if more:
            with contextlib.suppress(_KeptError):
                self._commit_pending()
        with contextlib.suppress(DfsError):  # what was to be committed is; the lease ends by itself
            self._settle()

    def _settle(self) -> None:
        """Let go of the lease; nothing waits. Holds `_log_lock`."""
        with self._lock:
            if self._pending:
                return
            self._lease_until = NEVER
        if self._unsettled:
            self._log.settle()
            self._unsettled = False

    # -------------------------------------------------------------- the committer's part

    def commit_waiting(self) -> bool:
        """Commit what was answered so far, and nobody waits for. True if something waits again."""
        try:
            with self._log_lock:
                if self._pending:
                    self._commit_pending(until=self._pending.last)
                return bool(self._pending)
        except _KeptError:
            self._sleep(KEEP_EVERY_S)
            return True

    def settle_if_idle(self) -> bool:
        """Let go of the lease if nothing waits. False if something does, or was committed while the log was busy: who
        has waited for his turn must not lose it to what was idle before."""
        with self._log_lock:
            if self._pending or self._clock() - self._committed_at < SETTLE_AFTER_S:
                return False
            with contextlib.suppress(DfsError):
                self._settle()
            return True

    # -------------------------------------------------------------- one operation after the other (hold `_log_lock`)

    def _transact_slowly(
        self, work: Callable[[Transaction], T], begun: float, durable: bool
    ) -> tuple[T, PendingChange | None]:
        if self._fresh_at == NEVER:
            self._catch_up(recall=False)
        for view in self._views():
            if self._clock() >= self._lease_until:
                self._drain()
            try:
                with self._lock:
                    if self._clock() < self._lease_until:  # others are answered meanwhile: it takes its turn with them
                        return self._take(view, work, durable)
                    if self._pending:
                        continue  # the lease has just run out
                    result, refusal = work(view), None
            except MissingError:
                self._fetcher.fetch(view)
                continue
            except OSError as error:
                refusal = error
            if refusal is None and view.changes_anything():
                if self._propose_and_decide(view.contents(), view.touched_by):
                    return result, None
            elif self._still_true(view, begun):
                if refusal is not None:
                    raise refusal
                return result, None
        raise AssertionError("unreachable: _views raises when it gives up")

    def _run(self, view: CachedView, work: Callable[[Transaction], T]) -> T:
        with self._lock:
            return work(view)

    def _views(self) -> Iterator[CachedView]:
        """A fresh view for each run, while there is time: but who began in time and lacked something runs with it."""
        with self._lock:
            self._cache.trim()
        until = self._clock() + RUNS_FOR_S
        overtaken = False
        for _ in range(RUNS):
            now = self._clock()
            until = max(until, now - self._log.excused_ago_s + RUNS_FOR_S)
            is_late = now > until
            view = CachedView(self._cache)
            yield view
            overtaken |= not view.lacks_something()
            if is_late:
                break
        if overtaken:
            raise UnavailableError("other clients change the same files without pause: try again")
        raise UnavailableError("the servers have not told in time all that this needs to know: try again")

    def _is_newest(self, since: float) -> bool:
        """Whether the cached state was the newest one at some moment after `since`. (Any lock.)"""
        return self._fresh_at > since or self._clock() < self._lease_until

    def _catch_up(self, *, recall: bool) -> None:
        begun = self._clock()
        is_newest = self._log.catch_up(recall=recall)
        self._absorb()
        if not is_newest:
            self._confirm()
        self._fresh_at = begun

    def _confirm(self) -> None:
        """No quorum has told where the log ends. Raises `UnavailableError` if the known state may not be shown then."""
        if self._confirms is None:
            return
        witnesses = self._log.witnesses
        if witnesses and self._confirms_known_state(self._confirms, witnesses):
            return
        raise UnavailableError(
            "too few servers answer to tell whether what they have is the newest state, and nothing older is shown "
            "here: start the missing servers ('dfc status' names them)"
        )

    def _confirms_known_state(self, is_newest: Callable[[View, frozenset[int]], bool], servers: frozenset[int]) -> bool:
        for view in self._views():
            with contextlib.suppress(MissingError):
                return self._run(view, lambda view: is_newest(view, servers))
            self._fetcher.fetch(view)
        raise AssertionError("unreachable: _views raises when it gives up")

    def _still_true(self, view: CachedView, begun: float) -> bool:
        """Whether what the view has read is the newest state at some moment since `begun`."""
        if self._is_newest(begun):
            return True
        now = self._clock()
        is_newest = self._log.catch_up()
        news = self._absorb()
        if not is_newest:
            self._confirm()
        self._fresh_at = now
        return not view.touched_by(news)

    def _absorb(self) -> News:
        """Move the cache on to the known point."""
        news = self._log.take_news()
        others = [change for change in news.changes if change.author != self._log.client]
        for change in news.changes:
            if change.author == self._log.client and change.sequence in self._doubtful:
                self._doubtful[change.sequence] = True
        with self._lock:
            if others or news.forget:
                self._lease_until = NEVER
            if self._pending and (others or news.forget):
                # A batch of ours that was in doubt may be chosen, and others may have gone on from it before we come to
                # propose the next: what still waits is compared with this then.
                self._rivals = News([*self._rivals.changes, *others], self._rivals.forget or news.forget)
            if news.forget:
                self._cache.forget()
            for change in news.changes:
                self._cache.changed_elsewhere(change.keys)
        self._forgotten += news.forget
        if news.forget:
            self.on_change(None)
        elif news.changes:
            self.on_change([key for change in news.changes for key in change.keys])
        return news

    def _propose_and_decide(self, contents: Contents, touched_by: Callable[[News], bool]) -> bool:
        """`_propose` for who waits for the outcome. With `wait_s`, a doubt is decided as soon as there is a quorum;
        until then others may use the log."""
        forgotten = self._forgotten
        try:
            return self._propose(contents, touched_by)
        except MaybeDoneError as error:
            if not self._wait_s or error.sequence is None or not _may_be_decided(error):
                raise
            doubt = _Doubt(error, error.sequence, forgotten, [])
        until = self._clock() + self._wait_s
        while self._clock() < min(until, self._ends_at) and not self._is_closing:
            self._log_lock.release()
            try:
                self._sleep(KEEP_EVERY_S)
            finally:
                self._log_lock.acquire()
            with contextlib.suppress(UnavailableError, NoSpaceError):
                return self._was_made_after_all(doubt)
        raise doubt.error

    def _propose(self, contents: Contents, touched_by: Callable[[News], bool], *, is_in_cache: bool = False) -> bool:
        begun, done = self._clock(), False
        try:
            done = self._log.commit(contents, touched_by)
        except MaybeDoneError as error:
            self._doubt(error)
            raise
        finally:
            news = self._absorb()
            self._unsettled = True
            if not done:
                self._committer.wake()  # some servers may have given a lease all the same: it is to be let go
        if done:
            with self._lock:
                self._fresh_at = begun
                self._remembered = {}
                self._committed_at = self._clock()
                if not self._is_last(news):
                    # Another client may have finished our batch for us, and gone on from there.
                    self._cache.changed_elsewhere([*(key for key, _ in contents.puts), *contents.deletes])
                else:
                    if not is_in_cache:  # before the lease begins and others are answered
                        self._cache.changed_here(contents.puts, contents.deletes)
                    has_rivals = bool(self._rivals.changes) or self._rivals.forget
                    goes_on = self._committer.is_running and not self._log.turn_is_over and not has_rivals
                    self._lease_until = self._log.lease_until if goes_on else NEVER
            self._committer.wake()
        return done

    def _doubt(self, error: MaybeDoneError) -> None:
        if error.sequence is not None:
            self._doubtful[error.sequence] = False
            if len(self._doubtful) > DOUBTFUL_MAX:
                del self._doubtful[next(iter(self._doubtful))]

    def _is_last(self, news: News) -> bool:
        """Whether the batch that was just committed comes after all these changes: it is not among them, and whoever
        gave us the lease for it has let nobody come after it."""
        if news.forget or any(change.author == self._log.client for change in news.changes):
            return False
        return not news.changes or self._log.lease_until != NEVER

    # -------------------------------------------------------------- what is fetched (hold `_log_lock`, nothing waits)

    def _insert(self, into_cache: Callable[[], None]) -> None:
        """Under the lease others may have answered since: their changes come on top."""
        with self._lock:
            into_cache()
            for change in self._pending:
                self._cache.changed_here(change.contents.puts, change.contents.deletes)


def _may_be_decided(error: MaybeDoneError) -> bool:
    """Whether it may be told later what became of the change. On full disks it would be waited for in vain."""
    return error.sequence is not None and error.errno != errno.ENOSPC


def _overtaken() -> UnavailableError:
    return UnavailableError("another client changed the same files while this one was not heard")
