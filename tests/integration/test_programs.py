"""Real programs in a mount: git, SQLite, rsync, tar, a compiler. With the kernel binding and default options."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Grid, Mount
from support.programs import run
from support.trees import content

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

FILES: Final = 60


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with Grid(tmp_path_factory.mktemp("grid")) as grid:
        yield grid.mount(options=("-o", "binding=kernel"))


@pytest.fixture
def root(mount: Mount, request: pytest.FixtureRequest) -> Path:
    folder = mount.path / request.node.name
    folder.mkdir()
    return folder


def plant(folder: Path) -> Path:
    """Make a tree of everything that programs copy: files of many sizes, an empty one, folders, links, modes, times."""
    for number in range(FILES):
        path = folder / f"d{number % 7}" / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(number * number * 40, number))
        path.chmod(0o600 | number % 8)
        os.utime(path, ns=(10**18 + number, 10**18 + number * 1001))
    (folder / "empty").mkdir()
    (folder / "soft").symlink_to("d1/file 1")
    (folder / "hard").hardlink_to(folder / "d2/file 2")
    return folder


def picture(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Return everything that must be equal in a copy: mode, time, number of links, content. Without times of symbolic
    links, which rsync does not set on a local disk either."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        data = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        time_ns, links = (status.st_mtime_ns, status.st_nlink) if stat.S_ISREG(status.st_mode) else (0, 0)
        found[str(path.relative_to(folder))] = (status.st_mode, time_ns, links, data)
    return found


def test_git(root: Path) -> None:
    git = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
    work, clone = root / "work", root / "clone"
    run(*git, "init", "-q", work)
    plant(work / "tree")
    for turn in range(3):
        (work / "changing").write_bytes(content(100_000, turn))
        run(*git, "add", "-A", cwd=work)
        run(*git, "commit", "-qm", f"turn {turn}", cwd=work)
    run(*git, "gc", "-q", cwd=work)
    run(*git, "clone", "-q", "--no-hardlinks", work, clone)
    (clone / "changing").write_bytes(b"changed")
    run(*git, "commit", "-qam", "in the clone", cwd=clone)
    run(*git, "pull", "-q", clone, "main", cwd=work)
    for repository in (work, clone):
        run(*git, "fsck", "--full", "--strict", cwd=repository)
        assert run(*git, "status", "--porcelain", cwd=repository) == ""
        assert run(*git, "rev-list", "--count", "HEAD", cwd=repository) == "4\n"
    assert (work / "changing").read_bytes() == b"changed"


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_sqlite(root: Path, mount: Mount, journal: str) -> None:
    """Two connections on one mount; the write-ahead log's index is a shared mapping."""
    path = root / "db"
    with contextlib.closing(sqlite3.connect(path)) as one, contextlib.closing(sqlite3.connect(path)) as other:
        assert one.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal,)
        one.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, data BLOB)")
        for turn in range(30):
            writer, reader = (one, other) if turn % 2 else (other, one)
            with writer:
                writer.execute("INSERT INTO t VALUES (?, ?)", (turn, content(turn * 500, turn)))
            assert reader.execute("SELECT count(*) FROM t").fetchone() == (turn + 1,)
        with contextlib.suppress(ZeroDivisionError), one:
            one.execute("DELETE FROM t")
            raise ZeroDivisionError
        assert other.execute("SELECT count(*) FROM t").fetchone() == (30,)
    mount.remount()
    with contextlib.closing(sqlite3.connect(path)) as again:
        assert again.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = again.execute("SELECT n, data FROM t ORDER BY n").fetchall()
    assert rows == [(turn, content(turn * 500, turn)) for turn in range(30)]


