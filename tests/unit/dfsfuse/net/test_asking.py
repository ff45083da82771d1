"""Several servers are asked once each; the wait ends when the answers suffice or no server is worth waiting for."""

from __future__ import annotations

from collections import deque

from dfs_server.protocol.messages import Done, GetPosition
from dfsfuse.net.asking import Asked
from dfsfuse.net.calls import Answer, Call, Failure


class Scripted:
    """An exchange whose outcomes come in the order of a script; None is a silence."""

    def __init__(self, *script: int | None) -> None:
        self.started: dict[int, Call] = {}
        self.script = deque(script)
        self.waits: list[float | None] = []

    def start(self, call: Call) -> None:
        self.started[call.server] = call

    def next(self, timeout_s: float | None) -> Answer | Failure | None:
        self.waits.append(timeout_s)
        server = self.script.popleft()
        return None if server is None else Answer(self.started[server], Done(), 0)

    def unfinished(self) -> int:
        return len(self.script)

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left in flight."""


def calls(*servers: int) -> list[Call]:
    return [Call(server, GetPosition(), stall_s=1.0) for server in servers]


def test_all_servers_are_asked_before_the_first_wait_and_each_answers_once() -> None:
    exchange = Scripted(2, 1)
    asked = Asked(exchange, calls(1, 2))
    assert exchange.started.keys() == asked.waiting == {1, 2}
    assert [outcome.call.server for outcome in asked.outcomes()] == [2, 1]
    assert asked.waiting == set() and exchange.waits == [None, None]


def test_the_patience_is_computed_again_before_each_wait_and_lagging_servers_are_known() -> None:
    exchange = Scripted(3, 1, None)
    asked = Asked(exchange, calls(1, 2, 3, 4))
    found = [outcome.call.server for outcome in asked.outcomes(lambda: float(len(asked.waiting)))]
    assert found == [3, 1] and asked.waiting == {2, 4}
    assert exchange.waits == [4.0, 3.0, 2.0]


def test_asking_no_server_does_not_wait() -> None:
    exchange = Scripted()
    assert list(Asked(exchange, []).outcomes()) == []
    assert exchange.waits == []
