"""Typical work on a source tree: copying, comparing, putting it under git. The tree is Python's own library."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.place import Place
from bench.steps.content import SECONDS, Sizes, Step, clock

LEFT_OUT: Final = ("site-packages", "dist-packages", "test", "tests", "__pycache__", "config-*", "idlelib", "ensurepip")
PROGRAM_S: Final = 600.0
_GIT: Final = ("git", "-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "gc.auto=0")


def _source(place: Place) -> Path:
    """Return the tree, which is beside the place and not on it; made at the first call."""
    source = place.folder.parent / f"sources-of-{place.name}"
    if not source.exists():
        library = sysconfig.get_path("stdlib")
        shutil.copytree(library, source, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    return source


def _time(*commands: Sequence[str | Path], folder: Path) -> tuple[float, float]:
    start = clock()
    for command in commands:
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=PROGRAM_S)
    return 1, clock() - start


def copy_tree(place: Place, sizes: Sizes) -> tuple[float, float]:
    """`cp -r` of the tree to the place."""
    source = _source(place)
    return _time(["cp", "-r", source, place.folder / "sources"], folder=place.folder)


def compare_tree(place: Place, sizes: Sizes) -> tuple[float, float]:
    """`diff -r` of both, cold. It fails if a byte differs."""
    place.make_cold()
    source = _source(place)
    list(source.rglob("*"))
    return _time(["diff", "-r", source, "sources"], folder=place.folder)


def commit_tree(place: Place, sizes: Sizes) -> tuple[float, float]:
    """git init, add, commit of the tree."""
    git = [*_GIT, "-C", "sources"]
    commands = [[*git, "init", "-q"], [*git, "add", "."], [*git, "commit", "-q", "-m", "all of it"]]
    return _time(*commands, folder=place.folder)


def show_status(place: Place, sizes: Sizes) -> tuple[float, float]:
    """git status."""
    return _time([*_GIT, "-C", "sources", "status", "--short"], folder=place.folder)


def check_repository(place: Place, sizes: Sizes) -> tuple[float, float]:
    """git fsck, cold. It fails if an object is damaged."""
    place.make_cold()
    return _time([*_GIT, "-C", "sources", "fsck", "--full", "--no-progress"], folder=place.folder)


TREE_STEPS: Final = (
    Step("copy a tree of sources", "tree", SECONDS, copy_tree),
    Step("diff it, cold", "tree", SECONDS, compare_tree),
    Step("git init, add, commit", "tree", SECONDS, commit_tree),
    Step("git status", "tree", SECONDS, show_status),
    Step("git fsck, cold", "tree", SECONDS, check_repository),
)
