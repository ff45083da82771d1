"""`dfsmount` as a user runs it: four real servers, real mounts, real signals. test_conformance.py tests what a mounted
file system does; these tests are about mounting, unmounting, and the messages when that fails."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounts import Grid, environment, eventually, is_mounted, program, unmount, within

from dfsfuse.mount import running

pytestmark = pytest.mark.integration

COMMAND_TIMEOUT_S = 90.0
BINDINGS = pytest.mark.parametrize("binding", ["kernel", "fusepy"])


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    unmount(path)


class Dfsmount:
    """Runs the command with its own state and data folders."""

    def __init__(self, folder: Path, config: Path | None) -> None:
        self.folder = folder
        self.config = config
        self.environment = environment() | {
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_DATA_HOME": str(folder / "data"),
            "HOME": str(folder),
        }

    def __call__(self, *arguments: str | Path, module: str = "dfsmount") -> tuple[int, str]:
        """Run it; return the exit status and all output."""
        done = subprocess.run(
            [*program(module), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
            cwd=self.folder,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        return done.returncode, done.stdout.decode()

    def mount(self, mountpoint: Path, *arguments: str) -> tuple[int, str]:
        return self("--config", str(self.config), *arguments, mountpoint)


@pytest.fixture
def dfsmount(tmp_path: Path, grid: Grid) -> Dfsmount:
    return Dfsmount(tmp_path, grid.client_config)


def servers_below(folder: Path) -> list[int]:
    """Return the pids of the `dfs-server` processes whose folder is below this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"dfs_server" in words and any(word.startswith(os.fsencode(folder)) for word in words):
            found.append(int(process.name))
    return found


def test_to_the_background_when_it_works_and_back(dfsmount: Dfsmount, mountpoint: Path) -> None:
    assert dfsmount.mount(mountpoint, "-o", "binding=fusepy") == (0, "")
    assert is_mounted(mountpoint)
    (mountpoint / "kept").write_text("hello")
    assert dfsmount("-u", mountpoint) == (0, f"{mountpoint}: unmounted\n")
    assert not is_mounted(mountpoint)
    (log_file,) = (dfsmount.folder / "state" / "dfsfuse").glob("mount-mnt-*.log")
    log = log_file.read_text()
    assert log.splitlines()[-1].endswith("done")  # -u waits for the process, not only for the kernel
    assert dfsmount.mount(mountpoint, "-o", "ro")[0] == 0
    assert (mountpoint / "kept").read_text() == "hello"
    with pytest.raises(OSError, match="Read-only"):
        (mountpoint / "new").write_text("")


@pytest.mark.parametrize(("binding", "max_read"), [("kernel", 1 << 20), ("fusepy", 128 << 10)])
def test_what_the_kernel_is_told(dfsmount: Dfsmount, grid: Grid, mountpoint: Path, binding: str, max_read: int) -> None:
    assert dfsmount.mount(mountpoint, "-o", f"binding={binding}")[0] == 0
    (line,) = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(mountpoint) in line]
    source, _, kind, options, *_ = line.split()
    assert (source, kind) == (f"alice@127.0.0.1:{','.join(str(server.port) for server in grid.servers)}", "fuse.dfs")
    assert {"default_permissions", f"max_read={max_read}"} <= set(options.split(","))
    assert ("allow_other" in options.split(",")) == (os.geteuid() == 0)
    assert os.statvfs(mountpoint).f_namemax == 255
    assert os.statvfs(mountpoint).f_blocks > 0


@BINDINGS
def test_any_name_gets_through(dfsmount: Dfsmount, mountpoint: Path, binding: str) -> None:
    assert dfsmount.mount(mountpoint, "-o", f"binding={binding}")[0] == 0
    folder = mountpoint / os.fsdecode(b"names\xff by " + binding.encode())
    names = {b"bad \xff\xfe utf-8", b"new\nline", "ünï".encode(), b"\xed\xa0\x80", b"x" * 255}
    folder.mkdir()
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(name)
    assert {os.fsencode(path.name) for path in folder.iterdir()} == names
    assert {(folder / os.fsdecode(name)).read_bytes() for name in names} == names
    link = folder / "link"
    link.symlink_to(os.fsdecode(b"to \xff"))
    assert os.fsencode(link.readlink()) == b"to \xff"


