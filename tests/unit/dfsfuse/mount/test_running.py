"""How a mount's process shows that it lives."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dfsfuse.mount import running
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
        pytest.raises(MountpointError, match="another dfsmount"),
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
