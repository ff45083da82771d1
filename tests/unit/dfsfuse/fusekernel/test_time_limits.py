"""Which request timeout the kernel is asked for, depending on the system's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfsfuse.fusekernel import time_limits


@pytest.mark.parametrize(
    ("default", "maximum", "wanted", "in_force"),
    [
        ("0\n", "0\n", 0, 0),
        ("60\n", "0\n", 65_535, 65_535),
        ("60\n", "90\n", 65_535, 90),
        ("0\n", "90\n", 0, 90),
        ("no number", "", 0, 0),
    ],
)
def test_a_default_of_the_system_does_not_end_a_mount_for_a_lock_that_somebody_waits_for(
    tmp_path: Path, default: str, maximum: str, wanted: int, in_force: int
) -> None:
    (tmp_path / "default_request_timeout").write_text(default)
    (tmp_path / "max_request_timeout").write_text(maximum)
    assert (time_limits.wanted_s(tmp_path), time_limits.in_force_s(tmp_path)) == (wanted, in_force)


def test_a_kernel_without_such_settings(tmp_path: Path) -> None:
    assert (time_limits.wanted_s(tmp_path), time_limits.in_force_s(tmp_path)) == (0, 0)