@BINDINGS
def test_times_are_told_from_omit_and_now(dfsmount: Dfsmount, mountpoint: Path, binding: str) -> None:
    assert dfsmount.mount(mountpoint, "-o", f"binding={binding}")[0] == 0
    file = mountpoint / "times"
    file.write_text("")
    omit_ns, now_ns = 1_073_741_822, 1_073_741_823  # the times into which fusepy converts UTIME_OMIT and UTIME_NOW
    os.utime(file, ns=(omit_ns, now_ns))
    assert (file.stat().st_atime_ns, file.stat().st_mtime_ns) == (omit_ns, now_ns)
    subprocess.run(["touch", "-m", "-d", "@5.000000007", file], check=True, timeout=30)
    assert (file.stat().st_atime_ns, file.stat().st_mtime_ns) == (omit_ns, 5_000_000_007)
    before_ns = file.parent.stat().st_mtime_ns
    os.utime(file)
    assert file.stat().st_mtime_ns >= before_ns


def test_a_user_whose_password_is_refused(dfsmount: Dfsmount, mountpoint: Path) -> None:
    dfsmount.environment["DFS_PASSWORD"] = "wrong"
    code, text = dfsmount.mount(mountpoint)
    assert code == 4
    assert "alice" in text
    assert "DFS" in text
    assert not is_mounted(mountpoint)


def test_no_server(dfsmount: Dfsmount, grid: Grid, mountpoint: Path) -> None:
    with grid.without(1, 2, 3, 4):
        code, text = dfsmount.mount(mountpoint)
        assert code == 6
        assert text.startswith("dfsmount: ")
        assert not is_mounted(mountpoint)


def test_where_one_cannot_mount(dfsmount: Dfsmount, mountpoint: Path) -> None:
    full = mountpoint.with_name("full")
    full.mkdir()
    (full / "file").write_text("below")
    assert dfsmount.mount(mountpoint)[0] == 0
    for path, expected in [
        (mountpoint, "already mounted"),
        (full, "not empty"),
        (full / "file", "not a folder"),
        (full / "nowhere", "no such folder"),
    ]:
        code, text = dfsmount.mount(path)
        assert code == 10
        assert text.startswith(f"dfsmount: {path}")
        assert expected in text
    try:
        assert dfsmount.mount(full, "-o", "nonempty")[0] == 0
        assert dfsmount("-u", full)[0] == 0
    finally:
        unmount(full)
    assert (full / "file").read_text() == "below"
    assert dfsmount("-u", full) == (10, f"dfsmount: {full}: nothing is mounted here.\n")


def test_usage(dfsmount: Dfsmount, mountpoint: Path) -> None:
    for arguments, expected in [
        ((), "MOUNTPOINT"),
        (("-o", "durabilty=fsync", mountpoint), "durability=close|fsync"),
        (("-o", "binding=kernel,allow_root", mountpoint), "allow_root: only libfuse supports it"),
        (("--config", "nowhere.yaml", mountpoint), "nowhere.yaml"),
        (("-z", mountpoint), "-u"),
        (("--local", "--config", "x", mountpoint), "--local"),
    ]:
        code, text = dfsmount(*arguments)
        assert (code, expected in text) == (2, True), text
    code, text = dfsmount("--version")
    assert code == 0
    assert "binding kernel" in text
    assert "fusepy 3." in text
    assert "libfuse 2." in text


def test_no_libfuse(dfsmount: Dfsmount, mountpoint: Path) -> None:
    dfsmount.environment["FUSE_LIBRARY_PATH"] = "libfuse-that-is-not-there.so.2"
    code, text = dfsmount.mount(mountpoint, "-o", "binding=fusepy")
    assert code == 11
    assert "apt-get install fuse3 libfuse2" in text


