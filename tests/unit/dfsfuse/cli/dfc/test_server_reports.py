"""What `dfc status` makes of servers that answer, refuse, hang, or are not the expected ones."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest
from support.memory_map import MemoryMap

from dfs_server.protocol.messages import ReadKeys, Request, ServerStatus, Values
from dfsfuse.cli.dfc import health_look, piece_reports, server_notes
from dfsfuse.cli.dfc.commands.status import as_dictionary, lines, next_steps
from dfsfuse.cli.dfc.health_look import Health, look
from dfsfuse.cli.dfc.piece_reports import PieceReport
from dfsfuse.cli.dfc.server_notes import remarks
from dfsfuse.cli.dfc.server_reports import ServerReport, server_reports
from dfsfuse.errors import AuthenticationError, WrongServerError
from dfsfuse.log.quorum_log import QuorumLog
from dfsfuse.namespace.map.transactions import MapStore
from dfsfuse.namespace.records import keys, members
from dfsfuse.namespace.records.members import Member
from dfsfuse.net.calls import failure_of
from dfsfuse.net.exchange import Answer, Call, Failure
from dfsfuse.net.servers import ServerAddress, UnknownHostError
from dfsfuse.upkeep.heal.report import Files, Report
from dfsfuse.upkeep.health.servers import Server, State

SERVERS = tuple(ServerAddress(number, f"DFS{number}", "127.0.0.1", 10000 + number) for number in range(1, 5))


def answer(number: int, applied: int = 17) -> ServerStatus:
    return ServerStatus(f"DFS{number}", "0.1.0", applied, 24 * 1024**3, 50 * 1024**3, 40, 21_000_000)


class FakeCluster:
    """Four servers: a status, an error, or None for one that hangs."""

    servers = SERVERS

    def __init__(self, **replies: ServerStatus | Exception | None) -> None:
        self.replies: dict[int, ServerStatus | Values | Exception | None] = {
            n: replies.get(f"DFS{n}", answer(n)) for n in range(1, 5)
        }
        self.asked: list[int] = []
        self.notes: Values | None = None
        self.now_s = 0.0

    def identities(self) -> dict[int, bytes]:
        return {id: b"disk %d" % id for id in range(1, 5)}

    def try_all(
        self, request: Request, servers: Iterable[int] | None = None, *, stall_s: float
    ) -> dict[int, Answer | Failure]:
        found: dict[int, Answer | Failure] = {}
        for id in range(1, 5) if servers is None else servers:
            self.asked.append(id)
            call = Call(id, request)
            reply = self.notes if isinstance(request, ReadKeys) and self.notes else self.replies[id]
            self.now_s += stall_s if reply is None else 0.001 * id
            if isinstance(reply, ServerStatus | Values):
                found[id] = Answer(call, reply, 0)
            elif reply is not None:
                found[id] = failure_of(call, SERVERS[id - 1], reply)
        return found


def asked(cluster: FakeCluster) -> list[ServerReport]:
    return server_reports(cluster, clock=lambda: cluster.now_s)


def seen(**replies: ServerStatus | Exception | None) -> Health:
    return health_look.health(asked(FakeCluster(**replies)), PieceReport(), 0)


def test_all_answer() -> None:
    cluster = FakeCluster()
    reports = asked(cluster)
    assert [report.address for report in reports] == list(SERVERS)
    assert [report.status for report in reports] == [answer(n) for n in range(1, 5)]
    assert [report.latency_s for report in reports] == pytest.approx([0.001, 0.002, 0.003, 0.004])


def test_those_that_do_not_answer_are_values_and_are_asked_once() -> None:
    cluster = FakeCluster(DFS2=ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), DFS4=None)
    reports = asked(cluster)
    assert [report.problem for report in reports] == [
        "",
        "DFS2 (127.0.0.1:10002) does not answer: connection refused",
        "",
        "no answer in time",
    ]
    assert cluster.asked == [1, 2, 3, 4, 1, 3]
    assert cluster.now_s < 5


REFUSED = AuthenticationError("server DFS1 refuses user 'alice': wrong user name or password")
SOMEBODY_ELSE = WrongServerError("the server at 127.0.0.1:10004 is DFS9, and the client's config says DFS4")


def test_the_table_has_a_row_and_a_reason_for_each_server_whatever_it_does() -> None:
    refused = OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    health = seen(DFS2=refused, DFS4=answer(4, applied=15))
    assert lines(health, is_long=True) == [
        "SERVER  ADDRESS          STATE               LATENCY  FREE  TOTAL  STORED  SLOT  PIECES",
        "DFS1    127.0.0.1:10001  ok                   1.0 ms   24G    50G     21M    17      40",
        "DFS2    127.0.0.1:10002  connection refused        -     -      -       -     -       -",
        "DFS3    127.0.0.1:10003  ok                   3.0 ms   24G    50G     21M    17      40",
        "DFS4    127.0.0.1:10004  behind by 2          4.0 ms   24G    50G     21M    15      40",
    ]
    assert lines(health)[0] == "SERVER  ADDRESS          STATE               LATENCY  FREE  TOTAL  STORED"
    assert lines(health)[1].endswith("50G     21M")
    (said,) = remarks(list(health.reports), health.servers, NOW_S)
    assert said == "DFS4 does not have the last 2 changes yet: mounts, or 'dfc heal', bring it up to date."
    unknown = UnknownHostError(errno.EHOSTUNREACH, "its host name 'b' cannot be resolved")
    health = seen(DFS1=REFUSED, DFS2=unknown, DFS3=TimeoutError(0, "no byte moved for 2 s"), DFS4=SOMEBODY_ELSE)
    assert [line[25:46].strip() for line in lines(health)[1:]] == [
        "refused the password",
        "unknown host",
        "no answer",
        "another server",
    ]
    facts = [as_dictionary(report, health.servers[report.address.id]) for report in health.reports]
    assert [one["state"] for one in facts] == ["refused", "down", "down", "wrong"]
    assert [one["reason"] for one in facts] == ["refused the password", "unknown host", "no answer", "another server"]
    assert facts[0]["problem"] == str(REFUSED)


def test_where_a_server_refuses_nothing_else_is_asked_and_the_config_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DFS_PASSWORD", raising=False)
    cluster = FakeCluster(DFS2=REFUSED, DFS4=SOMEBODY_ELSE)
    health = look(cluster, no_log, no_store, 0, count_s=1.0, config=Path("/etc/dfsfuse/dfc.yaml"))  # type: ignore[arg-type]
    assert health.pieces is None
    assert health.verdict.exit_code == AuthenticationError.exit_code
    wrong, correct = next_steps(health)
    assert wrong == str(SOMEBODY_ELSE)
    assert "'username' or the password in /etc/dfsfuse/dfc.yaml" in correct
    monkeypatch.setenv("DFS_PASSWORD", "wrong")
    assert next_steps(health)[2:] == ["the password was that of $DFS_PASSWORD"]
    nobody = {f"DFS{id}": TimeoutError(0, "nothing came") for id in range(1, 5)}
    health = look(FakeCluster(**nobody), no_log, no_store, 0, count_s=1.0, config=Path("/a/conf/dfc.yaml"))  # type: ignore[arg-type]
    assert next_steps(health) == ["start the servers, or correct their addresses in /a/conf/dfc.yaml"]


def no_store() -> AbstractContextManager[MapStore]:
    raise AssertionError("nothing is written")


def no_log() -> QuorumLog:
    raise AssertionError("no data is examined")


def test_an_empty_server_and_one_with_a_damaged_map_are_named() -> None:
    health = seen(DFS3=answer(3, applied=0), DFS4=msgspec.structs.replace(answer(4), damage="a row is bad"))
    assert [line.split()[2] for line in lines(health)[1:]] == ["ok", "ok", "empty", "empty"]
    empty, damaged = remarks(list(health.reports), health.servers, NOW_S)
    assert empty.startswith("DFS3 is empty")
    assert damaged.startswith("DFS4 has found damage")
    mended = seen(DFS4=msgspec.structs.replace(answer(4), damage="a row is bad (mended); another (mended)"))
    assert mended.servers[4].state is State.UP
    new = seen(**{f"DFS{number}": answer(number, applied=0) for number in range(1, 5)})
    assert [line.split()[2] for line in lines(new)[1:]] == ["ok"] * 4
    assert remarks(list(new.reports), new.servers, NOW_S) == []
    first = seen(DFS1=answer(1, applied=1), **{f"DFS{number}": answer(number, applied=0) for number in range(2, 5)})
    assert {server.state for server in first.servers.values()} == {State.UP}  # the first change
    second = seen(DFS1=answer(1, applied=2), **{f"DFS{number}": answer(number, applied=0) for number in range(2, 5)})
    assert second.servers[2].state is State.EMPTY


def test_a_server_that_has_the_log_but_not_yet_its_data_is_being_filled() -> None:
    """A new disk gets the whole log within a moment, which says nothing about the data."""
    counted = Report(absent=Counter({2: 171}), lacking=171, needed=Counter({1: 171}))
    health = health_look.health(asked(FakeCluster()), PieceReport(counted), 0)
    assert "  lacks 171 copies  " in lines(health)[2]
    (said,) = remarks(list(health.reports), health.servers, NOW_S)
    assert said.startswith("DFS2 lacks 171 copies that belong there: mounts, or 'dfc heal', make them")
    assert said.endswith("until then no other server should fail.")
    assert not health.verdict.any_one_may_fail


def test_json_has_exact_numbers_and_reasons() -> None:
    facts = as_dictionary(ServerReport(SERVERS[0], answer(1), 0.0012345), Server("DFS1", State.UP))
    assert (facts["latency_ms"], facts["stored_bytes"], facts["answers"]) == (1.234, 21_000_000, True)
    assert (facts["state"], facts["missing_copies"]) == ("up", 0)


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
    health = health_look.health(reports, PieceReport(), 0)
    assert [line.split()[2] for line in lines(health)] == ["STATE", "full", "empty", "ok", "ok"]
    one, two, two_again, three = remarks(reports, health.servers, NOW_S)
    assert one.startswith("DFS1 is full: free space on its disk")
    assert two.startswith("DFS2 has found 3 bad copies")
    assert two_again.startswith("DFS2 has found damage in its database (a row is bad)")
    assert three.startswith("DFS3 gave wrong answers (4 so far, the last on 2027-01-15 ")
    assert "segment" not in three
    assert "a bad P2 of segment 00: sent wrong bytes" in remarks(reports, health.servers, NOW_S, is_long=True)[3]
    facts = [as_dictionary(report, health.servers[report.address.id]) for report in reports]
    assert [found["full"] for found in facts] == [True, False, False, False]
    assert facts[2]["wrong_answers"] == {"count": 4, "last": NOW_S - 60, "what": fault.fault}
    assert facts[1]["quarantined"] == 3
    assert facts[1]["damage"] == "a row is bad"
    assert remarks(reports[3:], health.servers, NOW_S) == []


def test_the_notes_are_read_from_the_server_that_is_furthest() -> None:
    store = MemoryMap()
    names = {server.id: server.name for server in SERVERS}
    store.transact(lambda transaction: members.meet(transaction, names, {3: b"i"}, 0))
    store.transact(lambda transaction: members.note_faults(transaction, {3: (2, 5, "a lie")}))
    cluster = FakeCluster(DFS2=answer(2, applied=18))
    reports = asked(cluster)
    cluster.asked.clear()
    cluster.replies[2] = Values(18, (store.read(lambda view: view.get(keys.SERVERS)),))
    noted = server_notes.read(cluster, reports)
    assert cluster.asked == [2]
    assert {id: one.faults for id, one in noted.items()} == {1: 0, 2: 0, 3: 2, 4: 0}


def test_without_notes_there_is_a_status_all_the_same() -> None:
    cluster = FakeCluster(DFS1=OSError("refused"), DFS2=OSError("refused"), DFS3=OSError("refused"))
    reports = asked(cluster)
    cluster.replies[4] = None
    assert server_notes.read(cluster, reports) == {}
    cluster.replies[4] = Values(1, (b"\x92\x09\x90",))
    assert server_notes.read(cluster, reports) == {}


def test_a_config_that_lists_the_servers_otherwise_is_refused_after_the_table() -> None:
    store = MemoryMap()
    names = {1: "DFS1", 2: "DFS2", 3: "DFS3", 4: "DFS9"}
    store.transact(lambda transaction: members.meet(transaction, names, {}, 0))
    cluster = FakeCluster()
    record = store.read(lambda view: view.get(keys.SERVERS))
    cluster.notes = Values(17, (record,))
    health = look(cluster, no_log, no_store, 0, count_s=1.0)  # type: ignore[arg-type]
    assert isinstance(health.error, WrongServerError)
    assert (health.verdict.exit_code, health.verdict.access) == (5, "refused")
    assert health.verdict.sentence.startswith("The config does not list the servers as this namespace has them")
    assert len(lines(health)) == 5


def test_where_new_data_goes_is_said_only_if_it_goes_anywhere() -> None:
    def full(*numbers: int) -> list[str]:
        without_room = {f"DFS{number}": msgspec.structs.replace(answer(number), free_bytes=0) for number in numbers}
        health = seen(**without_room)
        return remarks(list(health.reports), health.servers, NOW_S)

    assert full(1) == [
        "DFS1 is full: new data goes to the others; free space on its disk, or delete files that are not needed."
    ]
    assert full(1, 2) == [
        f"DFS{n} is full: free space on its disk, or delete files that are not needed." for n in (1, 2)
    ]


def test_after_a_long_count_the_servers_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster()

    def counted_for_an_hour(*_: object) -> PieceReport:
        cluster.replies[1] = cluster.replies[3] = None
        return PieceReport(Report(files=Files(5)))

    monkeypatch.setattr(piece_reports, "piece_report", counted_for_an_hour)
    health = look(cluster, lambda: None, no_store, 0, count_s=piece_reports.NEVER)  # type: ignore[arg-type, return-value]
    assert health.verdict.sentence.startswith("2 of 4 servers answer, and writing needs three: nothing can be written;")
    assert (health.verdict.reading, health.verdict.exit_code) == ("unknown", 7)
