"""A mount in virtual time: the map's client that ships, with two programs and its worker.

Nothing of a mount's order is implemented here. This module carries out the steps of the client's procedures, as
`dfsfuse.namespace.map.log_map.LogMap` does with threads: programs and worker are tasks on one machine, which the world
interleaves at the steps. It checks in every run:

- *Nothing is answered after the lease has ended*: whenever the client relies on its lease, the servers refuse all other
  clients (`_relies_on_lease`).
- *A waiting client gets its turn*: once the servers have reported that another client waits, and the turn is spent, the
  holder answers nothing more, commits what was answered, and releases the lease (`Turn`).
- *A loss is reported, once*: after a flush() that returned, everything answered before is durable; a flush() that
  reports a loss is right, and does not report it again (`Witnessed`).
- *A recall is seen*, and nothing is seen that was not: by the histories of registers and names (`history`).

What a history may say about an operation that was answered under the lease: its change belongs to a batch. If that is
chosen while the lease still holds, the operation was done when it was answered. If it is chosen later (the mount was
stopped or cut off for longer than its lease), others may not have seen it meanwhile: it was done at some time until
then. If it is never chosen, the mount is told, and whether it was done is open. What was read from the cache on top of
such changes proves nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from dfs_server.protocol import batches
from dfs_server.protocol.limits import LEASE_S
from dfs_server.protocol.messages import Items, ReadKeys, ReadRange, Values
from dfsfuse.errors import DfsError, LostError, MaybeDoneError, UnavailableError
from dfsfuse.log.lease import LOOK_TURN_S, TURN_S, Lease
from dfsfuse.log.procedures import RECEIVE_SOFT, Ask, DeadlineError
from dfsfuse.log.proposer import Point
from dfsfuse.log.reading import catch_up, read
from dfsfuse.log.repair import settle
from dfsfuse.log.rounds import learn_from
from dfsfuse.log.state import LogState
from dfsfuse.log.writing import commit, try_to_lead
from dfsfuse.namespace.map import steps as map_steps
from dfsfuse.namespace.map.cache import MapCache
from dfsfuse.namespace.map.client import MapClient
from dfsfuse.namespace.map.committing import Committer
from dfsfuse.namespace.map.fetching import Fetcher, NoCompanions
from dfsfuse.namespace.map.journal import Journal, PendingChange
from dfsfuse.namespace.map.losses import Witness
from dfsfuse.namespace.map.refreshing import Refresher
from dfsfuse.namespace.map.state import MapState
from dfsfuse.namespace.map.steps import Procedure, Step
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.map.worker import Worker

from .history import History, Operation
from .world import Host, Park, Sleep, Task, World

NEVER = float("-inf")
DEADLINE_S = 10.0
ANSWERS_S = 0.75 * LEASE_S
FORGETS = 0.2
"""Probability that a mount drops its cache, as a mount does that has read too much: then it asks the servers again,
even while it holds the lease and answered changes are pending."""
GLANCES = 0.2
"""Probability that one of its programs reads something that may be a little old."""
Steps = Generator[Any, Any, Any]


def _family_of(key: bytes) -> bytes | None:
    return b"n" if key.startswith(b"n") else None


@dataclass(frozen=True)
class Parts:
    """The classes that a mount is made of. Variants that are broken on purpose replace those that ship."""

    committer: type[Committer] = Committer
    lease: type[Lease] = Lease
    journal: type[Journal] = Journal
    cache: type[MapCache] = MapCache


class Gate:
    """A lock between tasks."""

    def __init__(self) -> None:
        self._is_held = False
        self._parked: list[Task] = []

    def enter(self) -> Steps:
        while self._is_held:
            yield Park(self._parked)
        self._is_held = True

    def leave(self) -> None:
        self._is_held = False
        if self._parked:
            self._parked[0].wake(self._parked)


class WakeEvent:
    """Wakes one task; stays set until it is cleared."""

    def __init__(self) -> None:
        self._is_set = False
        self._parked: list[Task] = []

    def set(self) -> None:
        self._is_set = True
        if self._parked:
            self._parked[0].wake(self._parked)

    def clear(self) -> None:
        self._is_set = False

    def wait(self, seconds: float | None) -> Steps:
        if not self._is_set:
            yield Park(self._parked, seconds)
        return self._is_set


@dataclass
class Turn:
    """A holder's turn, by what the servers have reported."""

    term: int = 0
    began_at: float = NEVER
    is_wanted: bool = False
    is_recalled: bool = False
    left: int | None = None
    """Number of batches that it may still commit before it releases the lease; None if it need not."""

    def committed(self, log: LogState, now: float, waiting: int) -> None:
        """Note a chosen batch; `waiting` is the number of pending changes."""
        if log.terms != self.term:
            self.term, self.began_at, self.left = log.terms, NEVER, None
            self.is_wanted = self.is_recalled = False
        self.is_wanted |= log.wanted
        self.is_recalled |= log.recalled
        if self.began_at == NEVER and log.leased:
            self.began_at = now
        spent = (self.is_wanted and now >= self.began_at + TURN_S) or (
            self.is_recalled and now >= self.began_at + LOOK_TURN_S
        )
        if spent and self.left is None:
            self.left = waiting


