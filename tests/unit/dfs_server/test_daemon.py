"""The running server: many connections, up to a limit; a clean stop; dropped pieces are deleted in the background."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sqlite3
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.daemons import House, StartHouse, eventually
from support.raw_client import RawClient, ServerError

from dfs_server.config import ServerConfig
from dfs_server.daemon import AddressError, Daemon
from dfs_server.namespaces import Namespace
from dfs_server.protocol import batches, messages
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import Batch
from dfs_server.protocol.frames import pack_header
from dfs_server.protocol.messages import (
    Accept,
    Chosen,
    Done,
    GetPiece,
    GetPosition,
    GetStatus,
    HavePieces,
    Position,
    Promise,
    PutPiece,
    ServerStatus,
)
from dfs_server.protocol.pieces import block_digests
from dfs_server.protocol.status import Status
from dfs_server.server_folder import ServerFolder
from dfs_server.shared.starting import SWITCH_S
from dfs_server.wire.accounts import Verifier
from dfs_server.wire.failures import RequestFailedError

SEGMENT = bytes.fromhex("3f" + "a1" * 15)
DATA = os.urandom(300_000)


def begin_upload(house: House, client: RawClient) -> None:
    """Send the first half of a piece, and wait until the server is writing it."""
    body = messages.encode(PutPiece(SEGMENT, 1, block_digests(DATA)))
    client.send_raw(pack_header(1, len(body), len(DATA)) + body + DATA[:150_000])
    eventually(lambda: any("/tmp/" in name for name in house.files()))


def test_many_clients_at_once(house: House) -> None:
    def work(number: int) -> bytes:
        client = house.client("alice" if number % 2 else "bob")
        segment = number.to_bytes(16, "big")
        client.put_piece(segment, 1, DATA)
        return client.call(GetPiece(segment, 1))[1]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(16), timeout=60)) == [DATA] * 16


def test_what_fails_each_time_in_the_same_way_is_logged_once(
    start_house: StartHouse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = iter(["too many open files"] * 3 + ["the disk failed"] * 2 + [""] + ["the disk failed"] * 2)
    over = threading.Event()

    def scrub(*_: object) -> None:
        text = next(outcomes, None)
        if text is None:
            over.set()
        elif text:
            raise RequestFailedError(Status.IO_ERROR, text)

    monkeypatch.setattr(Namespace, "scrub", scrub)
    house = start_house(scrub_interval_s=0.001)
    house.client().ask(GetPosition())
    assert over.wait(20)
    said = [record.getMessage().split(": ")[-1] for record in caplog.records if "scrub failed" in record.getMessage()]
    assert said == ["too many open files", "the disk failed", "the disk failed"]


def test_a_thread_that_computes_is_interrupted_soon(start_house: StartHouse) -> None:
    """Otherwise, during one long request, other clients' answers wait five milliseconds at each step."""
    sys.setswitchinterval(0.005)
    start_house()
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S)


def test_two_uploads_of_the_same_piece_at_once(house: House) -> None:
    first, second = house.client(), house.client()
    begin_upload(house, first)
    assert second.put_piece(SEGMENT, 1, DATA) == Done()
    first.send_raw(DATA[150_000:])
    assert first.receive()[1] == Done()
    assert house.files() == {f"alice/pieces/3f/{SEGMENT.hex()}.1"}


def test_connections_above_the_most_are_told_busy(start_house: StartHouse) -> None:
    house = start_house(max_connections=8)
    clients = [house.client("alice") for _ in range(4)]
    with pytest.raises(ServerError, match="user alice has 4 connections") as caught:
        house.client("alice")
    assert caught.value.status is Status.BUSY

    def admitted(user: str) -> bool:
        with contextlib.suppress(ServerError):
            clients.append(house.client(user))
            return True
        return False

    for _ in range(4):
        eventually(lambda: admitted("bob"))
    with pytest.raises(ServerError, match="server DFS1: too many connections") as caught:
        house.client("bob")
    assert caught.value.status is Status.BUSY
    assert all(isinstance(client.ask(GetPosition()), Position) for client in clients)
    clients[0].close()
    eventually(lambda: admitted("alice"))


def test_far_too_many_connections_do_not_keep_others_out_for_good(start_house: StartHouse) -> None:
    house = start_house(max_connections=8, authentication_s=0.2)
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(socket.create_connection(("127.0.0.1", house.port), timeout=10))

        def admitted() -> bool:
            with contextlib.suppress(ServerError, ConnectionError):
                house.client()
                return True
            return False

        eventually(admitted)


