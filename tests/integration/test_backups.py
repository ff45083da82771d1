"""No backup loses a good copy while servers are away: the real rsync with --delete, from backup mounts.

With two neighbouring servers gone, a copy stays as it was; when they are back, it becomes what is in the mount. Warm:
the mount has everything in memory when the servers go away. Cold: it is mounted after that.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Grid, Mount, eventually, within
from support.programs import outcome, run
from support.trees import content

from dfs_server.protocol.messages import GetPosition, Position

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

DEADLINE_S: Final = 60.0
NUMBERS: Final = {"kernel": "eio", "fusepy": "eremoteio"}
"""Each binding with one of the two error numbers; `tests/programs/test_backups.py` covers the other pairs."""
REFUSED: Final = r"Input/output error|Remote I/O error"
PARTIAL: Final = 23
"""rsync's exit status when some files were not transferred."""
VARIANTS: Final = {
    "before": ("--delete-before",),
    "during": ("--delete-during",),
    "delay": ("--delete-delay",),
    "after": ("--delete-after",),
    "excluded": ("--delete-excluded", "--exclude=*.tmp"),
    "updates-late": ("--delete", "--delay-updates"),
    "checksums": ("--delete", "-c"),
    "in-place": ("--delete", "--inplace"),
}
FOR_BOTH: Final = ("during", "checksums")


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    with Grid(tmp_path / "grid") as grid:
        yield grid


def backup_mount(grid: Grid, name: str = "backup", binding: str = "kernel", number: str = "eremoteio") -> Mount:
    """Mount as docs/operations.md says."""
    return grid.mount(name, options=("-o", f"ro,incomplete={number},binding={binding}"))


def settle(grid: Grid) -> None:
    """Wait until no server holds a batch that it does not know to be chosen. Otherwise, from the last two servers
    alone, a client could not tell either."""

    def is_settled() -> bool:
        found = []
        for server in grid.servers:
            with server.connect() as client:
                position = client.ask(GetPosition())
                assert isinstance(position, Position)
                found.append((position.applied, position.tail_digest))
        return len(set(found)) == 1 and not found[0][1]

    eventually(is_settled, "all servers know the newest state")


@dataclass
class Field:
    """Four servers, a mount that is written to, and backup mounts with both bindings. Good for one outage only: what is
    written after it may be on other servers than usual."""

    grid: Grid
    writer: Mount
    sources: dict[str, Mount]


@pytest.fixture
def field(grid: Grid) -> Field:
    sources = {binding: backup_mount(grid, binding, binding, number) for binding, number in NUMBERS.items()}
    return Field(grid, grid.mount("writer"), sources)


def plant(folder: Path) -> None:
    """Make files of several sizes, in folders, and entries without data."""
    (folder / "deep/er").mkdir(parents=True)
    (folder / "empty folder").mkdir()
    for size in (0, 1, 5000, 200_000):
        for below in ("", "deep", "deep/er"):
            (folder / below / f"file {size}").write_bytes(content(size, f"{size}{below}"))
    (folder / "link").symlink_to("deep/file 5000")


