"""`dfc verify` and `dfc fsck` with four real servers: damage on their disks is found from outside."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.dfc_process import Outcome
from support.flushed import flush
from support.pieces_on_disk import large_piece_files
from support.servers import ServerProcess, Servers
from support.trees import content, make_tree

from dfs_server.protocol.messages import PutPiece
from dfs_server.protocol.pieces import block_digests
from dfs_server.store import checksums
from dfsfuse.cli.config import load_config
from dfsfuse.cli.dfc import app as program
from dfsfuse.cli.session import open_session
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys

pytestmark = pytest.mark.integration
USER = "alice"


@pytest.fixture
def servers() -> Iterator[Servers]:
    with Servers(4) as servers:
        yield servers


class Dfc:
    """Runs dfc in this process, which is quicker than one process for each command."""

    def __init__(self, config: Path) -> None:
        self.config = config

    def __call__(self, *arguments: str) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        began = time.monotonic()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = program.run(["--config", str(self.config), *arguments])
        return Outcome(code, out.getvalue().encode(), err.getvalue().encode(), time.monotonic() - began)

    def ok(self, *arguments: str) -> bytes:
        outcome = self(*arguments)
        assert (outcome.code, outcome.err) == (0, b""), outcome
        return outcome.out


@pytest.fixture
def dfc(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dfc:
    monkeypatch.chdir(tmp_path)
    dfc = Dfc(servers.write_client_config(tmp_path, USER, None))
    make_tree(tmp_path / "tree")
    dfc.ok("put", "-r", "tree")
    return dfc


def test_what_is_wrong_on_the_disks_is_found_and_what_a_tree_differs_in(servers: Servers, dfc: Dfc) -> None:
    assert b"copies of their parts are good" in dfc.ok("verify")
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
    assert b"DFS4" in outcome.out and b"dfc verify --heal" in outcome.err

    # The server takes its damaged piece for good, so only a client that has seen its bytes can heal it.
    assert b"2 copies recreated." in dfc.ok("verify", "--heal")
    assert json.loads(dfc.ok("verify", "--heal", "--json"))["made_anew"] == 0
    assert dfc("verify", "--heal", "--against", "tree", "/tree").code == 2
    raw[-1] ^= 1
    assert damaged.read_bytes() == raw
    assert gone.exists()

    servers[3].kill()
    outcome = dfc("verify", "--json")
    said = json.loads(outcome.out)
    assert list(said["not_verified"]) == ["DFS3"]
    assert said["good_copies"] + said["unverified_copies"] + len(said["bad_copies"]) == whole["good_copies"]
    servers[3].start()

    file = Path("tree/changed")
    file.write_bytes(content(100))
    dfc.ok("put", "tree/changed", "tree/")
    file.write_bytes(content(99) + b"!")
    outcome = dfc("verify", "--against", "tree", "/tree")
    assert (outcome.code, outcome.out) == (14, b"/tree/changed: its contents differ from byte 99 on\n")


def test_a_damaged_namespace_is_found_said_and_repaired(servers: Servers, dfc: Dfc) -> None:
    dfc.ok("verify", "--against", "tree", "/tree")
    assert json.loads(dfc.ok("fsck", "--json"))["sound"]
    with open_session(load_config(dfc.config)) as session:
        folder = session.vfs.lookup(keys.ROOT, b"tree").ino
        name, lost = min(session.vfs.list_folder(folder))

        def damage(tx: Transaction) -> None:
            tx.delete(keys.entry(folder, name))
            tx.put(b"x/1", b"of a newer program")

        session.store.transact(damage)
    gone, *_ = large_piece_files(servers[4].root, USER)
    gone.unlink()
    orphan = put_orphan(servers[1])

    outcome = dfc("fsck", "--json")
    said = json.loads(outcome.out)
    assert outcome.code == 14
    assert {finding["kind"] for finding in said["findings"]} == {"cannot be read", "unreachable", "wrong size"} | (
        {"wrong link count"} if stat.S_ISDIR(lost.mode) else set()
    )
    assert [copy["server"] for copy in said["missing_copies"]] == ["DFS4"]
    assert "kinds" in said["orphans_unknown"]
    outcome = dfc("fsck")
    assert b"--repair fixes this" in outcome.out and b"left alone" in outcome.out

    outcome = dfc("fsck", "--repair")  # all except the unknown key
    assert outcome.code == 14
    with open_session(load_config(dfc.config)) as session:
        assert session.store.read(lambda view: view.get(b"x/1")) == b"of a newer program"
        session.store.transact(lambda tx: tx.delete(b"x/1"))
        session.store.transact(lambda tx: tx.put(keys.SWEEP, b"\x93\x02\xa1x\xa1y"))
    said = json.loads(dfc("fsck", "--repair", "--json").out)
    assert (said["orphans"], said["orphans_dropped"]) == (1, 0)
    assert "newer program" in said["orphans_unknown"]
    with open_session(load_config(dfc.config)) as session:
        session.store.transact(lambda tx: tx.delete(keys.SWEEP))
    assert orphan.exists()
    outcome = dfc("fsck", "--repair", "--json")
    said = json.loads(outcome.out)
    assert (outcome.code, said["findings"], said["orphans_dropped"], said["still_lacking"]) == (0, [], 1, None)
    assert json.loads(dfc.ok("fsck", "--json"))["missing_copies"] == []
    dfc.ok("mv", f"/lost+found/#{lost.ino}", f"/tree/{name.decode()}")
    dfc.ok("verify", "--against", "tree", "/tree")
    dfc.ok("verify")


def test_nothing_is_put_right_while_the_servers_maps_differ(servers: Servers, dfc: Dfc) -> None:
    with open_session(load_config(dfc.config)) as session:
        ino = session.vfs.lookup(keys.ROOT, b"tree").ino
        folder = session.store.read(lambda view: view.get(keys.inode(ino)))
        wrong = msgspec.structs.replace(records.decode_inode(folder or b""), size=99)
        session.store.transact(lambda tx: tx.put(keys.inode(ino), records.encode(wrong)))
    put_orphan(servers[1])
    servers[3].kill()
    flush(servers[3].root, USER)
    with contextlib.closing(sqlite3.connect(servers[3].root / USER / "namespace.db")) as db:
        row = (b"h/never", b"in no batch")
        db.execute("INSERT INTO map (key, value, checksum) VALUES (?, ?, ?)", (*row, checksums.of_item(*row)))
        db.commit()
    servers[3].start()

    assert b"--repair" not in dfc("fsck").out
    outcome = dfc("fsck", "--repair")
    assert outcome.code == 14
    assert b"the map of DFS3 differs" in outcome.out and b"nothing was changed" in outcome.err, outcome
    assert b"repaired" not in outcome.out and b"will be deleted" not in outcome.out, outcome
    with open_session(load_config(dfc.config)) as session:
        assert session.store.read(lambda view: view.get(keys.inode(ino))) == records.encode(wrong)


def test_what_it_exits_with_when_servers_are_gone(servers: Servers, dfc: Dfc) -> None:
    with open_session(load_config(dfc.config)) as session:
        ino = session.vfs.lookup(keys.ROOT, b"tree").ino
        folder = session.store.read(lambda view: view.get(keys.inode(ino)))
        wrong = msgspec.structs.replace(records.decode_inode(folder or b""), size=99)
        session.store.transact(lambda tx: tx.put(keys.inode(ino), records.encode(wrong)))
    servers[1].kill()
    outcome = dfc("fsck")
    assert (outcome.code, b"DFS1 was not checked" in outcome.err) == (14, True), outcome
    servers[2].kill()
    outcome = dfc("fsck")
    assert (outcome.code, b"too few servers answer to know the newest state" in outcome.err) == (14, True), outcome
    outcome = dfc("fsck", "--repair")
    assert (outcome.code, b"repaired" in outcome.out) == (7, False), outcome
    servers[3].kill()
    servers[4].kill()
    assert (dfc("fsck").code, dfc("fsck", "--repair").code) == (6, 6)


def put_orphan(server: ServerProcess) -> Path:
    """Put a large unreferenced piece, two days old, and return its file."""
    data = content(100_000)
    with contextlib.closing(server.connect(USER)) as client:
        client.ask(PutPiece(b"orphan" + bytes(10), 1, block_digests(data)), data)
    (path,) = (path for path in large_piece_files(server.root, USER) if path.name.startswith(b"orphan".hex()))
    old = time.time() - 2 * 24 * 3600
    os.utime(path, (old, old))
    return path
