"""`make run` and `make stop`, on ports other than 10001 to 10004."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounts import environment, is_mounted, program, unmount, within

from dfsfuse.cli.config import load_config
from dfsfuse.cli.local import server_processes
from dfsfuse.cli.local.local_servers import free_ports
from dfsfuse.cli.local.server_processes import ServerProcess
from dfsfuse.mount import running

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A copy of the project's folder with conf/."""
    conf = tmp_path / "conf"
    conf.mkdir()
    text = (REPOSITORY / "conf" / "dfc.yaml").read_text()
    for number, port in enumerate(free_ports(4), start=1):
        text = text.replace(str(10000 + number), str(port))
    (conf / "dfc.yaml").write_text(text)
    (conf / "dfs.yaml").write_bytes((REPOSITORY / "conf" / "dfs.yaml").read_bytes())
    yield tmp_path
    for name in ("dfs", "my dfs"):
        unmount(tmp_path / name)
    quickstart(tmp_path, "stop")


def quickstart(folder: Path, *arguments: str | Path) -> tuple[int, str]:
    return _run(folder, [sys.executable, "-m", "dfsfuse.cli.local.quickstart", *map(str, arguments)])


def _run(folder: Path, command: list[str]) -> tuple[int, str]:
    """Run a command; return the exit status and the output."""
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
    """Return whether the process is running; a zombie has no command line any more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_run_twice_and_stop(folder: Path) -> None:
    mountpoint = folder / "my dfs"
    code, text = quickstart(folder, "run", mountpoint)
    assert code == 0, text
    assert len(text.splitlines()) == 5
    assert [line.split(":")[0].strip() for line in text.splitlines()[-3:]] == ["try", "and then", "and last"]
    assert is_mounted(mountpoint)
    words = shlex.split(text.splitlines()[-3])  # the suggested commands can be pasted into a shell
    assert [word for word in words if word.startswith(str(folder))] == [f"{mountpoint}/", f"{mountpoint}/bash"]
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
    assert {path.name for path in folder.iterdir()} == {"conf", "tryout", "DFS1", "DFS2", "DFS3", "DFS4"}
    assert quickstart(folder, "stop")[0] == 0

    assert quickstart(folder, "run", mountpoint)[0] == 0
    assert (mountpoint / "file").read_text() == "hello"


def test_the_mount_does_not_cover_the_servers_folders(folder: Path) -> None:
    for mountpoint in (folder, folder.parent, folder / "conf" / ".."):
        code, text = quickstart(folder, "run", mountpoint)
        assert code == 10
        assert text.startswith(f"make: {Path(os.path.normpath(mountpoint))} cannot be the mountpoint: this clone (")
        assert text.count("\n") == 1
    code, text = quickstart(folder, "run", "")
    assert (code, text) == (2, "make: MOUNTPOINT is empty (is it a variable that is not set?)\n")
    assert {path.name for path in folder.iterdir()} == {"conf"}


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


def dfc(folder: Path, *arguments: str) -> tuple[int, str]:
    return _run(folder, [*program("dfc"), *arguments])


def test_other_users_of_the_machine_have_no_access(folder: Path) -> None:
    for above in (folder, *folder.parents):
        if not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o055)  # pytest's folders are private, but a home may not be
    assert quickstart(folder, "run", folder / "dfs")[0] == 0
    (folder / "dfs" / "file").write_text("hello")
    code, text = dfc(folder, "--config", "conf/dfc.yaml", "list")  # with the password from git
    assert (code, "refuses user 'alice'" in text) == (4, True), text
    assert dfc(folder, "list") == (0, "file\n")  # as in the README

    def by_somebody_else(*command: str | Path) -> bool:
        done = subprocess.run(command, user=4321, group=4321, extra_groups=[], capture_output=True, check=False)
        return done.returncode == 0

    assert by_somebody_else("cat", folder / "conf" / "dfc.yaml")
    for private in ("tryout/dfc.yaml", "tryout/dfs.yaml", ".run/dfsmount.log", "DFS1/alice/namespace.db"):
        assert (folder / private).exists()
        assert not by_somebody_else("cat", folder / private)
    for server in pids(folder):
        assert not by_somebody_else("cat", f"/proc/{server}/environ")


def test_a_tryout_that_was_made_with_the_password_of_the_example_goes_on(folder: Path) -> None:
    example = load_config(folder / "conf" / "dfc.yaml")
    (folder / ".run").mkdir()
    servers = [
        ServerProcess(folder / server.name, server.port, folder / "conf" / "dfs.yaml", folder / ".run")
        for server in example.servers
    ]
    server_processes.start(servers)
    (folder / "kept").write_text("since before")
    assert dfc(folder, "put", "kept")[0] == 0
    before = pids(folder)

    code, text = quickstart(folder, "run", folder / "dfs")
    assert code == 0, text
    assert text.startswith("The try-out now has its own passwords")
    assert not any(map(is_alive, before))
    assert (folder / "dfs" / "kept").read_text() == "since before"
    assert dfc(folder, "list") == (0, "kept\n")
    code, text = quickstart(folder, "run", folder / "dfs")
    assert (code, "its own passwords" in text) == (0, False)