@dataclass(eq=False)
class Answer:
    """An operation that was answered before its commit, and the last change that it is based on."""

    operation: Operation
    change: PendingChange
    lease_until: float


@dataclass(eq=False)
class Witnessed:
    """What flush() has reported to a program, and what it still has to report."""

    witness: Witness
    changes: list[PendingChange] = field(default_factory=list)
    """Changes answered since the last report, without a waiter."""


class SimMount:
    """A mount."""

    def __init__(
        self, world: World, host: Host, history: History, names: Callable[[], bytes], parts: Parts, operations: int
    ) -> None:
        self.world, self.host, self.history = world, host, history
        self.names = names
        """Returns the next key to claim."""
        self.left = operations
        self.log = LogState(host.name.encode(), world.quorum, wants_lease=True)
        self.gate, self.wake_event = Gate(), WakeEvent()

        def excused_ago_s() -> float:
            return float("inf")

        def confirms(_view: View, servers: frozenset[int]) -> bool:
            return not any(world.servers[server].was_wiped for server in servers)

        self.state = MapState(self.log, parts.cache(_family_of), host.clock)
        self.state.journal = parts.journal()
        self.state.lease = self._watched(parts.lease)
        self.committer = parts.committer(self.state, self.wake_event, world.random.choice((0.0, 3.0)))
        fetcher = Fetcher(_family_of, self.state, NoCompanions(), lambda _: b"")
        refresher = Refresher(self.state, self.committer, fetcher, excused_ago_s, confirms)
        self.client = MapClient(self.state, refresher, self.committer, excused_ago_s)
        self.worker = Worker(self.state, self.committer)
        self.turn = Turn()
        self.exclusive_until = NEVER
        """When the last lease given by the servers ends, by this client's clock."""
        self.answers: list[Answer] = []
        self.witnesses: list[Witnessed] = []
        self.changes: list[PendingChange] = []
        """All changes that were answered before their commit, in order."""
        self.durable: list[PendingChange] = []
        """Those that flush() has reported as durable."""

    def _watched(self, lease: type[Lease]) -> Lease:
        mount = self

        class Watched(lease):  # type: ignore[valid-type, misc]
            def holds(self, now: float) -> bool:
                found: bool = super().holds(now)
                if found:
                    mount._relies_on_lease()
                return found

        return Watched()

    def _relies_on_lease(self) -> None:
        """Check that no other client can commit while it answers. A waiting client needs the promises of three of the
        four servers."""
        if self.world.refusing(self.log.client) < 2:
            self.world.fail(f"{self.host.name} answers under a lease that has ended")
        if self.turn.left is not None:
            self.world.fail(f"{self.host.name} answers although its turn is spent and another client waits")

    # -------------------------------------------------------------- a mount's life

    def live(self) -> Steps:
        """Run two programs and the worker, then unmount."""
        self.committer.has_worker = True
        worker = self.world.spawn(self.host, self._carry_out(self.worker.work()))
        programs = [self.world.spawn(self.host, self._program()) for _ in range(2)]
        while any(task.alive for task in programs):
            yield Sleep(0.5)
        self.committer.stop_working()
        while worker.alive:
            yield Sleep(0.01)
        with contextlib.suppress(DfsError):
            yield from self._carry_out(self.client.close())
        self._observe()

    def _program(self) -> Steps:
        random = self.world.random
        witnessed = Witnessed(self.state.journal.losses.witness())
        self.witnesses.append(witnessed)
        while self.left > 0:
            self.left -= 1
            if random.random() < FORGETS:
                self.state.cache.forget()
            if random.random() < GLANCES:
                yield from self._glance()
            yield from self._operate(self._begin())
            if random.random() < 0.1:
                yield from self._flush(witnessed)
            if random.random() < 0.7:
                yield Sleep(random.choice((0.0003, 0.001, 0.004, 0.02)))
        yield from self._flush(witnessed)

    def _glance(self) -> Steps:
        """Read something that may be a little old. The result proves nothing about the newest state, but the read
        affects the cache."""
        key = self.world.random.choice((b"n0", b"n1", b"r0", b"r1"))
        with contextlib.suppress(DfsError):
            yield from self._carry_out(self.client.read(lambda view: view.get(key), 0.05))

    def _begin(self) -> Operation:
        random = self.world.random
        key = self.names() if random.random() < 0.6 else random.choice((b"r0", b"r1"))
        kind = random.choice(("get", "cas", "cas") if key.startswith(b"n") else ("get", "put", "cas"))
        operation = self.history.begin(kind, key, self.world.now)
        operation.client = self.host.name
        if key.startswith(b"r") and kind == "cas":
            operation.expected = random.choice([None, *(op.value for op in self.history.operations[-6:])])
        if kind != "get":
            operation.value = b"v%d" % len(self.history.operations)
        return operation

    def _operate(self, operation: Operation) -> Steps:
        urgency = self.world.random.random()
        durable, is_followed = urgency < 0.25, urgency > 0.6
        rests_on: list[PendingChange | None] = []
        begun = self.world.now

        def look(view: View) -> None:
            journal = self.state.journal
            rests_on[:] = [journal.last if journal else None]
            operation.result = view.get(operation.key)
            operation.done = operation.kind != "cas" or operation.result == operation.expected

        def change(tx: Transaction) -> None:
            look(tx)
            if operation.done:
                assert operation.value is not None
                tx.put(operation.key, operation.value)

        try:
            if operation.kind == "get":
                yield from self._carry_out(self.client.read(look, 0.0))
                self._answered(operation, rests_on[0])
            else:
                answered = yield from self._carry_out(self.client.begin(change, durable=durable))
                self._answered(operation, answered.change or rests_on[0])
                if answered.change is not None:
                    self.changes.append(answered.change)
                    if not durable:
                        for each in self.witnesses:
                            each.changes.append(answered.change)
                    yield from self._carry_out(
                        self.client.see_to(answered.change, durable=durable, is_followed=is_followed)
                    )
                    if durable:
                        self.durable.append(answered.change)
                if durable and operation.outcome == "ok":
                    operation.end = self.world.now
        except MaybeDoneError:
            operation.outcome, operation.end = "maybe", float("inf")
        except DfsError as error:
            operation.outcome = "failed"
            self.world.note(self.host.name, f"failed: {error}")
        self.world.slowest_s = max(self.world.slowest_s, self.world.now - begun)
        self.world.note(self.host.name, f"{operation.outcome}: {operation.shown()}")

    def _answered(self, operation: Operation, change: PendingChange | None) -> None:
        operation.end, operation.outcome = self.world.now, "ok"
        if change is not None:
            operation.answered = True
            self.answers.append(Answer(operation, change, self.exclusive_until))
            self.world.note(self.host.name, f"answers {operation.shown()}")

    # -------------------------------------------------------------- a loss is reported, once

    def _flush(self, witnessed: Witnessed) -> Steps:
        changes, last = list(witnessed.changes), self.state.journal.last
        try:
            yield from self._carry_out(self.client.flush(witnessed.witness))
        except LostError:
            # It waited for the last change too, even if that is another program's, which is told as well.
            if not any(change.failure is not None for change in [*witnessed.changes, last] if change is not None):
                self.world.fail(f"{self.host.name} is told of a loss that is not a new one")
            witnessed.changes = [change for change in witnessed.changes if not change.done]
        except DfsError:
            return
        else:
            if any(change.failure is not None or not change.done for change in changes):
                self.world.fail(f"{self.host.name} is told that all is durable, although something was lost")
            self.durable += changes
            witnessed.changes = [change for change in witnessed.changes if change not in changes]

    def check_durable(self) -> None:
        """Check that everything reported as durable is in the log. A batch holds the last of several values of a
        key."""
        chosen = {
            pair
            for parsed in self.world.oracle.chosen.values()
            if parsed.batch.author == self.log.client
            for pair in parsed.batch.puts
        }
        said = set(self.durable)
        are_there: set[bytes] = set()
        """Keys with a value in the log that was answered later."""
        for change in reversed(self.changes):
            ((key, value),) = change.contents.puts
            if (key, value) in chosen:
                are_there.add(key)
            if change in said and key not in are_there:
                self.world.fail(f"{self.host.name} was told that {value!r} of {key!r} is durable, but it is not there")

    # -------------------------------------------------------------- what became of answers

    def _observe(self) -> None:
        """Find out which answers are durable now, and whether they were in time."""
        waiting = []
        now = self.host.clock()
        for answer in self.answers:
            if not answer.change.done:
                waiting.append(answer)
            elif answer.change.failure is not None:
                self._came_late(answer, float("inf"))
            elif now >= answer.lease_until:
                self._came_late(answer, self.world.now)
        self.answers = waiting

    @staticmethod
    def _came_late(answer: Answer, end: float) -> None:
        operation = answer.operation
        if operation.outcome == "failed":
            return
        if operation.kind == "get" or not operation.done:
            operation.outcome = "void"
        else:
            operation.end, operation.outcome = end, "late" if end < float("inf") else "maybe"

    def ended(self) -> None:
        """Finish: the outcome of pending changes is not known."""
        self._observe()
        for answer in self.answers:
            self._came_late(answer, float("inf"))

    # -------------------------------------------------------------- carrying out steps

    def _carry_out(self, procedure: Procedure[Any]) -> Steps:
        """Like `LogMap.run`."""
        resume: Callable[[Any], Step] = procedure.send
        value: Any = None
        while True:
            try:
                step = resume(value)
            except StopIteration as end:
                self._observe()
                return end.value
            self._observe()
            try:
                resume, value = procedure.send, (yield from self._step(step))
            except DfsError as error:
                resume, value = procedure.throw, error

    def _step(self, step: Step) -> Steps:
        match step:
            case map_steps.WithLog(procedure):
                yield from self.gate.enter()
                try:
                    return (yield from self._carry_out(procedure))
                finally:
                    self.gate.leave()
            case map_steps.Pause(seconds) | map_steps.Linger(seconds):
                yield Sleep(seconds)
            case map_steps.AwaitWork(seconds):
                return (yield from self.wake_event.wait(seconds))
            case map_steps.NotifyChanged():
                pass
            case map_steps.Commit(contents, conflicts):
                return (yield from self._commit(commit(self.log, contents, conflicts, 0)))
            case map_steps.CatchUp(recall, along):
                reply = None
                if along is not None:  # as early as possible, and so the oldest
                    reply = yield from self._beside(along)
                wanted = recall and "recall" not in self.world.broken
                return (yield from self._in_time(catch_up(self.log, recall=wanted))), reply
            case map_steps.Beside():
                return (yield from self._beside(step))
            case map_steps.LearnUntil(slot):
                order = self._order()
                if self.log.known.slot:
                    yield from self._in_time(learn_from(self.log, order, Point(slot, batches.NO_BATCH)))
            case map_steps.FetchKeys(keys):
                return (yield from self._read(lambda at: ReadKeys(at.slot, at.digest, keys)))
            case map_steps.FetchRange(start, end, limit):
                return (yield from self._read(lambda at: ReadRange(at.slot, at.digest, start, end, limit)))
            case map_steps.Lead():
                if self.log.ballot is None and not (yield from self._in_time(try_to_lead(self.log))):
                    raise UnavailableError("another client is writing")
            case map_steps.Settle():
                self.turn = Turn(self.log.terms)
                yield from self._in_time(settle(self.log.known, self.log.spared, self.log.client, enough=3))
                self.world.note(self.host.name, "lets go")
        return None

    def _commit(self, procedure: Steps) -> Steps:
        begun = self.host.clock()
        turn = self.turn
        if turn.left is not None and turn.term == self.log.terms:  # else the turn ended when another client led
            turn.left -= 1
            if turn.left < 0:
                self.world.fail(f"{self.host.name} goes on writing although its turn is spent and another client waits")
        done = yield from self._in_time(procedure)
        if done:
            now = self.host.clock()
            turn.committed(self.log, now, len(self.state.journal))
            if self.log.leased:
                for answer in self.answers:
                    if now < answer.lease_until:  # the lease was renewed before it ended
                        answer.lease_until = begun + ANSWERS_S
                self.exclusive_until = begun + ANSWERS_S
        return done

    def _order(self) -> tuple[int, ...]:
        return tuple(self.world.random.sample((1, 2, 3, 4), 4))

    def _read(self, make: Callable[[Any], Any]) -> Steps:
        return (yield from self._in_time(read(self.log, self._order(), make)))

    def _beside(self, step: map_steps.Beside) -> Steps:
        """Like `QuorumLog.read_beside`."""
        for server in self._order():
            yield Ask({server: step.fetch.at(step.point)})
            event = yield RECEIVE_SOFT
            if event is None or isinstance(event.reply, Values | Items):
                return None if event is None else event.reply
        return None

    def _in_time(self, procedure: Steps) -> Steps:
        """Like `QuorumLog`: with a deadline."""
        task = self.host.running
        task.deadline = task.clock() + DEADLINE_S
        try:
            return (yield from procedure)
        except DeadlineError as error:
            raise UnavailableError(f"the servers did not agree in time: {error}") from error
        finally:
            task.deadline = float("inf")
