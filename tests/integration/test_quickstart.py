"""What `make run` and `make stop` do, on other ports than 10001 to 10004."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounts import environment, is_mounted, unmount, within

from dfsfuse.cli.local_servers import free_ports
from dfsfuse.mount import running

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder like the project's, with conf/."""
    conf = tmp_path / "conf"
    conf.mkdir()
    text = (REPOSITORY / "conf" / "dfc.yaml").read_text()
    for number, port in enumerate(free_ports(4), start=1):
        text = text.replace(str(10000 + number), str(port))
    (conf / "dfc.yaml").write_text(text)
    (conf / "dfs.yaml").write_bytes((REPOSITORY / "conf" / "dfs.yaml").read_bytes())
    yield tmp_path
    unmount(tmp_path / "dfs")
    quickstart(tmp_path, "stop")


def quickstart(folder: Path, *arguments: str | Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "dfsfuse.cli.quickstart", *map(str, arguments)]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=environment(),
        timeout=90,
        check=False,
    )
    return done.returncode, done.stdout.decode()


def pids(folder: Path) -> list[int]:
    return [int((folder / ".run" / f"DFS{number}.pid").read_text()) for number in range(1, 5)]


def is_alive(pid: int) -> bool:
    """Does it run? Something that nobody has waited for yet has no command line any more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_run_twice_and_stop(folder: Path) -> None:
    mountpoint = folder / "dfs"
    code, text = quickstart(folder, "run", mountpoint)
    assert code == 0, text
    assert len(text.splitlines()) == 5
    assert [line.split(":")[0].strip() for line in text.splitlines()[-3:]] == ["try", "and then", "and last"]
    assert is_mounted(mountpoint)
    (mountpoint / "file").write_text("hello")
    before = pids(folder)

    code, text = quickstart(folder, "run", mountpoint)
    assert code == 0, text
    assert "already" in text
    assert pids(folder) == before

    os.kill(before[0], 9)
    code, text = quickstart(folder, "run", mountpoint)
    assert code == 0, text
    assert "(DFS1 started; the others were running already)" in text
    assert pids(folder)[1:] == before[1:]
    assert pids(folder)[0] != before[0]

    running = pids(folder)
    code, text = quickstart(folder, "stop")
    assert code == 0, text
    assert not any(map(is_alive, running))
    assert not mountpoint.exists()
    assert {path.name for path in folder.iterdir()} == {"conf", "DFS1", "DFS2", "DFS3", "DFS4"}
    assert quickstart(folder, "stop")[0] == 0

    assert quickstart(folder, "run", mountpoint)[0] == 0
    assert (mountpoint / "file").read_text() == "hello"


def test_run_while_the_mount_hangs(folder: Path) -> None:
    mountpoint = folder / "dfs"
    code, text = quickstart(folder, "run", mountpoint)
    assert code == 0, text
    serving = running.find(mountpoint)
    assert serving is not None
    os.kill(serving.pid, signal.SIGSTOP)
    try:
        code, text = within(20.0, "make run", lambda: quickstart(folder, "run", mountpoint))
        assert code == 0, text
        assert f"{mountpoint} (it was already)" in text
        serving.file.unlink()
        again = within(20.0, "make run", lambda: quickstart(folder, "run", mountpoint))
        assert again == (code, text)
    finally:
        os.kill(serving.pid, signal.SIGCONT)
