"""`dfc recover` lists kept data, puts it back and discards it; and the message when a mount ends."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.memory_dfc import Dfc, MemoryAccess

from dfsfuse.cli.dfc.commands.recover import sentence
from dfsfuse.cli.mount import ending
from dfsfuse.errors import ReadOnlyError
from dfsfuse.mount import state_folders
from dfsfuse.upkeep.recovery import kept
from dfsfuse.upkeep.recovery.apply import Applier, Done, _Begun
from dfsfuse.upkeep.recovery.kept import Kept
from dfsfuse.upkeep.recovery.manifest import KeptFile
from dfsfuse.upkeep.recovery.plan import Action

MOUNTPOINT = Path("/mnt/dfs")
NOTHING = "Nothing is kept: all mounts of this user have saved everything.\n"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only state folder."""
    folder = tmp_path / "state"
    monkeypatch.setattr(state_folders, "candidates", lambda: iter([folder]))
    return folder


class Ended:
    """A mount of the same namespace as `dfc`'s, which ends without its servers."""

    def __init__(self, access: MemoryAccess) -> None:
        self.access = access
        self.ino = 0

    def end(self, *names: str, flags: int = 0) -> str:
        """Write to these existing files without closing them, end the mount, and return its message."""
        with self._session() as session:
            for name in names:
                found = session.vfs.lookup(1, name.encode())
                session.vfs.write(session.vfs.open(found.ino, os.O_WRONLY | flags), 0, b"unsaved")
            self.access.store.is_writable = False
            sentence = ending.keep(
                session, self.access.namespace(), MOUNTPOINT, ReadOnlyError("fewer than three servers answer")
            )
            self.access.store.is_writable = True
            session.vfs.ending.abandon()
        return sentence

    def _session(self) -> _Session:
        return _Session(self.access)


class _Session:
    """The part of a `dfsfuse.cli.session.Session` that `ending` uses."""

    def __init__(self, access: MemoryAccess) -> None:
        self._access = access.connect()
        self.vfs = self._access.vfs

    def __enter__(self):  # type: ignore[no-untyped-def]
        return self

    def __exit__(self, *_: object) -> None:
        self._access.close()


@pytest.fixture
def ended(dfc: Dfc, state: Path) -> Iterator[Ended]:
    for name in ("a", "b"):
        dfc.ok("put", "-", name, stdin=b"0123456789")
    yield Ended(dfc.access)


def only(state: Path) -> Kept:
    (one,), errors = kept.found_in(state / "unsaved")
    assert not errors
    return one


def test_nothing_is_kept(dfc: Dfc, state: Path) -> None:
    assert dfc.ok("recover") == NOTHING
    assert dfc.ok("recover", "--apply") == "Nothing is kept: there is nothing to put back.\n"
    assert dfc.ok("recover", "--json") == "[]\n"
    assert dfc.access.connections == 0
    assert ending.waiting(dfc.access.namespace()) == ""


def test_it_is_listed_put_back_and_gone(dfc: Dfc, state: Path, ended: Ended) -> None:
    said = ended.end("a", "b")
    one = only(state)
    assert said == (
        f"2 files (14) could not be saved: fewer than three servers answer. Kept in {one.folder} (names.txt lists "
        "them). 'dfc recover' shows them, 'dfc recover --apply' writes them to the servers."
    )
    here = dfc.access.namespace()
    assert ending.waiting(here).startswith("an earlier mount could not save 2 files, which this machine keeps: ")
    assert ending.waiting(msgspec.structs.replace(here, user="bob")) == ""
    assert ending.waiting(msgspec.structs.replace(here, identity=b"another", servers=())) == ""
    assert ending.of_mount(MOUNTPOINT, one.manifest.ended_ns)[0].id == one.id
    assert ending.of_mount(MOUNTPOINT, one.manifest.ended_ns + 1) == []
    assert ending.of_mount(Path("/other"), 0) == []
    lines = dfc.ok("recover").splitlines()
    assert lines[0].startswith(f"{one.id}  2") and lines[0].endswith("  /mnt/dfs  (user alice)")
    assert lines[1:3] == ["  7  /a", "  7  /b"]
    (listed,) = json.loads(dfc.ok("recover", "--json"))
    assert (listed["id"], [file["path"] for file in listed["files"]]) == (one.id, ["/a", "/b"])
    assert dfc.ok("recover", "--apply", one.id) == "/a: 7 put back\n/b: 7 put back\n"
    assert dfc.ok("get", "a", "-") == "unsaved789"
    assert dfc.ok("recover") == NOTHING
    assert list((state / "unsaved").iterdir()) == []


def test_what_is_newer_is_left_and_it_is_said(dfc: Dfc, state: Path, ended: Ended) -> None:
    ended.end("a")
    dfc.ok("put", "-", "a", stdin=b"newer")
    said = dfc.ok("recover", "--apply")
    assert said.startswith("/a: was changed or removed in the meantime; the unsaved data is in /a [recovered ")
    assert dfc.ok("get", "a", "-") == "newer"
    assert dfc.ok("get", said.strip().partition(" is in ")[2], "-") == "unsaved"


def test_what_may_be_newer_is_left_alone_and_reported_as_unknown(dfc: Dfc, state: Path, ended: Ended) -> None:
    dfc.access.store.remembers = False
    ended.end("a")
    said = dfc.ok("recover", "--apply")
    assert said.startswith(
        "/a: may have been changed or removed in the meantime; the unsaved data is in /a [recovered "
    )
    assert dfc.ok("get", "a", "-") == "0123456789"


