"""What `dfc status` is told by servers that answer, refuse, hang, or are somebody else."""

from __future__ import annotations

from collections import deque
from types import TracebackType

import pytest

from dfs_server.protocol.messages import ServerStatus
from dfsfuse.cli.commands.status import access, as_dictionary, lines, summary
from dfsfuse.cli.server_reports import ServerReport, server_reports, unreachable
from dfsfuse.cluster.exchange import Answer, Call, Failure
from dfsfuse.cluster.servers import ServerAddress
from dfsfuse.errors import WrongServerError

SERVERS = tuple(ServerAddress(number, f"DFS{number}", "127.0.0.1", 10000 + number) for number in range(1, 5))


def answer(number: int, applied: int = 17) -> ServerStatus:
    return ServerStatus(f"DFS{number}", "0.1.0", applied, 24 * 1024**3, 50 * 1024**3, 40, 21_000_000)


class FakeExchange:
    """Answers in the order of the calls; each takes a millisecond. A hung server never answers."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self._calls: deque[Call] = deque()

    def start(self, call: Call) -> None:
        self._cluster.asked.append(call.server)
        self._calls.append(call)

    def unfinished(self) -> int:
        return len(self._calls)

    def next(self, timeout_s: float | None) -> Answer | Failure | None:
        for call in list(self._calls):
            reply = self._cluster.replies[call.server]
            if reply is None:
                continue
            self._calls.remove(call)
            self._cluster.now_s += 0.001
            if isinstance(reply, ServerStatus):
                return Answer(call, reply, 0)
            return Failure(call, None, str(reply), reply if isinstance(reply, WrongServerError) else None)
        self._cluster.now_s += timeout_s or 0.0
        return None

    def __enter__(self) -> FakeExchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.clear()


class FakeCluster:
    """Four servers: a status, an error, or None for one that hangs."""

    servers = SERVERS

    def __init__(self, **replies: ServerStatus | Exception | None) -> None:
        self.replies = {n: replies.get(f"DFS{n}", answer(n)) for n in range(1, 5)}
        self.asked: list[int] = []
        self.now_s = 0.0

    def exchange(self) -> FakeExchange:
        return FakeExchange(self)


def asked(cluster: FakeCluster) -> list[ServerReport]:
    return server_reports(cluster, clock=lambda: cluster.now_s)


def test_all_answer() -> None:
    cluster = FakeCluster()
    reports = asked(cluster)
    assert [report.address for report in reports] == list(SERVERS)
    assert [report.status for report in reports] == [answer(n) for n in range(1, 5)]
    assert [report.latency_s for report in reports] == pytest.approx([0.001, 0.002, 0.003, 0.004])


def test_those_that_do_not_answer_are_values_and_are_asked_once() -> None:
    cluster = FakeCluster(DFS2=ConnectionRefusedError("DFS2: refused"), DFS4=None)
    reports = asked(cluster)
    assert [report.problem for report in reports] == ["", "DFS2: refused", "", "no answer in time"]
    assert cluster.asked == [1, 2, 3, 4, 1, 3]
    assert cluster.now_s < 5


def test_somebody_else_at_an_address_is_an_error() -> None:
    with pytest.raises(WrongServerError):
        asked(FakeCluster(DFS3=WrongServerError("127.0.0.1:10003 is DFS9, not DFS3")))


def test_the_table() -> None:
    reports = asked(FakeCluster(DFS2=OSError("refused"), DFS4=answer(4, applied=15)))
    assert lines(reports) == [
        "SERVER  ADDRESS          STATE        LATENCY  FREE  TOTAL  SLOT  PIECES  STORED",
        "DFS1    127.0.0.1:10001  ok            1.0 ms   24G    50G    17      40     21M",
        "DFS2    127.0.0.1:10002  no answer          -     -      -     -       -       -",
        "DFS3    127.0.0.1:10003  ok            2.0 ms   24G    50G    17      40     21M",
        "DFS4    127.0.0.1:10004  behind by 2   3.0 ms   24G    50G    15      40     21M",
    ]


@pytest.mark.parametrize(
    ("answering", "word", "said"),
    [
        (4, "read-write", "any one server"),
        (3, "read-write", "3 of 4"),
        (2, "read-only", "2 of 4"),
        (0, "none", "No server"),
    ],
)
def test_what_can_be_done_with_so_many(answering: int, word: str, said: str) -> None:
    assert access(answering) == word
    assert said in summary(answering, 4)


def test_json_has_exact_numbers_and_reasons() -> None:
    facts = as_dictionary(ServerReport(SERVERS[0], answer(1), 0.0012345))
    assert (facts["latency_ms"], facts["stored_bytes"], facts["answers"]) == (1.234, 21_000_000, True)
    (first, *_) = unreachable(SERVERS, "all are down")
    assert as_dictionary(first)["problem"] == "all are down"
