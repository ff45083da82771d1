"""The command `dfs-server` as a process: its ready line, its refusals, kill -9, SIGTERM, a disk that is really full."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.ports import free_ports
from support.raw_client import RawClient, ServerError
from support.servers import REPOSITORY, ServerProcess, Servers, command, write_server_config

from dfs_server import __version__
from dfs_server.protocol import batches, messages
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import Batch
from dfs_server.protocol.frames import pack_header
from dfs_server.protocol.messages import (
    Accept,
    AcceptedAt,
    GetPiece,
    GetPosition,
    Position,
    Promise,
    Promised,
    PutPiece,
)
from dfs_server.protocol.pieces import MAX_PIECE_BYTES, block_digests
from dfs_server.protocol.status import Status
from dfs_server.wire.accounts import Verifier

SEGMENT = bytes.fromhex("3f" + "a1" * 15)
DATA = os.urandom(300_000)


def run(*arguments: object, input_: str | None = None, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """Run a dfs-server that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "dfs_server", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        input=input_ or "",
        timeout=30,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    """The one sentence on stderr."""
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_server_config(tmp_path)


@pytest.fixture
def server(tmp_path: Path, config: Path) -> Iterator[ServerProcess]:
    (port,) = free_ports(1)
    process = ServerProcess(tmp_path / "DFS1", config, port)
    process.start()
    yield process
    process.close()


class TestRunning:
    def test_the_ready_line(self, server: ServerProcess) -> None:
        assert server.ready_line == f"DFS1 ready on 127.0.0.1:{server.port}, root {server.root}\n"

    def test_port_0_is_a_free_port_and_the_line_says_which(self, tmp_path: Path, config: Path) -> None:
        process = ServerProcess(tmp_path / "DFS3", config, 0)
        with contextlib.closing(process):
            process.start()
            match = re.search(r"127\.0\.0\.1:(\d+),", process.ready_line)
            assert match is not None
            with contextlib.closing(RawClient(int(match[1]))) as client:
                assert client.authenticate("alice", "alice-secret").server == "DFS3"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_clean_stop(self, server: ServerProcess, number: signal.Signals) -> None:
        with server.connect() as client:
            client.put_piece(SEGMENT, 1, DATA)
            os.kill(server.pid, number)
            assert client.is_closed_by_server()
        assert server.wait() == 0
        assert "Traceback" not in server.stderr()
        server.start()
        with server.connect() as client:
            assert client.call(GetPiece(SEGMENT, 1))[1] == DATA

    def test_kill_9_in_mid_upload_and_a_new_start(self, server: ServerProcess) -> None:
        client = server.connect()
        client.put_piece(SEGMENT, 1, DATA)
        assert isinstance(client.ask(Promise(Ballot(7, b"client01"))), Promised)
        body = messages.encode(PutPiece(SEGMENT, 2, block_digests(DATA)))
        client.send_raw(pack_header(9, len(body), len(DATA)) + body + DATA[:150_000])
        server.kill()
        assert client.is_closed_by_server()
        client.close()
        server.start()
        with server.connect() as client:
            assert client.call(GetPiece(SEGMENT, 1))[1] == DATA
            position = client.ask(GetPosition())
            assert isinstance(position, Position)
            assert position.promised == Ballot(7, b"client01")
            with pytest.raises(ServerError, match="NOT_FOUND"):
                client.ask(GetPiece(SEGMENT, 2))
        pieces = server.root / "alice" / "pieces"
        assert [path for path in pieces.rglob("*") if path.is_file()] == [pieces / "3f" / f"{SEGMENT.hex()}.1"]

    def test_a_frozen_server_goes_on_when_thawed(self, server: ServerProcess) -> None:
        with server.connect() as client:
            server.freeze()
            client.send(GetPosition())
            server.thaw()
            assert isinstance(client.receive()[1], Position)

    def test_passwords_are_in_no_log(self, server: ServerProcess) -> None:
        with pytest.raises(ServerError), contextlib.closing(RawClient(server.port)) as client:
            client.authenticate("alice", "wrong-secret")
        server.connect().close()
        assert "refused user 'alice'" in server.stderr()
        assert "secret" not in server.stderr()

    def test_four_of_them(self) -> None:
        with Servers(4) as servers:
            assert len({server.port for server in servers}) == 4
            servers[2].wipe()
            identities = set()
            for server in servers:
                with contextlib.closing(RawClient(server.port)) as client:
                    identities.add(client.authenticate("bob", "bob-secret").identity)
            assert len(identities) == 4


