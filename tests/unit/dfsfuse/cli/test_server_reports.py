"""What `dfc status` is told by servers that answer, refuse, hang, or are somebody else."""

from __future__ import annotations

import dataclasses
from collections import deque
from types import TracebackType

import msgspec
import pytest
from support.memory_map import MemoryMap

from dfs_server.protocol.messages import ServerStatus, Values
from dfsfuse.cli.commands.status import access, as_dictionary, count_able, lines, summary
from dfsfuse.cli.server_notes import remarks, with_notes
from dfsfuse.cli.server_reports import ServerReport, server_reports, unreachable
from dfsfuse.cluster.exchange import Answer, Call, Failure
from dfsfuse.cluster.servers import ServerAddress
from dfsfuse.errors import WrongServerError
from dfsfuse.namespace import keys, members
from dfsfuse.namespace.members import Member

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
            if isinstance(reply, ServerStatus | Values):
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
        self.replies: dict[int, ServerStatus | Values | Exception | None] = {
            n: replies.get(f"DFS{n}", answer(n)) for n in range(1, 5)
        }
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


def test_an_empty_server_is_named_and_no_second_one_may_fail() -> None:
    reports = asked(FakeCluster(DFS3=answer(3, applied=0)))
    assert [line.split()[2] for line in lines(reports)[1:]] == ["ok", "ok", "empty", "ok"]
    (said,) = remarks(reports, NOW_S)
    assert said.startswith("DFS3 is empty")
    assert summary(4, 4, able=count_able(reports)) == "All servers answer: reading and writing work."
    new = asked(FakeCluster(**{f"DFS{number}": answer(number, applied=0) for number in range(1, 5)}))
    assert [line.split()[2] for line in lines(new)[1:]] == ["ok"] * 4
    assert remarks(new, NOW_S) == []
    assert "any one server may fail" in summary(4, 4, able=count_able(new))


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
    assert said in summary(answering, 4, able=answering)


@pytest.mark.parametrize(
    ("full", "said"),
    [
        ((1,), "All servers answer: reading and writing work."),
        ((1, 2), "4 of 4 servers answer, but only 2 can take what is written: reading works."),
    ],
)
def test_writing_is_not_promised_where_disks_are_full(full: tuple[int, ...], said: str) -> None:
    without_room = {f"DFS{number}": msgspec.structs.replace(answer(number), free_bytes=0) for number in full}
    reports = asked(FakeCluster(**without_room))
    assert summary(4, 4, able=count_able(reports)) == said


def test_json_has_exact_numbers_and_reasons() -> None:
    facts = as_dictionary(ServerReport(SERVERS[0], answer(1), 0.0012345))
    assert (facts["latency_ms"], facts["stored_bytes"], facts["answers"]) == (1.234, 21_000_000, True)
    (first, *_) = unreachable(SERVERS, "all are down")
    assert as_dictionary(first)["problem"] == "all are down"


NOW_S = 1_800_000_000


def test_what_a_person_should_see_to_stands_below_the_table() -> None:
    full = msgspec.structs.replace(answer(1), free_bytes=0)
    bad = ServerReport(SERVERS[1], msgspec.structs.replace(answer(2), quarantined=3, damage="a row is bad"), 0.001)
    fault = Member(
        "DFS3", b"i", faults=4, fault_ns=(NOW_S - 60) * 10**9, fault="a bad P2 of segment 00: sent wrong bytes"
    )
    old = Member("DFS4", b"i", faults=1, fault_ns=(NOW_S - 30 * 86400) * 10**9, fault="long ago")
    reports = [
        ServerReport(SERVERS[0], full, 0.001),
        bad,
        ServerReport(SERVERS[2], answer(3), 0.001, noted=fault),
        ServerReport(SERVERS[3], answer(4), 0.001, noted=old),
    ]
    assert [line.split()[2] for line in lines(reports)] == ["STATE", "full", "ok", "ok", "ok"]
    one, two, two_again, three = remarks(reports, NOW_S)
    assert one.startswith("DFS1 is full: new data goes to the others")
    assert two.startswith("DFS2 has found 3 bad pieces")
    assert two_again.startswith("DFS2 has found damage in its database (a row is bad)")
    assert three.startswith("DFS3 gave wrong answers (4 so far, the last on 2027-01-15 ")
    assert "a bad P2 of segment 00: sent wrong bytes" in three
    facts = [as_dictionary(report) for report in reports]
    assert [found["full"] for found in facts] == [True, False, False, False]
    assert facts[2]["wrong_answers"] == {"count": 4, "last": NOW_S - 60, "what": fault.fault}
    assert facts[1]["quarantined"] == 3
    assert facts[1]["damage"] == "a row is bad"
    assert remarks(reports[3:], NOW_S) == []


def test_the_notes_are_read_from_the_server_that_is_furthest() -> None:
    store = MemoryMap()
    names = {server.id: server.name for server in SERVERS}
    store.transact(lambda transaction: members.meet(transaction, names, {3: b"i"}, 0))
    store.transact(lambda transaction: members.note_faults(transaction, {3: (2, 5, "a lie")}))
    cluster = FakeCluster(DFS2=answer(2, applied=18))
    reports = asked(cluster)
    cluster.asked.clear()
    cluster.replies[2] = Values(18, (store.read(lambda view: view.get(keys.SERVERS)),))
    noted = with_notes(cluster, reports)
    assert cluster.asked == [2]
    assert [report.noted.faults for report in noted if report.noted] == [0, 0, 2, 0]
    with pytest.raises(WrongServerError):
        with_notes(
            cluster,
            [dataclasses.replace(one, address=dataclasses.replace(one.address, name="DFS9")) for one in reports],
        )


def test_without_notes_there_is_a_status_all_the_same() -> None:
    cluster = FakeCluster(DFS1=OSError("refused"), DFS2=OSError("refused"), DFS3=OSError("refused"))
    reports = asked(cluster)
    cluster.replies[4] = None
    assert with_notes(cluster, reports) == reports
    cluster.replies[4] = Values(1, (b"\x92\x09\x90",))
    assert with_notes(cluster, reports) == reports
