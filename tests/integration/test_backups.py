"""No backup loses a good copy because servers are away: real rsync that deletes, from mounts with `incomplete=eio`.

With two neighbouring servers gone a copy stays what it was; when they are back it becomes what is in the mount. `warm`:
the mount has everything in memory when the servers go. `cold`: it is mounted after they went.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Grid, Mount, eventually, within
from support.programs import outcome, run
from support.trees import content

from dfs_server.protocol.messages import GetPosition, Position

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

DEADLINE_S: Final = 25.0
BINDINGS: Final = ("kernel", "fusepy")
PARTIAL: Final = 23
"""rsync: some files were not transferred."""
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


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    with Grid(tmp_path / "grid") as grid:
        yield grid


def backup_mount(grid: Grid, name: str = "backup", binding: str = "kernel") -> Mount:
    """As docs/operations.md says."""
    return grid.mount(name, options=("-o", f"ro,incomplete=eio,binding={binding}"))


@dataclass
class Field:
    """Four servers, a mount that is written to, and backup mounts by both bindings."""

    grid: Grid
    writer: Mount
    sources: dict[str, Mount]

    def folder(self, name: str) -> Path:
        """A new folder in the mount that is written to."""
        folder = self.writer.path / name
        folder.mkdir()
        return folder


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with Grid(tmp_path_factory.mktemp("field")) as grid:
        yield Field(grid, grid.mount("writer"), {binding: backup_mount(grid, binding, binding) for binding in BINDINGS})


def plant(folder: Path) -> None:
    """Files of some sizes, in folders, and what has no data."""
    (folder / "deep/er").mkdir(parents=True)
    (folder / "empty folder").mkdir()
    for size in (0, 1, 5000, 200_000):
        for below in ("", "deep", "deep/er"):
            (folder / below / f"file {size}").write_bytes(content(size, f"{size}{below}"))
    (folder / "link").symlink_to("deep/file 5000")


def picture(folder: Path) -> dict[str, bytes]:
    """Every name below the folder, and what is there: content, target, nothing for a folder."""
    return {
        str(path.relative_to(folder)): os.fsencode(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else b""
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_rsync_that_deletes(field: Field, tmp_path: Path, warm: bool) -> None:
    folder = field.folder(f"deletes-{warm}")
    plant(folder)
    run("rsync", "-a", f"{field.sources['kernel'].path / folder.name}/", tmp_path / "first")
    first = picture(tmp_path / "first")
    assert first == picture(folder)
    (folder / "file 5000").write_bytes(content(6000, "changed"))
    (folder / "deep/new").write_bytes(content(5000, "new"))
    changed = picture(folder)
    for binding, source in field.sources.items():
        for variant in VARIANTS:
            shutil.copytree(tmp_path / "first", tmp_path / binding / variant, symlinks=True)
        if warm:
            eventually(lambda at=source: picture(at.path / folder.name) == changed, "it shows")  # type: ignore[misc]
        else:
            source.unmount()
    with field.grid.without(1, 2):
        for binding, source in field.sources.items():
            if not warm:
                source.mount()
            for variant, options in VARIANTS.items():
                copy = tmp_path / binding / variant
                status, said = outcome("rsync", "-a", *options, f"{source.path / folder.name}/", copy)
                assert (status, "Input/output error" in said) == (PARTIAL, True), said
                assert picture(copy) == first, f"{binding}, {variant}: {said}"
    for binding, source in field.sources.items():
        copy = tmp_path / binding / "during"
        command = ("rsync", "-a", "--delete", f"{source.path / folder.name}/", str(copy))
        eventually(lambda by=command: outcome(*by)[0] == 0, "complete when the servers are back")  # type: ignore[misc]
        assert picture(copy) == changed, binding


def test_what_is_open_when_the_servers_go_gives_an_error(field: Field) -> None:
    size, folder = 3_000_000, field.folder("open")
    (folder / "large").write_bytes(content(size))
    for source in field.sources.values():
        with (source.path / "open/large").open("rb", buffering=0) as held:

            def read(descriptor: int = held.fileno()) -> None:
                for at in range(0, size, 4096):
                    os.pread(descriptor, 4096, at)

            with field.grid.without(1, 2), pytest.raises(OSError) as caught:
                within(DEADLINE_S, "reading", read)
        assert caught.value.errno == errno.EIO


def test_with_two_opposite_servers_away_all_is_backed_up(field: Field, tmp_path: Path) -> None:
    folder = field.folder("opposite")
    plant(folder)
    with field.grid.without(1, 3):
        for binding, source in field.sources.items():
            command = ("rsync", "-a", "--delete", f"{source.path}/opposite/", str(tmp_path / binding))
            # The last batch is in doubt until the mount that wrote it has told the two that are left.
            eventually(lambda by=command: outcome(*by)[0] == 0, "all is known to be the newest")  # type: ignore[misc]
            assert picture(tmp_path / binding) == picture(folder)


def test_a_mount_that_is_left_with_one_server_shows_nothing(field: Field, tmp_path: Path) -> None:
    """Not even what it has seen: another mount may have gone on with the other three."""
    plant(field.folder("one"))
    source = field.sources["kernel"].path / "one"
    run("rsync", "-a", "--delete", f"{source}/", tmp_path)
    copy = picture(tmp_path)
    with field.grid.without(1, 2, 3):
        status, said = outcome("rsync", "-a", "--delete", f"{source}/", tmp_path)
        assert (status, "Input/output error" in said) == (PARTIAL, True), said
    assert picture(tmp_path) == copy


def test_an_old_state_is_not_shown(grid: Grid, tmp_path: Path) -> None:
    """DFS4 has missed what the others know. Alone, or with a server whose disk is a new one, it shows a mount of the
    past: a mirror of that would delete what was made since."""
    writer = grid.mount("writer")
    (writer.path / "old").write_bytes(b"old")
    eventually(lambda: len(set(applied(grid))) == 1, "all servers are up to date")
    grid.servers[4].kill()
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
            "a mount that shows what there is"
        )
        default.unmount()
        grid.servers[3].wipe()
        refused(grid)
        grid.servers[3].kill()


def applied(grid: Grid) -> list[int]:
    """How far each server's log is."""
    found = []
    for server in grid.servers:
        with server.connect() as client:
            position = client.ask(GetPosition())
            assert isinstance(position, Position)
            found.append(position.applied)
    return found


def refused(grid: Grid) -> None:
    """No backup mount now."""
    with pytest.raises(AssertionError, match="nothing older is shown here: start the missing servers"):
        within(DEADLINE_S, "refusing to mount", lambda: backup_mount(grid))
    grid.mounts.pop().end()
