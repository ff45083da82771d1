"""The client's config: what is accepted, and the message for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.servers import REPOSITORY

from dfs_server.shared.config_file import ConfigError
from dfsfuse.cli.config import ClientConfig, load_config, read_config
from dfsfuse.net.servers import Credentials, ServerAddress


def content() -> dict[str, Any]:
    servers = [{"name": f"DFS{n}", "host": "127.0.0.1", "port": 10000 + n} for n in range(1, 5)]
    return {"servers": servers, "username": "alice", "password": "alice-secret"}


def written(folder: Path, data: object, mode: int = 0o600) -> Path:
    path = folder / "dfc.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    path.chmod(mode)
    return path


def read(folder: Path, data: object, **environment: str) -> ClientConfig:
    return read_config(written(folder, data), environment)


def test_the_one_in_the_project() -> None:
    config = read_config(REPOSITORY / "conf" / "dfc.yaml", {})
    assert config.servers == tuple(ServerAddress(n, f"DFS{n}", "127.0.0.1", 10000 + n) for n in range(1, 5))
    assert config.credentials == Credentials("alice", "alice-secret")


def test_no_password_in_what_is_printed(tmp_path: Path) -> None:
    assert "alice-secret" not in repr(read(tmp_path, content()))


def test_it_is_found_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, content())
    monkeypatch.setenv("DFS_CONFIG", str(tmp_path))
    assert load_config(None, {}).path == path


def test_password_file_is_relative_to_the_config(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-file\nsecond line\n")
    secret.chmod(0o600)
    data = content() | {"password_file": "secret"}
    del data["password"]
    config = read(tmp_path, data)
    assert config.credentials.password == "from-file"
    assert config.warnings == ()


@pytest.mark.parametrize("key", ["password", "password_file", None])
def test_the_environments_password_wins(tmp_path: Path, key: str | None) -> None:
    data = content()
    del data["password"]
    if key:
        data[key] = "something"
    assert read(tmp_path, data, DFS_PASSWORD="from-environment").credentials.password == "from-environment"


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True), (0o644, True)])
def test_a_plain_password_that_others_can_read_is_warned_of(tmp_path: Path, mode: int, warned: bool) -> None:
    config = read_config(written(tmp_path, content(), mode), {})
    assert len(config.warnings) == warned
    assert all("chmod 600" in text and "alice-secret" not in text for text in config.warnings)


def _changed(change: dict[str, object], server: int | None = None) -> dict[str, Any]:
    data = content()
    target = data if server is None else data["servers"][server]
    for key, value in change.items():
        if value is None:
            del target[key]
        else:
            target[key] = value
    return data


def _with_servers(count: int) -> dict[str, Any]:
    data = content()
    extra = [{"name": f"DFS{n}", "host": "h", "port": n} for n in range(5, 9)]
    data["servers"] = (data["servers"] + extra)[:count]
    return data


@pytest.mark.parametrize(
    ("data", "key", "found", "expected"),
    [
        (_with_servers(3), "servers", "3 servers", "exactly 4"),
        (_with_servers(5), "servers", "5 servers", "exactly 4"),
        (_with_servers(0), "servers", "0 servers", "exactly 4"),
        (_changed({"servers": "DFS1"}), "servers", "DFS1", "exactly 4"),
        (_changed({"port": 10001}, 2), "servers, item 3: port", "item 1 already has", "a different address"),
        (_changed({"name": "DFS1"}, 3), "servers, item 4: name", "the name of item 1", "a unique name"),
        (_changed({"port": 0}, 1), "servers, item 2: port", "0", "1 to 65535"),
        (_changed({"port": 65536}, 1), "servers, item 2: port", "65536", "1 to 65535"),
        (_changed({"port": "10002"}, 1), "servers, item 2: port", "'10002'", "1 to 65535"),
        (_changed({"port": None}, 1), "servers, item 2: port", "nothing", "'port'"),
        (_changed({"name": "../DFS1"}, 0), "servers, item 1: name", "'../DFS1'", "a server's name"),
        (_changed({"host": ""}, 0), "servers, item 1: host", "''", "a host name"),
        (_changed({"hots": "x"}, 0), "servers, item 1", "'hots' (did you mean 'host'?)", "'host'"),
        (_changed({"username": "a/b"}), "username", "'a/b'", "a user's name"),
        (_changed({"username": 7}), "username", "7", "a user's name"),
        (_changed({"username": None}), "username", "nothing", "'username'"),
        (_changed({"password": None}), "password", "nothing", "$DFS_PASSWORD"),
        (_changed({"password": 1234}), "password", "a number", "a password"),
        (_changed({"password_file": "f"}), "password_file", "both", "one of them"),
        (_changed({"pasword": "x"}), "", "'pasword'", "'password'"),
        (["a"], "", "a list of 1", "'servers'"),
        (None, "", "nothing", "'servers'"),
    ],
)
def test_each_mistake_names_file_key_found_and_expected(
    tmp_path: Path, data: object, key: str, found: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, data)
    text = str(caught.value)
    where, _, rest = text.partition(": found ")
    assert where == f"{tmp_path / 'dfc.yaml'}" + (f": {key}" if key else "")
    found_text, _, expected_text = rest.partition("; expected ")
    assert found in found_text
    assert expected in expected_text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("data", "found"), [(b"", "empty"), (b"\n", "empty"), (b"\xff\n", "not UTF-8"), (b"x" * 5000, "too long")]
)
def test_a_password_file_that_will_not_do(tmp_path: Path, data: bytes, found: str) -> None:
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(ConfigError, match=rf"password_file: found .*{found}"):
        read(tmp_path, _changed({"password": None, "password_file": "f"}))


def test_no_password_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"password_file: found .*cannot be read"):
        read(tmp_path, _changed({"password": None, "password_file": "f"}))
