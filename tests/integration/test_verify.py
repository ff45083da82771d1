"""`dfc verify` and `dfc fsck` over four real servers: what is wrong on their disks is found from outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dfc_process import DfcProcess
from support.pieces_on_disk import large_piece_files
from support.servers import Servers
from support.trees import content, make_tree

pytestmark = pytest.mark.integration
USER = "alice"


@pytest.fixture
def servers() -> Iterator[Servers]:
    with Servers(4) as servers:
        yield servers


@pytest.fixture
def dfc(servers: Servers, tmp_path: Path) -> DfcProcess:
    here = tmp_path / "here"
    here.mkdir()
    dfc = DfcProcess(servers.write_client_config(tmp_path, USER, None), here)
    make_tree(here / "tree")
    dfc.ok("put", "-r", "tree")
    return dfc


def test_what_is_wrong_on_the_disks_is_found_and_what_a_tree_differs_in(servers: Servers, dfc: DfcProcess) -> None:
    assert b"copies of pieces are good" in dfc.ok("verify")
    whole = json.loads(dfc.ok("verify", "--json"))
    assert (whole["bad_copies"], whole["not_verified"], whole["unverified_copies"]) == ([], {}, 0)
    assert whole["good_copies"] > 50
    assert b"are the same" in dfc.ok("verify", "--against", "tree", "/tree")

    damaged, *_ = large_piece_files(servers[2].root, USER)
    raw = bytearray(damaged.read_bytes())
    raw[-1] ^= 1
    damaged.write_bytes(raw)
    gone, *_ = large_piece_files(servers[4].root, USER)
    gone.unlink()
    outcome = dfc("verify", "--json")
    assert outcome.code == 14
    bad = json.loads(outcome.out)["bad_copies"]
    assert sorted((copy["server"], copy["missing"]) for copy in bad) == [("DFS2", False), ("DFS4", True)]
    assert {copy["segment"] for copy in bad} == {damaged.name.split(".")[0], gone.name.split(".")[0]}
    assert all(copy["path"].startswith("/tree/") for copy in bad)
    outcome = dfc("verify", "tree")
    assert outcome.code == 14
    assert b"DFS4" in outcome.out and b"dfc heal" in outcome.err

    servers[3].kill()
    outcome = dfc("verify", "--json")
    said = json.loads(outcome.out)
    assert list(said["not_verified"]) == ["DFS3"]
    assert said["good_copies"] + said["unverified_copies"] + len(said["bad_copies"]) == whole["good_copies"]
    servers[3].start()

    file = dfc.folder / "tree" / "changed"
    file.write_bytes(content(100))
    dfc.ok("put", "tree/changed", "tree/")
    file.write_bytes(content(99) + b"!")
    outcome = dfc("verify", "--against", "tree", "/tree")
    assert (outcome.code, outcome.out) == (14, b"/tree/changed: its contents differ from byte 99 on\n")
