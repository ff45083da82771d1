"""`dfc` and `dfs-server` as started by cron, containers and systemd units: closed streams, no home, an unknown user, no
folder.

Real processes, in environments reduced by a shell or setpriv. Either the work is done or one sentence is printed, the
exit status is right, and there is never a traceback.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.dfc_process import DfcProcess, Terminal
from support.ports import free_ports
from support.raw_client import RawClient
from support.servers import Servers, command

pytestmark = pytest.mark.integration

NOBODY_KNOWN = "3141592"  # a user id without an entry in the passwd database
CLOSED = {0: "<&-", 1: ">&-", 2: "2>&-"}
SUBSETS = [subset for size in (1, 2, 3) for subset in itertools.combinations(CLOSED, size)]
TIMEOUT_S = 40


def in_shell(line: str) -> list[str]:
    """Return the prefix that runs a command inside this shell line, in place of `"$@"`."""
    return ["sh", "-c", line, "sh"]


@dataclass(frozen=True)
class Bare:
    """An environment: the command's wrapper, and the variables that differ (None: unset)."""

    wrapper: list[str] = field(default_factory=list)
    variables: Mapping[str, str | None] = field(default_factory=dict)


NO_HOME = Bare(["env", "-u", "HOME", "-u", "XDG_STATE_HOME"])
NO_USER = Bare(
    [
        *("setpriv", f"--reuid={NOBODY_KNOWN}", f"--regid={NOBODY_KNOWN}", "--clear-groups"),
        # The interpreter and this repository may be readable by root only.
        *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", *NO_HOME.wrapper),
    ]
)
ENVIRONMENTS = {
    "no HOME": NO_HOME,
    "an empty HOME": Bare(variables={"HOME": "", "XDG_STATE_HOME": ""}),
    "a user number that nobody knows, no HOME": NO_USER,
    "a HOME that cannot be written": Bare(variables={"HOME": "/proc/self", "XDG_STATE_HOME": None}),
    "no TERM": Bare(variables={"TERM": None}),
    "a TERM that nobody knows": Bare(variables={"TERM": "teletype-of-1963"}),
    "no variables but those of Python": Bare(["env", "-i", f"PYTHONPATH={os.pathsep.join(sys.path)}"]),
    "an odd locale": Bare(variables={"LC_ALL": "xx_YY.nonsense", "PYTHONUTF8": "0"}),
    "a working folder that is gone": Bare(in_shell('mkdir gone && cd gone && rmdir ../gone && exec "$@"')),
}


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    def said(self) -> str:
        """Return the only sentence on standard error."""
        assert self.err.count("\n") == 1, self
        assert "Traceback" not in self.err, self
        return self.err.rstrip("\n")


@pytest.fixture
def dfc(servers: Servers, tmp_path: Path) -> DfcProcess:
    here = tmp_path / "here"
    here.mkdir()
    here.chmod(0o777)
    (here / "file").write_bytes(b"content")
    return DfcProcess(servers.write_client_config(tmp_path), here)


def run(dfc: DfcProcess, bare: Bare, *arguments: str, stdin: bytes = b"") -> Ended:
    variables = {**dfc.variables(), **bare.variables}
    done = subprocess.run(
        [*bare.wrapper, *dfc.command(*arguments)],
        input=stdin,
        capture_output=True,
        cwd=dfc.folder,
        env={name: value for name, value in variables.items() if value is not None},
        timeout=TIMEOUT_S,
        check=False,
    )
    return Ended(done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))


def closed(subset: tuple[int, ...]) -> Bare:
    return Bare(in_shell('exec "$@" ' + " ".join(CLOSED[number] for number in subset)))


def test_files_are_put_with_any_streams_closed(dfc: DfcProcess) -> None:
    """No file receives output meant for a stream: descriptors 0, 1 and 2 are never those of a socket or a file."""
    for number, subset in enumerate(SUBSETS):
        assert run(dfc, closed(subset), "put", "file", f"put{number}") == Ended(0, "", ""), subset
    script = "".join(f"get put{number} got{number}\n" for number in range(len(SUBSETS)))
    dfc.ok(stdin=script.encode())
    for number in range(len(SUBSETS)):
        assert (dfc.folder / f"got{number}").read_bytes() == b"content"


@pytest.mark.parametrize("subset", [(0,), (2,), (1,), (1, 2)], ids=str)
def test_what_is_asked_for_is_printed_or_the_status_says_that_it_is_not(
    dfc: DfcProcess, subset: tuple[int, ...]
) -> None:
    dfc.ok("mkdir", "-p", "listed/below")
    listed = run(dfc, closed(subset), "list", "listed")
    if 1 not in subset:
        assert listed == Ended(0, "below\n", "")
        return
    assert listed.code == 1
    assert listed.err == ("" if 2 in subset else "dfc: standard output: Bad file descriptor\n")


