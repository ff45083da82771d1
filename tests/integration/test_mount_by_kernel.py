"""`dfsmount -o binding=kernel` with real servers: what the path-based binding cannot do, and mounting and
unmounting."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.mounts import STOP_DEADLINE_S, Grid, eventually, is_mounted, program, within

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]

OPTIONS = ("-o", "binding=kernel")
NOBODY = 65534
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def root(grid: Grid) -> Iterator[Path]:
    mount = grid.mount(options=OPTIONS)
    yield mount.path
    mount.end()


def test_libfuse_is_not_loaded(grid: Grid) -> None:
    mount = grid.mount("bare", OPTIONS)
    assert "libfuse" not in Path(f"/proc/{mount.pid}/maps").read_text()
    assert mount.unmount() == 0


def test_hard_links_are_one_inode_with_one_cache(root: Path) -> None:
    (root / "a").write_bytes(b"first")
    (root / "b").hardlink_to(root / "a")
    assert (root / "a").stat().st_ino == (root / "b").stat().st_ino
    with (root / "a").open("r+b", buffering=0) as one, (root / "b").open("rb", buffering=0) as other:
        assert other.read() == b"first"
        one.write(b"FIRST and more")
        assert os.pread(other.fileno(), 100, 0) == b"FIRST and more"


def test_names_are_exchanged(root: Path) -> None:
    (root / "x").write_bytes(b"x")
    (root / "y").write_bytes(b"y")
    exchange, here = 2, -100
    assert libc.renameat2(here, os.fsencode(root / "x"), here, os.fsencode(root / "y"), exchange) == 0
    assert ((root / "x").read_bytes(), (root / "y").read_bytes()) == (b"y", b"x")


def test_an_unlinked_file_lives_on_without_a_name(root: Path) -> None:
    (root / "d").mkdir()
    with (root / "d/f").open("w+b", buffering=0) as file:
        file.write(b"still here")
        (root / "d/f").unlink()
        assert list((root / "d").iterdir()) == []
        (root / "d").rmdir()
        assert os.pread(file.fileno(), 100, 0) == b"still here"
        assert os.fstat(file.fileno()).st_nlink == 0


def test_what_was_found_lives_on_without_a_name(root: Path) -> None:
    """O_PATH is a lookup without an open, and so is a working folder."""
    (root / "d").mkdir()
    (root / "d/f").write_bytes(b"found before")
    file, folder = os.open(root / "d/f", os.O_PATH), os.open(root / "d", os.O_PATH)
    try:
        (root / "d/f").unlink()
        (root / "d").rmdir()
        assert Path(f"/proc/self/fd/{file}").read_bytes() == b"found before"
        assert os.fstat(file).st_nlink == 0
        assert os.fstat(folder).st_nlink == 0
        with pytest.raises(FileNotFoundError):
            os.mkdir("new", dir_fd=folder)
        inside = ["sh", "-c", "touch new 2>/dev/null || echo refused"]
        done = subprocess.run(inside, cwd=f"/proc/self/fd/{folder}", capture_output=True, timeout=30, check=False)
        assert done.stdout.split()[-1:] == [b"refused"]
    finally:
        os.close(file)
        os.close(folder)
    assert list(root.glob("d*")) == []


def test_whoever_else_writes_ends_setuid(root: Path) -> None:
    """If the tests run as root, the writer is another user, who inherits the open file."""
    path = root / "program"
    path.write_bytes(b"x")
    path.chmod(0o6777)
    user = NOBODY if os.geteuid() == 0 else None
    with path.open("ab") as file:
        subprocess.run(["echo", "more"], stdout=file, user=user, group=user, check=True, timeout=30)
    assert path.read_bytes() == b"xmore\n"
    assert path.stat().st_mode & 0o7777 == 0o777


def test_what_another_mount_puts_in_its_place_is_never_missing(grid: Grid, root: Path) -> None:
    """The kernel caches a name for a moment; that its file is gone must not be noticeable."""
    other = grid.mount("other", OPTIONS).path
    (root / "page").write_bytes(b"%09d" % 0)
    for turn in range(1, 40):
        (other / "new").write_bytes(b"%09d" % turn)
        (other / "new").rename(other / "page")
        assert int((root / "page").read_bytes()) <= turn
        assert (root / "page").stat().st_size == 9
    eventually(lambda: int((root / "page").read_bytes()) == 39, "the last one")


def test_what_another_mount_changes_is_shown_by_itself(grid: Grid, root: Path) -> None:
    """The kernel is notified to drop its caches, even while it sends no requests."""
    other = grid.mount("other-2", [*OPTIONS[:1], OPTIONS[1] + ",entry_timeout=60,attr_timeout=60"])
    (root / "shown").mkdir()
    for name in ("gone", "moved", "grown", "mode"):
        (root / "shown" / name).write_bytes(b"x")
    there = other.path / "shown"
    seen = {path.name: path.stat() for path in there.iterdir()}
    assert len(seen) == 4
    with (there / "grown").open("rb", buffering=0) as file:
        assert file.read() == b"x"
        (root / "shown/gone").unlink()
        (root / "shown/moved").rename(root / "shown/away")
        (root / "shown/grown").write_bytes(b"new content")
        (root / "shown/mode").chmod(0o600)
        eventually(lambda: not (there / "gone").exists(), "a removed name", within_s=3.0)
        eventually(lambda: not (there / "moved").exists(), "a moved name", within_s=3.0)
        eventually(lambda: (there / "grown").stat().st_size == 11, "a size", within_s=3.0)
        eventually(lambda: (there / "mode").stat().st_mode & 0o777 == 0o600, "a mode", within_s=3.0)
        eventually(lambda: os.pread(file.fileno(), 100, 0) == b"new content", "data", within_s=3.0)
    assert (there / "away").stat().st_ino == seen["moved"].st_ino
    other.end()


def test_what_another_mount_moves_is_not_opened_by_its_old_name(grid: Grid, root: Path) -> None:
    """This takes effect at once, although the kernel would cache the name for a minute."""
    other = grid.mount("other-3", [*OPTIONS[:1], OPTIONS[1] + ",entry_timeout=60,attr_timeout=60"])
    top = other.path / "top"
    (root / "top/deep").mkdir(parents=True)
    for turn in range(10):
        (root / "top/deep/f").write_bytes(b"old %d" % turn)
        (root / "top/deep/new").write_bytes(b"new %d" % turn)
        assert (top / "deep/f").read_bytes() == b"old %d" % turn
        (root / "top/deep/f").rename(root / f"top/deep/kept-{turn}")
        with pytest.raises(FileNotFoundError):
            (top / "deep/f").open("rb")
        (root / "top/deep/new").rename(root / "top/deep/f")
        assert (top / "deep/f").read_bytes() == b"new %d" % turn
        (root / "top/deep").rename(root / "top/elsewhere")
        with pytest.raises(FileNotFoundError):
            (top / "deep/f").open("rb")
        assert (top / "elsewhere/f").read_bytes() == b"new %d" % turn
        (root / "top/elsewhere").rename(root / "top/deep")
    other.end()


def test_a_mount_that_is_told_to_end_while_it_is_used(grid: Grid) -> None:
    mount = grid.mount("busy", OPTIONS)
    with (mount.path / "f").open("w+b", buffering=0) as file:
        file.write(b"written before")
        os.kill(mount.pid, signal.SIGTERM)
        eventually(lambda: not is_mounted(mount.path), "out of the tree")
        file.write(b", and after")
    assert mount.unmount() == 0
    mount.mount()
    assert (mount.path / "f").read_bytes() == b"written before, and after"


def test_programs_that_do_not_let_go_are_cut_off(grid: Grid) -> None:
    mount = grid.mount("held", OPTIONS)
    descriptor = os.open(mount.path / "g", os.O_RDWR | os.O_CREAT)
    try:
        os.write(descriptor, b"x")
        os.kill(mount.pid, signal.SIGTERM)
        assert within(STOP_DEADLINE_S, "the process ends", mount.unmount) == 0
        with pytest.raises(OSError, match=r"not connected|abort"):
            os.write(descriptor, b"y")
    finally:
        with suppress(OSError):  # close() reports the same, and closes
            os.close(descriptor)


def test_in_the_background(grid: Grid) -> None:
    path = grid.folder / "background"
    path.mkdir()
    command = [*program("dfsmount"), "--config", str(grid.client_config), *OPTIONS, str(path)]
    subprocess.run(command, check=True, timeout=60, env=os.environ | {"XDG_STATE_HOME": str(grid.folder)})
    try:
        (path / "from-here").write_bytes(b"works")
        assert (path / "from-here").read_bytes() == b"works"
    finally:
        subprocess.run([*program("dfsmount"), "-u", str(path)], check=True, timeout=60)
    assert not is_mounted(path)
