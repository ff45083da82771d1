"""put and get between the servers and a mount of the same namespace: they end, and do what `cp -r` does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounts import Grid, Mount

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def mount(grid: Grid) -> Mount:
    return grid.mount()


@pytest.fixture(params=["kernel", "fusepy"])
def seen(request: pytest.FixtureRequest, grid: Grid, mount: Mount, tmp_path: Path) -> Iterator[Path]:
    """The emptied namespace as a folder `home/dfs`, a bind mount, with either binding."""
    folder = tmp_path / "home" / "dfs"
    folder.mkdir(parents=True)
    for path in mount.path.iterdir():
        subprocess.run(["rm", "-r", path], check=True, timeout=60)
    shown = mount if request.param == "kernel" else grid.mount("fusepy", ["-o", "binding=fusepy"])
    subprocess.run(["mount", "--bind", shown.path, folder], check=True, timeout=20)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True, timeout=20)
        if shown is not mount:
            shown.end()


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_tree_that_holds_a_mount_is_put_without_the_folder_that_is_filled(
    grid: Grid, mount: Mount, seen: Path
) -> None:
    home = seen.parent
    (home / "doc").write_text("doc")
    (seen / "there").mkdir()
    (seen / "there" / "file").write_text("file")
    (seen / "backup" / "home").mkdir(parents=True)
    done = grid.dfc("put", "-r", home, "/backup")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().splitlines() == [
        f"dfc: local {seen}/backup/home cannot be copied into itself (/backup/home)",
    ]
    expected = ["home", "home/dfs", "home/dfs/backup", "home/dfs/there", "home/dfs/there/file", "home/doc"]
    assert tree(mount.path / "backup") == expected


def test_a_folder_is_not_got_into_itself(grid: Grid, mount: Mount, seen: Path) -> None:
    (seen / "a").mkdir()
    (seen / "a" / "file").write_text("file")
    (seen / "x").mkdir()
    done = grid.dfc("get", "-r", "/", seen / "x")
    assert done.returncode == 1
    assert done.stderr.decode() == f"dfc: /x cannot be copied into itself (local {seen}/x)\n"
    assert tree(mount.path) == ["a", "a/file", "x", "x/a", "x/a/file"]
    done = grid.dfc("put", "-r", f"{seen}/.", "/")
    assert done.returncode == 1
    assert done.stderr.decode() == f"dfc: local {seen} cannot be copied into itself (/)\n"


def test_a_file_is_not_copied_onto_itself(grid: Grid, mount: Mount, seen: Path) -> None:
    (seen / "file").write_text("file")
    for arguments in (["put", seen / "file", "/file"], ["get", "/file", seen / "file"]):
        done = grid.dfc(*arguments)
        assert done.returncode == 1
        assert b"are the same file" in done.stderr
    assert grid.dfc("put", seen / "file", "/other").returncode == 0
    assert (mount.path / "other").read_text() == "file"


def test_the_mount_of_another_namespace_is_a_folder_like_any_other(grid: Grid, mount: Mount, tmp_path: Path) -> None:
    bobs = grid.folder / "bob"
    bobs.mkdir()
    config = grid.servers.write_client_config(bobs, "bob")
    (mount.path / "mine").mkdir(exist_ok=True)
    done = grid.dfc("--config", config, "put", "-r", f"{mount.path}/.", "/")
    assert (done.returncode, done.stderr) == (0, b"")
    assert os.getxattr(mount.path, "user.dfs.inode").endswith(b":1")