def picture(folder: Path) -> dict[str, bytes]:
    """Return every name below the folder, with its content or target; empty for a folder."""
    return {
        str(path.relative_to(folder)): os.fsencode(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else b""
        for path in folder.rglob("*")
    }


def variants(binding: str) -> dict[str, tuple[str, ...]]:
    """All variants; for fusepy only some, since its answers come from the same Vfs."""
    return {name: options for name, options in VARIANTS.items() if binding == "kernel" or name in FOR_BOTH}


def test_rsync_that_deletes(field: Field, tmp_path: Path) -> None:
    folder = field.writer.path
    plant(folder)
    run("rsync", "-a", f"{field.sources['kernel'].path}/", tmp_path / "first")
    first = picture(tmp_path / "first")
    assert first == picture(folder)
    (folder / "file 5000").write_bytes(content(6000, "changed"))
    (folder / "deep/new").write_bytes(content(5000, "new"))
    changed = picture(folder)
    for source in field.sources.values():
        eventually(lambda at=source.path: picture(at) == changed, "the change shows")  # type: ignore[misc]
    settle(field.grid)
    with field.grid.without(1, 2):
        for state in ("warm", "cold"):
            for binding, source in field.sources.items():
                if state == "cold":
                    source.remount()
                for variant, options in variants(binding).items():
                    copy = tmp_path / binding / variant
                    if state == "warm":
                        shutil.copytree(tmp_path / "first", copy, symlinks=True)
                    status, said = outcome("rsync", "-a", *options, f"{source.path}/", copy)
                    assert (status, bool(re.search(REFUSED, said))) == (PARTIAL, True), said
                    assert picture(copy) == first, f"{state}, {binding}, {variant}: {said}"
        with field.grid.without(3):
            # Nothing is shown any more, not even what was seen: another mount may have gone on with the other three.
            for binding, source in field.sources.items():
                copy = tmp_path / binding / "during"
                status, said = outcome("rsync", "-a", "--delete", f"{source.path}/", copy)
                assert (status, bool(re.search(REFUSED, said))) == (PARTIAL, True), said
                assert picture(copy) == first, f"one server, {binding}: {said}"
    for binding, source in field.sources.items():
        command = ("rsync", "-a", "--delete", f"{source.path}/", str(tmp_path / binding / "during"))
        eventually(lambda by=command: outcome(*by)[0] == 0, "complete when the servers are back")  # type: ignore[misc]
        assert picture(tmp_path / binding / "during") == changed, binding


def test_what_is_open_when_the_servers_go_gives_an_error(field: Field) -> None:
    size = 3_000_000
    (field.writer.path / "large").write_bytes(content(size))
    held = {binding: os.open(source.path / "large", os.O_RDONLY) for binding, source in field.sources.items()}
    with field.grid.without(1, 2):
        for binding, descriptor in held.items():

            def read(at: int = descriptor) -> None:
                for offset in range(0, size, 4096):
                    os.pread(at, 4096, offset)

            with pytest.raises(OSError) as caught:
                within(DEADLINE_S, "reading", read)
            os.close(descriptor)
            assert caught.value.errno == {"eio": errno.EIO, "eremoteio": errno.EREMOTEIO}[NUMBERS[binding]]


def test_with_two_opposite_servers_away_all_is_backed_up(grid: Grid, tmp_path: Path) -> None:
    writer, source = grid.mount("writer"), backup_mount(grid)
    plant(writer.path)
    settle(grid)
    with grid.without(1, 3):
        run("rsync", "-a", "--delete", f"{source.path}/", tmp_path / "copy")
        assert picture(tmp_path / "copy") == picture(writer.path)


def test_with_wait_a_backup_goes_on_when_the_servers_return(grid: Grid, tmp_path: Path) -> None:
    writer = grid.mount("writer")
    plant(writer.path)
    source = grid.mount("backup", options=("-o", "ro,incomplete=eremoteio,wait=60"))
    settle(grid)
    with grid.without(1, 2):
        copying = subprocess.Popen(["rsync", "-a", "--delete", f"{source.path}/", tmp_path / "copy"])
        eventually(lambda: "is not opened by this mount" in source.log.read_text(), "the first file is waited for")
        assert copying.poll() is None
    assert copying.wait(60) == 0
    assert picture(tmp_path / "copy") == picture(writer.path)


def test_an_old_state_is_not_shown(grid: Grid, tmp_path: Path) -> None:
    """DFS4 has missed what the others know. Alone, or together with a server that has a new disk, it would show an old
    state, and a mirror of that would delete what was made since."""
    writer = grid.mount("writer")
    (writer.path / "old").write_bytes(b"old")
    settle(grid)
    grid.servers[4].terminate()  # if killed, it would have the last batch and not know that it was chosen
    (writer.path / "new").write_bytes(content(5000))
    source = backup_mount(grid)
    run("rsync", "-a", "--delete", f"{source.path}/", tmp_path / "copy")
    copy = picture(tmp_path / "copy")
    assert sorted(copy) == ["new", "old"]
    writer.unmount()
    source.unmount()
    with grid.without(1, 2, 3):
        grid.servers[4].start()
        refused(grid)
        default = grid.mount("default", options=("-o", "ro"))
        assert [path.name for path in default.path.iterdir()] == ["old [incomplete]"], (
            "an ordinary mount shows what there is"
        )
        default.unmount()
        grid.servers[3].wipe()
        refused(grid)
        grid.servers[3].kill()


def refused(grid: Grid) -> None:
    """Check that a backup mount is refused."""
    with pytest.raises(AssertionError, match="nothing older is shown here: start the missing servers"):
        within(DEADLINE_S, "refusing to mount", lambda: backup_mount(grid))
    grid.mounts.pop().end()
