"""Places for mounts: on the user's own home, where autofs wants it, and in other mount namespaces."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest
from support import unshared
from support.mounts import Grid, environment, eventually, is_mounted, program, unmount, within
from support.servers import REPOSITORY

from dfsfuse.mount import mount_table, running

pytestmark = pytest.mark.integration


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path.resolve() / "mnt"
    path.mkdir()
    yield path
    unmount(path)


def dfsmount(grid: Grid, *arguments: str | Path, **changed: str) -> tuple[int, str]:
    done = subprocess.run(
        [*program("dfsmount"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment() | {"XDG_STATE_HOME": str(grid.folder / "state")} | changed,
        cwd=grid.folder,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="surrogateescape")


def test_over_ones_home_with_its_log_and_state_below(grid: Grid, mountpoint: Path) -> None:
    """The mount uses descriptors that were opened before, or another folder; and unmounting finds all of it."""
    config = mountpoint / ".config/dfsfuse/dfc.yaml"
    config.parent.mkdir(parents=True)
    shutil.copy(grid.client_config, config)
    log = mountpoint / "logs/mount.log"
    home = {"HOME": str(mountpoint), "XDG_STATE_HOME": "", "DFS_CONFIG": str(config)}
    assert dfsmount(grid, "-v", "-o", f"nonempty,log={log}", mountpoint, **home)[0] == 0
    within(20.0, "writing", lambda: (mountpoint / "file").write_text("hello"))
    assert not config.exists()
    assert dfsmount(grid, "-u", mountpoint, **home) == (0, f"{mountpoint}: unmounted\n")
    assert config.exists()
    assert log.read_text().splitlines()[-1].endswith("done")


def test_what_would_be_covered_and_cannot_be_is_said_before(grid: Grid, mountpoint: Path) -> None:
    code, text = dfsmount(grid, "--local", "-o", "nonempty", mountpoint, XDG_DATA_HOME=str(mountpoint / "data"))
    assert (code, "would cover the folders of its own four servers" in text) == (10, True), text
    config = ("--config", grid.client_config, "-o", "nonempty")
    code, text = dfsmount(grid, *config, grid.folder)
    assert (code, "would cover the folder of a dfs-server" in text) == (10, True), text
    code, text = dfsmount(grid, *config, REPOSITORY)
    assert (code, "would cover the program itself" in text) == (10, True), text
    assert not is_mounted(grid.folder) and not is_mounted(REPOSITORY)


def test_a_copy_in_another_mount_namespace_is_named_at_once(grid: Grid, mountpoint: Path) -> None:
    assert dfsmount(grid, "--config", grid.client_config, mountpoint)[0] == 0
    serving = running.find(mountpoint)
    assert serving is not None
    command = unshared.command("sh", "-c", "echo && read end", keep=[mountpoint])
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, env=environment()) as other:
        assert other.stdout is not None
        other.stdout.readline()  # the process is in its namespace by now
        began = time.monotonic()
        code, text = dfsmount(grid, "-u", mountpoint)
        assert time.monotonic() - began < 30, "well below the time that writing to the servers may take"
        assert (code, f"also mounted in the mount namespace of sh ({other.pid})" in text) == (12, True), text
        assert not is_mounted(mountpoint)
        assert not serving.has_ended()
        other.communicate(b"\n", timeout=20)
    eventually(serving.has_ended, "the last copy is gone, and so is its process")


def test_a_namespace_of_a_test_has_none_of_the_mounts_of_others(grid: Grid, mountpoint: Path) -> None:
    assert dfsmount(grid, "--config", grid.client_config, mountpoint)[0] == 0
    for kept in ([], [mountpoint]):
        command = unshared.command("cat", "/proc/self/mountinfo", keep=kept)
        table = subprocess.run(command, stdout=PIPE, env=environment(), timeout=60, check=True).stdout
        assert [mount.mountpoint for mount in mount_table.parse(table) if mount.is_ours] == [str(path) for path in kept]
    assert is_mounted(mountpoint)


def test_a_name_that_is_not_utf8_and_long(grid: Grid, tmp_path: Path) -> None:
    mountpoint = tmp_path.resolve() / os.fsdecode(b"\xff\n" + b"x" * 251)
    mountpoint.mkdir()
    try:
        assert dfsmount(grid, "--config", grid.client_config, mountpoint)[0] == 0
        (mountpoint / "there").write_text("")
        code, text = dfsmount(grid, "-u", mountpoint)
        assert (code, text.endswith(": unmounted\n")) == (0, True), text
    finally:
        unmount(mountpoint)


@pytest.mark.parametrize("binding", ["kernel", "fusepy"])
def test_the_process_group_until_it_is_mounted(grid: Grid, mountpoint: Path, binding: str) -> None:
    """As with autofs: processes outside of its group block at the mountpoint until the mount is made, even the one that
    makes it. At the end the process leaves the session."""
    script = "import os, sys; os.setpgid(0, 0); os.execv(sys.argv[1], sys.argv[1:])"
    command = [*program("dfsmount"), "--config", str(grid.client_config), "-o", f"binding={binding}", str(mountpoint)]
    own = environment() | {"XDG_STATE_HOME": str(grid.folder / "state")}
    done = subprocess.run([sys.executable, "-c", script, *command], env=own, timeout=60, check=False)
    assert done.returncode == 0
    serving = running.find(mountpoint)
    assert serving is not None
    assert os.getsid(serving.pid) == serving.pid


def test_a_bare_environment(grid: Grid, mountpoint: Path) -> None:
    """No writable home, an almost empty PATH, closed streams, and no reader for the output."""
    bare = {key: value for key, value in environment().items() if key.startswith("PYTHON")} | {"HOME": "/proc"}
    start = [*program("dfsmount"), "--config", str(grid.client_config), "-o", f"log={grid.folder}/bare.log"]
    line = 'exec <&- >&- 2>&-; exec "$@"'
    done = subprocess.run(["sh", "-c", line, "sh", *start, str(mountpoint)], env=bare, timeout=60, check=False)
    assert done.returncode == 0
    assert is_mounted(mountpoint)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*program("dfsmount"), "-u", str(mountpoint)], env=bare, timeout=60, check=False, stdout=writer, stderr=PIPE
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")  # as with every program in a pipe; the work is done
    assert not is_mounted(mountpoint)
