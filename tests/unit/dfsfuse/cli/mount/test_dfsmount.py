"""What a mount sets up for its process. Integration tests cover the command line and real mounts."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.servers import REPOSITORY

from dfs_server.shared.starting import SWITCH_S
from dfsfuse.cli import session
from dfsfuse.cli.config import load_config
from dfsfuse.cli.mount import dfsmount, mount_helper
from dfsfuse.cli.mount.dfsmount import Request
from dfsfuse.errors import UnavailableError
from dfsfuse.mount import options

CONFIG = REPOSITORY / "conf/dfc.yaml"


@pytest.mark.parametrize(
    ("addresses", "source"),
    [
        ([("127.0.0.1", port) for port in (1, 2, 3, 4)], "alice@127.0.0.1:1,2,3,4"),
        ([(host, 9) for host in ("a", "b", "c", "d")], "alice@a,b,c,d"),
        ([("a", 1), ("b", 1), ("a", 2), ("::1", 1)], "alice@a:1,b:1,a:2,[::1]:1"),
        ([("::1", port) for port in (1, 2, 3, 4)], "alice@[::1]:1,2,3,4"),
    ],
)
def test_the_source_column_shows_user_and_servers(addresses: list[tuple[str, int]], source: str) -> None:
    config = load_config(CONFIG)
    one, two, three, four = (
        replace(server, host=host, port=port) for server, (host, port) in zip(config.servers, addresses, strict=True)
    )
    assert dfsmount.source_of(replace(config, servers=(one, two, three, four))) == source


def test_a_thread_that_computes_is_interrupted_soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Otherwise every user of the mount waits five milliseconds for each answer of a server while it heals."""

    def no_servers(*_: object, **__: object) -> None:
        raise UnavailableError("no server answers")

    monkeypatch.setattr(session, "open_session", no_servers)
    sys.setswitchinterval(0.005)
    request = Request(tmp_path, CONFIG, False, True, False, options.parse((), as_root=False))
    with pytest.raises(UnavailableError):
        dfsmount._serve(request, load_config(CONFIG), tmp_path, lambda: None)
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S)


EMPTY = "is empty (is it a variable that is not set?)"


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        ("dfsmount", [], "missing argument 'MOUNTPOINT'"),
        ("dfsmount", [""], f"MOUNTPOINT {EMPTY}"),
        ("dfsmount", ["-u", ""], f"MOUNTPOINT {EMPTY}"),
        ("dfsmount", ["--config", "", "/mnt"], f"--config {EMPTY}"),
        ("dfsmount", ["--nonsense", "/mnt"], "no such option"),
        ("dfsmount", ["-z", "/mnt"], "-z can only be used with -u"),
        ("dfsmount", ["/mnt", "/more"], "got unexpected extra argument (/more)"),
        ("mount.dfs", ["/etc/dfc.yaml"], "missing argument 'MOUNTPOINT'"),
        ("mount.dfs", ["/etc/dfc.yaml", ""], f"MOUNTPOINT {EMPTY}"),
        ("mount.dfs", ["", "/mnt"], f"CONFIG {EMPTY}"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    capsys: pytest.CaptureFixture[str], program: str, arguments: list[str], said: str
) -> None:
    command = {"dfsmount": dfsmount.cli, "mount.dfs": mount_helper.cli}[program]
    assert dfsmount.run(arguments, command, program) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"{program}: {said}")
    assert captured.err.endswith(f"(see: {program} --help)\n")
    assert captured.err.count("\n") == 1