class TestStop:
    def test_the_idle_are_hung_up_on_at_once(self, house: House) -> None:
        idle = [house.client(), house.client("bob"), house.stranger()]
        begun = time.monotonic()
        house.stop()
        assert time.monotonic() - begun < 3.0
        assert all(client.is_closed_by_server() for client in idle)
        with pytest.raises(ConnectionError):
            RawClient(house.port)

    def test_a_request_in_flight_is_finished(self, house: House) -> None:
        client, idle = house.client(), house.client()
        begin_upload(house, client)
        stopping = threading.Thread(target=house.stop)
        stopping.start()
        assert idle.is_closed_by_server()  # shows that the stop has begun
        client.send_raw(DATA[150_000:])
        client.send(GetPosition())
        assert client.receive()[1] == Done()
        assert client.is_closed_by_server()
        stopping.join(10)
        assert not stopping.is_alive()
        assert house.files() == {f"alice/pieces/3f/{SEGMENT.hex()}.1"}

    def test_a_request_that_does_not_end_is_given_up(self, house: House) -> None:
        client = house.client()
        begin_upload(house, client)
        house.stop(deadline_s=0.05)
        assert client.is_closed_by_server()
        assert house.files() == set()

    def test_what_was_acknowledged_is_there_after_a_new_start(self, start_house: StartHouse) -> None:
        first = start_house()
        first.client().put_piece(SEGMENT, 1, DATA)
        first.close()
        second = start_house()
        assert second.identity == first.identity
        assert second.client().call(GetPiece(SEGMENT, 1))[1] == DATA


def drop(client: RawClient) -> None:
    """Drop the segment with a batch that is chosen."""
    ballot = Ballot(1, b"client01")
    encoded = batches.encode(Batch(batches.FORMAT, b"", b"client01", 1, 0, drops=(SEGMENT,)))
    client.ask(Promise(ballot))
    client.ask(Accept(ballot, 1, encoded))
    client.ask(Chosen(1, batches.digest(encoded)))


def test_a_disk_that_fails_once_does_not_end_the_deleting(
    start_house: StartHouse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter([OSError(errno.EIO, "Input/output error")])
    is_dir = Path.is_dir

    def is_dir_on_a_bad_disk(path: Path) -> bool:
        if path.name == "alice" and threading.current_thread().name == "sweep" and (failure := next(failures, None)):
            raise failure
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", is_dir_on_a_bad_disk)
    house = start_house(grace_period_s=0.0, sweep_interval_s=0.01)
    eventually(lambda: any("could not be deleted: the server's disk" in message for message in caplog.messages))
    client = house.client()
    client.put_piece(SEGMENT, 1, DATA)
    drop(client)
    eventually(lambda: not house.files())


def test_a_connection_for_which_there_is_no_memory_does_not_keep_others_out(
    start_house: StartHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = start_house()
    failures = iter([MemoryError()])
    start = threading.Thread.start

    def start_in_little_memory(thread: threading.Thread) -> None:
        if thread.name.startswith("session") and (failure := next(failures, None)):
            raise failure
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_in_little_memory)
    assert house.stranger().is_closed_by_server()
    assert isinstance(house.client().ask(GetPosition()), Position)


def test_dropped_pieces_are_deleted_in_the_background(start_house: StartHouse) -> None:
    house = start_house(grace_period_s=0.0, sweep_interval_s=0.01)
    client = house.client()
    client.put_piece(SEGMENT, 1, DATA)
    ballot = Ballot(1, b"client01")
    encoded = batches.encode(Batch(batches.FORMAT, b"", b"client01", 1, 0, drops=(SEGMENT,)))
    client.ask(Promise(ballot))
    client.ask(Accept(ballot, 1, encoded))
    assert len(house.files()) == 1  # accepted but not chosen: nothing is deleted yet
    client.ask(Chosen(1, batches.digest(encoded)))
    eventually(lambda: not house.files())
    asked = client.ask(HavePieces(((SEGMENT, 1),)))
    assert isinstance(asked, messages.Have)
    assert asked.flags == b"\0"


def test_what_was_accepted_reaches_the_tables_when_nothing_more_comes(
    start_house: StartHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfs_server.daemon.FLUSH_INTERVAL_S", 0.01)
    house = start_house()
    client, ballot = house.client(), Ballot(1, b"client01")
    client.ask(Promise(ballot))
    encoded = batches.encode(Batch(batches.FORMAT, b"", b"client01", 1, 0, puts=((b"k", b"v"),)))
    client.ask(Accept(ballot, 1, encoded))
    client.ask(Chosen(1, batches.digest(encoded)))
    with contextlib.closing(sqlite3.connect(house.root / "alice" / "namespace.db", timeout=20)) as database:
        eventually(lambda: database.execute("SELECT value FROM map").fetchall() == [(b"v",)])
    redo_log = house.root / "alice" / "namespace.redo"
    assert redo_log.exists()
    house.close()
    assert not redo_log.exists(), "a server that is stopped properly leaves one file"


@pytest.mark.parametrize(
    ("host", "said"),
    [("no.such.host.invalid", "not an address"), ("192.0.2.1", "cannot listen on 192.0.2.1:0")],
)
def test_addresses_that_cannot_be_listened_on(tmp_path: Path, host: str, said: str) -> None:
    with ServerFolder.open(tmp_path / "DFS9") as folder, pytest.raises(AddressError, match=said):
        Daemon(folder, ServerConfig(users={"alice": Verifier.of_password("x")}), host, 0)


def test_a_mistake_in_a_handler_costs_one_reply(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    client = house.client()
    with monkeypatch.context() as patch:
        patch.setattr(Namespace, "_status", lambda self: 1 / 0)
        with pytest.raises(ServerError, match="an internal error of the server") as caught:
            client.ask(GetStatus())
        assert caught.value.status is Status.IO_ERROR
    assert isinstance(client.ask(GetStatus()), ServerStatus)