def test_rsync_has_nothing_left_to_do(root: Path, tmp_path: Path) -> None:
    source = plant(tmp_path / "source")
    there, back = root / "there", tmp_path / "back"
    run("rsync", "-aHJ", f"{source}/", there)
    run("rsync", "-aHJ", f"{there}/", back)
    assert picture(source) == picture(there) == picture(back)
    for start, end in ((source, there), (there, back), (there, source)):
        assert run("rsync", "-aHJi", "--delete", f"{start}/", end) == ""
        assert run("rsync", "-aHJin", "--checksum", f"{start}/", end) == ""
    (source / "d3/file 3").write_bytes(b"new")
    (source / "d4/file 4").unlink()
    changed = run("rsync", "-aHJi", "--delete", f"{source}/", there).splitlines()
    assert sorted(line.split(maxsplit=1)[1] for line in changed if "/file" in line) == ["d3/file 3", "d4/file 4"]
    assert picture(source) == picture(there)


def test_tar(root: Path, tmp_path: Path) -> None:
    source = plant(tmp_path / "source")
    run("tar", "--format=posix", "-cf", root / "a.tar", "-C", source, ".")
    (root / "out").mkdir()
    run("tar", "-xpf", root / "a.tar", "-C", root / "out")
    run("tar", "--format=posix", "-czf", tmp_path / "b.tar.gz", "-C", root / "out", ".")
    (tmp_path / "back").mkdir()
    run("tar", "-xpf", tmp_path / "b.tar.gz", "-C", tmp_path / "back")
    assert picture(source) == picture(root / "out") == picture(tmp_path / "back")
    run("tar", "-df", root / "a.tar", "-C", root / "out")


def test_a_c_program_is_built(root: Path) -> None:
    for number in range(8):
        (root / f"part{number}.c").write_text(f"int part{number}(void) {{ return {number}; }}\n")
    parts = range(8)
    (root / "main.c").write_text(
        "#include <stdio.h>\n"
        + "".join(f"int part{number}(void);\n" for number in parts)
        + 'int main(void) { printf("%d\\n", '
        + " + ".join(f"part{number}()" for number in parts)
        + "); return 0; }\n"
    )
    for number in parts:
        run("gcc", "-g", "-c", f"part{number}.c", cwd=root)
    run("ar", "rcs", "libparts.a", *(f"part{number}.o" for number in parts), cwd=root)
    run("gcc", "-g", "-o", "program", "main.c", "-L.", "-lparts", cwd=root)
    assert run(root / "program") == "28\n"


def test_files_are_copied_with_their_attributes(root: Path, tmp_path: Path) -> None:
    """Without messages: within the mount, out of it and back; copies outside carry none of the mount's own
    attributes."""
    source = root / "source"
    source.mkdir()
    (source / "f").write_bytes(b"hello")
    os.setxattr(source / "f", "user.mine", b"1")
    outside = tmp_path / "outside"
    for command in (
        ("rsync", "-aX", f"{source}/", root / "by-rsync"),
        ("cp", "-r", "--preserve=xattr", source, root / "by-cp"),
        ("cp", "-a", source, outside),
    ):
        assert run(*command) == ""
    assert os.listxattr(outside / "f") == ["user.mine"]
    os.setxattr(outside / "f", "user.dfs.health", b"stale: copied by an older version")
    for command in (
        ("rsync", "-aX", f"{outside}/", root / "back-by-rsync"),
        ("cp", "-r", "--preserve=xattr", outside, root / "back-by-cp"),
        ("tar", "--xattrs", "-C", outside, "-cf", tmp_path / "t", "f"),
        ("tar", "--xattrs", "--xattrs-include=user.*", "-C", root, "-xf", tmp_path / "t"),
        ("mv", outside / "f", root / "moved"),
    ):
        assert run(*command) == ""
    for name in ("by-rsync/f", "by-cp/f", "back-by-rsync/f", "back-by-cp/f", "f", "moved"):
        assert os.listxattr(root / name) == ["user.mine"], name
        assert os.getxattr(root / name, "user.mine") == b"1", name
        assert os.getxattr(root / name, "user.dfs.health") == b"complete", name
