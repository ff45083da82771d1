"""Times of files compared with those that a local file system sets."""

from __future__ import annotations

from pathlib import Path

from dfsfuse.vfs import file_clock


def test_a_local_file_that_is_made_afterwards_is_not_older(tmp_path: Path) -> None:
    """Otherwise `make` would consider it out of date and build it again."""
    for number in range(200):
        ours_ns = file_clock.now_ns()
        local = tmp_path / str(number)
        local.touch()
        assert local.stat().st_mtime_ns >= ours_ns
