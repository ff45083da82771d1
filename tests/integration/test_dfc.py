"""`dfc` with four real servers: all up, with one and two of them killed, with wrong passwords and odd names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dfc_process import DfcProcess
from support.servers import Servers

from dfsfuse.namespace.map.runs import RUNS

pytestmark = pytest.mark.integration

ODD_NAMES = [b"two\nlines", b"caf\xe9", b"n" * 255, "日本 🌊".encode(), b"back\\slash"]


@pytest.fixture(scope="module")
def whole_servers() -> Iterator[Servers]:
    """Four servers that no test breaks."""
    with Servers(4) as servers:
        yield servers


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Four servers for one test."""
    with Servers(4) as servers:
        yield servers


def dfc_for(servers: Servers, tmp_path: Path, user: str = "alice", password: str | None = None) -> DfcProcess:
    here = tmp_path / "here"
    here.mkdir(exist_ok=True)
    return DfcProcess(servers.write_client_config(tmp_path, user, password), here)


def test_files_of_all_sizes_go_both_ways(whole_servers: Servers, tmp_path: Path) -> None:
    dfc = dfc_for(whole_servers, tmp_path)
    tree = dfc.folder / "sizes"
    tree.mkdir()
    sizes = (0, 1, 2, 3, 4, 5, 70_000, 131_072, 131_073, 4 << 20, (4 << 20) + 1, 9 << 20)
    for size in sizes:
        (tree / str(size)).write_bytes(os.urandom(size))
    dfc.ok("PUT", "-r", "sizes")
    dfc.ok("get", "-r", "sizes", "copy")
    for size in sizes:
        assert (dfc.folder / "copy" / str(size)).read_bytes() == (tree / str(size)).read_bytes()
    listed = {entry["name"]: entry for entry in json.loads(dfc.ok("list", "--json", "sizes"))}
    assert {name: entry["size"] for name, entry in listed.items()} == {str(size): size for size in sizes}
    assert {entry["health"] for entry in listed.values()} == {"complete"}
    assert sum(layout["segments"] for layout in listed[str(9 << 20)]["where"]) == 3


def test_odd_names_go_both_ways(whole_servers: Servers, tmp_path: Path) -> None:
    dfc = dfc_for(whole_servers, tmp_path, "bob")
    for name in ODD_NAMES:
        (dfc.folder / os.fsdecode(name)).write_bytes(name)
        dfc.ok("put", name)
        (dfc.folder / os.fsdecode(name)).unlink()
    lines = dfc.ok("list").splitlines()
    assert sorted(lines) == sorted([b"two\\nlines", b"caf\\351", b"n" * 255, "日本 🌊".encode(), b"back\\\\slash"])
    for name in ODD_NAMES:
        dfc.ok("get", name)
        assert (dfc.folder / os.fsdecode(name)).read_bytes() == name


def test_a_wrong_password_stops_before_anything_is_done(whole_servers: Servers, tmp_path: Path) -> None:
    dfc = dfc_for(whole_servers, tmp_path, "alice", "pa55word")
    (dfc.folder / "file").touch()
    for arguments in (["list"], ["put", "file"], []):
        outcome = dfc(*arguments)
        assert (outcome.code, outcome.out) == (4, b""), outcome
        assert outcome.err.count(b"\n") == 1
        assert b"DFS" in outcome.err
        assert b"alice" in outcome.err
        assert b"pa55word" not in outcome.err
    outcome = dfc("status")
    assert outcome.code == 4
    assert outcome.out.count(b"refused the password") == 4
    assert b"dfc.yaml" in outcome.err
    assert b"pa55word" not in outcome.err + outcome.out


def test_a_config_that_is_missing_or_wrong(tmp_path: Path) -> None:
    dfc = DfcProcess(tmp_path / "none.yaml", tmp_path)
    outcome = dfc("list")
    assert (outcome.code, outcome.err.count(b"\n")) == (2, 1)
    assert b"none.yaml" in outcome.err
    (tmp_path / "none.yaml").write_text("servers: []\nusername: alice\npassword: x\n")
    outcome = dfc("list")
    assert (outcome.code, outcome.err.count(b"\n")) == (2, 1)
    assert b"servers" in outcome.err


def test_one_server_killed_changes_nothing_but_the_health(servers: Servers, tmp_path: Path) -> None:
    dfc = dfc_for(servers, tmp_path)
    data = os.urandom(9 << 20)
    dfc.ok("put", "-", "before", stdin=data)
    servers[2].kill()
    assert dfc.ok("get", "before", "-") == data
    assert dfc.ok("list") == b"before\n"
    assert b"degraded  before" in dfc.ok("list", "-l")
    dfc.ok("put", "-", "after", stdin=data)
    assert b"complete  after" in dfc.ok("list", "-l")
    status = dfc.ok("status").decode().splitlines()
    assert status[2].split()[2:4] == ["connection", "refused"]
    assert any(line.startswith("3 of 4 servers answer") for line in status)
    servers[2].start()
    servers[3].kill()
    assert dfc.ok("get", "after", "-") == data
    assert dfc.ok("get", "before", "-") == data