def test_what_fails_stays_and_the_others_are_done(dfc: Dfc, state: Path, ended: Ended) -> None:
    ended.end("a", "b")
    one = only(state)
    first, second = one.manifest.files
    assert first.parts[0].at == 0
    data = (one.folder / "data").read_bytes()
    (one.folder / "data").write_bytes(b"x" + data[1:])
    outcome = dfc("recover", "--apply")
    assert (outcome.code, outcome.out) == (1, "/b: 7 put back\n")
    assert "/a: " in outcome.err and "not what was written" in outcome.err
    assert [file.inode for file in only(state).manifest.files] == [first.inode]
    (one.folder / "data").write_bytes(data)
    assert dfc.ok("recover", "--apply") == "/a: 7 put back\n"
    assert second.path == b"b"


def test_what_was_appended_is_not_appended_again_after_a_crash(
    dfc: Dfc, state: Path, ended: Ended, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The process dies when the bytes are on the servers but that is not recorded yet."""
    ended.end("a", "b", flags=os.O_APPEND)
    finish = Applier._finish

    def finish_and_die(applier: Applier, begun: _Begun) -> Done | Exception:
        done = finish(applier, begun)
        shutil.copytree(state, tmp_path / "at death", dirs_exist_ok=True)
        return done

    with monkeypatch.context() as patched:
        patched.setattr(Applier, "_finish", finish_and_die)
        assert dfc.ok("recover", "--apply") == "/a: 7 appended\n/b: 7 appended\n"
    shutil.copytree(tmp_path / "at death", state, dirs_exist_ok=True)
    said = dfc.ok("recover", "--apply")
    assert said == "/a: is on the servers already\n/b: is on the servers already\n"
    assert dfc.ok("get", "a", "-") == "0123456789unsaved"


def test_two_at_once_do_not_both_apply_it(dfc: Dfc, state: Path, ended: Ended) -> None:
    ended.end("a", flags=os.O_APPEND)
    with only(state).locked():
        for arguments in (("--apply",), ("--discard", "--all")):
            outcome = dfc("recover", *arguments)
            assert outcome.code == 1 and "another 'dfc recover' is working on it" in outcome.err
    assert dfc.ok("recover", "--apply") == "/a: 7 appended\n"


def test_what_could_not_be_kept_at_all_is_not_said_to_be_on_the_servers() -> None:
    lost = KeptFile(7, b"a", 0, False, False, (), missing_bytes=7)
    assert sentence(Done(lost, Action.NOTHING)) == "/a: nothing of it could be kept; 7 are lost"


def test_another_namespace_gets_nothing(dfc: Dfc, state: Path, ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    ended.end("a")
    other = msgspec.structs.replace(dfc.access.namespace(), user="bob")
    monkeypatch.setattr(dfc.access, "namespace", lambda: other)
    outcome = dfc("recover", "--apply")
    assert (outcome.code, outcome.out) == (14, "")
    assert "this belongs to another namespace, of user alice" in outcome.err
    assert dfc.ok("get", "a", "-") == "0123456789"
    only(state)


def test_discarding_needs_to_be_told_what(dfc: Dfc, state: Path, ended: Ended) -> None:
    ended.end("a")
    one = only(state)
    for arguments, said in [
        (("--discard",), "--discard requires an ID, or --all"),
        (("--discard", "--apply", one.id), "cannot be used together"),
        (("--discard", "nonsense"), "nothing is kept under 'nonsense'"),
    ]:
        outcome = dfc("recover", *arguments)
        assert (outcome.code, said in outcome.err) == (2, True), outcome
    only(state)
    assert dfc.ok("recover", "--discard", one.id) == f"{one.id}: discarded, 1 file\n"
    ended.end("a")
    assert "discarded, 1 file" in dfc.ok("recover", "--discard", "--all")
    assert dfc.ok("recover") == NOTHING


def test_a_folder_that_cannot_be_read_is_named(dfc: Dfc, state: Path, ended: Ended) -> None:
    ended.end("a")
    (only(state).folder / "manifest").write_bytes(b"dfsfuse unsaved 9 0\n")
    outcome = dfc("recover")
    assert outcome.code == 14
    assert "has format 9, and this program knows format 1 only" in outcome.err


def test_another_folder_if_one_takes_nothing(
    dfc: Dfc, state: Path, ended: Ended, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(state_folders, "candidates", lambda: iter([tmp_path / "file", state]))
    assert str(state) in ended.end("a")
    monkeypatch.setattr(state_folders, "candidates", lambda: iter([tmp_path / "file"]))
    said = ended.end("a", "b")
    assert said.startswith("2 files (14) could not be saved (fewer than three servers answer), nor kept here (")
    assert os.strerror(errno.EEXIST) in said and said.endswith("Lost: /a, /b")


def test_nothing_is_kept_in_another_users_folder_nor_taken_from_it(
    dfc: Dfc, state: Path, ended: Ended, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The last candidate is in /tmp, where any user may have created it first."""
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o777)
    os.chown(theirs, 4321, 4321)
    monkeypatch.setattr(state_folders, "candidates", lambda: iter([theirs, state]))
    assert str(state) in ended.end("a")
    assert list(theirs.iterdir()) == []
    state.rename(tmp_path / "copied")
    os.chown(tmp_path / "copied", 4321, 4321)
    monkeypatch.setattr(state_folders, "candidates", lambda: iter([tmp_path / "copied"]))
    assert dfc.ok("recover") == NOTHING
