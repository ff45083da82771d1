"""Where a user's folders are, and the message if there is no home."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from dfs_server.shared import config_file, homes
from dfs_server.shared.config_file import ConfigError


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME and without an entry in the passwd database."""

    def unknown(_uid: int) -> pwd.struct_passwd:
        raise KeyError

    for variable in ("HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "DFS_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.parametrize("value", ["", "relative"])
def test_a_home_that_is_none_is_looked_up(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HOME", value)
    assert homes.home() == Path(pwd.getpwuid(os.getuid()).pw_dir)


def test_without_a_home_there_are_no_folders(homeless: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert homes.home() is None
    assert homes.config_folder() is homes.state_folder() is homes.data_folder() is None
    monkeypatch.setenv("XDG_STATE_HOME", "/var/lib/state")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert homes.state_folder() == Path("/var/lib/state/dfsfuse")
    assert homes.data_folder() is None


def test_a_tilde_as_a_shell_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a b")
    texts = {
        "~": "/home/a b",
        "~/x/y": "/home/a b/x/y",
        "x/~": "x/~",
        "~nobody-of-that-name/x": "~nobody-of-that-name/x",
    }
    for text, path in texts.items():
        assert homes.expanded(text) == Path(path)


def test_a_tilde_without_a_home_is_a_sentence(homeless: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="there is no home folder"):
        homes.expanded("~/x")
    monkeypatch.setenv("DFS_CONFIG", "~/dfc.yaml")
    with pytest.raises(ConfigError, match=r"^~/dfc.yaml \(named by \$DFS_CONFIG\): there is no home folder"):
        config_file.find(None, "dfc.yaml")


def test_a_config_is_looked_for_where_there_is_a_place(
    homeless: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"looked for tryout/dfc.yaml and conf/dfc.yaml\. Name one"):
        config_file.find(None, "dfc.yaml")
