"""The torture can fail: it detects programs that are broken on purpose, and damage on the disks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from . import copies, programs
from .choices import Choices
from .field import USER, Field, damage
from .history import History, ViolationError, Weather
from .model import Operation
from .nemesis import Fault, Nemesis, until
from .writer import Writer, sync

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SEED = 5
LARGE = Operation("create", "large", number=1, version=1, size=3_000_000)


class Bench:
    """A field with one mount, and one writer that the test controls."""

    def __init__(self, field: Field, folder: Path, options: Sequence[str]) -> None:
        self.field = field
        self.history = History(folder / "history.jsonl", Weather())
        self.mount = field.mount("one", options)
        self.writer = Writer("w0", "one", self.mount, self.history, Choices("bench", 0))
        self.writer.folder.mkdir()

    def do(self, operation: Operation) -> bool:
        """Run an operation as the writer does, with all its checks."""
        return self.writer._change(operation)

    def strike(self, kind: str, *servers: int) -> None:
        """Inject a fault that is over as soon as it has begun."""
        Nemesis(self.field, self.history, [self.writer], SEED).strike(Fault(kind, servers, 0, 0))

    def wrong_copies(self, due: int) -> list[str]:
        """Wait until the map has this many copies, and return what is wrong with them on the disks."""
        roots = self.field.roots()
        assert until(lambda: copies.problems(roots, USER, by=1)[0] == due, 30, 0.1)
        return copies.problems(roots, USER, by=1)[1]

    def read_everything(self) -> None:
        """Read everything through a mount with empty caches, which records anything wrong as a violation."""
        self.mount.remount()
        for path, entry in self.writer.journal.current.names.items():
            content = self.writer.journal.current.contents[entry.number]
            self.writer._read_and_compare(self.writer, path, content, 0, 1 << 62, "read")


@contextlib.contextmanager
def bench(folder: Path, *, server: str = "server", mount: str = "", options: Sequence[str] = ()) -> Iterator[Bench]:
    with Field(
        folder / "field", server=programs.command(server), mount=programs.command(mount) if mount else ()
    ) as field:
        made = Bench(field, folder, options)
        try:
            yield made
        finally:
            made.history.close()


def found_out(bench: Bench, word: str) -> bool:
    """Check that a violation was recorded that contains this text."""
    return any(word in text for text in bench.history.violations)


@pytest.mark.parametrize("server", ["server", "server-without-fsync"])
def test_a_server_without_fsync_is_found_out_by_a_power_cut(tmp_path: Path, server: str) -> None:
    with bench(tmp_path, server=server) as made:
        assert made.do(LARGE)
        made.strike("power cut", 1, 2, 3, 4)
        wrong = made.wrong_copies(8)
    assert bool(wrong) == (server == "server-without-fsync"), wrong


def test_a_client_that_believes_every_byte_is_found_out(tmp_path: Path) -> None:
    with bench(tmp_path, mount="mount-without-checks") as made:
        assert made.do(LARGE)
        for server in (1, 2):
            for path in made.field.piece_files(server):
                spoil_the_end(path)
        with pytest.raises(ViolationError):
            made.read_everything()
        assert found_out(made, "where version 1 of file 1 is due") or found_out(made, "there is")


def spoil_the_end(path: Path) -> None:
    """Corrupt a byte of the piece itself, not of its header."""
    with path.open("r+b") as file:
        file.seek(-100, 2)
        file.write(b"?")


def test_a_client_without_handoff_is_found_out(tmp_path: Path) -> None:
    with bench(tmp_path, mount="mount-without-handoff") as made:
        made.field.servers[2].kill()
        with pytest.raises(ViolationError):
            made.do(LARGE)
        assert found_out(made, "while one server at most was gone")


def test_a_mount_whose_close_does_not_wait_is_found_out(tmp_path: Path) -> None:
    with bench(tmp_path, options=("-o", "durability=fsync")) as made:
        assert made.do(Operation("create", "large", number=1, version=1))
        sync(made.writer.folder / "large", os.O_RDWR)
        overwrite = Operation("write", "large", number=1, version=2, size=3_000_000)
        descriptor = os.open(made.writer.folder / "large", os.O_RDWR)
        os.pwrite(descriptor, overwrite.data(), 0)
        for server in (2, 3):
            made.field.servers[server].freeze()
        os.close(descriptor)
        made.writer.journal.acknowledged(overwrite, durable=True)
        made.mount.kill()
        for server in (2, 3):
            made.field.servers[server].thaw()
        made.mount.mount()
        made.writer.is_crashed = True
        with pytest.raises(ViolationError):
            made.writer.settle()
        assert found_out(made, "0 bytes where 3000000 are due"), made.history.violations


def test_damage_is_seen_on_the_disks(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        assert made.do(LARGE)
        assert made.wrong_copies(8) == []
        files = made.field.piece_files(1)
        for how in ("flip", "cut", "swap", "remove"):
            assert damage(files[0], how, files[1], made.writer._choices.random)
            assert made.wrong_copies(8), how
