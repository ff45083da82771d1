"""A world in virtual time: four acceptors, clients, and a network between them, all driven by one seed.

Nothing under test is faked: the acceptor's rules (`dfs_server.store.acceptor`), the proposer's, and the procedures of
`dfsfuse.log` (`writing`, `reading`, `repair`) run unchanged. The world replaces what they do not know: time, the
network, the disk.

The faults, each drawn from the seed: a message is lost, duplicated, delayed (and so overtaken); a server crashes and
loses what was not durable; all do; a server stops for a while; it hangs, and answers much later what came meanwhile; a
server loses its disk; clients and servers are cut off from each other; a client dies between any two steps, or is
stopped; every clock has its own speed and offset.

`broken` names variants that are broken on purpose, each of which the checks must catch.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from itertools import count
from math import log
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.limits import QUORUM
from dfs_server.protocol.messages import (
    Accept,
    Batches,
    BeginCopy,
    Behind,
    Change,
    Changes,
    Chosen,
    CopyItems,
    Done,
    EndCopy,
    Error,
    GetBatches,
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
from dfs_server.store import acceptor
from dfs_server.store.acceptor import AcceptorState, Apply, ParsedBatch, Step
from dfs_server.store.copy_turn import NOBODY, CopyTurn
from dfsfuse.log.driving import AWAIT_S, SOFT_S
from dfsfuse.log.procedures import ALL, Ask, Await, DeadlineError, Event, Pause, Receive
from dfsfuse.net.stalls import LOG_S

CLOCK_SPEEDS: Final = (0.9, 1.1)
"""The tolerated range of speeds: a writer relies on three quarters of its lease."""
NEVER: Final = float("inf")


def brief(message: object) -> str:
    """Return a message for a line of the trace, with digests and batches abbreviated."""
    match message:
        case bytes():
            return (
                message.hex()[:6] if len(message) > 12 else message.decode("latin-1").encode("unicode_escape").decode()
            )
        case Ballot():
            return f"{message.round}/{brief(message.client)}"
        case Struct():
            shown = (brief(getattr(message, name)) for name in message.__struct_fields__)
            return f"{type(message).__name__}({', '.join(shown)})"
        case tuple():
            return f"({len(message)})"
    return str(message)


class SimulationError(AssertionError):
    """A broken promise."""


@dataclass
class Disk:
    """The state that a server stores."""

    state: AcceptorState = field(default_factory=AcceptorState)
    log: dict[int, ParsedBatch] = field(default_factory=dict)
    map: dict[bytes, bytes] = field(default_factory=dict)
    copy: dict[bytes, bytes] = field(default_factory=dict)
    copy_of: tuple[bytes, int, bytes] | None = None
    read_from: int = 0

    def twin(self) -> Disk:
        return Disk(self.state, dict(self.log), dict(self.map), dict(self.copy), self.copy_of, self.read_from)


class SimServer:
    """A dfs-server's log in memory: `disk` is its current state, and `synced` is what a crash would leave."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.disk = Disk()
        self.synced = Disk()
        self.copy_turn = NOBODY
        self.up = True
        self.hangs = False
        self.was_wiped = False
        self.backlog: list[Callable[[], None]] = []
        """Messages that arrived while it hangs."""
        self.clock_speed = world.random.uniform(*CLOCK_SPEEDS)
        self.keep_batches = 12  # so that logs are often trimmed, and maps copied

    def now(self) -> float:
        """This server's clock, which runs at its own speed."""
        return 1000.0 * self.number + self.world.now * self.clock_speed

    def crash(self) -> None:
        """Lose what was not durable. The lease is not stored; when the server starts again, it is cautious."""
        self.up = False
        self.disk = self.synced.twin()
        self.copy_turn = NOBODY
        self.disk.state = acceptor.started(replace(self.disk.state, lease=None), self.now())

    def wipe(self) -> None:
        self.disk, self.synced = Disk(), Disk()
        self.was_wiped = True

    def thaw(self) -> None:
        """Go on, handling what arrived meanwhile."""
        self.hangs = False
        backlog, self.backlog = self.backlog, []
        for arrive in backlog:
            arrive()

    def handle(self, request: Request) -> Reply:
        disk = self.disk
        state = disk.state
        match request:
            case GetPosition(recall):
                return self._step(acceptor.position(state, recall, self.now()))
            case Promise(ballot):
                if "lease" in self.world.broken:
                    state = replace(state, lease=None)
                return self._step(acceptor.promise(state, ballot, self.now()))
            case Accept(ballot, slot, encoded, lease):
                parsed = self.world.parsed(encoded)
                return self._step(acceptor.accept(state, ballot, slot, parsed, self.now(), lease=lease))
            case Chosen(slot, digest, client):
                state = acceptor.let_go(state, client, slot, self.now())
                return self._step(acceptor.chosen(state, slot, digest))
            case Learn(first, encoded_batches):
                return self._step(acceptor.learn(state, first, [self.world.parsed(e) for e in encoded_batches]))
            case GetBatches(after):
                if after < state.applied and after + 1 not in disk.log:
                    return Error(Status.TRIMMED, "trimmed")
                slots = range(after + 1, min(state.applied, after + 3) + 1)
                return Batches(after + 1, tuple(disk.log[slot].encoded for slot in slots), state.applied)
            case GetChanges(after, slot, digest):
                if (behind := self._behind(slot, digest)) is not None:
                    return behind
                if after < disk.state.applied and after + 1 not in disk.log:
                    return Error(Status.TRIMMED, "trimmed")
                return Changes(
                    tuple(self._change(s) for s in range(after + 1, disk.state.applied + 1)), disk.state.applied
                )
            case ReadKeys(slot, digest, keys):
                if (behind := self._behind(slot, digest)) is not None:
                    return behind
                return Values(disk.state.applied, tuple(disk.map.get(key) for key in keys))
            case ReadRange(slot, digest, start, end, _):
                if (behind := self._behind(slot, digest)) is not None:
                    return behind
                found = sorted((key, value) for key, value in disk.map.items() if start <= key < end)
                return Items(disk.state.applied, tuple(found[:2]), more=len(found) > 2)
            case BeginCopy(copy, slot, digest):
                if not self.copy_turn.may_begin(copy, self.now()):
                    return Error(Status.COPYING, "copying")
                self.copy_turn = CopyTurn(copy, self.now())
                disk.copy, disk.copy_of = {}, (copy, slot, digest)
                return Done()
            case CopyItems(copy, items):
                if not self._is_under_way(copy):
                    return Error(Status.BAD_REQUEST, "no such copy")
                disk.copy.update(items)
                self.copy_turn = CopyTurn(copy, self.now())
                return Done()
            case EndCopy(copy, items_count, read_until):
                return self._end_copy(copy, items_count, read_until)
        raise AssertionError(request)

    def _is_under_way(self, copy: bytes) -> bool:
        under_way = self.disk.copy_of
        return under_way is not None and (under_way[0] == copy or "copies" in self.world.broken)

    def _behind(self, slot: int, digest: bytes) -> Behind | None:
        if self.disk.state.applied < slot:
            self._step(acceptor.chosen(self.disk.state, slot, digest))
        applied = self.disk.state.applied
        return Behind(applied) if applied < max(slot, self.disk.read_from) else None

    def _change(self, slot: int) -> Change:
        parsed = self.disk.log[slot]
        return Change(
            slot, parsed.digest, parsed.batch.author, parsed.batch.sequence, tuple(parsed.batch.changed_keys())
        )

    def _end_copy(self, copy: bytes, items_count: int, read_until: int) -> Reply:
        disk = self.disk
        if not self._is_under_way(copy):
            return Error(Status.BAD_REQUEST, "no such copy")
        self.copy_turn = NOBODY
        if len(disk.copy) != items_count:
            return Error(Status.BAD_REQUEST, "something is missing")
        assert disk.copy_of is not None
        _, slot, digest = disk.copy_of
        if slot > disk.state.applied:
            disk.state = acceptor.copied(disk.state, slot, digest)
            disk.map, disk.copy, disk.copy_of, disk.read_from = disk.copy, {}, None, read_until
            disk.log = {}
            self.sync()
        return disk.state.position()

    def _step(self, step: Step) -> Reply:
        disk = self.disk
        disk.state = step.state
        if not step.effects:
            return step.reply
        for effect in step.effects:
            if isinstance(effect, Apply):
                self.world.oracle.applied(self.number, effect.slot, effect.parsed)
                disk.log[effect.slot] = effect.parsed
                disk.map.update(effect.parsed.batch.puts)
                for key in effect.parsed.batch.deletes:
                    disk.map.pop(key, None)
        for slot in [slot for slot in disk.log if slot <= disk.state.applied - self.keep_batches]:
            del disk.log[slot]
        if step.must_be_durable:
            self.sync()
        return step.reply

    def sync(self) -> None:
        before = self.synced.state
        self.synced = self.disk.twin()
        if "promises" in self.world.broken:
            self.synced.state = replace(self.synced.state, promised=before.promised)
        if "votes" in self.world.broken:
            self.synced.state = replace(self.synced.state, tail=None)


