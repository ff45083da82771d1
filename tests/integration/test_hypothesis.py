"""The same random operations on a plain folder and on each of our backends; everything is compared.

CI uses the same few examples each time; DFS_TEST_EXAMPLES multiplies them and uses new ones. The comparison itself is
tested too: two plain folders must agree, and slightly broken file systems must be detected.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest
from conformance.fs import Fs, OsFs, Stat
from conformance.machine import machine_for
from conformance.vfs_fs import VfsFs
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from support.libraries import memory_vfs, served_vfs
from support.mounts import Grid

pytestmark = pytest.mark.integration

MORE = int(os.environ.get("DFS_TEST_EXAMPLES", "1"))
NUMBERS = count()
MakeFs = Callable[[], AbstractContextManager[list[Fs]]]


def compare(
    name: str,
    make_fs: MakeFs,
    examples: int,
    steps: int,
    phases: Sequence[Phase] = tuple(Phase),
    *,
    names_stay_while_open: bool = False,
) -> None:
    """Run a state machine. It is reproducible in CI; with DFS_TEST_EXAMPLES it uses new examples each time."""
    run_state_machine_as_test(
        machine_for(name, make_fs, names_stay_while_open=names_stay_while_open),
        settings=settings(
            max_examples=examples * MORE,
            stateful_step_count=steps,
            deadline=None,
            derandomize=MORE == 1,
            database=None,
            phases=phases,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


@contextmanager
def plain(kind: type[OsFs] = OsFs) -> Iterator[list[Fs]]:
    with tempfile.TemporaryDirectory(prefix="dfs-plain-") as folder:
        yield [kind(Path(folder))]


def test_two_plain_folders_agree() -> None:
    compare("Plain", plain, examples=30, steps=50)


class LosesRenames(OsFs):
    """Broken: a rename that replaces a file removes the file and moves nothing."""

    def rename(self, old: bytes, new: bytes) -> None:
        if os.path.isfile(self.path(old)) and os.path.isfile(self.path(new)) and old != new:  # noqa: PTH113
            os.unlink(self.path(old))  # noqa: PTH108
        else:
            super().rename(old, new)


class KeepsOldBytes(OsFs):
    """Broken: bytes uncovered by extending a file are not zero."""

    def truncate(self, path: bytes, length: int) -> None:
        size = self.stat(path).size
        super().truncate(path, length)
        if length > size:
            with open(self.path(path), "r+b") as file:  # noqa: PTH123
                file.seek(length - 1)
                file.write(b"!")


class MiscountsLinks(OsFs):
    """Broken: a file with three names shows two."""

    def stat(self, path: bytes) -> Stat:
        found = super().stat(path)
        return Stat(**{**vars(found), "nlink": min(found.nlink, 2)})

    lstat = stat


@pytest.mark.parametrize("broken", [LosesRenames, KeepsOldBytes, MiscountsLinks])
def test_a_broken_file_system_is_found_out(broken: type[OsFs]) -> None:
    with pytest.raises(Exception) as caught:
        # The values tried depend on what other tests have loaded; the examples suffice to find the fault in any case.
        compare(broken.__name__, lambda: plain(broken), examples=2000, steps=50, phases=[Phase.generate])
    assert isinstance(caught.value, (AssertionError, ExceptionGroup, OSError))


@contextmanager
def in_memory() -> Iterator[list[Fs]]:
    with memory_vfs() as vfs:
        yield [VfsFs(vfs)]


def test_the_library_in_memory() -> None:
    compare("Memory", in_memory, examples=120, steps=50)


def test_the_library_on_four_servers(grid: Grid) -> None:
    with served_vfs(grid.client_config) as vfs:

        @contextmanager
        def make() -> Iterator[list[Fs]]:
            yield [VfsFs(vfs).folder(b"one-%d" % next(NUMBERS))]

        compare("Served", make, examples=25, steps=40)


def test_two_libraries_on_four_servers_act_as_one(grid: Grid) -> None:
    """The clients take turns, and each operation sees everything before it."""
    with ExitStack() as stack:
        one, other = (stack.enter_context(served_vfs(grid.client_config, max_age_s=0.0)) for _ in range(2))

        @contextmanager
        def make() -> Iterator[list[Fs]]:
            folder = VfsFs(one).folder(b"two-%d" % next(NUMBERS))
            yield [folder, VfsFs(other, folder.root)]

        compare("Two", make, examples=25, steps=40)


@pytest.mark.parametrize("binding", ["fusepy", "kernel"])
def test_the_mount(grid: Grid, binding: str) -> None:
    mount = grid.mount(f"mnt-{binding}", ["-o", f"binding={binding}"])

    @contextmanager
    def make() -> Iterator[list[Fs]]:
        folder = mount.path / f"mount-{next(NUMBERS)}"
        folder.mkdir()
        yield [OsFs(folder)]

    compare("Mount", make, examples=25, steps=40, names_stay_while_open=binding == "fusepy")
