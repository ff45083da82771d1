"""Commits pending changes, in order, several in a batch; or gives them up as lost.

**Without a quorum** pending changes are kept and retried, for `wait_s` or until the end (`end_within`); a batch in
doubt is decided as soon as there is a quorum (`_not_now`). No lock is held meanwhile: reads go on, changes are refused.

**If a change cannot be committed**, it and all later ones are lost. The cache is forgotten, and every program that had
something open then gets an error once, at its next fsync() or close() (`losses`).

**When another client waits** and the turn is spent, nothing more is answered before its commit; pending changes are
committed, and the lease is released (`hand_over_if_spent`).

Pure: everything here is a procedure of the steps in `steps`, or runs between two steps: no locks, threads, sockets or
clocks of its own. All procedures but `wait_until_decided` use the log: they run within a step `WithLog`, and their
docstrings say "With the log".
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

from dfsfuse.errors import DfsError, MaybeDoneError, NoSpaceError, ReadOnlyError, UnavailableError
from dfsfuse.log.lease import NEVER
from dfsfuse.log.state import Contents, News
from dfsfuse.namespace.map.journal import Doubt, Journal, PendingChange
from dfsfuse.namespace.map.state import MapState, overtaken
from dfsfuse.namespace.map.steps import Commit, Lead, Pause, Procedure, Settle, WithLog

KEEP_EVERY_S: Final = 0.3
"""How often pending changes are retried while there is no quorum."""
QUORUM_PAUSES_S: Final = (0.1, 0.2, 0.4)
"""The pauses between the first tries without a quorum, before changes are kept or given up."""


class KeptError(ReadOnlyError):
    """Pending changes cannot be committed now. They are kept, and retried."""


class WakeEvent(Protocol):
    """Wakes the worker. Like `threading.Event`; neither method blocks."""

    def set(self) -> None:
        """Signal that there is work."""
        ...

    def clear(self) -> None:
        """Signal that the worker has dealt with it."""
        ...


class Committer:
    """See the module."""

    def __init__(self, state: MapState, wake_event: WakeEvent, wait_s: float = 0.0) -> None:
        """`wait_s`: how long pending changes are kept, and a doubt may stay undecided, while too few servers answer."""
        self._state = state
        self._clock = state.clock
        self._wait_s = wait_s
        self.wake_event = wake_event
        self.has_worker = False
        """Whether changes may be answered before they are committed: `Worker.work` commits them later."""
        self.is_awake = False
        """Whether the worker will check by itself for work."""
        self.waiting = 0
        """Number of operations that commit what they wait for, and with it all that was answered before."""
        self._kept_until = NEVER
        """When pending changes are given up unless there is a quorum by then; NEVER while there is one."""
        self._ends_at = float("inf")
        """When all waiting ends, as the mount ends. Pending changes are kept until then in any case."""
        self._is_closing = False

    def end_within(self, patience_s: float) -> None:
        """See `MapStore.end_within`."""
        self._ends_at = min(self._ends_at, self._clock() + patience_s)

    def stop_working(self) -> None:
        """Have the worker end as soon as it can, and answer nothing more before its commit."""
        self._is_closing = True
        self.has_worker = False
        self.wake_event.set()

    def wake(self) -> None:
        """Signal that there is work for the worker."""
        if not self.is_awake:
            self.wake_event.set()

    # -------------------------------------------------------------- one batch

    def propose(
        self, contents: Contents, touched_by: Callable[[News], bool], *, is_in_cache: bool = False
    ) -> Procedure[bool]:
        """With the log. Return whether the batch is chosen; if not, what it rests on has changed."""
        state = self._state
        if (wait_s := state.lease.stays_back_s(self._clock())) > 0:
            yield Pause(wait_s)
        begun = self._clock()
        state.lease.proposed()
        done, failure = False, None
        try:
            done = yield Commit(contents, touched_by)
        except Exception as error:  # noqa: BLE001 - raised below
            failure = error
            if isinstance(error, MaybeDoneError) and error.sequence is not None:
                state.journal.is_in_doubt(error.sequence)
        news = yield from state.absorb()
        if done:
            self._is_made(contents, begun, news, is_in_cache=is_in_cache)
        self.wake()  # if it failed, some servers may have given a lease nevertheless: it must be released
        if failure is not None:
            raise failure
        return done

    def _is_made(self, contents: Contents, begun: float, news: News, *, is_in_cache: bool) -> None:
        """Record that a batch with these contents is chosen; `news` is what else was learnt."""
        state = self._state
        state.fresh_at = state.recalled_at = begun
        self._kept_until = NEVER
        state.remembered = {}
        is_last = self._is_last(news)
        changed = [*(key for key, _ in contents.puts), *contents.deletes]
        if not is_last:  # another client may have finished our batch for us, and gone on from there
            state.cache.changed_elsewhere(changed)
        elif is_in_cache:
            state.cache.committed_here(changed)
        else:  # before the lease begins and others are answered
            state.cache.changed_here(contents.puts, contents.deletes)
        state.lease.committed(
            begun,
            self._clock(),
            term=state.log.terms,
            leased=state.log.leased,
            wanted=state.log.wanted,
            recalled=state.log.recalled,
            may_answer=is_last and self.has_worker and not state.journal.has_rivals,
        )

    def _is_last(self, news: News) -> bool:
        """Return whether the batch that was just committed comes after all these changes: it is not among them, and no
        other batch follows it, because servers have given this client the lease with it."""
        log = self._state.log
        if news.forget or any(change.author == log.client for change in news.changes):
            return False
        return not news.changes or log.leased

    # -------------------------------------------------------------- pending changes

    def commit_pending(self, until: PendingChange) -> Procedure[None]:
        """With the log. Commit pending changes, in order, at least up to `until`. Raises `KeptError`."""
        journal = self._state.journal
        while not until.done:
            if journal.doubt is not None:
                yield from self._decide_portion(journal.doubt)
                continue
            if journal.is_overtaken():
                self.lose(overtaken())
                break
            portion = journal.portion()
            forgotten = self._state.forgotten
            try:
                done = yield from self._propose_patiently(Journal.merged(portion))
            except DfsError as error:
                self._not_now(error, portion, forgotten)
                continue
            self._kept_until = NEVER
            if not done:
                self.lose(overtaken())
                break
            journal.committed(portion)
        yield from self.hand_over_if_spent()

    def _propose_patiently(self, contents: Contents) -> Procedure[bool]:
        """Propose, and try again a few times without a quorum: a server may be about to return."""
        journal = self._state.journal
        for pause_s in QUORUM_PAUSES_S if self._kept_until == NEVER else ():
            try:
                return (yield from self.propose(contents, journal.is_overtaken_by, is_in_cache=True))
            except ReadOnlyError:
                yield Pause(pause_s)
        return (yield from self.propose(contents, journal.is_overtaken_by, is_in_cache=True))

    def _not_now(self, error: DfsError, portion: list[PendingChange], forgotten: int) -> None:
        """Pending changes cannot be committed now: keep them if that may help, or else give them up. Raises
        `KeptError`."""
        state = self._state
        if isinstance(error, MaybeDoneError) and error.sequence is not None and state.journal.was_made(error.sequence):
            state.journal.committed(portion)  # it was learnt since that it was made
            self._kept_until = NEVER
            return
        is_doubtful = isinstance(error, MaybeDoneError) and _may_be_decided(error)
        if not (is_doubtful or isinstance(error, ReadOnlyError)) or not self._has_time_left():
            self.lose(error, portion)
            return
        state.lease.ended()
        state.fresh_at = state.recalled_at = NEVER
        if isinstance(error, MaybeDoneError) and error.sequence is not None:
            state.journal.doubt = Doubt(error, error.sequence, forgotten, portion)
        self._keep(error)

    def _has_time_left(self) -> bool:
        """Return whether pending changes may be kept any longer. The time begins when this is first called; once the
        mount is ending, the time is what is left until the end, even without `wait_s`."""
        now = self._clock()
        if self._kept_until == NEVER:
            self._kept_until = now + self._wait_s
        return now < (self._ends_at if self._is_ending else self._kept_until)

    @property
    def _is_ending(self) -> bool:
        """Return whether the mount is about to end (`end_within`)."""
        return self._ends_at < float("inf")

    def _keep(self, error: DfsError) -> NoReturn:
        self.wake()
        raise KeptError(f"changes that were answered wait for servers: {error}") from error

    def lose(self, error: DfsError, sent: list[PendingChange] | None = None) -> None:
        """Give up all pending changes, which cannot be committed. See `MapState.lose`."""
        self._kept_until = NEVER
        self._state.lose(error, sent)

    def drain(self) -> Procedure[None]:
        """With the log. Commit all changes that are pending by now, but not those that are answered under the lease
        meanwhile. A failure is kept for the callers that ask for durability."""
        last = self._state.journal.last
        if last is not None and not last.done:
            yield from self.commit_pending(until=last)

    # -------------------------------------------------------------- the end of a turn

    def hand_over_if_spent(self) -> Procedure[None]:
        """With the log. If another client waits, and this one has had its turn: answer nothing more, commit pending
        changes, and release the lease."""
        lease = self._state.lease
        if not lease.is_spent(self._clock()):
            return
        lease.end_turn()
        with contextlib.suppress(KeptError):
            yield from self.drain()
        with contextlib.suppress(DfsError):  # the changes are committed; the lease ends by itself
            yield from self.settle()

    def settle(self) -> Procedure[None]:
        """With the log. Release the lease, unless changes are pending."""
        state = self._state
        if state.journal:
            return
        state.lease.ended()
        if state.lease.is_owed:
            yield Settle()
            state.lease.released(self._clock())

    # -------------------------------------------------------------- doubt

    def doubt_of(self, error: MaybeDoneError, forgotten: int) -> Doubt | None:
        """Return the doubt about a batch that failed with this error; None if it is not worth waiting for a decision.
        `forgotten`: how often news had been missed before."""
        if not self._wait_s or error.sequence is None or not _may_be_decided(error):
            return None
        return Doubt(error, error.sequence, forgotten)

    def wait_until_decided(self, doubt: Doubt) -> Procedure[bool]:
        """Return whether the batch was made, as soon as there is a quorum; until then other operations may use the log.
        Raises the doubt's error after `wait_s`."""
        until = self._clock() + self._wait_s
        while self._clock() < min(until, self._ends_at) and not self._is_closing:
            yield Pause(KEEP_EVERY_S)
            with contextlib.suppress(UnavailableError, NoSpaceError):
                was_made: bool = yield WithLog(self._decide(doubt))
                return was_made
        raise doubt.error

    def _decide_portion(self, doubt: Doubt) -> Procedure[None]:
        """With the log. Find out whether the first portion was made. Raises `KeptError` if that is not known yet."""
        try:
            was_made = yield from self._decide(doubt)
        except MaybeDoneError as error:
            self.lose(error, list(doubt.portion))
        except DfsError as error:
            if self._has_time_left():
                self._keep(error)
            self.lose(doubt.error, list(doubt.portion))
        else:
            self._kept_until = NEVER
            if not was_made:
                self._state.journal.doubt = None  # it is proposed once more

    def _decide(self, doubt: Doubt) -> Procedure[bool]:
        """With the log. Return whether the batch was made; if not, it never will be. Raises what `QuorumLog.lead` does,
        and the doubt's error if that can never be known."""
        state, sequence = self._state, doubt.sequence
        if not (state.journal.was_made(sequence) or self._is_forgotten(doubt)):
            yield Lead()
            yield from state.absorb()
        if not state.journal.was_made(sequence) and self._is_forgotten(doubt):
            raise doubt.error
        return state.journal.was_made(sequence)

    def _is_forgotten(self, doubt: Doubt) -> bool:
        """Return whether news was missed since the batch was sent: it may have said whether the batch was made."""
        return self._state.forgotten != doubt.forgotten


def _may_be_decided(error: MaybeDoneError) -> bool:
    """Return whether it may become known later whether the change was made. With full disks it would not."""
    return error.sequence is not None and error.errno != errno.ENOSPC
