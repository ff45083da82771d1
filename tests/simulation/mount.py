"""A mount under the writer lease, in virtual time: what `LogMap` and `QuorumLog` do with threads, as one procedure.

The parts that decide are the real ones: the log's procedures, the cache, the views and the queue of what was answered.
What is written again here is only their order: answer from the cache while the lease is held, commit what waits, let go
when another client wants its turn or must see. While a commit is under way it answers on, as other threads would.

What a history may say of an operation that was answered under the lease: its change is bound to a batch. If that is
chosen while the lease still holds, the operation was done when it was answered. If it is chosen later (the mount stood
still, or was cut off, for longer than its lease), others may not have seen it meanwhile: it was done at some time until
then. If it never is, the mount is told; whether it was done is open. What was read from the cache on top of such
changes says nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from dfs_server.protocol.messages import ReadKeys, Values
from dfsfuse.cluster.log_reading import catch_up, read
from dfsfuse.cluster.log_repair import settle
from dfsfuse.cluster.log_state import Contents, LogState, News
from dfsfuse.cluster.log_writing import LEASE_S, commit
from dfsfuse.cluster.procedures import DeadlineError, Pause
from dfsfuse.errors import DfsError, MaybeDoneError, UnavailableError
from dfsfuse.namespace.journal import Journal
from dfsfuse.namespace.map_cache import MapCache
from dfsfuse.namespace.views import CachedView, MissingError

from .history import History, Operation
from .world import Task, World

NEVER = float("-inf")
DEADLINE_S = 10.0
Steps = Generator[Any, Any, Any]


@dataclass(eq=False)
class Waiting:
    """A change that was answered and is not durable. (`Journal.merged` needs no more of it.)"""

    contents: Contents
    view: CachedView
    done: bool = False


class SimMount:
    """One mount. `recalls` False is a variant that is broken on purpose."""

    def __init__(self, world: World, task: Task, history: History, names: Callable[[], bytes]) -> None:
        self.world, self.task, self.history = world, task, history
        self.names = names
        """The next key that somebody may claim."""
        self.recalls = "recall" not in world.broken
        self.log = LogState(task.name.encode(), world.quorum, wants_lease=True)
        self.cache = MapCache(lambda _: None)
        self.pending: list[Waiting] = []
        self.bound: list[tuple[Operation, Waiting]] = []
        """Operations answered and not durable, each with the last change that it rests on."""
        self.lease_until = NEVER
        self.fresh_at = NEVER
        self.others = News()
        """What others changed while the last batch was under way. If they finished it for us, they may have gone on."""
        self.left = 0
        self.is_waited_for = False
        """Whether another client waits for the lease, or to see what was answered."""

    def live(self, operations: int) -> Steps:
        """Operations one after the other; between them it commits, waits, or lets go, as threads would."""
        self.left = operations
        while self.left > 0:
            self.left -= 1
            yield from self._in_time(self._operate(self._begin()))
            if self.world.random.random() < 0.4:
                yield from self._in_time(self._commit_waiting())
            if self.world.random.random() < 0.1:
                yield from self._in_time(self._settle())
            if self.world.random.random() < 0.3:
                yield Pause(self.world.random.choice((1, 4, 16)))
        yield from self._in_time(self._settle())

    def _in_time(self, procedure: Steps) -> Steps:
        self._extend()
        with contextlib.suppress(DfsError, DeadlineError):
            yield from procedure
        self.task.deadline = float("inf")

    def _extend(self) -> None:
        self.task.deadline = self.task.clock() + DEADLINE_S

    # -------------------------------------------------------------- operations

    def _begin(self) -> Operation:
        random = self.world.random
        key = self.names() if random.random() < 0.6 else random.choice((b"r0", b"r1"))
        kind = random.choice(("get", "cas", "cas") if key.startswith(b"n") else ("get", "put", "cas"))
        operation = self.history.begin(kind, key, self.world.now)
        operation.client = self.task.name
        if key.startswith(b"r") and kind == "cas":
            operation.expected = random.choice([None, *(op.value for op in self.history.operations[-6:])])
        if kind != "get":
            operation.value = b"v%d" % len(self.history.operations)
        return operation

    def _run(self, operation: Operation, view: CachedView) -> None:
        """On the cached state. Raises MissingError."""
        found = view.get(operation.key)
        operation.result = found
        operation.done = operation.kind != "cas" or found == operation.expected
        if operation.kind != "get" and operation.done:
            assert operation.value is not None
            view.put(operation.key, operation.value)

    def _answer(self, operation: Operation) -> bool:
        """Under the lease, from the cache, at once."""
        if self.task.clock() >= self.lease_until:
            return False
        view = CachedView(self.cache)
        try:
            self._run(operation, view)
        except MissingError:
            return False
        if view.changes_anything():
            contents = view.contents()
            self.cache.changed_here(contents.puts, contents.deletes)
            self.pending.append(Waiting(contents, view))
        operation.end = self.world.now
        operation.outcome = "ok"
        operation.answered = True
        if self.pending:
            operation.lease_until = self.lease_until
            self.bound.append((operation, self.pending[-1]))
        self.world.note(self.task.name, f"answers {operation.shown()}")
        return True

    def _operate(self, operation: Operation) -> Steps:
        if self._answer(operation):
            return
        try:
            yield from self._commit_all()
            yield from self._slowly(operation)
        except MaybeDoneError:
            operation.outcome = "maybe"
        except (DfsError, DeadlineError) as error:
            operation.outcome = "failed"
            self.world.note(self.task.name, f"failed: {error}")
        else:
            operation.end, operation.outcome = self.world.now, "ok"
        self.world.note(self.task.name, f"{operation.outcome}: {operation.shown()}")

    def _slowly(self, operation: Operation) -> Steps:
        """`LogMap._transact_slowly`, and `LogMap.read` for a get."""
        begun = self.task.clock()
        if operation.kind == "get" and not self._is_newest(begun):
            yield from self._catch_up(recall=True)
        elif self.fresh_at == NEVER:
            yield from self._catch_up(recall=False)
        for _ in range(50):
            view = CachedView(self.cache)
            try:
                self._run(operation, view)
            except MissingError:
                yield from self._fetch(tuple(view.missing))
                continue
            if view.changes_anything():
                if (yield from self._propose(view.contents(), view.touched_by)):
                    return
            elif (operation.kind == "get" and self._is_newest(begun)) or (yield from self._still_true(view, begun)):
                return
        raise UnavailableError("others change the same keys all the time")

    def _is_newest(self, since: float) -> bool:
        return self.fresh_at > since or self.task.clock() < self.lease_until

    def _catch_up(self, *, recall: bool) -> Steps:
        begun = self.task.clock()
        if not (yield from catch_up(self.log, recall=recall and self.recalls)):
            raise UnavailableError("no quorum: what is read now is as far as those know that answer")
        self._absorb()
        self.fresh_at = begun

    def _still_true(self, view: CachedView, begun: float) -> Steps:
        if self._is_newest(begun):
            return True
        now = self.task.clock()
        if not (yield from catch_up(self.log, recall=self.recalls)):
            raise UnavailableError("no quorum")
        news = self._absorb()
        self.fresh_at = now
        return not view.touched_by(news)

    def _absorb(self) -> News:
        news, self.log.news = self.log.news, News()
        if news.forget:
            self.cache.forget()
        for change in news.changes:
            self.cache.changed_elsewhere(change.keys)
        return news

    def _fetch(self, keys: tuple[bytes, ...]) -> Steps:
        order = tuple(self.world.random.sample((1, 2, 3, 4), 4))
        reply = yield from read(self.log, order, lambda at: ReadKeys(at.slot, at.digest, keys))
        assert isinstance(reply, Values)
        self._absorb()
        self.cache.fetched(keys, reply.values)

    # -------------------------------------------------------------- committing

    def _propose(self, contents: Contents, conflicts: Callable[[News], bool]) -> Steps:
        """`QuorumLog.commit` and `LogMap._propose`."""
        begun = self.task.clock()
        ok = False
        try:
            ok = yield from self._meanwhile(commit(self.log, contents, conflicts, 0))
        finally:
            news = self._absorb()
            self.others = News([each for each in news.changes if each.author != self.log.client], news.forget)
        self.is_waited_for |= self.log.wanted or self.log.recalled
        if ok:
            self.fresh_at = begun
            if news.changes or news.forget:
                self.cache.changed_elsewhere([*(key for key, _ in contents.puts), *contents.deletes])
            else:
                self.cache.changed_here(contents.puts, contents.deletes)
                for change in self.pending:
                    self.cache.changed_here(change.contents.puts, change.contents.deletes)
                if self.log.leased:
                    self.lease_until = begun + 0.75 * LEASE_S
        return ok

    def _meanwhile(self, procedure: Steps) -> Steps:
        """Carry it out; at each step another operation may be answered, as in another thread."""
        try:
            step = next(procedure)
            while True:
                try:
                    event = yield step
                except DeadlineError as error:
                    step = procedure.throw(error)
                    continue
                if self.pending and self.left > 0 and self.world.random.random() < 0.15:
                    operation = self._begin()
                    if self._answer(operation):
                        self.left -= 1
                    else:
                        self.history.operations.remove(operation)
                step = procedure.send(event)
        except StopIteration as stop:
            return stop.value

    def _commit_all(self) -> Steps:
        while self.pending:
            yield from self._commit_waiting()

    def _commit_waiting(self) -> Steps:
        """`LogMap._commit_pending`, and handing over."""
        while self.pending:
            portion = self.pending[: self.world.random.randint(1, len(self.pending))]
            why: DfsError = UnavailableError("another client changed the same keys")
            try:
                done = yield from self._propose(Journal.merged(portion), self._touched_by)  # type: ignore[arg-type]
            except (DfsError, DeadlineError) as error:
                done, why = False, error if isinstance(error, DfsError) else UnavailableError(str(error))
                self._extend()
            if not done:
                self._lose(why)
                return
            del self.pending[: len(portion)]
            for change in portion:
                change.done = True
            self._durable()
            if self._touched_by(self.others):
                self._lose(why)
                return
        if self.is_waited_for:
            yield from self._settle()

    def _touched_by(self, news: News) -> bool:
        return any(change.view.touched_by(news) for change in self.pending)

    def _durable(self) -> None:
        """Of those whose changes are durable now: were they in time?"""
        waiting = []
        for operation, change in self.bound:
            if not change.done:
                if self.task.clock() < operation.lease_until:  # the lease was renewed before it ended
                    operation.lease_until = self.lease_until
                waiting.append((operation, change))
            elif self.task.clock() >= operation.lease_until:
                self._came_late(operation, self.world.now)
        self.bound = waiting

    def _lose(self, why: DfsError) -> None:
        self.lease_until = self.fresh_at = NEVER
        self.pending = []
        self.cache.forget()
        self.world.note(self.task.name, f"loses {len(self.bound)} answers: {why}")
        for operation, _ in self.bound:
            self._came_late(operation, float("inf"))
        self.bound = []

    @staticmethod
    def _came_late(operation: Operation, end: float) -> None:
        if operation.kind == "get" or not operation.done:
            operation.outcome = "void"
        else:
            operation.end, operation.outcome = end, "late" if end < float("inf") else "maybe"

    def died(self) -> None:
        """Nobody knows what became of what waited."""
        for operation, _ in self.bound:
            self._came_late(operation, float("inf"))

    def _settle(self) -> Steps:
        """Let go of the lease: answer nothing more, commit what was answered, tell the servers."""
        self.lease_until = NEVER
        if self.pending:
            yield from self._commit_waiting()
            self.lease_until = NEVER
        if self.pending:
            return
        self.is_waited_for = False
        self.world.note(self.task.name, "lets go")
        yield from settle(self.log.known, self.log.client, silent=self.log.silent, enough=self.log.quorum)