class Oracle:
    """Sees everything. A slot has one chosen batch, forever."""

    def __init__(self) -> None:
        self.chosen: dict[int, ParsedBatch] = {}

    def applied(self, server: int, slot: int, parsed: ParsedBatch) -> None:
        """Record that a server takes this batch for chosen."""
        known = self.chosen.setdefault(slot, parsed)
        if known.digest != parsed.digest:
            raise SimulationError(f"slot {slot}: DFS{server} applies another batch than was chosen")


@dataclass(eq=False)
class Sleep:
    """A task's step: go on after a number of seconds by its own clock."""

    seconds: float


@dataclass(eq=False)
class Park:
    """A task's step: go on when woken (True), or after a number of seconds (False)."""

    parked: list[Task]
    seconds: float | None = None


class Host:
    """A client's machine: its tasks share a clock, are stopped and die together."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.tasks: list[Task] = []
        self.running: Task
        """The task that was resumed last."""
        self.stands_still_until = 0.0
        self.dies_after = -1
        """Number of steps until it dies; -1 for never."""
        self.clock_speed = world.random.uniform(*CLOCK_SPEEDS)
        self.clock_offset = world.random.uniform(-1e6, 1e6)

    def clock(self) -> float:
        """This client's clock, which is hours apart from others' and runs at its own speed."""
        return self.clock_offset + self.world.now * self.clock_speed

    @property
    def alive(self) -> bool:
        """Whether any of its tasks is alive."""
        return any(task.alive for task in self.tasks)

    def dies(self) -> bool:
        """Whether it dies with this step."""
        if self.dies_after >= 0:
            self.dies_after -= 1
            if self.dies_after < 0:
                self.world.note(self.name, "dies")
                self.kill()
                return True
        return False

    def kill(self) -> None:
        for task in self.tasks:
            task.kill()


class Task:
    """A client's running procedure: a generator, resumed by the world."""

    procedure: Generator[Any, Any, Any]

    def __init__(self, host: Host) -> None:
        self.host = host
        self.world = host.world
        self.name = host.name
        self.clock = host.clock
        self.round = 0
        self.inbox: list[Event] = []
        self.waiting = False
        self.turn = 0
        self.alive = True
        self.deadline = NEVER
        """When DeadlineError is thrown into the procedure, by its own clock."""

    def resume(self, event: Any) -> None:
        """Go on with the outcome of the last step, up to the next one that takes time."""
        world, host = self.world, self.host
        if not self.alive:
            return
        if world.now < host.stands_still_until:
            world.after(host.stands_still_until - world.now, self.resume, event)
            return
        if host.dies():
            return
        host.running = self
        self.waiting = False
        send = self.procedure.send
        try:
            step = send(event)
            while True:
                if self.deadline < NEVER and self.clock() >= self.deadline:
                    step = self.procedure.throw(DeadlineError("its time is over"))
                    continue
                match step:
                    case Receive():
                        if not self.inbox:
                            self.waiting = True
                            self.turn += 1
                            if step.soft:
                                world.after(SOFT_S, self.quiet, self.turn)
                            return
                        step = send(self.inbox.pop(0))
                    case Ask():
                        if not step.also:
                            self.round += 1
                            self.inbox.clear()
                        for server, request in step.requests.items():
                            world.send(self, server, request)
                        step = send(None)
                    case Pause(attempt):
                        delay = world.random.random() * world.pause_s * min(attempt, world.pause_growths)
                        world.after(delay, self.resume, None)
                        return
                    case Await(attempt):
                        world.after(AWAIT_S * 2 ** (attempt - 1), self.resume, None)
                        return
                    case Sleep(seconds):
                        world.after(seconds / host.clock_speed, self.resume, None)
                        return
                    case Park(parked, seconds):
                        parked.append(self)
                        if seconds is not None:
                            world.after(seconds / host.clock_speed, self._unpark, parked, False)
                        return
        except StopIteration:
            self.alive = False

    def _unpark(self, parked: list[Task], woken: bool) -> None:
        if self in parked:
            parked.remove(self)
            self.resume(woken)

    def wake(self, parked: list[Task]) -> None:
        """Let the parked task go on."""
        self.world.after(0.0, self._unpark, parked, True)

    def deliver(self, round_: int, event: Event) -> None:
        if round_ != self.round or not self.alive:
            return
        if self.waiting and self.world.now >= self.host.stands_still_until:
            self.resume(event)
        else:
            self.inbox.append(event)
            if self.waiting:
                self.turn += 1
                self.world.after(self.host.stands_still_until - self.world.now, self._awake, self.turn)

    def _awake(self, turn: int) -> None:
        """Go on after a stop during which something arrived, unless another one has begun."""
        if self.world.now < self.host.stands_still_until:
            self.world.after(self.host.stands_still_until - self.world.now, self._awake, turn)
        elif self.waiting and self.turn == turn and self.inbox:
            self.resume(self.inbox.pop(0))

    def quiet(self, turn: int) -> None:
        """End the wait if nothing has arrived since it began."""
        if self.world.now < self.host.stands_still_until:
            self.world.after(self.host.stands_still_until - self.world.now, self.quiet, turn)
        elif self.waiting and self.turn == turn:
            self.resume(None)

    def kill(self) -> None:
        self.alive = False
        self.procedure.close()