def test_input_that_is_closed_is_not_an_empty_file(dfc: DfcProcess) -> None:
    ended = run(dfc, closed((0,)), "put", "-", "from-nothing")
    assert (ended.code, ended.said()) == (1, "dfc: local standard input: Bad file descriptor")
    assert b"from-nothing" not in dfc.ok("list").split()
    ended = run(dfc, closed((0,)))
    assert (ended.code, ended.said()) == (1, "dfc: standard input: Bad file descriptor")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_work_is_done_in(dfc: DfcProcess, name: str) -> None:
    bare = ENVIRONMENTS[name]
    file, copy = dfc.folder / "file", dfc.folder / "copy"
    script = f"put {file} /file\nget /file {copy}\nrm /file\nlist nothing-there\nmkdir -p a\nlist a\nquit\n"
    ended = run(dfc, bare, stdin=script.encode())
    assert (ended.code, ended.out) == (1, "dfc> " * 7), ended
    assert ended.said().startswith("dfc: /nothing-there: ")
    assert copy.read_bytes() == b"content"


def test_a_working_folder_that_is_gone_is_named(dfc: DfcProcess) -> None:
    gone = ENVIRONMENTS["a working folder that is gone"]
    for arguments in (["put", "-r", "."], ["get", "/here-and-gone"]):
        ended = run(dfc, gone, *arguments)
        assert ended.code == 1, ended
        assert ended.said().startswith("dfc: "), ended
        assert "No such file or directory" in ended.said(), ended


def test_an_unknown_terminal_has_a_prompt(dfc: DfcProcess) -> None:
    strange = DfcProcess(dfc.config, dfc.folder, environment={"TERM": "teletype-of-1963"})
    with Terminal(strange) as terminal:
        terminal.wait_for(b"dfc> ")
        terminal.type(b"put file seen\rlist seen\r")
        terminal.wait_for(b"seen\r\n")
        terminal.type(b"quit\r")
        assert terminal.end() == 0


@pytest.mark.parametrize("arguments", [["list"], ["get", "/long", "-"], ["--help"], ["list", "-h"]])
def test_a_closed_output_pipe_ends_the_command_silently(dfc: DfcProcess, arguments: list[str]) -> None:
    """As with every tool: no message, and the status that a shell shows for SIGPIPE."""
    (dfc.folder / "long").write_bytes(bytes(1 << 20))
    dfc.ok("put", "long")
    with subprocess.Popen(
        dfc.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=dfc.folder, env=dfc.variables()
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(TIMEOUT_S) == 128 + signal.SIGPIPE


def test_a_disk_that_is_full_is_said(dfc: DfcProcess) -> None:
    dfc.ok("mkdir", "-p", "some")
    for arguments in (["list"], ["list", "--json"]):
        ended = run(dfc, Bare(in_shell('exec "$@" >/dev/full')), *arguments)
        assert (ended.code, ended.said()) == (1, "dfc: standard output: No space left on device")


class TestServer:
    @pytest.mark.parametrize("name", ["<&- >&- 2>&-", "no HOME", "a user number that nobody knows, no HOME"])
    def test_it_serves(self, servers: Servers, dfc: DfcProcess, name: str) -> None:
        bare = ENVIRONMENTS.get(name) or closed((0, 1, 2))
        (port,) = free_ports(1)
        root = dfc.folder / "DFS1"
        config = dfc.folder / "dfs.yaml"
        config.write_bytes((servers.folder / "dfs.yaml").read_bytes())
        config.chmod(0o600)
        with subprocess.Popen(
            [*bare.wrapper, *command(root, port, config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=dfc.folder,
            env=dfc.variables(),
        ) as process:
            try:
                client = _connected(port, process)
                with contextlib.closing(client):
                    client.authenticate("alice", "alice-secret")
            finally:
                process.terminate()
            assert process.wait(TIMEOUT_S) == 0

    @pytest.mark.parametrize(
        ("bare", "arguments", "code", "said"),
        [
            (
                ENVIRONMENTS["a working folder that is gone"],
                ["DFS1", "0"],
                4,
                "dfs-server: DFS1: the working folder that this is relative to has been removed\n",
            ),
            (closed((0,)), ["--hash-password"], 1, "dfs-server: standard input: Bad file descriptor\n"),
            (
                Bare(),
                ["", "0"],
                2,
                "dfs-server: ROOT is empty (is it a variable that is not set?)",
            ),
            (
                Bare(),
                ["DFS1", ""],
                2,
                "dfs-server: PORT is empty (is it a variable that is not set?)",
            ),
            (Bare(), ["DFS1", "x"], 2, "dfs-server: invalid value for 'PORT': 'x' is not a whole number"),
        ],
    )
    def test_one_sentence(self, dfc: DfcProcess, bare: Bare, arguments: list[str], code: int, said: str) -> None:
        done = subprocess.run(
            [*bare.wrapper, sys.executable, "-m", "dfs_server", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=dfc.folder,
            env={**dfc.variables(), "DFS_CONFIG": str(_server_config(dfc))},
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == code, done
        assert done.stderr.startswith(said), done
        assert done.stderr.count("\n") == 1


def _server_config(dfc: DfcProcess) -> Path:
    config = dfc.folder / "dfs.yaml"
    config.write_text("users: {alice: {password: secret}}\n")
    config.chmod(0o600)
    return config


def _connected(port: int, process: subprocess.Popen[bytes]) -> RawClient:
    while process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1):
            return RawClient(port)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    raise AssertionError(f"it ended with {process.returncode}")
