"""The four servers as one: connect, send requests, and know who answers.

Knows no log, no pieces, no quorum. `Cluster` may be used by any number of threads; each creates its own `Exchange`s. It
has one thread of its own (`pinger`), from `connect` to `close`; nothing is started before, so it may be created before
a fork and connected after it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final

from dfs_server.protocol.messages import GetPosition, Request
from dfsfuse.common.events import Events
from dfsfuse.errors import UnavailableError
from dfsfuse.net.asking import Asked
from dfsfuse.net.exchange import Answer, Call, Exchange, Failure
from dfsfuse.net.health.circuit import EAGER_PAUSE_S
from dfsfuse.net.health.server import Fault
from dfsfuse.net.lines import AUTHENTICATION_S, Lines
from dfsfuse.net.name_service import Target, look_up
from dfsfuse.net.pinger import Pinger
from dfsfuse.net.servers import Credentials, ServerAddress
from dfsfuse.net.single import ask_one

STRAGGLER_S: Final = 0.5
"""How long `connect` waits for the last server after the others have answered."""
STRAGGLER_FACTOR: Final = 3
"""The same as a multiple of the time the others took: on a busy machine everything takes long."""
COMING_S: Final = 5.0
"""How long at most `connect` waits for servers that have accepted the connection and are silent so far."""
RECHECK_S: Final = 0.5


class Cluster:
    """The four servers, as one user."""

    def __init__(
        self,
        servers: Sequence[ServerAddress],
        credentials: Credentials,
        *,
        clock: Callable[[], float] = time.monotonic,
        look_up: Callable[[ServerAddress], tuple[Target, ...]] = look_up,
        events: Events | None = None,
    ) -> None:
        self.servers = tuple(servers)
        self.names = {server.id: server.name for server in servers}
        self._lines = Lines(servers, credentials, clock=clock, look_up=look_up, events=events)
        self.health = self._lines.health
        """What is known about their health. The most frequent questions have methods here."""
        self._pinger = Pinger(self._lines)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def connect(self, *, wait_for_all: bool = False) -> None:
        """Authenticate with all servers in parallel. Some of them may be missing: one that refuses a connection is not
        waited for, and a silent one is for a while that depends on how quick the others are; with `wait_for_all` for
        `COMING_S`, since it may be about to start.

        Raises `AuthenticationError` if any server rejects the user, `WrongServerError` if one is not the one that the
        config names, `UnavailableError` if none answers.
        """
        try:
            self._look_up_names()
            self._meet(wait_for_all=wait_for_all)
        except BaseException:
            self._lines.hang_up()
            raise
        self._pinger.start()

    def _meet(self, *, wait_for_all: bool) -> None:
        texts: dict[int, str] = {}  # of the servers that did not answer
        clock = self._lines.clock
        begun = clock()
        took_s = 0.0  # until the last answer
        with Exchange(self._lines, greeting_s=COMING_S) as exchange:
            asked = Asked(exchange, [Call(server.id, GetPosition(), stall_s=COMING_S) for server in self.servers])

            def patience_s() -> float:
                answered = len(self.servers) - len(asked.waiting) - len(texts)
                is_only_one = len(asked.waiting) == 1 and not texts
                wait_s = COMING_S if wait_for_all else _patience_s(answered, took_s, is_only_one=is_only_one)
                return max(begun + wait_s - clock(), 0.0)

            for outcome in asked.outcomes(patience_s):
                took_s = clock() - begun
                if isinstance(outcome, Failure):
                    if outcome.error is not None:
                        raise outcome.error
                    if outcome.status is None:
                        texts[outcome.call.server] = outcome.text
        for id in asked.waiting:
            text = f"{self._lines.servers[id]} does not answer: nothing came for {clock() - begun:.1f} s"
            self._lines.failed(id, text, quick=False)
            texts[id] = text
        if len(texts) == len(self.servers):
            raise UnavailableError("no server answers: " + "; ".join(texts.values()))

    def readdress(self, servers: Sequence[ServerAddress], credentials: Credentials) -> None:
        """Change the addresses of the same servers, by id and name; new connections are made with these credentials.
        Resolves names, and may wait for that. Requests in flight are left alone."""
        moved = self._lines.readdress(servers, credentials)
        self.servers = tuple(self._lines.servers[server.id] for server in servers)
        for id in moved:
            self._lines.look_up(id)
        self._lines.on_trial_due()

    def missing(self) -> list[str]:
        """Return a text for each server not believed to answer that names it and says why. Costs nothing."""
        return self.health.why_missing()

    def exchange(self, *, in_order: bool = False) -> Exchange:
        """Return an exchange for parallel requests; for one thread, in a `with`. `in_order`: sequential per server."""
        return Exchange(self._lines, in_order=in_order)

    def ask_one(self, call: Call, patience_s: float) -> Answer | Exchange:
        """Send one request to one server by a shortcut (`single`). Returns the answer if it comes within `patience_s`;
        else an exchange that has the call or its outcome."""
        return ask_one(self._lines, call, patience_s)

    def usable(self) -> frozenset[int]:
        """Return the ids of the servers that are believed to answer. Costs nothing."""
        return self.health.usable

    def comebacks(self) -> dict[int, int]:
        """Return how often each server, by id, has answered again after it had been missing."""
        return self.health.comebacks()

    @property
    def excused_at(self) -> float:
        """Return when servers were last slow together, or this process stood still (`slowness`): deadlines count from
        then."""
        return self.health.excused_at

    def hurry(self, *, for_good: bool = False) -> None:
        """Do not wait for slow servers, neither now nor soon: a person has pressed Ctrl-C. `for_good`: nor later, since
        this is about to be closed. Never waits; may be called by a signal handler."""
        self.health.hurry(for_good=for_good)

    def are_slow(self) -> bool:
        """Return whether so many servers owe an answer just now that they are waited for longer than usual
        (`slowness`)."""
        return self._lines.are_slow()

    def full(self) -> frozenset[int]:
        """Return the ids of the servers that, as far as they have said, have no room for data. Costs nothing."""
        return self.health.full

    def note_fault(self, server: int, what: str) -> None:
        """Record, for people, that a server's answer was not what it should be (`faults`)."""
        self._lines.note_fault(server, what)

    def faults(self) -> dict[int, Fault]:
        """Return what servers did wrong since this was created, by server id."""
        return self.health.faults()

    def identities(self) -> dict[int, bytes]:
        """Return the identity of the folder of each server that has answered, by its id."""
        return dict(self._lines.identities)

    def recheck(self, timeout_s: float = RECHECK_S) -> frozenset[int]:
        """Return `usable()`, after checking those that are down but quick to try (refused or lost a moment ago).

        For callers about to give up for want of servers: one that was restarted is not missed until its next trial. One
        that was tried a moment ago is tried again after a short pause, and one that is being tried is waited for.
        """
        for pause_s in (0.0, EAGER_PAUSE_S, EAGER_PAUSE_S):
            _, down = self.health.next_trial()
            if not down:
                break
            time.sleep(pause_s)
            with Exchange(self._lines, trial=True) as exchange:
                claimed = [id for id in down if self.health.claim(id, eager=True)]
                _outcomes(exchange, dict.fromkeys(claimed, GetPosition()), timeout_s)
            if pause_s and len(claimed) == len(down):
                break
        return self.usable()

    def wait_for_missing(self, wait_s: float) -> None:
        """Wait this long, and `recheck`."""
        time.sleep(wait_s)
        self.recheck()

    def ask(self, requests: Mapping[int, Request], *, stall_s: float) -> dict[int, Answer | Failure]:
        """Send one request to each of some servers, by id, in parallel; waits for all of them.

        Raises `AuthenticationError` if a server rejects the user.
        """
        with self.exchange() as exchange:
            return _outcomes(exchange, requests, stall_s)

    def try_all(
        self, request: Request, servers: Iterable[int] | None = None, *, stall_s: float
    ) -> dict[int, Answer | Failure]:
        """Send one request to all servers, or to some, by id, in parallel: also to those believed to be down. For
        finding out how they are: nothing is raised, a server that rejects the user is a Failure too."""
        self._look_up_names()
        with Exchange(self._lines, trial=True) as exchange:
            return _outcomes(exchange, dict.fromkeys(self.names if servers is None else servers, request), stall_s)

    def close(self) -> None:
        """Stop the thread and close all idle connections; exchanges in progress on other threads close theirs."""
        self._pinger.stop()
        self._lines.close()

    def _look_up_names(self) -> None:
        """Resolve host names in parallel, and wait for them no longer than for a connection."""
        threads = [
            threading.Thread(target=self._lines.look_up, args=(id,), daemon=True)
            for id in self._lines.servers
            if not self._lines.addresses(id)
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + AUTHENTICATION_S
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


def _patience_s(answered: int, took_s: float, *, is_only_one: bool) -> float:
    """Return how long after its beginning `connect` waits for more answers, when this many have come, the last after
    `took_s`. `is_only_one`: one is missing, and nothing speaks against it yet."""
    if not answered:
        return COMING_S
    usual_s = STRAGGLER_FACTOR * took_s
    wait_s = took_s + max(STRAGGLER_S, usual_s) if is_only_one else max(AUTHENTICATION_S, usual_s)
    return min(wait_s, COMING_S)


def _outcomes(exchange: Exchange, requests: Mapping[int, Request], stall_s: float) -> dict[int, Answer | Failure]:
    asked = Asked(exchange, [Call(id, request, stall_s=stall_s) for id, request in requests.items()])
    return {outcome.call.server: outcome for outcome in asked.outcomes()}