def test_a_folder_of_many_files_is_listed_with_an_empty_cache(servers: Servers, tmp_path: Path) -> None:
    """There are more files than an operation on the map may have runs."""
    dfc = dfc_for(servers, tmp_path)
    (dfc.folder / "many").mkdir()
    wanted = sorted(b"f%03d" % number for number in range(RUNS + 50))
    for name in wanted:
        (dfc.folder / "many" / os.fsdecode(name)).write_bytes(name)
    dfc.ok("put", "-r", "many")
    assert dfc.ok("list", "many").splitlines() == wanted
    servers[2].kill()
    assert dfc.ok("list", "many").splitlines() == wanted
    lines = dfc.ok("list", "-l", "many").splitlines()
    assert sum(b"  degraded  " in line for line in lines) == len(wanted)
    listed = json.loads(dfc.ok("list", "--json", "many"))
    assert [(entry["name"].encode(), entry["health"]) for entry in listed] == [(name, "degraded") for name in wanted]


def test_two_servers_killed(servers: Servers, tmp_path: Path) -> None:
    dfc = dfc_for(servers, tmp_path)
    dfc.ok("put", "-", "small", stdin=b"x" * 100)
    dfc.ok("put", "-", "large", stdin=os.urandom(9 << 20))  # on all four rotations
    servers[1].kill()
    servers[2].kill()
    outcome = dfc("get", "large")
    assert outcome.code == 3
    assert outcome.out == b"File is incomplete\n"
    assert outcome.err.count(b"\n") == 1
    assert list(dfc.folder.glob("**/*")) == []
    listed = dfc("list")
    assert listed.code == 0
    assert b"large [incomplete]\n" in listed.out
    (dfc.folder / "file").write_bytes(b"x")
    for arguments in (["put", "file"], ["mkdir", "folder"], ["rm", "small"], ["mv", "small", "x"]):
        outcome = dfc(*arguments)
        assert (outcome.code, outcome.out, outcome.err.count(b"\n")) == (7, b"", 1), (arguments, outcome)
        assert outcome.took_s < 15
    assert dfc("status").code == 3
    servers[1].start()
    servers[2].start()
    assert len(dfc.ok("get", "large", "-")) == 9 << 20
    assert dfc.ok("list") == b"large\nsmall\n"
    dfc.ok("put", "file")


def test_a_server_that_dies_during_a_put_or_a_get_is_not_noticed(servers: Servers, tmp_path: Path) -> None:
    dfc = dfc_for(servers, tmp_path)
    data = os.urandom(40 << 20)
    process = dfc.start("put", "-", "file")
    try:
        assert process.stdin is not None
        process.stdin.write(data[: 20 << 20])  # far more than a pipe holds, so the upload has begun
        servers[3].kill()
        out, err = process.communicate(data[20 << 20 :], timeout=60)
        assert (process.returncode, out, err) == (0, b"", b"")
    finally:
        process.kill()
        process.wait()
    servers[3].start()
    process = dfc.start("get", "file", "-")
    try:
        assert process.stdout is not None
        begin = process.stdout.read(1 << 20)
        servers[1].kill()
        rest, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, b"")
        assert begin + rest == data
    finally:
        process.kill()
        process.wait()


def test_opposite_servers_killed_leave_every_file_readable(servers: Servers, tmp_path: Path) -> None:
    dfc = dfc_for(servers, tmp_path)
    data = os.urandom(9 << 20)
    dfc.ok("put", "-", "file", stdin=data)
    servers[1].kill()
    servers[3].kill()
    assert dfc.ok("get", "file", "-") == data
    assert b"degraded  file" in dfc.ok("list", "-l")
    assert dfc("status").code == 7


def test_all_servers_gone(servers: Servers, tmp_path: Path) -> None:
    dfc = dfc_for(servers, tmp_path)
    for server in servers:
        server.kill()
    for arguments in (["list"], ["get", "x"], ["put", "-", "x"], []):
        outcome = dfc(*arguments)
        assert (outcome.code, outcome.out, outcome.err.count(b"\n")) == (6, b"", 1), outcome
        assert outcome.took_s < 15
    outcome = dfc("status")
    assert outcome.code == 6
    assert outcome.out.count(b"connection refused") == 4
    assert b"dfc.yaml" in outcome.err


