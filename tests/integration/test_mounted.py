"""`dfsmount` reports that it is mounted after all servers that will answer have done so, and names the others."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounts import Grid, environment, program, unmount
from support.trees import content

from dfsfuse.mount import running
from dfsfuse.net.cluster import COMING_S

pytestmark = pytest.mark.integration

DEADLINE_S = 30.0


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    with Grid(tmp_path / "grid") as grid:
        yield grid


class Dfsmount:
    """A `dfsmount` that goes to the background, as a user starts it."""

    def __init__(self, grid: Grid) -> None:
        self.path = grid.folder / "folder"
        self.path.mkdir()
        self._state = grid.folder / "state"
        command = [*program("dfsmount"), "--config", str(grid.client_config), str(self.path)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**environment(), "XDG_STATE_HOME": str(self._state)},
            cwd=grid.folder,
        )

    def says(self) -> str:
        """Return its output; it returns when it is mounted."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        assert (self.process.returncode, out) == (0, ""), err
        return err

    def __enter__(self) -> Dfsmount:
        return self

    def __exit__(self, *_: object) -> None:
        serving = running.find(self.path) or running.find(self.path, self._state / "dfsfuse" / "mounts")
        exited = os.pidfd_open(serving.pid) if serving is not None else None  # while it is certainly there
        unmount(self.path)
        if exited is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(exited, signal.SIGTERM)
            ended, _, _ = select.select([exited], [], [], DEADLINE_S)
            os.close(exited)
            assert ended, "the mount's process must end"
        self.process.kill()
        self.process.wait(DEADLINE_S)


def names_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_servers_that_are_slow_to_start_are_waited_for_and_the_first_listing_is_whole(grid: Grid) -> None:
    mount = grid.mount()
    for name in ("a", "b"):
        (mount.path / name).write_bytes(content(1 << 20, name))
    mount.unmount()
    for number in (1, 2):
        grid.servers[number].freeze()
    with Dfsmount(grid) as started:
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                started.process.wait(COMING_S - 1.0)
        finally:
            for number in (1, 2):
                grid.servers[number].thaw()
        assert started.says() == ""
        assert names_of(started.path) == ["a", "b"]
        listed = grid.dfc("list", "/")
        assert listed.stdout == b"a\nb\n"


def test_a_server_that_refuses_is_named(grid: Grid) -> None:
    grid.servers[3].kill()
    with Dfsmount(grid) as started:
        said = started.says()
        address = f"DFS3 (127.0.0.1:{grid.servers[3].port})"
        assert said == (
            f"dfsmount: {started.path}: mounted, but {address} does not answer: connection refused. "
            "The other three are enough to read and write; until it is back none of them should fail.\n"
        )


def test_two_that_are_missing_are_named_with_what_that_means(grid: Grid) -> None:
    grid.servers[2].kill()
    grid.servers[3].kill()
    with Dfsmount(grid) as started:
        said = started.says()
        assert "DFS2" in said
        assert "DFS3" in said
        assert said.endswith("Until three servers answer nothing can be written, and files may be incomplete.\n")
