"""How a mount's process shows that it is running."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dfsfuse.mount import running, state_folders
from dfsfuse.mount.errors import MountpointError

HERE = Path("/mnt/dfs")


def test_a_process_is_found_as_long_as_it_serves(tmp_path: Path) -> None:
    with running.announced(HERE, tmp_path):
        serving = running.find(HERE, tmp_path)
        assert serving is not None
        assert (serving.pid, serving.mountpoint) == (os.getpid(), "/mnt/dfs")
        assert not serving.has_ended()
        assert running.find(Path("/mnt/other"), tmp_path) is None
    assert serving.has_ended()
    assert running.find(HERE, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_one_at_a_time(tmp_path: Path) -> None:
    with (
        running.announced(HERE, tmp_path),
        pytest.raises(MountpointError, match=rf"another dfsmount \(process {os.getpid()}\) .* dfsmount -u {HERE}$"),
        running.announced(HERE, tmp_path, wait_s=0.0),
    ):
        pass


def test_one_that_is_about_to_finish_is_waited_for(tmp_path: Path) -> None:
    first = running.announced(HERE, tmp_path)
    first.__enter__()
    serving = running.find(HERE, tmp_path)
    finishing = threading.Timer(0.05, first.__exit__, (None, None, None))
    finishing.start()
    with running.announced(HERE, tmp_path, wait_s=30.0):
        assert serving is not None
        assert running.find(HERE, tmp_path) is not None
    finishing.join()


def test_the_next_mount_is_not_taken_for_the_last(tmp_path: Path) -> None:
    with running.announced(HERE, tmp_path):
        earlier = running.Serving(os.getpid() + 1, str(HERE), running.file_of(HERE, tmp_path))
        assert earlier.has_ended()


def test_a_killed_process_leaves_nothing_that_matters(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from dfsfuse.mount import running\n"
        "with running.announced(Path(sys.argv[1]), Path(sys.argv[2])): os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(HERE), str(tmp_path)], check=False, timeout=60)
    assert killed.returncode == -9
    assert running.file_of(HERE, tmp_path).exists()
    assert running.find(HERE, tmp_path) is None
    with running.announced(HERE, tmp_path):
        assert running.find(HERE, tmp_path) is not None


def test_a_damaged_file_is_no_process(tmp_path: Path) -> None:
    running.file_of(HERE, tmp_path).write_text("{")
    assert running.find(HERE, tmp_path) is None


def test_root_finds_the_process_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise root's umount, also at a shutdown, would not wait for users' mounts."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(state_folders, "of_user", lambda user: iter([tmp_path / str(user)]))
    (tmp_path / "1000" / "mounts").mkdir(parents=True)
    with running.announced(HERE, tmp_path / "1000" / "mounts", patience_s=7.0):
        found = running.find(HERE, owner=1000)
        assert found is not None and found.patience_s == 7.0
        assert running.find(HERE, owner=0) is None
        assert running.find(HERE, owner=1001) is None


@pytest.mark.parametrize("patience", ["1e9", "-1", "NaN", "Infinity", '"x"', "[]"])
def test_what_another_user_wrote_there_is_not_believed(tmp_path: Path, patience: str) -> None:
    file = running.file_of(HERE, tmp_path)
    file.write_text(f'{{"pid": 1, "mountpoint": "/mnt/dfs", "patience_s": {patience}}}')
    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = running.find(HERE, tmp_path)
        assert found is None or found.patience_s == 0.0


def test_a_link_a_pipe_and_nonsense_in_its_place(tmp_path: Path) -> None:
    file = running.file_of(HERE, tmp_path)
    (tmp_path / "other").write_text('{"pid": 1, "mountpoint": "/mnt/dfs"}')
    file.symlink_to(tmp_path / "other")
    with (tmp_path / "other").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert running.find(HERE, tmp_path) is None
    file.unlink()
    os.mkfifo(file)
    assert running.find(HERE, tmp_path) is None
    file.unlink()
    file.write_text("[1, 2]")
    assert running.find(HERE, tmp_path) is None


def test_a_file_that_a_third_user_wrote_is_ignored(tmp_path: Path) -> None:
    """That user may have created the folder in /tmp first, and could hold up others' unmounts."""
    with running.announced(HERE, tmp_path):
        file = running.file_of(HERE, tmp_path)
        os.chown(file, 4321, 4321)
        assert running.find(HERE, tmp_path) is None
        assert running.find(HERE, tmp_path, owner=1000) is None
        assert running.find(HERE, tmp_path, owner=4321) is not None


def test_a_file_that_names_another_mountpoint_is_ignored(tmp_path: Path) -> None:
    """Its content would be shown on a terminal."""
    file = running.file_of(HERE, tmp_path)
    file.write_text('{"pid": 1, "mountpoint": "/mnt/dfs\\u001b[2J"}')
    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert running.find(HERE, tmp_path) is None
