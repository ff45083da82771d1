"""The Makefile's own decisions: when to rebuild .venv, what `make stop` needs, and where `make run` mounts.

The tests run a copy of it in a folder of its own, with a fake Python that creates the outline of a virtual environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
    printf '#!%s/.venv/bin/python\\n' "$(pwd -P)" > .venv/bin/pip
fi
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "a clone"
    folder.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return folder


def make(clone: Path, *arguments: str) -> str:
    """Run make, which must succeed, and return its output."""
    home = next(path for path in clone.parents if path.name == "home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", f"PYTHON={home.parent / 'python'}", *arguments],
        cwd=clone,
        env={**kept, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_a_venv_is_made_once_and_anew_where_the_clone_was_moved_or_copied(clone: Path) -> None:
    assert make(clone, "venv") == "Installing the Python packages into .venv ...\n"
    assert "Installing" not in make(clone, "venv")
    moved = clone.rename(clone.parent / "moved")
    copied = clone.parent / "copied"
    shutil.copytree(moved, copied)
    for place in (moved, copied):
        assert "belong to another folder" in make(place, "venv")
        assert (place / ".venv/bin/pip").read_text() == f"#!{place}/.venv/bin/python\n"
        assert "Installing" not in make(place, "venv")


def test_stop_needs_nothing_where_nothing_runs(clone: Path) -> None:
    assert make(clone, "stop") == "Nothing to stop: `make run` has nothing running here.\n"
    make(clone, "venv")
    make(clone, "clean")
    assert make(clone, "stop").startswith("Nothing to stop")
    assert not (clone / ".venv").exists()
    (clone / ".run").mkdir()
    assert "Installing" in make(clone, "stop")  # the shell does not interpret what is written there
    assert make(clone, "stop") == ""  # make itself prints nothing


def test_the_simulation_is_told_the_first_seed_and_how_many(clone: Path) -> None:
    assert 'FIRST="7" SEEDS="3" SEED="" ' in make(clone, "-n", "sim", "FIRST=7", "SEEDS=3")


@pytest.mark.parametrize(("place", "mount"), [("src", "dfs"), ("dfs", "dfs-files"), ("dfs/src", "dfs-files")])
def test_run_does_not_mount_over_the_clone(clone: Path, place: str, mount: str) -> None:
    home = clone.parent
    (home / place).parent.mkdir(exist_ok=True)
    said = make(clone.rename(home / place), "-n", "run")
    assert f'quickstart run "{home}/{mount}"' in said
    assert 'quickstart run "/srv/files"' in make(home / place, "-n", "run", "MOUNT=/srv/files")
