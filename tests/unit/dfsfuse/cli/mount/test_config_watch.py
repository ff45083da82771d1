"""A running mount takes over new addresses from its config, and refuses what it cannot take over."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from dfsfuse.cli.config import read_config
from dfsfuse.cli.mount.config_watch import ConfigWatch
from dfsfuse.net.servers import Credentials, ServerAddress


class Cluster:
    """Which servers answer, and the new addresses received."""

    def __init__(self) -> None:
        self.answering = frozenset({1, 2, 3, 4})
        self.told: list[tuple[tuple[ServerAddress, ...], Credentials]] = []

    def usable(self) -> frozenset[int]:
        return self.answering

    def readdress(self, servers: Sequence[ServerAddress], credentials: Credentials) -> None:
        self.told.append((tuple(servers), credentials))


def text(
    host2: str = "10.0.0.2", *, names: str = "DFS1 DFS2 DFS3 DFS4", user: str = "alice", password: str = "x"
) -> str:
    hosts = ["10.0.0.1", host2, "10.0.0.3", "10.0.0.4"]
    lines = [
        f"  - {{name: {name}, host: {host}, port: 10001}}" for name, host in zip(names.split(), hosts, strict=True)
    ]
    return "\n".join(["servers:", *lines, f"username: {user}", f"password: {password}", ""])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "dfc.yaml"
    path.write_text(text())
    path.chmod(0o600)
    return path


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def watch(file: Path, cluster: Cluster) -> ConfigWatch:
    return ConfigWatch(cluster, read_config(file, {}), environment={})


def test_a_new_address_is_taken_over_at_a_signal_and_what_changed_is_logged(
    watch: ConfigWatch, file: Path, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file.write_text(text("10.0.9.9"))
    watch.read_again("SIGHUP")
    ((servers, credentials),) = cluster.told
    assert [server.host for server in servers] == ["10.0.0.1", "10.0.9.9", "10.0.0.3", "10.0.0.4"]
    assert credentials == Credentials("alice", "x")
    assert caplog.messages == [
        f"{file} was read again (SIGHUP): DFS2 is now at 10.0.9.9:10001 (formerly 10.0.0.2:10001)"
    ]
    watch.read_again("SIGHUP")
    assert len(cluster.told) == 1
    assert caplog.messages[1] == f"{file} was read again (SIGHUP): nothing has changed"


def test_a_new_password_is_taken_over_and_in_no_log(
    watch: ConfigWatch, file: Path, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file.write_text(text(password="topsecret"))
    watch.read_again("SIGHUP")
    assert cluster.told[0][1].password == "topsecret"
    assert "another password" in caplog.text
    assert "topsecret" not in caplog.text


def test_the_file_is_looked_at_only_while_a_server_is_missing_and_read_only_if_it_has_changed(
    watch: ConfigWatch, file: Path, cluster: Cluster
) -> None:
    file.write_text(text("10.0.9.9"))
    watch.step()
    assert cluster.told == []
    cluster.answering = frozenset({1, 3, 4})
    watch.step()
    assert len(cluster.told) == 1
    file.write_text(text("10.0.9.9") + "# the same\n")
    watch.step()
    watch.step()
    assert len(cluster.told) == 1


def test_a_new_password_in_a_file_of_its_own_is_noticed(file: Path, cluster: Cluster, tmp_path: Path) -> None:
    """Servers with a new password refuse the old one, and count as missing."""
    secret = tmp_path / "secret"
    secret.write_text("old\n")
    file.write_text(text().replace("password: x", "password_file: secret"))
    watch = ConfigWatch(cluster, read_config(file, {}), environment={})
    cluster.answering = frozenset()
    watch.step()
    assert cluster.told == []
    secret.write_text("a new one\n")
    watch.step()
    assert [credentials.password for _, credentials in cluster.told] == ["a new one"]


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (text(user="bob"), "the user is now bob, but the mount belongs to alice: mount again"),
        (text(names="DFS2 DFS1 DFS3 DFS4"), "only their addresses may change"),
        (text(names="DFS1 DFS2 DFS3 DFS5"), "only their addresses may change"),
        (text(names="DFS1 DFS2 DFS3 DFS4").replace("port: 10001", "port: 0"), "cannot be used"),
        ("servers: [", "cannot be used"),
        (None, "cannot be used"),
    ],
)
def test_what_cannot_be_taken_over_is_refused_with_a_sentence_and_the_old_config_stays(
    watch: ConfigWatch, file: Path, cluster: Cluster, caplog: pytest.LogCaptureFixture, new: str | None, why: str
) -> None:
    if new is None:
        file.unlink()
    else:
        file.write_text(new)
    cluster.answering = frozenset()
    for _ in range(3):
        watch.step()
    (message,) = caplog.messages  # logged once, not each time
    assert why in message
    assert "the mount goes on with its old" in message
    assert cluster.told == []
    file.write_text(text("10.0.9.9"))
    watch.step()
    assert len(cluster.told) == 1


def test_no_file_below_the_own_mountpoint_is_opened(
    file: Path, cluster: Cluster, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    forbidden = {file}
    watch = ConfigWatch(cluster, read_config(file, {}), environment={}, may_open=lambda path: path not in forbidden)
    cluster.answering = frozenset()
    file.write_text(text("10.0.9.9"))
    watch.step()
    assert caplog.text == "", "the file is not even checked for changes"
    watch.read_again("SIGHUP")
    assert "is below the mountpoint, and cannot be read while that is mounted" in caplog.text
    forbidden = {tmp_path / "secret"}
    file.write_text(text("10.0.9.9").replace("password: x", "password_file: secret"))
    watch.read_again("SIGHUP")
    assert "which is below the mountpoint and cannot be read now" in caplog.text
    assert cluster.told == []
