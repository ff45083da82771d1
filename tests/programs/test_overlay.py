"""A folder of the mount as the upper layer of the kernel's overlay file system, as containers use it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.mounts import Mount
from support.programs import run

pytestmark = [pytest.mark.programs, pytest.mark.timeout(120)]


@contextmanager
def overlay(lower: Path, upper: Path, folder: Path) -> Iterator[Path]:
    """Mount the overlay with unprivileged attributes (`userxattr`), since our mount stores no `trusted.` ones."""
    for path in (upper / "upper", upper / "work", folder):
        path.mkdir(exist_ok=True)
    options = f"userxattr,lowerdir={lower},upperdir={upper / 'upper'},workdir={upper / 'work'}"
    run("mount", "-t", "overlay", "overlay", "-o", options, folder)
    try:
        yield folder
    finally:
        run("umount", folder)


def test_an_overlays_upper_layer(root: Path, mount: Mount, tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    (lower / "d").mkdir(parents=True)
    for name in ("kept", "changed", "removed", "moved", "d/inside"):
        (lower / name).write_text(f"lower {name}")
    with overlay(lower, root, tmp_path / "merged") as merged:
        (merged / "new").write_text("new")
        with (merged / "changed").open("a") as file:
            file.write(", changed")
        (merged / "removed").unlink()
        (merged / "moved").rename(merged / "elsewhere")
        (merged / "d/inside").unlink()
        (merged / "d").rmdir()
        (merged / "d").mkdir()
    upper = root / "upper"
    assert {path.name: stat.S_ISCHR(path.lstat().st_mode) for path in upper.iterdir()} == {
        **dict.fromkeys(("new", "changed", "elsewhere", "d"), False),
        **dict.fromkeys(("removed", "moved"), True),
    }
    assert os.getxattr(upper / "d", "user.overlay.opaque") == b"y"
    mount.remount()
    with overlay(lower, root, tmp_path / "merged") as merged:
        found = {str(path.relative_to(merged)): path.read_text() for path in merged.rglob("*") if path.is_file()}
        assert list((merged / "d").iterdir()) == []
    assert found == {
        "kept": "lower kept",
        "changed": "lower changed, changed",
        "new": "new",
        "elsewhere": "lower moved",
    }
