"""`dfc heal`, and what `dfc status` says about copies, with servers in memory that fail."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from support.grid import Fault
from support.memory_dfc import Dfc
from support.stored_dfc import StoredAccess

from dfs_server.protocol.messages import ServerStatus
from dfsfuse.cli.dfc import health_look
from dfsfuse.cli.dfc.commands.heal import NOT_CHECKED, lines
from dfsfuse.cli.dfc.piece_reports import PieceReport, about_pieces
from dfsfuse.cli.dfc.server_reports import ServerReport
from dfsfuse.namespace.records import keys
from dfsfuse.net.servers import ServerAddress
from dfsfuse.upkeep.heal import state as heal_state
from dfsfuse.upkeep.heal.report import Files, Report
from dfsfuse.upkeep.heal.state import ServerSeen
from dfsfuse.upkeep.health.copies import Copies

LARGE = bytes(range(256)) * 3000
S = 10**9


@pytest.fixture
def access(dfc: Dfc) -> StoredAccess:
    """A namespace with four files."""
    dfc.access = access = StoredAccess()
    dfc.ok("put", "-", "large", stdin=LARGE)
    dfc.ok("put", "-", "small", stdin=b"x" * 5000)
    dfc.ok("mkdir", "folder")
    dfc.ok("put", "-", "folder/large", stdin=LARGE[1:])
    dfc.ok("put", "-", "folder/small", stdin=b"y" * 5000)
    return access


def test_where_all_is_well_it_says_so(dfc: Dfc, access: StoredAccess) -> None:
    assert dfc.ok("heal") == f"4 files examined: all data has its two copies, nothing to do.\n{NOT_CHECKED}\n"
    assert "'dfc verify --heal'" in NOT_CHECKED
    assert "All data has its two copies (4 files).\n" in dfc.ok("status")
    assert keys.HEALING not in access.store.items


def test_an_empty_server_is_rebuilt_and_what_was_done_is_said(dfc: Dfc, access: StoredAccess) -> None:
    before = dict(access.grid[2].stored)
    access.grid[2].forget()
    shown = dfc.ok("status")
    assert "DFS2    127.0.0.1:10002  lacks 8 copies" in shown
    assert "reading and writing work.\nAll 4 files have only one copy of some data.\n" in shown
    assert "755K can be copied now: mounts, or 'dfc heal', do it.\n" in shown
    assert "If DFS1 or DFS3 failed, files could not be read.\n" in shown
    assert dfc.ok("heal").splitlines() == [
        "DFS2: 8 copies made",
        "4 files examined, 4 healed, 755K copied.",
        NOT_CHECKED,
    ]
    assert access.grid[2].stored == before
    facts = json.loads(dfc.ok("status", "--json"))
    assert facts["pieces"]["lack_a_copy"] == 0
    assert (facts["healing"]["phase"], facts["healing"]["lack_a_copy"]) == ("done", 0)


def test_what_was_put_without_a_server_is_brought_home(dfc: Dfc, access: StoredAccess) -> None:
    access.down(3)
    dfc.ok("put", "-", "late", stdin=LARGE[2:])
    outcome = dfc("heal")
    assert outcome.code == 14
    assert "4 files still have only one copy of some data: 'dfc status' shows which server is missing" in outcome.err
    shown = dfc.ok("status")
    assert "4 of 5 files have only one copy of some data while DFS3 is down.\n" in shown
    assert "copied now" not in shown
    access.up(3)
    assert "Some data is not on the servers where it belongs: mounts, or 'dfc heal', move it there" in dfc.ok("status")
    facts = json.loads(dfc.ok("heal", "--json"))
    assert (facts["brought_home"], facts["copies_made"], facts["copies_dropped"]) == (1, {"DFS3": 2}, 2)
    assert (facts["lack_a_copy"], facts["incomplete"], facts["reasons"]) == (0, 0, [])


def test_below_a_path_only(dfc: Dfc, access: StoredAccess) -> None:
    access.grid[1].forget()
    assert dfc.ok("heal", "folder").splitlines()[-2].startswith("2 files examined, 2 healed")
    assert len(access.grid[1].stored) == 4
    assert keys.HEALING not in access.store.items  # no record, since that is about all files
    assert dfc.ok("heal", "/small").splitlines()[-2].startswith("1 file examined, 1 healed")
    assert dfc("heal", "nowhere").code == 1


def test_what_no_server_has_is_incomplete(dfc: Dfc, access: StoredAccess) -> None:
    access.grid[1].forget()
    access.grid[2].forget()
    outcome = dfc("heal")
    assert outcome.code == 3
    (said,) = outcome.err.splitlines()
    assert said.startswith("dfc: 4 files cannot be assembled from the servers that answer (/")
    named = said[said.index("(") + 1 : said.index(")")].split(", ")
    assert sorted(named) == ["/folder/large", "/folder/small", "/large", "/small"]
    assert "start those that are down ('dfc status' names them)" in said
    shown = dfc("status")
    assert shown.code == 3
    assert (
        "None of the 4 files can be read: some of the data is on no other server; 'dfc list -l -r' shows which."
        in shown.out
    )


def test_what_cannot_be_made_is_said_with_the_reason(dfc: Dfc, access: StoredAccess) -> None:
    access.grid[4].forget()
    access.grid[4].fault = Fault.FULL
    outcome = dfc("heal")
    assert outcome.code == 14
    assert "dfc: DFS4: the disk is full" in outcome.err


def test_with_two_servers_down_it_says_what_is_missing(dfc: Dfc, access: StoredAccess) -> None:
    access.down(1, 3)
    assert dfc("heal").code == 14


def test_files_that_are_incomplete_are_named_also_where_nothing_can_be_done(dfc: Dfc, access: StoredAccess) -> None:
    access.down(1, 2)
    outcome = dfc("heal")
    assert outcome.code == 3
    named = outcome.err[outcome.err.index("(") + 1 : outcome.err.index(")")].split(", ")
    assert sorted(named) == ["/folder/large", "/folder/small", "/large", "/small"]


def test_healing_that_goes_on_elsewhere_is_shown(dfc: Dfc, access: StoredAccess) -> None:
    found = Report(segments=5000, lacking=1200, bytes_to_copy=4 << 30)
    state = heal_state.going_on(
        heal_state.beginning(None, found, 0), Report(healed=200, bytes_copied=1 << 30), ran_s=32, now_ns=1000 * S
    )
    access.store.transact(lambda tx: tx.put(keys.HEALING, heal_state.encode(state)))
    line = about(PieceReport(healing=state), now_ns=1001 * S)[-1]
    assert line == "Healing: 1.0G of 4.0G copied, 32M/s, done in about 96 s."
    assert line[:-1] + " (no sign of life for 5 min)." == about(PieceReport(healing=state), now_ns=1300 * S)[-1]
    shown = dfc.ok("status")
    assert "Healing: 1.0G of 4.0G copied, 32M/s, done in about 96 s" in shown
    assert json.loads(dfc.ok("status", "--json"))["healing"]["left_s"] == 96.0


def about(report: PieceReport, *, now_ns: int) -> list[str]:
    """What status says while the same four disks answer as in the record."""
    found = [
        ServerReport(ServerAddress(id, f"DFS{id}", "", 1), ServerStatus(f"DFS{id}", "", 1, 1, 1, 0, 0), identity=b"i")
        for id in range(1, 5)
    ]
    health = health_look.health(found, report, now_ns)
    return about_pieces(health.known, report, health.servers, now_ns)


SEEN = (ServerSeen(b"i"),) * 4
PART = PieceReport(Report(files=Files(5)), all_counted=False)


def test_where_counting_takes_long_what_is_not_known_is_said_not_to_be(dfc: Dfc, access: StoredAccess) -> None:
    health = access.health(-1.0)
    assert health.known.copies is Copies.UNKNOWN
    assert health.verdict.sentence == "All servers answer: writing works; whether all files can be read is not known."
    assert "is not known: counting takes longer; use 'dfc status --count'." in about(PART, now_ns=0)[0]
    assert "any one server may fail" in dfc.ok("status", "--count")


def test_an_earlier_count_stands_only_while_nothing_has_changed() -> None:
    state = heal_state.beginning(None, Report(segments=9, files=Files(7)), 0, SEEN)
    whole = heal_state.found_only(state, Report(segments=9))
    (line,) = about(replace(PART, healing=whole), now_ns=7200 * S)
    assert line == (
        "When it was last counted, 2 h ago (7 files), all data had its two copies; "
        "nothing is known to have changed since."
    )
    lacking = msgspec.structs.replace(whole, lacking=2, files_lacking=2)
    (line,) = about(replace(PART, healing=lacking), now_ns=60 * S)
    assert line.startswith("When it was last counted, 60 s ago (7 files), 2 had fewer than two copies of some data;")
    for changed in (
        msgspec.structs.replace(whole, servers=(*SEEN[:3], ServerSeen(b"another disk"))),
        msgspec.structs.replace(whole, servers=(*SEEN[:3], ServerSeen(b""))),
        msgspec.structs.replace(whole, servers=(*SEEN[:3], ServerSeen(b"i", 3))),
        msgspec.structs.replace(whole, servers=()),
        msgspec.structs.replace(whole, phase=heal_state.STOPPED),
    ):
        assert "is not known" in about(replace(PART, healing=changed), now_ns=0)[0], changed
    noted = Report(noted=frozenset({(b"s" * 16, 1, 2)}))
    assert "is not known" in about(PieceReport(noted, False, whole), now_ns=0)[0]


def test_what_a_count_found_before_its_time_was_over_is_said_whatever_the_record_says() -> None:
    whole = heal_state.found_only(heal_state.beginning(None, Report(segments=9), 0, SEEN), Report(segments=9))
    found = Report(segments=9, lacking=2, files=Files(5), files_lacking=Files(2), needed=Counter({1: 2}))
    one, two = about(PieceReport(found, False, whole), now_ns=0)
    assert one == "2 of the first 5 files have only one copy of some data."
    assert two == "If DFS1 failed, files could not be read."


@pytest.mark.parametrize(
    ("count", "said"), [(1, "1 superfluous copy dropped"), (2400, "2,400 superfluous copies dropped")]
)
def test_copies_that_were_dropped_are_counted(count: int, said: str) -> None:
    assert lines(Report(dropped=count), {})[0] == said


def test_where_there_is_no_data_that_is_all_that_is_said() -> None:
    assert about(PieceReport(), now_ns=0) == ["There is no data."]  # not "no data yet": it may have been removed


def test_status_without_servers_says_nothing_of_copies(dfc: Dfc, tmp_path: Path) -> None:
    dfc.access.segments.answering = set()
    dfc.access.pieces = None
    facts = json.loads(dfc("status", "--json").out)
    assert (facts["pieces"], facts["healing"]) == (None, None)


def test_an_earlier_count_does_not_stand_once_status_itself_has_found_otherwise(dfc: Dfc, access: StoredAccess) -> None:
    access.grid[3].forget()
    dfc.ok("heal")  # leaves a record that everything is whole
    assert access.health(-1.0).known.copies is Copies.WHOLE
    run = heal_state.decode(access.store.items[keys.HEALING])
    first, *_, last = access.grid[2].stored
    assert first[0] != last[0]
    del access.grid[2].stored[first]  # unnoticed so far
    assert access.health(-1.0).known.copies is Copies.WHOLE
    assert "1 of 4 files has only one copy" in dfc.ok("status")
    known = access.health(-1.0).known
    assert (known.copies, known.degraded, known.age_s is not None) == (Copies.DEGRADED, 1, True)
    after = heal_state.decode(access.store.items[keys.HEALING])
    assert run is not None and after is not None
    assert (after.run, after.phase) == (run.run, heal_state.DONE)
    batches = len(access.store.batches)
    dfc.ok("status")
    assert len(access.store.batches) == batches  # recorded once
    access.store.is_writable = False
    del access.grid[2].stored[last]
    assert "2 of 4 files have only one copy" in dfc.ok("status")  # failing to record that does no harm