class Call:
    """A request to a server, which may arrive twice. It is answered once in its round, or counts as unanswered."""

    __slots__ = ("_number", "_request", "_round", "_task", "_world", "is_answered")

    def __init__(self, world: World, task: Task, number: int, request: Request) -> None:
        self._world = world
        self._task = task
        self._round = task.round
        self._number = number
        self._request = request
        self.is_answered = False

    def arrive(self) -> None:
        """Let the server handle the request, unless the network is cut or the server is down or hangs."""
        world, task, number = self._world, self._task, self._number
        server = world.servers[number]
        if (task.name, number) in world.cuts:
            return
        if not server.up:
            world.after(world.delay(), self._answer, Event(number, None, "refused"))
            return
        if server.hangs:
            server.backlog.append(self.arrive)
            return
        world.delivered += 1
        reply = server.handle(self._request)
        if world.trace is not None:
            world.note(task.name, f"DFS{number}: {brief(self._request)} -> {brief(reply)}")
        if world.random.random() >= world.loss and (task.name, number) not in world.cuts:
            is_error = isinstance(reply, Error)
            event = Event(number, None, reply.text, reply.status) if is_error else Event(number, reply)
            world.after(world.delay(), self._answer, event)

    def _answer(self, event: Event) -> None:
        if not self.is_answered:
            self.is_answered = True
            self._task.deliver(self._round, event)

    def time_out(self) -> None:
        """Count as unanswered, unless an answer has come."""
        if not self.is_answered:
            self._answer(Event(self._number, None, "no answer"))