class TestMemory:
    def test_a_hundred_connections_in_less_than_100_mib(self, server: ServerProcess) -> None:
        data = os.urandom(MAX_PIECE_BYTES)

        def work(client: RawClient) -> None:
            segment = os.urandom(16)
            client.put_piece(segment, 1, data)
            assert client.call(GetPiece(segment, 1))[1] == data
            client.send_raw(pack_header(99, 4 * 1024 * 1024, 0) + bytes(100))  # a large request, begun but not finished

        with contextlib.ExitStack() as stack, ThreadPoolExecutor(16) as pool:
            clients = [stack.enter_context(server.connect("alice" if number % 2 else "bob")) for number in range(100)]
            list(pool.map(work, clients, timeout=100))
            status = Path(f"/proc/{server.pid}/status").read_text()
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert match is not None
        assert int(match[1]) < 100 * 1024


class TestRefusals:
    def test_a_second_server_on_the_folder(self, server: ServerProcess, config: Path) -> None:
        result = run(server.root, 0, "--config", config)
        assert result.returncode == 5
        assert refusal(result) == f"dfs-server: {server.root}: another dfs-server is running on this folder"

    def test_a_second_server_on_the_port(self, server: ServerProcess, config: Path, tmp_path: Path) -> None:
        result = run(tmp_path / "DFS2", server.port, "--config", config)
        assert result.returncode == 6
        assert refusal(result) == (
            f"dfs-server: the server cannot listen on 127.0.0.1:{server.port}: Address already in use"
        )

    def test_a_folder_that_cannot_be_written(self, config: Path, tmp_path: Path) -> None:
        (tmp_path / "DFS1").touch()
        result = run(tmp_path / "DFS1", 0, "--config", config)
        assert result.returncode == 4
        assert "a file in the place of the server's folder" in refusal(result)
        result = run("/proc/DFS1", 0, "--config", config)
        assert result.returncode == 4
        assert "the server cannot write in its folder" in refusal(result)

    def test_a_folder_of_another_server(self, server: ServerProcess, config: Path, tmp_path: Path) -> None:
        server.kill()
        server.root.rename(tmp_path / "DFS2")
        result = run(tmp_path / "DFS2", 0, "--config", config)
        assert result.returncode == 4
        assert "this is the folder of server DFS1, not of DFS2" in refusal(result)

    def test_a_config_with_a_mistake(self, tmp_path: Path) -> None:
        config = tmp_path / "dfs.yaml"
        config.write_text("users: {alice: {pasword: x}}")
        result = run(tmp_path / "DFS1", 0, "--config", config)
        assert result.returncode == 3
        assert refusal(result) == (
            f"dfs-server: {config}: users.alice: found the unknown key 'pasword' (did you mean 'password'?); "
            f"expected one of 'password' and 'scram'"
        )
        assert not (tmp_path / "DFS1").exists()

    def test_no_config(self, tmp_path: Path) -> None:
        result = run(tmp_path / "DFS1", 0, "--config", tmp_path / "no.yaml")
        assert result.returncode == 3
        assert "there is no such config file" in refusal(result)

    @pytest.mark.parametrize("arguments", [[], ["DFS1"], ["DFS1", "ten"], ["DFS1", "70000"], ["a", "1", "b"], ["--no"]])
    def test_a_wrong_command_line(self, arguments: list[str]) -> None:
        result = run(*arguments)
        assert result.returncode == 2
        assert refusal(result).endswith("(see: dfs-server --help)")

    def test_an_address_that_is_not_ours(self, config: Path, tmp_path: Path) -> None:
        result = run(tmp_path / "DFS1", 0, "--config", config, "--host", "192.0.2.1")
        assert result.returncode == 6
        assert "cannot listen on 192.0.2.1:0" in refusal(result)