def test_what_a_killed_mount_leaves_is_no_obstacle(dfsmount: Dfsmount, grid: Grid, mountpoint: Path) -> None:
    mount = grid.mount("killed")
    (mount.path / "before").write_text("the kill")
    mount.kill()
    with pytest.raises(OSError, match="not connected"):
        mount.path.stat()
    code, text = dfsmount.mount(mount.path)
    assert code == 0
    assert "removed the stale mount that a killed dfsmount had left here" in text
    assert (mount.path / "before").read_text() == "the kill"
    assert dfsmount("-u", mount.path)[0] == 0
    mount.mount()
    mount.kill()
    code, text = dfsmount("-u", mount.path)
    assert code == 0
    assert "no longer running" in text
    assert not is_mounted(mount.path)


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_mount_that_hangs_does_not_delay_mounting_there(dfsmount: Dfsmount, grid: Grid, is_announced: bool) -> None:
    """It is not dead, and may go on. Which process serves it is not always visible, since each user has a separate
    list."""
    mount = grid.mount(f"hangs-{is_announced}", ["-o", "attr_timeout=0"])
    (mount.path / "file").write_text("is there")
    if is_announced:
        dfsmount.environment = environment()
    else:
        serving = running.find(mount.path)
        assert serving is not None
        serving.file.unlink()
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        code, text = within(20.0, "dfsmount", lambda: dfsmount.mount(mount.path))
    finally:
        os.kill(mount.pid, signal.SIGCONT)
    assert code == 10
    assert "already mounted" in text
    assert (mount.path / "file").read_text() == "is there"
    assert mount.unmount() == 0


@BINDINGS
def test_a_mount_in_use(dfsmount: Dfsmount, mountpoint: Path, binding: str) -> None:
    assert dfsmount.mount(mountpoint, "-o", f"binding={binding}")[0] == 0
    (mountpoint / "open").write_text("text")
    with (mountpoint / "open").open() as file:
        code, text = dfsmount("-u", mountpoint)
        assert code == 12
        assert f"({os.getpid()})" in text
        assert is_mounted(mountpoint)
        code, text = dfsmount("-u", "-z", mountpoint)
        assert code == 0
        assert not is_mounted(mountpoint)
        assert file.read() == "text"


@pytest.mark.parametrize(("number", "binding"), [(signal.SIGTERM, "fusepy"), (signal.SIGINT, "kernel")])
def test_a_signal_unmounts_and_keeps_what_was_written(grid: Grid, number: signal.Signals, binding: str) -> None:
    mount = grid.mount(f"signal-{number.name}", ["-o", f"binding={binding}"])
    (mount.path / "closed").write_text("is on the servers")
    pid = mount.pid
    ended = os.pidfd_open(pid)
    try:
        os.kill(pid, number)
        eventually(lambda: not is_mounted(mount.path), "unmounted after a signal")
        assert mount.unmount() == 0
    finally:
        os.close(ended)
    mount.mount()
    assert (mount.path / "closed").read_text() == "is on the servers"


def test_a_signal_while_a_program_keeps_a_file_open(grid: Grid) -> None:
    """test_mount_by_kernel.py tests this for the kernel binding."""
    mount = grid.mount("held", ["-o", "binding=fusepy"])
    descriptor = os.open(mount.path / "still-open", os.O_CREAT | os.O_WRONLY)
    try:
        os.write(descriptor, b"not yet closed")
        os.kill(mount.pid, signal.SIGTERM)
        eventually(lambda: not is_mounted(mount.path), "taken out of the tree")
        assert mount.unmount() == 0  # waits for the process, which waits for the program, but not forever
    finally:
        with pytest.raises(OSError, match=r"not connected|abort"):
            os.close(descriptor)
    mount.mount()
    assert (mount.path / "still-open").read_bytes() == b"not yet closed"


def test_local_needs_no_config_and_is_shared(dfsmount: Dfsmount, mountpoint: Path) -> None:
    second = mountpoint.with_name("second")
    second.mkdir()
    data = dfsmount.folder / "data" / "dfsfuse" / "local"
    try:
        assert dfsmount("--local", mountpoint) == (0, "")
        assert dfsmount("--local", second) == (0, "")
        assert len(servers_below(data)) == 4
        (mountpoint / "file").write_text("one folder")
        assert (second / "file").read_text() == "one folder"
        assert dfsmount("-u", mountpoint)[0] == 0
        assert len(servers_below(data)) == 4
        assert dfsmount("-u", second)[0] == 0
        assert servers_below(data) == []
        assert stat.S_IMODE((data / "dfc.yaml").stat().st_mode) == 0o600
        assert dfsmount("--local", mountpoint) == (0, "")
        assert (mountpoint / "file").read_text() == "one folder"
        assert dfsmount("-u", mountpoint)[0] == 0
    finally:
        unmount(second)
        unmount(mountpoint)
        for pid in servers_below(data):
            os.kill(pid, signal.SIGKILL)
