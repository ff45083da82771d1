"""The config of the try-out: that of conf/ with new passwords, since everybody knows the ones there."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest
import yaml
from support.servers import REPOSITORY

from dfs_server.shared.config_file import ConfigError
from dfsfuse.cli.config import read_config
from dfsfuse.cli.local import tryout


@pytest.fixture
def example(tmp_path: Path) -> Path:
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    return tmp_path / "conf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tryout"


def content(file: Path) -> dict[str, dict[str, dict[str, str]]]:
    found: dict[str, dict[str, dict[str, str]]] = yaml.safe_load(file.read_text())
    return found


def test_the_passwords_are_random_and_only_the_owner_can_read_them(example: Path, folder: Path) -> None:
    tryout.ensure(example, folder)
    client = read_config(folder / "dfc.yaml", {})
    users = content(folder / "dfs.yaml")["users"]
    assert client.servers == read_config(example / "dfc.yaml", {}).servers
    assert client.warnings == ()
    assert users["alice"] == {"password": client.credentials.password}
    assert len({client.credentials.password, users["bob"]["password"], *tryout.EXAMPLE_PASSWORDS}) == 4
    assert min(len(user["password"]) for user in users.values()) >= 24
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_the_example_s_passwords_are_the_ones_that_are_replaced() -> None:
    """If the passwords in conf/ change, the list must change too, or the try-out has well-known passwords again."""
    written = {user["password"] for user in content(REPOSITORY / "conf/dfs.yaml")["users"].values()}
    assert written == tryout.EXAMPLE_PASSWORDS
    assert read_config(REPOSITORY / "conf/dfc.yaml", {}).credentials.password in written


def test_they_are_kept_and_other_changes_are_taken_over(example: Path, folder: Path) -> None:
    tryout.ensure(example, folder)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    inode = (folder / "dfc.yaml").stat().st_ino
    tryout.ensure(example, folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    assert (folder / "dfc.yaml").stat().st_ino == inode
    with (example / "dfs.yaml").open("a") as file:
        file.write("grace_period_s: 5\n")
    (example / "dfc.yaml").write_text((example / "dfc.yaml").read_text().replace("10001", "20001"))
    tryout.ensure(example, folder)
    assert content(folder / "dfs.yaml")["grace_period_s"] == 5
    assert read_config(folder / "dfc.yaml", {}).servers[0].port == 20001
    assert content(folder / "dfs.yaml")["users"] == yaml.safe_load(before["dfs.yaml"])["users"]


def test_passwords_of_one_s_own_stay(example: Path, folder: Path) -> None:
    (example / "dfs.yaml").write_text('users: {alice: {password: "mine"}, carol: {scram: "SCRAM-SHA-256$..."}}\n')
    (example / "word").write_text("mine\n")
    text = (example / "dfc.yaml").read_text().replace("password: alice-secret", "password_file: word")
    (example / "dfc.yaml").write_text(text)
    tryout.ensure(example, folder)
    assert read_config(folder / "dfc.yaml", {}).credentials.password == "mine"
    assert content(folder / "dfs.yaml") == content(example / "dfs.yaml")


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_folder_that_is_open_is_closed(example: Path, folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    tryout.ensure(example, folder)
    (folder / "dfs.yaml").chmod(0o644)
    tryout.ensure(example, folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "dfs.yaml").stat().st_mode) == 0o600


def test_what_is_no_config_is_said(example: Path, folder: Path) -> None:
    (example / "dfs.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"conf/dfs.yaml: found no keys"):
        tryout.ensure(example, folder)
    assert not folder.exists()


def test_a_damaged_file_of_the_client_is_made_anew(example: Path, folder: Path) -> None:
    tryout.ensure(example, folder)
    right = (folder / "dfc.yaml").read_bytes()
    (folder / "dfc.yaml").write_bytes(b"\xff")
    tryout.ensure(example, folder)
    assert (folder / "dfc.yaml").read_bytes() == right