class World:
    """Time, network and faults. `loss` and `double` are probabilities."""

    def __init__(
        self,
        seed: int,
        *,
        loss: float = 0.05,
        double: float = 0.05,
        broken: frozenset[str] = frozenset(),
        quorum: int = QUORUM,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.loss, self.double = loss, double
        self.broken = broken
        self.quorum = quorum
        self.trace = trace
        self.cuts: set[tuple[str, int]] = set()
        """Clients (by name) and servers that cannot reach each other."""
        self.oracle = Oracle()
        self.servers = {number: SimServer(self, number) for number in ALL}
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        """Future events: when each happens, in which order if at the same time, and what it does."""
        self._calls: deque[tuple[float, int, Call]] = deque()
        """When each call times out. They do so in this order, since all have the same time."""
        self._ties = count()
        self._parsed: dict[bytes, ParsedBatch] = {}
        self.delivered = 0
        self.failures: dict[str, float] = {}
        """Broken promises, and the time when each was first broken."""
        self.delayed = 0.1
        """The fraction of messages that take much longer than a millisecond."""
        self.pause_s, self.pause_growths = 0.01, 16
        """The longest first `Pause`, and the factor that it grows by at most with further attempts."""
        self.slowest_s = 0.0
        """The longest time that an operation of a mount took."""

    def after(self, delay: float, action: Callable[..., None], *args: Any) -> None:
        """Do this after a number of seconds."""
        heapq.heappush(self._queue, (self.now + delay, next(self._ties), action, args))

    def note(self, who: str, what: str) -> None:
        """Write a line of the trace."""
        if self.trace is not None:
            self.trace(f"{self.now:9.4f}  {who:<10} {what}")

    def start(self, name: str, life: Generator[Any, Any, Any] | Callable[[Host], Generator[Any, Any, Any]]) -> Host:
        """Start a client's machine with its first task."""
        host = Host(self, name)
        self.spawn(host, life(host) if callable(life) else life)
        return host

    def spawn(self, host: Host, procedure: Generator[Any, Any, Any]) -> Task:
        """Start another task on this machine."""
        task = Task(host)
        task.procedure = procedure
        host.tasks.append(task)
        self.after(self.random.random() * 0.01, task.resume, None)
        return task

    def fail(self, what: str) -> None:
        """Record a broken promise. It is raised when the run ends, since code that runs now may catch all
        exceptions."""
        self.failures.setdefault(what, self.now)
        self.note("checker", what)

    def refusing(self, client: bytes) -> int:
        """Number of servers that would refuse promises to other clients now, including those that are down."""
        leases = [(server.disk.state.lease, server.now()) for server in self.servers.values()]
        return sum(lease is not None and lease.client == client and now < lease.until for lease, now in leases)

    def parsed(self, encoded: bytes) -> ParsedBatch:
        """Return a batch as a server parses it: once for all servers, which get the same bytes."""
        found = self._parsed.get(encoded)
        if found is None:
            found = self._parsed[encoded] = ParsedBatch.of(encoded)
        return found

    def send(self, task: Task, number: int, request: Request) -> None:
        """Send a request of the task's round; see `Call`."""
        call = Call(self, task, number, request)
        if self.random.random() >= self.loss:
            self.after(self.delay(), call.arrive)
        if self.random.random() < self.double:
            self.after(self.delay() * 3, call.arrive)
        self._calls.append((self.now + LOG_S, next(self._ties), call))

    def delay(self) -> float:
        """Return a delay: usually a millisecond, now and then much more."""
        random = self.random.random
        return -log(1.0 - random()) / 1000.0 if random() < 1.0 - self.delayed else random() * 0.5

    def run(self, until: float) -> None:
        """Let virtual time pass."""
        queue, calls = self._queue, self._calls
        while True:
            if calls and (not queue or calls[0] < queue[0]):
                at, _, call = calls[0]
                if at > until:
                    break
                calls.popleft()
                self.now = at
                call.time_out()
            elif queue and queue[0][0] <= until:
                self.now, _, action, args = heapq.heappop(queue)
                action(*args)
            else:
                break
        self.now = until
