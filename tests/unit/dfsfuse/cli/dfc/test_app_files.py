"""put and get: which files arrive where, with which modes and times, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.memory_dfc import Dfc

from dfsfuse.cli.dfc import local_files, putting
from dfsfuse.cli.dfc.local_files import Facts
from dfsfuse.errors import IncompleteError, ReadOnlyError
from dfsfuse.namespace.records import inode as records
from dfsfuse.vfs.vfs import Vfs

ODD_NAMES = [
    b"two\nlines",
    b"caf\xe9",
    "日本 🌊".encode(),
    b"n" * 255,
    b"back\\slash",
    b" ",
    b"-dash",
    b"'\"$(x)",
]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 4096, 131_073, 9 * 1024 * 1024 + 1])
def test_what_is_put_can_be_got(dfc: Dfc, size: int) -> None:
    data = os.urandom(size)
    (dfc.here / "file").write_bytes(data)
    assert dfc.ok("put", "file") == ""
    assert dfc.ok("get", "file", "copy") == ""
    assert (dfc.here / "copy").read_bytes() == data
    assert dfc.ok("list") == "file\n"


def test_mode_and_times_are_kept_and_set_user_id_is_not(dfc: Dfc) -> None:
    file = dfc.here / "file"
    file.write_bytes(b"x")
    file.chmod(0o4751)
    os.utime(file, ns=(1_111_111_111_111_111_111, 1_222_222_222_222_222_222))
    dfc.ok("put", "file")
    dfc.ok("get", "file", "copy")
    found = (dfc.here / "copy").stat()
    assert stat.S_IMODE(found.st_mode) == 0o751
    assert found.st_mtime_ns == 1_222_222_222_222_222_222


def test_targets_are_chosen_as_by_cp(dfc: Dfc) -> None:
    (dfc.here / "file").write_bytes(b"x")
    dfc.ok("mkdir", "folder")
    dfc.ok("put", "file", "folder")
    dfc.ok("put", "file", "folder/")
    dfc.ok("put", "file", "folder/other")
    dfc.ok("put", str(dfc.here / "file"), ".")
    assert dfc.ok("list", "-r") == "file\nfolder\nfolder/file\nfolder/other\n"
    (dfc.here / "near").mkdir()
    dfc.ok("get", "folder/other", "near")
    dfc.ok("get", "folder/other", "near/name")
    dfc.ok("get", "folder/other")
    assert sorted(path.name for path in dfc.here.rglob("*")) == ["file", "name", "near", "other", "other"]
    outcome = dfc("put", "file", "nowhere/")
    assert outcome.code == 1
    assert "not an existing folder" in outcome.err
    outcome = dfc("get", "file", "nowhere/")
    assert "local nowhere is not an existing folder" in outcome.err
    assert "No such file" in dfc("put", "file", "nowhere/file").err
    assert "No such file" in dfc("get", "file", "nowhere/file").err


def test_files_are_replaced_by_files_only(dfc: Dfc) -> None:
    (dfc.here / "file").write_bytes(b"new")
    dfc.ok("put", "-", "file", stdin=b"old")
    dfc.ok("put", "file")
    assert dfc.ok("get", "file", "-") == "new"
    dfc.ok("mkdir", "-p", "folder/file")
    assert "is a folder" in dfc("put", "file", "folder").err
    (dfc.here / "sub" / "file").mkdir(parents=True)
    assert "is a folder" in dfc("get", "file", "sub").err


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_go_both_ways(dfc: Dfc, name: bytes) -> None:
    local = dfc.here / os.fsdecode(name)
    local.write_bytes(name)
    dfc.ok("put", "--", os.fsdecode(name))
    local.unlink()
    assert dfc.ok("list").count("\n") == 1
    dfc.ok("get", "--", os.fsdecode(name))
    assert local.read_bytes() == name
    dfc.ok("rm", "--", os.fsdecode(name))
    assert dfc.ok("list") == ""


def test_names_that_are_too_long_are_refused(dfc: Dfc) -> None:
    (dfc.here / "file").touch()
    outcome = dfc("put", "file", "n" * 256)
    assert outcome.code == 1
    assert outcome.err.endswith("File name too long\n")


def test_trees_go_both_ways(dfc: Dfc) -> None:
    tree = dfc.here / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "empty").mkdir()
    for name in ODD_NAMES:
        (tree / "a" / os.fsdecode(name)).write_bytes(name)
    (tree / "link").symlink_to("a/b")
    (tree / "dangling").symlink_to("/no/such/thing")
    (tree / "a").chmod(0o700)
    os.utime(tree / "a", ns=(1, 1_000_000_007))
    dfc.ok("put", "-r", "tree")
    dfc.ok("get", "-r", "/tree", "copy")
    assert snapshot(dfc.here / "copy") == snapshot(tree)
    dfc.ok("put", "-r", "tree")  # merges into the existing folder
    dfc.ok("put", "-r", "tree", "tree")  # puts it into the existing folder, as cp does
    dfc.ok("get", "-r", "tree/tree", ".")
    assert snapshot(tree) == snapshot(dfc.here / "copy")
    dfc.ok("get", "-r", "tree", "copy")
    assert snapshot(dfc.here / "copy" / "tree" / "tree") == snapshot(tree)
    dfc.ok("rm", "-r", "tree")
    assert dfc.ok("list") == ""


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return everything about a tree that must be preserved."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *folder.rglob("*")]:
        facts = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (facts.st_mode, facts.st_mtime_ns, content)
    return found


def test_folders_need_r(dfc: Dfc) -> None:
    (dfc.here / "folder").mkdir()
    assert dfc("put", "folder").err == "dfc: local folder is a folder: use -r\n"
    dfc.ok("mkdir", "far")
    assert dfc("get", "far").err == "dfc: /far is a folder: use -r\n"


def test_special_files_are_refused_and_the_rest_goes_on(dfc: Dfc) -> None:
    tree = dfc.here / "tree"
    tree.mkdir()
    os.mkfifo(tree / "fifo")
    (tree / "z-file").write_bytes(b"x")
    assert dfc("put", "tree/fifo").err.startswith("dfc: local tree/fifo is a FIFO")
    outcome = dfc("put", "-r", "tree")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert dfc.ok("list", "tree") == "z-file\n"
    outcome = dfc("get", "-r", "tree", "tree/fifo")
    assert outcome.code == 1
    assert stat.S_ISFIFO((tree / "fifo").lstat().st_mode)


def test_what_failed_is_listed_at_the_end_and_the_rest_is_there(dfc: Dfc, monkeypatch: pytest.MonkeyPatch) -> None:
    """No failure stops the other files, not even an unexpected exception."""
    tree = dfc.here / "tree"
    (tree / "sub").mkdir(parents=True)
    for name in ("a", "bad", "sub/worse", "sub/z"):
        (tree / name).write_bytes(b"x")
    put, read = Vfs.put_stream, Vfs.read

    def put_but(vfs: Vfs, parent: int, name: bytes, *rest: Any, **more: Any) -> object:
        if name == b"bad":
            raise OSError(errno.EFBIG, "File too large")
        if name == b"worse":
            raise OverflowError("a number that no record holds")
        return put(vfs, parent, name, *rest, **more)

    monkeypatch.setattr(Vfs, "put_stream", put_but)
    outcome = dfc("put", "-r", "tree")
    assert outcome.code == 1
    said = outcome.err.splitlines()
    assert said[0] == "dfc: /tree/bad: File too large"
    assert said[1].startswith("dfc: unexpected OverflowError: a number that no record holds (")
    assert said[2:] == ["dfc: 2 were not copied:", "dfc:   local tree/bad", "dfc:   local tree/sub/worse"]
    assert dfc.ok("list", "-r") == "tree\ntree/a\ntree/sub\ntree/sub/z\n"
    monkeypatch.setattr(Vfs, "put_stream", put)
    dfc.ok("put", "-r", "tree")

    def read_but(vfs: Vfs, handle: int, offset: int, size: int) -> bytes:
        if not offset and next(numbers) in (1, 2):
            raise IncompleteError("no good copy of P2 can be had")
        return read(vfs, handle, offset, size)

    numbers = iter(range(100))
    monkeypatch.setattr(Vfs, "read", read_but)
    outcome = dfc("get", "-r", "tree", "copy")
    assert outcome.code == 3
    assert outcome.out == "File is incomplete\n" * 2
    assert outcome.err.splitlines()[2] == "dfc: 2 were not copied:"
    assert len([path for path in (dfc.here / "copy").rglob("*") if path.is_file()]) == 2


@pytest.mark.parametrize("seconds", [-(10**18), -(10**11), 2 * 10**10, 10**18])
def test_a_time_that_no_record_holds_is_the_nearest_one(
    dfc: Dfc, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """tmpfs and btrfs have files with times before 1677 and after 2554. Such files are put, and so are the others."""
    tree = dfc.here / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x")
    (tree / "link").symlink_to("file")
    time_ns = seconds * 10**9
    monkeypatch.setattr(putting, "facts_of", lambda found: Facts(0o755, time_ns, time_ns))
    dfc.ok("put", "-r", "tree")
    right = records.TIME_MIN_NS if seconds < 0 else records.TIME_MAX_NS
    listed = json.loads(dfc.ok("list", "--json", "tree"))
    assert [(entry["name"], entry["mtime_ns"], entry["atime_ns"]) for entry in listed] == [
        ("file", right, right),
        ("link", right, right),
    ]
    assert json.loads(dfc.ok("stat", "--json", "tree"))["mtime_ns"] == right
    dfc.ok("get", "-r", "tree", "copy")
    assert (dfc.here / "copy" / "file").read_bytes() == b"x"


@pytest.mark.parametrize("target", [b"", b"a\0b"])
def test_a_link_that_no_local_link_can_be_does_not_end_the_rest(
    dfc: Dfc, monkeypatch: pytest.MonkeyPatch, target: bytes
) -> None:
    (dfc.here / "a-link").symlink_to("x")
    (dfc.here / "file").write_bytes(b"x")
    dfc.ok("put", "-r", ".", "/tree")
    monkeypatch.setattr(Vfs, "readlink", lambda vfs, ino: target)
    outcome = dfc("get", "-r", "tree", "copy")
    assert outcome.code == 1
    assert outcome.err.startswith("dfc: local copy/a-link: no symbolic link can point to ")
    assert [path.name for path in (dfc.here / "copy").iterdir()] == ["file"]


def test_what_no_name_can_be(dfc: Dfc) -> None:
    outcome = dfc(stdin=b"put a\0b x\nmkdir a\0b\nget x a\0b\n")
    assert outcome.err.count("a name cannot have a zero byte\n") == 2
    assert "unexpected" not in outcome.err
    for arguments in (["mkdir", "n" * 256], ["put", "-", "n" * 256], ["mkdir", "-p", "/".join(["n" * 250] * 30)]):
        outcome = dfc(*arguments, stdin=b"")
        assert "unexpected" not in outcome.err, outcome


SOURCES = ["t", "t/", "t/.", "./t/.", "t/sub/..", "t/f", "."]


@pytest.mark.parametrize("there", ["", "folder"])
@pytest.mark.parametrize("source", SOURCES)
def test_what_is_put_and_got_goes_where_cp_puts_it(dfc: Dfc, source: str, there: str) -> None:
    """cp -r itself defines what is right, for targets that exist and for those that do not."""
    work = dfc.here / "work"
    (work / "t" / "sub").mkdir(parents=True)
    (work / "t" / "f").write_text("f")
    by_cp = dfc.here / "by cp"
    by_cp.mkdir()
    if there:
        (by_cp / "d").mkdir()
        dfc.ok("mkdir", "d")
    subprocess.run(["cp", "-r", source, by_cp / "d"], cwd=work, check=True, timeout=20)
    right = sorted(str(path.relative_to(by_cp)) for path in by_cp.rglob("*"))
    os.chdir(work)
    dfc.ok("put", "-r", source, "d")
    assert dfc.ok("list", "-r").splitlines() == right
    dfc.ok("rm", "-r", "d")
    dfc.ok("put", "-r", ".", "/there")
    os.chdir(dfc.here)
    if there:
        (dfc.here / "d").mkdir()
    dfc.ok("get", "-r", f"there/{source}", "d")
    assert sorted(str(path.relative_to(dfc.here)) for path in (dfc.here / "d").rglob("*")) == [
        path for path in right if path != "d"
    ]


def test_a_file_is_not_a_folder(dfc: Dfc) -> None:
    (dfc.here / "f").write_bytes(b"x")
    assert dfc("put", "f/", "x").err == "dfc: local f/ is not a folder\n"
    dfc.ok("put", "f")
    assert dfc("get", "f/", "x").err == "dfc: f/ is not a folder\n"


def test_holes_stay_holes_both_ways(dfc: Dfc) -> None:
    source = dfc.here / "sparse"
    data = os.urandom(9 << 20)
    with source.open("wb") as file:
        file.seek(5 << 20)
        file.write(data)
        file.truncate(64 << 30)  # it ends in a hole too large for any memory
    dfc.ok("put", "sparse")
    assert sum(len(content) for content, _ in dfc.access.segments.written) <= len(data) + 8192
    dfc.ok("get", "sparse", "copy")
    found = (dfc.here / "copy").stat()
    assert (found.st_size, found.st_blocks * 512 <= len(data) + 65536) == (64 << 30, True)
    with (dfc.here / "copy").open("rb") as file:
        file.seek(5 << 20)
        assert file.read(len(data)) == data
    os.truncate(source, 6 << 20)
    dfc.ok("put", "sparse")
    assert dfc("get", "sparse", "-").out_bytes == bytes(5 << 20) + data[: 1 << 20]  # a pipe has no holes


def test_standard_input_and_output(dfc: Dfc) -> None:
    data = os.urandom(5 * 1024 * 1024)
    dfc.ok("put", "-", "/stream", stdin=data)
    assert dfc("get", "/stream", "-").out_bytes == data
    assert dfc("put", "-").code == 2
    assert dfc("put", "-", "/").code == 1


def test_an_incomplete_file_leaves_nothing(dfc: Dfc, monkeypatch: pytest.MonkeyPatch) -> None:
    dfc.ok("put", "-", "file", stdin=os.urandom(6 * 1024 * 1024))
    read, away = Vfs.read, [4, 1]

    def read_until_it_fails(vfs: Vfs, handle: int, offset: int, size: int) -> bytes:
        if offset:
            raise IncompleteError("no good copy of P2 of segment 77", away)
        return read(vfs, handle, offset, size)

    monkeypatch.setattr(Vfs, "read", read_until_it_fails)
    for arguments in (["get", "file"], ["get", "-r", "/", "."]):
        outcome = dfc(*arguments)
        assert outcome.code == 3
        assert outcome.out == "File is incomplete\n"
        assert outcome.err == (
            "dfc: /file: some of its data is on DFS1 and DFS4 only, which do not answer: "
            "get it when one of them is back\n"
        )
        assert list(dfc.here.iterdir()) == []
    outcome = dfc("get", "file", "-")
    assert outcome.code == 3
    assert b"File is incomplete" not in outcome.out_bytes
    assert "dfc: File is incomplete\n" in outcome.err
    away = [2]
    assert "data is on DFS2 only, which does not answer: get it when it is back" in dfc("get", "file").err
    away = []
    assert "no server has a good copy of some of its data: `dfc verify /file` says more" in dfc("get", "file").err


def test_an_interrupted_get_leaves_nothing_and_the_old_file(dfc: Dfc, monkeypatch: pytest.MonkeyPatch) -> None:
    dfc.ok("put", "-", "file", stdin=b"new")
    (dfc.here / "file").write_bytes(b"old")

    def interrupted(vfs: Vfs, handle: int, offset: int, size: int) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(Vfs, "read", interrupted)
    assert dfc("get", "file").code == 130
    assert [path.read_bytes() for path in dfc.here.iterdir()] == [b"old"]
    dfc.access.close()  # after Ctrl-C the program ends without waiting for it


def test_a_put_that_fails_midway_changes_nothing(dfc: Dfc, monkeypatch: pytest.MonkeyPatch) -> None:
    dfc.ok("put", "-", "file", stdin=b"old")
    (dfc.here / "file").write_bytes(b"new" * 3_000_000)

    def failing(_file: object, _path: Path) -> Iterator[bytes]:
        yield b"half"
        raise OSError(5, "Input/output error", "file")

    monkeypatch.setattr(local_files, "chunks", failing)
    assert dfc("put", "file").code == 1
    assert dfc.ok("list") == "file\n"
    assert dfc.ok("get", "file", "-") == "old"


def test_read_only_servers(dfc: Dfc, monkeypatch: pytest.MonkeyPatch) -> None:
    (dfc.here / "file").write_bytes(b"x")
    dfc.ok("put", "file")

    def refuse(*_arguments: object, **_options: object) -> None:
        raise ReadOnlyError("only 2 of 4 servers answer: nothing can be written")

    monkeypatch.setattr(Vfs, "put_stream", refuse)
    outcome = dfc("put", "file")
    assert (outcome.code, outcome.err) == (7, "dfc: only 2 of 4 servers answer: nothing can be written\n")
    dfc.ok("get", "file", "copy")


def test_links_are_followed_as_by_cp(dfc: Dfc) -> None:
    (dfc.here / "tree" / "sub").mkdir(parents=True)
    (dfc.here / "tree" / "sub" / "file").write_bytes(b"x")
    (dfc.here / "tree" / "link").symlink_to("sub/../sub/file")
    (dfc.here / "tree" / "loop").symlink_to("loop")
    (dfc.here / "tree" / "out").symlink_to("/etc/passwd")
    dfc.ok("put", "-r", "tree", "/tree")
    dfc.ok("put", "tree/link", "followed")
    assert dfc.ok("get", "followed", "-") == "x"
    assert dfc.ok("get", "tree/link", "-") == "x"
    assert "Too many levels" in dfc("get", "tree/loop").err
    assert "points to a local path" in dfc("get", "tree/out").err
    dfc.ok("put", "-", "tree/link", stdin=b"through the link")
    assert dfc.ok("get", "tree/sub/file", "-") == "through the link"


@pytest.mark.parametrize("recursive", [False, True])
def test_a_local_link_that_leads_nowhere_is_replaced_like_any_other(dfc: Dfc, recursive: bool) -> None:
    (dfc.here / "tree").mkdir()
    (dfc.here / "tree" / "file").write_bytes(b"x")
    dfc.ok("put", "-r", "tree")
    (dfc.here / "tree" / "file").unlink()
    (dfc.here / "tree" / "file").symlink_to("file")
    if recursive:
        dfc.ok("get", "-r", "tree")
    else:
        dfc.ok("get", "tree/file", "tree/file")
    assert not (dfc.here / "tree" / "file").is_symlink()
    assert (dfc.here / "tree" / "file").read_bytes() == b"x"


def test_local_links_are_not_followed_out_of_the_target(dfc: Dfc, tmp_path: Path) -> None:
    (dfc.here / "tree" / "sub").mkdir(parents=True)
    (dfc.here / "tree" / "sub" / "file").write_bytes(b"new")
    dfc.ok("put", "-r", "tree")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy = dfc.here / "copy"
    (copy / "tree").mkdir(parents=True)
    (copy / "tree" / "sub").symlink_to(elsewhere)
    outcome = dfc("get", "-r", "tree", "copy")
    assert outcome.code == 1
    assert "in the way" in outcome.err
    assert list(elsewhere.iterdir()) == []


def test_a_name_that_would_lead_out_of_the_target_is_refused(dfc: Dfc, monkeypatch: pytest.MonkeyPatch) -> None:
    dfc.ok("put", "-", "file", stdin=b"evil")
    from dfsfuse.cli.dfc.remote import Remote

    entries = Remote.entries
    monkeypatch.setattr(Remote, "entries", lambda *a: [(b"../outside", found) for _, found in entries(*a)])
    outcome = dfc("get", "-r", "/", "copy")
    assert outcome.code == 1
    assert "refused" in outcome.err
    assert [path.name for path in dfc.here.rglob("*")] == ["copy"]
