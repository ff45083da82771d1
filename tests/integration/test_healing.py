"""A mount heals automatically, on real disks: what was written without a server moves home, an empty server is rebuilt
while files are in use, a bad copy is replaced; and `dfc heal` does the same on request."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.mounts import USER, Grid, Mount, environment, eventually, program, within
from support.pieces_on_disk import large_piece_files
from support.ports import free_ports
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
        raise AssertionError(f"{error}: {len(left)}, for example {left[:3]}") from None


class Traffic:
    """Writes and reads files continuously until the block ends; all of them must be right."""

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

    with grid.without(1):  # so that the rebuilt copies are needed
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


def status(grid: Grid) -> dict[str, Any]:
    done = grid.dfc("status", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_dfc_tells_how_far_a_mount_is_and_does_the_rest(grid: Grid) -> None:
    mount = grid.mount(options=("-o", "heal_mb_s=1"))
    (mount.path / "large").write_bytes(content(32 << 20))
    (mount.path / "small").write_bytes(content(5000))
    assert status(grid)["pieces"]["lack_a_copy"] == 0
    grid.servers[3].wipe()
    seen: list[dict[str, Any]] = []

    def goes_on() -> bool:
        seen.append(status(grid))
        healing = seen[-1]["healing"]
        return healing is not None and healing["phase"] == "healing" and healing["bytes_done"] > 0

    eventually(goes_on, "healing has begun", HEALED_S)
    assert 0 < seen[-1]["healing"]["bytes_done"] < seen[-1]["healing"]["bytes_total"]
    assert seen[-1]["healing"]["left_s"] > 0
    assert seen[-1]["pieces"]["lack_a_copy"] > 0
    for one in seen:  # the new disk has the whole log within a moment, but no other server may fail yet
        assert not one["any_one_may_fail"], one
        assert "may fail" not in one["summary"]
    assert (seen[-1]["servers"][2]["state"], seen[-1]["copies"]) == ("filling", "degraded")
    with grid.without(2):
        outcome = grid.dfc("status", "--json")
        facts = json.loads(outcome.stdout)
        assert (outcome.returncode, facts["access"], facts["reading"]) == (3, "incomplete", "part")
        assert facts["servers"][1]["reason"] == "connection refused"
    assert within(10, "unmounting while it heals", mount.unmount) == 0

    done = grid.dfc("heal", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    did = json.loads(done.stdout)
    assert did["copies_made"].keys() == {"DFS3"}
    assert did["lack_a_copy"] == 0
    wait_until_all_is_home(grid)
    after = status(grid)
    assert (after["pieces"]["lack_a_copy"], after["healing"]["phase"]) == (0, "done")
    assert after["any_one_may_fail"]


def test_watching_heals_without_a_mount_survives_servers_and_ends_with_a_signal(grid: Grid) -> None:
    for server in grid.servers:
        server.kill()
    log = grid.folder / "watch.log"
    with log.open("wb") as out:
        command = [*program("dfc"), "--config", str(grid.client_config), "heal", "--watch", "--mb-s", "500"]
        watching = subprocess.Popen(command, stdout=out, stderr=out, env=environment(), cwd=grid.folder)
    try:
        eventually(lambda: "Waiting for the servers" in log.read_text(), "it waits for servers", HEALED_S)
        for server in grid.servers:
            server.start()
        (grid.folder / "f").write_bytes(content(3 << 20))
        assert grid.dfc("put", "f", "/f").returncode == 0
        eventually(lambda: "Watching" in log.read_text(), "it is connected", HEALED_S)
        wanted = at_home(grid.roots(), USER)["DFS3"]
        grid.servers[3].wipe()
        eventually(lambda: wanted <= pieces(grid.servers[3].root, USER), "the empty server is filled", HEALED_S)
        eventually(lambda: "healing: done" in log.read_text(), "it says so", HEALED_S)
        watching.send_signal(signal.SIGTERM)
        assert watching.wait(10) == 0
    finally:
        watching.kill()
        watching.wait()
    assert log.read_text().endswith("Ended.\n")
    assert len(log.read_text().splitlines()) < 30, log.read_text()


def test_two_mounts_and_dfc_heal_at_once_make_every_copy_and_no_wrong_one(grid: Grid, source: Path) -> None:
    mounts = [grid.mount(name, ("-o", "heal_mb_s=4")) for name in ("one", "two")]
    copy(source, mounts[0].path / "tree")
    assert not astray(grid.roots(), USER)
    lost = {number: at_home(grid.roots(), USER)[f"DFS{number}"] for number in (1, 3)}
    assert not lost[1] & lost[3]  # no piece has both of its copies on these two servers
    grid.servers[1].kill()
    for path in large_piece_files(grid.servers[1].root, USER):
        path.unlink()
    grid.servers[3].wipe()
    grid.servers[1].start()

    def a_mount_heals() -> bool:
        return any(" lack a copy and " in mount.log.read_text() for mount in mounts)

    eventually(a_mount_heals, "a mount heals, at 4 MB/s", HEALED_S)
    done = grid.dfc("heal")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b" copies made" in done.stdout
    wait_until_all_is_home(grid)
    eventually(lambda: any("healing: done in" in mount.log.read_text() for mount in mounts), "it has ended", HEALED_S)

    verified = grid.dfc("verify")
    assert (verified.returncode, verified.stderr) == (0, b""), verified.stdout
    for mount in mounts:
        assert_same_tree(mount.path / "tree", source)
        assert "failed unexpectedly" not in mount.log.read_text()
        assert mount.unmount() == 0


def test_a_replaced_server_at_another_address_is_one_line_of_the_config(grid: Grid) -> None:
    mount = grid.mount()
    files = {f"f{size}": content(size) for size in (10, 5000, 300_000, 5 << 20)}
    for name, data in files.items():
        (mount.path / name).write_bytes(data)
    assert mount.unmount() == 0
    old = grid.servers[2]
    old.kill()
    shutil.rmtree(old.root)
    (new_port,) = free_ports(1)
    config = grid.client_config.read_text()
    grid.client_config.write_text(config.replace(f"port: {old.port}}}", f"port: {new_port}}}"))
    old.port = new_port
    old.start()

    done = grid.dfc("heal")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"DFS2: " in done.stdout
    assert b" copies made" in done.stdout
    after = status(grid)
    assert after["pieces"]["lack_a_copy"] == 0
    assert next(server for server in after["servers"] if server["name"] == "DFS2")["applied_slot"] > 0  # with the map
    wait_until_all_is_home(grid)
    with grid.without(1):
        mount.mount()
        for name, data in files.items():
            assert (mount.path / name).read_bytes() == data
