"""`dfc heal`, and what `dfc status` says of copies: on servers in memory that fail."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from support.grid import Fault
from support.memory_dfc import Dfc
from support.stored_dfc import StoredAccess

from dfsfuse.cli import piece_reports
from dfsfuse.cli.commands.heal import NOT_CHECKED
from dfsfuse.cli.piece_reports import PieceReport, about_pieces
from dfsfuse.namespace import keys
from dfsfuse.upkeep import heal_state
from dfsfuse.upkeep.heal_report import Report

LARGE = bytes(range(256)) * 3000
S = 10**9


@pytest.fixture
def access(dfc: Dfc) -> StoredAccess:
    """Four files are there."""
    dfc.access = access = StoredAccess()
    dfc.ok("put", "-", "large", stdin=LARGE)
    dfc.ok("put", "-", "small", stdin=b"x" * 5000)
    dfc.ok("mkdir", "folder")
    dfc.ok("put", "-", "folder/large", stdin=LARGE[1:])
    dfc.ok("put", "-", "folder/small", stdin=b"y" * 5000)
    return access


def test_where_all_is_well_it_says_so(dfc: Dfc, access: StoredAccess) -> None:
    assert dfc.ok("heal") == f"4 segments: all have two copies, nothing to do.\n{NOT_CHECKED}\n"
    assert "'dfc verify --heal'" in NOT_CHECKED
    assert "All 4 segments of your files have two copies of every piece." in dfc.ok("status")
    assert keys.HEALING not in access.store.items


def test_an_empty_server_is_rebuilt_and_what_was_done_is_said(dfc: Dfc, access: StoredAccess) -> None:
    before = dict(access.grid[2].stored)
    access.grid[2].forget()
    assert "4 of 4 segments lack a copy of some piece: 755K to copy; mounts heal that, or 'dfc heal'." in dfc.ok(
        "status"
    )
    assert dfc.ok("heal").splitlines() == [
        "DFS2: 8 copies of pieces made",
        "4 segments: 4 healed, 755K copied.",
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
    assert "4 segments still without a second copy" in outcome.err
    assert "4 of 5 segments lack a copy of some piece until the servers that have it answer again." in dfc.ok("status")
    access.up(3)
    assert "1 segment has two copies, but not at home" in dfc.ok("status")
    facts = json.loads(dfc.ok("heal", "--json"))
    assert (facts["brought_home"], facts["copies_made"], facts["copies_dropped"]) == (1, {"DFS3": 2}, 2)
    assert (facts["lack_a_copy"], facts["incomplete"], facts["reasons"]) == (0, 0, [])


def test_below_a_path_only(dfc: Dfc, access: StoredAccess) -> None:
    access.grid[1].forget()
    assert dfc.ok("heal", "folder").splitlines()[-2].startswith("2 segments: 2 healed")
    assert len(access.grid[1].stored) == 4
    assert keys.HEALING not in access.store.items  # the record is about all files
    assert dfc.ok("heal", "/small").splitlines()[-2].startswith("1 segment: 1 healed")
    assert dfc("heal", "nowhere").code == 1


def test_what_no_server_has_is_incomplete(dfc: Dfc, access: StoredAccess) -> None:
    access.grid[1].forget()
    access.grid[2].forget()
    outcome = dfc("heal")
    assert outcome.code == 3
    assert "4 segments cannot be put together from the servers that answer" in outcome.err
    assert "have no copy of some piece that can be had now" in dfc.ok("status")


def test_what_cannot_be_made_is_said_with_the_reason(dfc: Dfc, access: StoredAccess) -> None:
    access.grid[4].forget()
    access.grid[4].fault = Fault.FULL
    outcome = dfc("heal")
    assert outcome.code == 14
    assert "dfc: DFS4: the disk is full" in outcome.err


def test_with_two_servers_down_it_says_what_is_missing(dfc: Dfc, access: StoredAccess) -> None:
    access.down(1, 3)
    assert dfc("heal").code == 14


def test_healing_that_goes_on_elsewhere_is_shown(dfc: Dfc, access: StoredAccess) -> None:
    found = Report(segments=5000, lacking=1200, bytes_to_copy=4 << 30)
    state = heal_state.going_on(
        heal_state.beginning(None, found, 0), Report(healed=200, bytes_copied=1 << 30), ran_s=32, now_ns=1000 * S
    )
    access.store.transact(lambda tx: tx.put(keys.HEALING, heal_state.encode(state)))
    (line,) = about_pieces(PieceReport(None, state), 1001 * S)
    assert line == ("Healing: 1,000 of 5,000 segments lack a copy; 1.0G of 4.0G copied, 32M/s, done in about 96 s.")
    assert line[:-1] + " (nothing was heard of it for 5 min)." == about_pieces(PieceReport(None, state), 1300 * S)[0]
    shown = dfc.ok("status")  # which has just counted itself, and does not say another number
    assert "Healing: 1.0G of 4.0G copied, 32M/s, done in about 96 s" in shown
    assert "5,000 segments" not in shown
    assert json.loads(dfc.ok("status", "--json"))["healing"]["left_s"] == 96.0


def test_where_counting_takes_long_the_last_news_are_told(
    dfc: Dfc, access: StoredAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piece_reports, "QUICK_S", -1.0)
    assert "too much to count quickly" in dfc.ok("status")
    state = heal_state.found_only(heal_state.beginning(None, Report(segments=9), 0), Report(segments=9))
    (line,) = about_pieces(PieceReport(None, state), 7200 * S)
    assert line == "When 9 segments were last looked at, 2 h ago, all had two copies."
    (line,) = about_pieces(PieceReport(None, msgspec.structs.replace(state, lacking=2)), 60 * S)
    assert line == "When 9 segments were last looked at, 60 s ago, 2 of 9 segments lacked a copy."


def test_status_without_servers_says_nothing_of_copies(dfc: Dfc, tmp_path: Path) -> None:
    dfc.access.segments.answering = set()
    facts = json.loads(dfc("status", "--json").out)
    assert (facts["pieces"], facts["healing"]) == (None, None)