def test_a_hung_server_is_not_waited_for_long(servers: Servers, tmp_path: Path) -> None:
    dfc = dfc_for(servers, tmp_path)
    data = os.urandom(5 << 20)
    dfc.ok("put", "-", "file", stdin=data)
    servers[4].freeze()
    try:
        outcome = dfc("get", "file", "-")
        assert (outcome.code, outcome.out == data) == (0, True)
        assert outcome.took_s < 15
        assert dfc("put", "-", "other", stdin=data).code == 0
        assert dfc("status").code == 0
    finally:
        servers[4].thaw()


def test_the_pieces_lie_as_the_table_says(whole_servers: Servers, tmp_path: Path) -> None:
    dfc = dfc_for(whole_servers, tmp_path, "bob")
    dfc.ok("mkdir", "-p", "where")
    table = [
        ["1,2", "2,3", "3,4", "4,1"],
        ["4,1", "1,2", "2,3", "3,4"],
        ["3,4", "4,1", "1,2", "2,3"],
        ["2,3", "3,4", "4,1", "1,2"],
    ]
    from hashlib import md5

    for data in (b"a", b"b", b"c" * 1000, os.urandom(200_000)):
        dfc.ok("put", "-", "where/file", stdin=data)
        cells = dfc.ok("list", "--where", "where").decode().splitlines()[1].split()
        x = int(md5(data, usedforsecurity=False).hexdigest(), 16) % 4
        assert cells == [*table[x], "1", "complete", "file"]


def test_ctrl_c_ends_it_at_once_also_when_all_servers_hang(servers: Servers, tmp_path: Path) -> None:
    dfc = dfc_for(servers, tmp_path)
    process = dfc.start()
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.read(len("dfc> ")) == b"dfc> "
        for server in servers:
            server.freeze()
        process.stdin.write(b"list\n")
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        process.communicate(timeout=20)
        assert process.returncode == 130
        assert time.monotonic() - began < 5
        outcome = dfc("list")
        assert (outcome.code, outcome.err.count(b"\n")) == (6, 1), outcome
        assert outcome.took_s < 15
    finally:
        process.kill()
        process.wait()
        for server in servers:
            server.thaw()


def test_ctrl_c_and_sigterm_end_it_and_leave_nothing(servers: Servers, tmp_path: Path) -> None:
    dfc = dfc_for(servers, tmp_path)
    dfc.ok("put", "-", "file", stdin=os.urandom(1000))
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = dfc.start("put", "-", "unfinished")
        try:
            assert process.stdin is not None
            process.stdin.write(b"x" * (5 << 20))  # more than a pipe holds, so dfc is reading it
            process.stdin.flush()
            process.send_signal(number)
            _out, err = process.communicate(timeout=10)
            assert process.returncode == code, err
            assert b"Traceback" not in err
        finally:
            process.kill()
            process.wait()
    assert dfc.ok("list") == b"file\n"


@pytest.mark.parametrize("what", ["put", "get"])
def test_ctrl_c_ends_a_transfer_whose_servers_all_hang(servers: Servers, tmp_path: Path, what: str) -> None:
    dfc = dfc_for(servers, tmp_path)
    dfc.ok("put", "-", "file", stdin=os.urandom(24 << 20))
    process = dfc.start("put", "-", "unfinished") if what == "put" else dfc.start("get", "file", "-")
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        if what == "put":
            process.stdin.write(b"x" * (9 << 20))
            process.stdin.flush()
        else:
            assert process.stdout.read(1 << 20)
        for server in servers:
            server.freeze()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 130
    finally:
        process.kill()
        process.wait()
        for server in servers:
            server.thaw()


def test_a_reader_that_goes_away_causes_no_message(whole_servers: Servers, tmp_path: Path) -> None:
    dfc = dfc_for(whole_servers, tmp_path)
    dfc.ok("put", "-", "gone", stdin=os.urandom(9 << 20))
    process = dfc.start("get", "gone", "-")
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) == 141


def test_a_full_output_is_an_error(whole_servers: Servers, tmp_path: Path) -> None:
    dfc = dfc_for(whole_servers, tmp_path)
    dfc.ok("put", "-", "full", stdin=b"x")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            dfc.command("list"),
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=dfc.folder,
            env=dfc.variables(),
            check=False,
        )
    assert done.returncode == 1
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr


def test_users_see_their_own_files_only(whole_servers: Servers, tmp_path: Path) -> None:
    alice, bob = tmp_path / "alice", tmp_path / "bob"
    alice.mkdir()
    bob.mkdir()
    dfc_for(whole_servers, alice, "alice").ok("put", "-", "secret-of-alice", stdin=b"x")
    dfc = dfc_for(whole_servers, bob, "bob")
    assert b"secret-of-alice" not in dfc.ok("list", "-r")
    assert dfc("get", "secret-of-alice").code == 1
