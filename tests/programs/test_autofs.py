"""autofs: mounted by the first access, unmounted when it was not used for a while, and mounted again. systemd's
`x-systemd.automount` works like a direct map, with the same rule for the mounting process."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from support.mounts import Grid
from support.private_mounts import INSTALL, run_privately

pytestmark = [pytest.mark.programs, pytest.mark.timeout(400)]


@pytest.mark.parametrize(
    ("master", "key", "place"),
    [
        ("$PWD/auto $PWD/map --timeout=1", "x", "auto"),
        ("/- $PWD/map --timeout=1", "$PWD/auto/x", "auto/x"),
    ],
    ids=["indirect", "direct"],
)
def test_mounted_by_an_access_and_unmounted_when_idle(
    grid: Grid, tmp_path: Path, master: str, key: str, place: str
) -> None:
    """With a direct map, as with systemd, the mountpoint itself is a file system of autofs."""
    config = shlex.quote(str(grid.client_config))
    script = f"""
    within() {{
        local end=$((SECONDS + $1)); shift
        until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 0.1; done
    }}
    is_mounted() {{ grep -q " $PWD/auto/x fuse.dfs " /proc/self/mounts; }}
    is_gone() {{ ! is_mounted; }}
    is_ready() {{ grep -q " $PWD/{place} autofs " /proc/self/mounts; }}
    mkdir -p auto/x
    echo "{master}" > master
    echo "{key} -fstype=fuse.dfs,durability=fsync :"{config} > map
    automount -f -p "$PWD/pid" "$PWD/master" > autofs.log 2>&1 &
    trap "kill $!; wait" EXIT
    within 30 is_ready
    timeout 60 sh -c 'for number in $(seq 100); do echo $number > "auto/x/file $number"; done'
    is_mounted && echo mounted
    within 60 is_gone
    tail -n 1 state/dfsfuse/mount-x-*.log | grep -o "done$"
    timeout 60 cat "auto/x/file 100"
    """
    done = run_privately(tmp_path, INSTALL + script, timeout_s=240.0)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["mounted", "done", "100"]), done.stdout
