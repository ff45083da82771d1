"""The prompt of `dfc` with four real servers: through a pipe, and on a terminal with keys pressed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.dfc_process import DfcProcess, Terminal
from support.servers import Servers

pytestmark = pytest.mark.integration


@pytest.fixture
def dfc(servers: Servers, tmp_path: Path) -> DfcProcess:
    return DfcProcess(servers.write_client_config(tmp_path), tmp_path)


def test_through_a_pipe(dfc: DfcProcess) -> None:
    (dfc.folder / "notes").write_bytes(b"x")
    outcome = dfc(stdin=b"PUT notes piped\nLIST\nGET piped copy\nget nothing\nRM piped\n")
    assert outcome.code == 1
    assert outcome.out.startswith(b"dfc> dfc> ")
    assert b"piped\n" in outcome.out
    assert outcome.err == b"dfc: /nothing: No such file or directory\n"
    assert (dfc.folder / "copy").read_bytes() == b"x"


def test_on_a_terminal(dfc: DfcProcess) -> None:
    (dfc.folder / "local file").write_bytes(b"x")
    with Terminal(dfc) as terminal:
        terminal.wait_for(b"dfc> ")
        terminal.type(b"put 'local file' far\r")
        terminal.wait_for(b"dfc> ")
        terminal.type(b"li\t")
        terminal.wait_for(b"list")
        terminal.type(b" -l\r")
        terminal.wait_for(b"  far\r\n")  # complete, or degraded if a server was slow to acknowledge
        terminal.type(b"get nothing\r")
        terminal.wait_for(b"dfc: /nothing: No such file or directory")
        terminal.wait_for(b"dfc> ")
        terminal.type(b"half a line\x03")  # Ctrl-C at the prompt: a new line
        terminal.wait_for(b"dfc> ")
        terminal.type(b"rm far\r")
        terminal.wait_for(b"dfc> ")
        terminal.type(b"status\r")
        terminal.wait_for(b"All servers answer")
        terminal.wait_for(b"dfc> ")
        terminal.type(b"\x04")  # Ctrl-D
        assert terminal.end() == 1  # the exit status of the failed get
    history = (dfc.folder / "state" / "dfsfuse" / "dfc_history").read_text()
    assert "+list -l\n" in history


def test_the_root_is_emptied_after_a_question(dfc: DfcProcess) -> None:
    dfc.ok("mkdir", "-p", "one/two")
    with Terminal(dfc) as terminal:
        terminal.wait_for(b"dfc> ")
        terminal.type(b"rm -r --all /\r")
        terminal.wait_for(b"Remove everything on the servers")
        terminal.wait_for(b"[y/N]: ")
        terminal.type(b"\r")
        terminal.wait_for(b"nothing was removed from the root folder")
        terminal.wait_for(b"dfc> ")
        terminal.type(b"list one\r")
        terminal.wait_for(b"two")
        terminal.wait_for(b"dfc> ")
        terminal.type(b"rm -r --all /\r")
        terminal.wait_for(b"[y/N]: ")
        terminal.type(b"y\r")
        terminal.wait_for(b"dfc> ")
        terminal.type(b"quit\r")
        terminal.end()
    assert dfc.ok("list") == b""


def test_ctrl_c_ends_the_command_and_not_the_prompt(dfc: DfcProcess) -> None:
    (dfc.folder / "large").write_bytes(os.urandom(64 << 20))
    with Terminal(dfc) as terminal:
        terminal.wait_for(b"dfc> ")
        terminal.type(b"put large\r")
        terminal.wait_for(b"large")
        terminal.type(b"\x03")
        terminal.wait_for(b"dfc> ")
        terminal.type(b"quit\r")
        terminal.end()


def test_a_wrong_password_on_a_terminal(servers: Servers, tmp_path: Path) -> None:
    dfc = DfcProcess(servers.write_client_config(tmp_path, "alice", "wrong"), tmp_path)
    with Terminal(dfc) as terminal:
        assert terminal.end() == 4
        assert b"dfc> " not in terminal.shown
        assert b"alice" in terminal.shown


def test_a_progress_bar_on_a_terminal_and_none_in_a_pipe(dfc: DfcProcess) -> None:
    (dfc.folder / "big").write_bytes(os.urandom(48 << 20))
    with Terminal(dfc, "put", "big") as terminal:
        assert terminal.end(60) == 0
        assert b"MiB" in terminal.shown
        assert "━".encode() in terminal.shown
    outcome = dfc("get", "big", "copy")
    assert (outcome.code, outcome.out, outcome.err) == (0, b"", b"")
    dfc.ok("rm", "big")
