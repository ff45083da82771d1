"""Opening a namespace: a failure to connect names the config file that was used."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.ports import free_ports
from support.servers import REPOSITORY

from dfsfuse.cli.config import load_config
from dfsfuse.cli.session import open_session
from dfsfuse.errors import AuthenticationError, DfsError, UnavailableError, WrongServerError
from dfsfuse.net.cluster import Cluster

CONFIG = REPOSITORY / "conf" / "dfc.yaml"


def test_where_no_server_answers_the_config_file_is_named() -> None:
    """A config in the working folder may have been found before the intended one."""
    config = load_config(CONFIG)
    one, two, three, four = (
        replace(server, port=port) for server, port in zip(config.servers, free_ports(4), strict=True)
    )
    with pytest.raises(UnavailableError) as caught:
        open_session(replace(config, servers=(one, two, three, four)))
    assert str(caught.value).endswith(f"(config: {CONFIG})")


@pytest.mark.parametrize(
    ("error", "password", "note"),
    [
        (WrongServerError("DFS2 is DFS3"), "other", ""),
        (AuthenticationError("DFS1 refuses alice"), "", ""),
        (AuthenticationError("DFS1 refuses alice"), "other", "; the password was that of $DFS_PASSWORD"),
    ],
)
def test_so_it_is_where_a_server_refuses(
    monkeypatch: pytest.MonkeyPatch, error: DfsError, password: str, note: str
) -> None:
    def refuse(_self: Cluster, *, wait_for_all: bool) -> None:
        raise error

    monkeypatch.setattr(Cluster, "connect", refuse)
    config = load_config(CONFIG)
    monkeypatch.setenv("DFS_PASSWORD", password)
    with pytest.raises(type(error)) as caught:
        open_session(config)
    assert str(caught.value) == f"{error} (config: {CONFIG}{note})"
