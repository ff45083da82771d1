"""`dfc status`, `dfc list` and `dfc heal` know afterwards which copies verify has found to be bad."""

from __future__ import annotations

import json

import pytest
from support.memory_dfc import Dfc
from support.stored_dfc import StoredAccess

from dfs_server.protocol.pieces import block_digests

LARGE = bytes(range(256)) * 3000


@pytest.fixture
def access(dfc: Dfc) -> StoredAccess:
    """A namespace with two files."""
    dfc.access = access = StoredAccess()
    dfc.ok("put", "-", "one", stdin=LARGE)
    dfc.ok("put", "-", "two", stdin=LARGE[1:])
    return access


def spoil(access: StoredAccess, number: int, *servers: int) -> None:
    """Corrupt these servers' copies of this piece, of the first file of which they have it."""
    segment = sorted(segment for segment, piece in access.grid[servers[0]].stored if piece == number)[0]
    for server in servers:
        _, data = access.grid[server].stored[segment, number]
        access.grid[server].stored[segment, number] = (block_digests(bytes(len(data))), bytes(len(data)))


def test_a_bad_copy_is_remembered_until_it_is_made_anew(dfc: Dfc, access: StoredAccess) -> None:
    number = min(piece for _, piece in access.grid[2].stored)
    spoil(access, number, 2)
    assert "any one server may fail" in dfc.ok("status")  # nothing has checked it yet
    assert dfc("verify").code == 14
    shown = dfc.ok("status")
    assert "1 of 2 files has only one copy of some data." in shown
    assert "any one server may fail" not in shown
    assert "DFS2 lacks 1 copy that belongs there: mounts, or 'dfc heal', make it" in shown
    facts = json.loads(dfc.ok("status", "--json"))
    assert (facts["copies"], facts["any_one_may_fail"]) == ("degraded", False)
    assert (facts["pieces"]["noted_bad_copies"], facts["servers"][1]["state"]) == (1, "filling")
    assert sorted(entry["health"] for entry in json.loads(dfc.ok("list", "--json"))) == ["complete", "degraded"]
    assert "DFS2: 1 copy made" in dfc.ok("heal")
    assert "any one server may fail" in dfc.ok("status")
    assert sorted(entry["health"] for entry in json.loads(dfc.ok("list", "--json"))) == ["complete", "complete"]
    assert dfc("verify").code == 0


def test_data_without_a_good_copy_is_told_by_the_exit_code_once_it_is_known(dfc: Dfc, access: StoredAccess) -> None:
    number = next(piece for _, piece in access.grid[2].stored)
    twin = next(id for id in (1, 3, 4) if any(piece == number for _, piece in access.grid[id].stored))
    segments = [{s for s, piece in access.grid[id].stored if piece == number} for id in (2, twin)]
    (segment, *_) = sorted(segments[0] & segments[1])
    for server in (2, twin):
        _, data = access.grid[server].stored[segment, number]
        access.grid[server].stored[segment, number] = (block_digests(bytes(len(data))), bytes(len(data)))
    assert dfc("verify").code == 3
    outcome = dfc("status", "--json")
    facts = json.loads(outcome.out)
    assert (outcome.code, facts["access"], facts["copies"], facts["reading"]) == (3, "incomplete", "incomplete", "part")
    assert dfc("heal").code == 3
    assert dfc("status").code == 3


def test_what_verify_heals_itself_is_not_noted(dfc: Dfc, access: StoredAccess) -> None:
    spoil(access, min(piece for _, piece in access.grid[2].stored), 2)
    assert dfc("verify", "--heal").code == 0
    assert not [key for key in access.store.items if key.startswith(b"h/bad/")]
    assert "any one server may fail" in dfc.ok("status")


def test_like_findings_are_summed_up_and_each_is_told_on_demand(dfc: Dfc, access: StoredAccess) -> None:
    for number in range(20):
        dfc.ok("put", "-", f"n{number:02}", stdin=b"%d" % number * 5000)
    missing = [place for place in access.grid[3].stored if place[1] == 1]
    for place in missing:
        del access.grid[3].stored[place]
    spoil(access, 4, 2)
    outcome = dfc("verify")
    assert outcome.code == 14
    bad, gone, good = outcome.out.splitlines()
    assert bad.startswith("DFS2: 1 copy is bad, of 1 file: /")
    assert gone.startswith(f"DFS3: {len(missing)} copies are missing, of {len(missing)} files: /")
    assert gone.endswith(f" and {len(missing) - 8} more")
    assert good.startswith("22 files: ") and "copies of their parts are good" in good
    each = dfc("verify", "--long").out.splitlines()
    assert len(each) == len(missing) + 2
    assert sum(line.endswith(": P1: DFS3 does not have it") for line in each) == len(missing)
