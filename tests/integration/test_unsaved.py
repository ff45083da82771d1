"""Ending a mount whose servers are gone, and the ways of unmounting that wait: real servers, mounts, umount(8)."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounts import Grid, environment, is_mounted, program, unmount

pytestmark = pytest.mark.integration


class Commands:
    """Runs commands with a state folder of their own."""

    def __init__(self, grid: Grid, folder: Path) -> None:
        self.grid = grid
        self.state = folder / "state"

    def __call__(self, name: str, *arguments: str | Path) -> tuple[int, str]:
        done = subprocess.run(
            [*program(name), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment() | {"XDG_STATE_HOME": str(self.state)},
            cwd=self.grid.folder,
            timeout=90,
            check=False,
        )
        return done.returncode, done.stdout.decode()

    def dfc(self, *arguments: str) -> tuple[int, str]:
        return self("dfc", "--config", self.grid.client_config, *arguments)

    def mount(self, mountpoint: Path, options: str) -> tuple[int, str]:
        mountpoint.mkdir(exist_ok=True)
        return self("dfsmount", "--config", self.grid.client_config, "-o", options, mountpoint)

    def log(self) -> str:
        (file,) = (self.state / "dfsfuse").glob("mount-*.log")
        return file.read_text()


@pytest.fixture
def commands(grid: Grid, tmp_path: Path) -> Commands:
    return Commands(grid, tmp_path)


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path.resolve() / "mnt"
    yield path
    unmount(path)


def test_what_the_servers_did_not_take_is_kept_told_and_put_back(
    grid: Grid, commands: Commands, mountpoint: Path
) -> None:
    options = "durability=fsync,unmount_timeout=1,commit=300"
    assert commands.mount(mountpoint, options) == (0, "")
    for name in ("kept", "newer"):
        file = mountpoint / name
        file.write_bytes(b"before")
        with file.open("rb") as written:
            os.fsync(written.fileno())
    opened = [os.open(mountpoint / name, os.O_RDWR) for name in ("kept", "newer")]
    try:
        for descriptor in opened:
            os.pwrite(descriptor, b"UNSAVED", 0)
        grid.servers[1].kill()
        grid.servers[2].kill()
    finally:
        for descriptor in opened:
            os.close(descriptor)
    began = time.monotonic()
    code, text = commands("dfsmount", "-u", mountpoint)
    assert time.monotonic() - began < 30
    assert not is_mounted(mountpoint)
    grid.servers[1].start()
    grid.servers[2].start()
    assert (code, "2 files (14) could not be saved: " in text) == (6, True), text
    assert commands.log().count("could not be saved") == 1
    (mountpoint.parent / "new").write_bytes(b"NEWER")
    assert commands.dfc("put", str(mountpoint.parent / "new"), "newer")[0] == 0

    assert "an earlier mount could not save" in commands.mount(mountpoint, options)[1]
    code, text = commands.dfc("recover", "--apply")
    assert code == 0, text
    assert (mountpoint / "newer").read_bytes() == b"NEWER"
    assert (mountpoint / "kept").read_bytes() == b"UNSAVED"
    (beside,) = mountpoint.glob("newer [[]recovered*")
    assert beside.read_bytes() == b"UNSAVED"
    assert commands.dfc("recover")[1].startswith("Nothing is kept")
    assert commands("dfsmount", "-u", mountpoint) == (0, f"{mountpoint}: unmounted\n")