class TestOptions:
    def test_version_and_help(self) -> None:
        assert run("--version").stdout == f"dfs-server {__version__}\n"
        assert "ROOT" in run("--help").stdout

    def test_hash_password_from_a_pipe(self, tmp_path: Path) -> None:
        result = run("--hash-password", input_="alice-secret\n")
        assert result.returncode == 0
        verifier = Verifier.parse(result.stdout)
        assert verifier == Verifier.of_password("alice-secret", verifier.salt)
        config = tmp_path / "dfs.yaml"
        config.write_text(f"users: {{alice: {{scram: '{result.stdout.strip()}'}}}}")
        process = ServerProcess(tmp_path / "DFS1", config, 0)
        with contextlib.closing(process):
            process.start()
            assert "WARNING" not in process.stderr()
            with contextlib.closing(RawClient(int(process.ready_line.split(":")[1].split(",")[0]))) as client:
                client.authenticate("alice", "alice-secret")

    def test_no_password_to_hash(self) -> None:
        result = run("--hash-password")
        assert result.returncode == 2
        assert "a password must not be empty" in refusal(result)

    def test_plain_passwords_that_others_can_read_are_warned_about(self, tmp_path: Path, config: Path) -> None:
        config.chmod(0o644)
        process = ServerProcess(tmp_path / "DFS1", config, 0)
        with contextlib.closing(process):
            process.start()
            assert "can be read by others (mode 644)" in process.stderr()

    def test_the_config_is_found_below_the_working_folder(self, tmp_path: Path) -> None:
        (tmp_path / "conf").mkdir()
        write_server_config(tmp_path / "conf")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            result = run("DFS1", taken.getsockname()[1], cwd=tmp_path)
        assert result.returncode == 6  # so it has read the config and made the folder
        assert (tmp_path / "DFS1" / "server.json").is_file()


class TestFullDisk:
    def start(self, disk: Path, tmp_path: Path, reserve_bytes: int) -> ServerProcess:
        config = write_server_config(tmp_path, f"reserve_bytes: {reserve_bytes}\n")
        (port,) = free_ports(1)
        process = ServerProcess(disk / "DFS1", config, port)
        process.stderr_path = tmp_path / "stderr"
        process.start()
        return process

    @staticmethod
    def fill(client: RawClient) -> list[bytes]:
        """Put pieces until there is no room, and return their segments."""
        stored: list[bytes] = []
        data = bytes(MAX_PIECE_BYTES)
        for number in range(10):
            segment = bytes([number]) * 16
            try:
                client.put_piece(segment, 1, data)
            except ServerError as error:
                assert error.status is Status.NO_SPACE, error
                return stored
            stored.append(segment)
        raise AssertionError("the disk was never full")

    def test_the_reserve_is_for_the_log(self, small_disk: Path, tmp_path: Path) -> None:
        server = self.start(small_disk, tmp_path, 3 * 1024 * 1024)
        with contextlib.closing(server), server.connect() as client:
            stored = self.fill(client)
            assert stored
            previous = b""
            client.ask(Promise(Ballot(1, b"client01")))
            for slot in range(1, 20):
                encoded = batches.encode(
                    Batch(batches.FORMAT, previous, b"client01", slot, 0, puts=((b"key", bytes(1000)),))
                )
                client.ask(Accept(Ballot(1, b"client01"), slot, encoded))
                previous = batches.digest(encoded)

    def test_without_a_reserve_the_disk_says_so_and_nothing_is_lost(self, small_disk: Path, tmp_path: Path) -> None:
        server = self.start(small_disk, tmp_path, 0)
        with contextlib.closing(server):
            with server.connect() as client:
                stored = self.fill(client)
                with (small_disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
                    while True:
                        filler.write(bytes(4096))
                with pytest.raises(ServerError) as caught:
                    client.put_piece(b"y" * 16, 1, b"just one byte more")
                assert caught.value.status is Status.NO_SPACE
                huge = Batch(batches.FORMAT, b"", b"client01", 1, 0, puts=((b"key", bytes(200_000)),))
                with pytest.raises(ServerError) as caught:
                    client.ask(Promise(Ballot(1, b"client01")))
                    client.ask(Accept(Ballot(1, b"client01"), 1, batches.encode(huge)))
                assert caught.value.status is Status.NO_SPACE
                assert len(client.call(GetPiece(stored[0], 1))[1]) == MAX_PIECE_BYTES
                (small_disk / "filler").unlink()
                client.put_piece(b"y" * 16, 1, b"just one byte more")  # works again without a restart
                assert client.ask(Accept(Ballot(1, b"client01"), 1, batches.encode(huge))) == AcceptedAt(1)
            server.restart()
            with server.connect() as client:
                assert [client.call(GetPiece(segment, 1))[1] for segment in stored] == [bytes(MAX_PIECE_BYTES)] * len(
                    stored
                )
                client.ask(Promise(Ballot(2, b"client01")))
            assert list((server.root / "alice" / "pieces" / "tmp").iterdir()) == []

    def test_a_disk_that_is_read_only(self, small_disk: Path, tmp_path: Path) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True, timeout=10)
        result = run(*command(small_disk / "DFS1", 0, write_server_config(tmp_path))[3:])
        assert result.returncode == 4
        assert "the server cannot write in its folder: Read-only file system" in refusal(result)
