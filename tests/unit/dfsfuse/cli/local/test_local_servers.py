"""`--local`: a config that is made once. tests/integration/test_mount.py uses real servers."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dfsfuse.cli.local import local_servers


def test_the_config_is_made_once_and_is_private(tmp_path: Path) -> None:
    first = local_servers.ensure_config(tmp_path)
    assert local_servers.ensure_config(tmp_path) == first
    assert first.warnings == ()
    assert len({server.port for server in first.servers}) == 4
    assert {server.host for server in first.servers} == {"127.0.0.1"}
    assert len(first.credentials.password) >= 24
    for name in ("dfc.yaml", "dfs.yaml"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_half_made_config_is_made_again(tmp_path: Path) -> None:
    local_servers.ensure_config(tmp_path)
    (tmp_path / "dfc.yaml").unlink()
    config = local_servers.ensure_config(tmp_path)
    assert config.credentials.password in (tmp_path / "dfs.yaml").read_text()


def test_the_password_in_the_environment_is_for_other_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFS_PASSWORD", "of somewhere else")
    assert local_servers.ensure_config(tmp_path).credentials.password != "of somewhere else"


def test_it_is_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert local_servers.default_folder() == tmp_path / "dfsfuse" / "local"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_servers.default_folder() == tmp_path / ".local" / "share" / "dfsfuse" / "local"
