"""A mount heals by itself, on real disks: what was written without a server goes home, an empty server is rebuilt while
files are used, a bad copy is made anew; and `dfc heal` does it when asked."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounts import USER, Grid, Mount, eventually
from support.pieces_on_disk import large_piece_files
from support.records_on_disk import astray, at_home, pieces
from support.trees import assert_same_tree, content, make_tree

pytestmark = pytest.mark.integration

HEALED_S = 45.0
FAST = ("-o", "heal_mb_s=500")


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    with Grid(tmp_path / "grid") as grid:
        yield grid


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make_tree(tmp_path / "source")
    (tmp_path / "source" / "large").write_bytes(content(13 << 20, "large"))
    return tmp_path / "source"


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-r", source, target], check=True, timeout=60)


def wait_until_all_is_home(grid: Grid) -> None:
    def healed() -> bool:
        nonlocal left
        left = astray(grid.roots(), USER)
        return not left

    left: list[str] = []
    try:
        eventually(healed, "every piece on its two homes", HEALED_S)
    except AssertionError as error:
        raise AssertionError(f"{error}: {len(left)}, for one {left[:3]}") from None


class Traffic:
    """Writes and reads files all the time, until the block ends; every one must be right."""

    def __init__(self, mount: Mount) -> None:
        self.files: dict[str, bytes] = {}
        self._mount = mount
        self._stop = threading.Event()
        self._problems: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.02):
            number += 1
            name, data = f"traffic-{number}", content(1000 + number * 40_961 % 400_000, f"traffic {number}")
            try:
                (self._mount.path / name).write_bytes(data)
                self.files[name] = data
                for known in (name, f"traffic-{1 + number // 2}"):
                    if (self._mount.path / known).read_bytes() != self.files[known]:
                        self._problems.append(f"{known} reads as something else")
            except OSError as error:
                self._problems.append(f"{name}: {error}")

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        assert not self._problems


def test_what_a_server_missed_goes_home_and_an_empty_one_is_rebuilt_while_files_are_used(
    grid: Grid, source: Path
) -> None:
    mount = grid.mount(options=FAST)
    copy(source, mount.path / "before")
    with grid.without(2):
        copy(source, mount.path / "during")
    wait_until_all_is_home(grid)

    root = grid.servers[3].root
    lost = at_home(grid.roots(), USER)["DFS3"]
    assert lost
    with Traffic(mount) as traffic:
        grid.servers[3].wipe()
        eventually(lambda: lost <= pieces(root, USER), "what the empty server had is there again", HEALED_S)
    assert traffic.files
    wait_until_all_is_home(grid)

    with grid.without(1):  # so what was rebuilt is needed
        mount.remount()
        for name in ("before", "during"):
            assert_same_tree(mount.path / name, source)
        for name, data in traffic.files.items():
            assert (mount.path / name).read_bytes() == data
    assert mount.unmount() == 0


def test_a_bad_copy_that_is_read_is_made_anew(grid: Grid) -> None:
    mount = grid.mount(options=FAST)
    data = content(3 << 20)
    (mount.path / "f").write_bytes(data)
    mount.remount()
    originals = {path: path.read_bytes() for path in large_piece_files(grid.servers[2].root, USER)}
    assert len(originals) == 2
    for path, raw in originals.items():
        path.write_bytes(raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:])
    assert (mount.path / "f").read_bytes() == data
    bad = [path for path, raw in originals.items() if path.read_bytes() != raw]
    eventually(lambda: sum(path.read_bytes() == originals[path] for path in bad) >= 1, "the copy that was read", 20)
