"""Keeps the known state new enough and complete: looks at the end of the log, and fetches what the cache lacks.

**What the cache lacks** is fetched beside the log (`fetch_beside`): several operations wait for servers at the same
time, and none waits for a batch in flight. An answer may be as of an earlier slot: it counts except for keys that have
changed since (`Changes`). Where that does not work, it is fetched with the log (`fetch`); where a look at the end of
the log is needed anyway, along with that (`become_newest`).

Pure: everything here is a procedure of the steps in `steps`, or runs between two steps: no locks, threads, sockets or
clocks of its own. One that uses the log is carried out within a step `WithLog`; its docstring says "With the log".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from dfsfuse.errors import DfsError, UnavailableError
from dfsfuse.log.state import News
from dfsfuse.namespace.map.cache import Changes
from dfsfuse.namespace.map.committing import Committer, KeptError
from dfsfuse.namespace.map.fetching import Fetcher
from dfsfuse.namespace.map.runs import attempts
from dfsfuse.namespace.map.state import MapState, overtaken
from dfsfuse.namespace.map.steps import Beside, CatchUp, FetchKeys, FetchRange, LearnUntil, Procedure, WithLog
from dfsfuse.namespace.map.transactions import View
from dfsfuse.namespace.map.views import CachedView, MissingError


class _NotAvailableError(Exception):
    """No server could answer beside the log: it must be asked with the log."""


class Refresher:
    """See the module."""

    def __init__(
        self,
        state: MapState,
        committer: Committer,
        fetcher: Fetcher,
        excused_ago_s: Callable[[], float],
        is_newest: Callable[[View, frozenset[int]], bool] | None = None,
    ) -> None:
        """`excused_ago_s`: how long ago the servers were last slow together, or this process stood still. `is_newest`:
        whether a state is the newest one if these servers, fewer than a quorum, show nothing newer. A state that it
        does not confirm is not shown (UnavailableError). Without it a state that may be old is shown."""
        self._state = state
        self._committer = committer
        self._fetcher = fetcher
        self._excused_ago_s = excused_ago_s
        self._confirms = is_newest

    # -------------------------------------------------------------- what the cache lacks

    def fetch(self, view: CachedView) -> Procedure[None]:
        """With the log. Bring what the view lacks into the cache."""
        return self._fetcher.fetch(view, self._ask)

    def fetch_beside(self, view: CachedView) -> Procedure[bool]:
        """Bring what the view lacks into the cache, while other operations may use the log. Returns False if it must be
        fetched with the log."""
        try:
            yield from self._fetcher.fetch(view, self._ask_beside)
        except _NotAvailableError:
            return False
        return True

    def _ask_beside(self, fetch: FetchKeys | FetchRange, since: Changes) -> Procedure[Any]:
        state = self._state
        if state.at is None:
            raise _NotAvailableError
        reply = yield Beside(state.at, fetch)
        if reply is not None and not state.has_reached(reply.applied):
            yield WithLog(self._learn_until(reply.applied))
        return self._checked(reply, since)

    def _learn_until(self, slot: int) -> Procedure[None]:
        """With the log."""
        if not self._state.has_reached(slot):
            with contextlib.suppress(DfsError):
                yield LearnUntil(slot)
            yield from self._state.absorb()

    def _checked(self, reply: Any, since: Changes) -> Any:
        """Return the reply, if it can be put into the cache: all changes since its slot are known. Raises
        `_NotAvailableError`."""
        if reply is None or since.all or not self._state.has_reached(reply.applied):
            raise _NotAvailableError
        return reply

    def _ask(self, fetch: FetchKeys | FetchRange, since: Changes) -> Procedure[Any]:
        """With the log. Afterwards the cache is as of the reply's slot."""
        reply = yield fetch
        yield from self._state.absorb()
        if not since.has_answer:
            since.has_answer = True
            since.begin_anew()
        return reply

    # -------------------------------------------------------------- the end of the log (with the log)

    def become_newest(self, since: float, view: CachedView, *, recall: bool) -> Procedure[None]:
        """With the log. Make the cached state the newest one, unless another operation has done so; along with it,
        fetch what this view lacks."""
        state = self._state
        if not state.lease.holds(state.clock()):
            with contextlib.suppress(KeptError):
                yield from self._committer.drain()
        if state.is_newest(since, recall=recall):
            return

        def ask(fetch: FetchKeys | FetchRange, changes: Changes) -> Procedure[Any]:
            at = state.at  # where the cache stands now: of an older reply it would not be known what has changed since
            if at is None or state.is_newest(since, recall=recall):  # this is not the first request
                raise _NotAvailableError
            reply = yield from self._look(Beside(at, fetch), recall=recall)
            return self._checked(reply, changes)

        if (
            view.lacks_something() and state.at is not None and state.at.slot
        ):  # the first look would forget what comes along
            with contextlib.suppress(_NotAvailableError):
                yield from self._fetcher.fetch(view, ask)
        else:
            yield from self.catch_up(recall=recall)

    def is_still_true(self, view: CachedView, begun: float) -> Procedure[bool]:
        """With the log. Return whether what the view has read is the newest state at some moment since `begun`."""
        if self._state.is_newest(begun, recall=True):
            return True
        news = yield from self.catch_up(recall=True)
        return not view.touched_by(news)

    def catch_up(self, *, recall: bool) -> Procedure[News]:
        """With the log. Make the cached state the newest one. Returns what is new."""
        begun = self._state.clock()
        is_newest, _ = yield CatchUp(recall)
        news = yield from self._state.absorb()
        yield from self._has_looked(begun, is_newest=is_newest, recall=recall)
        return news

    def _look(self, along: Beside, *, recall: bool) -> Procedure[Any]:
        """With the log. The same; returns the reply to the request that was sent along, if there is one."""
        begun = self._state.clock()
        is_newest, reply = yield CatchUp(recall, along)
        yield from self._state.absorb()
        yield from self._has_looked(begun, is_newest=is_newest, recall=recall)
        return reply

    def _has_looked(self, begun: float, *, is_newest: bool, recall: bool) -> Procedure[None]:
        state = self._state
        if not is_newest:
            yield from self._confirm()
        if state.journal.doubt is None and state.journal.is_overtaken():
            self._committer.lose(overtaken())  # they must not be laid over what other clients have committed since
            yield from state.absorb()
        state.fresh_at = begun
        if recall:
            state.recalled_at = begun

    # -------------------------------------------------------------- without a quorum

    def _confirm(self) -> Procedure[None]:
        """With the log. No quorum has reported the log's end. Raises `UnavailableError` if the known state must not be
        shown then."""
        if self._confirms is None:
            return
        witnesses = self._state.log.witnesses
        if witnesses and (yield from self._confirms_known_state(self._confirms, witnesses)):
            return
        raise UnavailableError(
            "too few servers answer to tell whether what they have is the newest state, and nothing older is shown "
            "here: start the missing servers ('dfc status' names them)"
        )

    def _confirms_known_state(
        self, is_newest: Callable[[View, frozenset[int]], bool], servers: frozenset[int]
    ) -> Procedure[bool]:
        for view in attempts(self._state, self._excused_ago_s):
            with contextlib.suppress(MissingError):
                return is_newest(view, servers)
            yield from self.fetch(view)
        raise AssertionError("unreachable: `attempts` raises when it gives up")
