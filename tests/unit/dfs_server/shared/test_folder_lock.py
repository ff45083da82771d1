"""Finding out whether a server is running on a folder."""

from __future__ import annotations

from pathlib import Path

from dfs_server.server_folder import ServerFolder
from dfs_server.shared import folder_lock


def test_it_is_held_while_a_server_has_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "DFS1"
    assert not folder_lock.is_held(root)
    with ServerFolder.open(root):
        assert folder_lock.is_held(root)
    assert not folder_lock.is_held(root), "checking must not take the lock"
    ServerFolder.open(root).close()
