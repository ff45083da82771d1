"""A server's folder: created, marked, locked; and every reason not to start on one, each with its message."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from dfs_server.server_folder import FolderBusyError, FolderError, ServerFolder


def test_it_is_made_and_stays_the_same(tmp_path: Path) -> None:
    root = tmp_path / "new" / "DFS1"
    with ServerFolder.open(root) as first:
        assert (first.name, first.path, len(first.identity), len(first.secret)) == ("DFS1", root, 16, 32)
    with ServerFolder.open(root) as again:
        assert (again.identity, again.secret) == (first.identity, first.secret)
    marker = root / "server.json"
    assert json.loads(marker.read_text())["name"] == "DFS1"
    assert stat.S_IMODE(marker.stat().st_mode) == 0o600
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_an_emptied_folder_is_another_server(tmp_path: Path) -> None:
    with ServerFolder.open(tmp_path / "DFS1") as first:
        pass
    (tmp_path / "DFS1" / "server.json").unlink()
    with ServerFolder.open(tmp_path / "DFS1") as second:
        assert second.identity != first.identity


def test_only_one_at_a_time(tmp_path: Path) -> None:
    with (
        ServerFolder.open(tmp_path / "DFS1"),
        pytest.raises(FolderBusyError, match="another dfs-server is running on this folder"),
    ):
        ServerFolder.open(tmp_path / "DFS1")
    ServerFolder.open(tmp_path / "DFS1").close()


def test_a_link_gives_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "disk7").mkdir()
    (tmp_path / "DFS1").symlink_to(tmp_path / "disk7")
    with ServerFolder.open(tmp_path / "DFS1") as folder:
        assert folder.name == "DFS1"


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ServerFolder.open(Path("DFS1")) as folder:
        assert folder.path == tmp_path / "DFS1"


def test_another_server_s_folder(tmp_path: Path) -> None:
    ServerFolder.open(tmp_path / "DFS1").close()
    (tmp_path / "DFS1").rename(tmp_path / "DFS2")
    with pytest.raises(FolderError, match="the folder of server DFS1, not of DFS2"):
        ServerFolder.open(tmp_path / "DFS2")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"format": 2, "anything": true}', "has format 2; this program knows format 1"),
        ("", "not the file that a dfs-server writes"),
        ("{", "not the file that a dfs-server writes"),
        ('{"format": 1}', "not the file that a dfs-server writes"),
        (
            '{"format": 1, "name": "DFS1", "identity": "xyz", "secret": ""}',
            "not the file that a dfs-server writes",
        ),
    ],
)
def test_a_marker_of_another_kind(tmp_path: Path, content: str, said: str) -> None:
    root = tmp_path / "DFS1"
    root.mkdir()
    (root / "server.json").write_text(content)
    with pytest.raises(FolderError, match=said):
        ServerFolder.open(root)
    (root / "server.json").unlink()
    ServerFolder.open(root).close()  # the lock was released


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "DFS1").touch()
    with pytest.raises(FolderError, match="a file in the place of the server's folder"):
        ServerFolder.open(tmp_path / "DFS1")
    with pytest.raises(FolderError, match="cannot write in its folder: Not a directory"):
        ServerFolder.open(tmp_path / "DFS1" / "DFS1")


@pytest.mark.parametrize("name", ["D F S", "-v", "DFS\n1", "é"])
def test_names_that_no_server_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(FolderError, match="cannot be a server's name"):
        ServerFolder.open(tmp_path / name)


def test_the_root_of_the_file_system_has_no_name() -> None:
    with pytest.raises(FolderError, match="cannot be a server's name"):
        ServerFolder.open(Path("/"))
