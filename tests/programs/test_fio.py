"""fio writes patterns with checksums and verifies them: at once, after a new mount, and with each server missing once.

Every way of reading and writing must give the same bytes: system calls, shared mappings, direct I/O, and several at
once. With a server killed, each piece comes from its other home.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Grid, Mount
from support.programs import run

pytestmark = [pytest.mark.programs, pytest.mark.timeout(600)]

DEADLINE_S: Final = 180.0

JOBS: Final = {
    "sequential": "--rw=write --bs=1m --size=64m --ioengine=psync --end_fsync=1",
    "sequential-4k": "--rw=write --bs=4k --size=16m --ioengine=psync",
    "random-4k": "--rw=randwrite --bs=4k --size=16m --ioengine=psync --fsync=128",
    "random-mmap": "--rw=randwrite --bs=4k --size=16m --ioengine=mmap",
    "random-direct": "--rw=randwrite --bs=4k --size=8m --ioengine=libaio --iodepth=8 --direct=1",
    "odd-sizes": "--rw=randwrite --bsrange=512-96k --bs_unaligned=1 --size=24m --ioengine=psync",
    "four-at-once": "--rw=randwrite --bs=16k --size=8m --ioengine=psync --numjobs=4",
    "sparse": "--rw=randwrite --bs=4k --size=64m --io_size=8m --norandommap=0 --fallocate=none --ioengine=psync",
}


@pytest.mark.parametrize("job", JOBS)
def test_fio(job: str, root: Path, mount: Mount, grid: Grid) -> None:
    fio(job, root, "--do_verify=1")
    mount.remount()
    fio(job, root, "--verify_only=1")
    for number in range(1, 5):
        with grid.without(number):
            mount.remount()
            fio(job, root, "--verify_only=1")


def fio(job: str, folder: Path, *options: str) -> None:
    """Run fio, with the same random numbers each time. It reports itself whether it read anything that was not
    written."""
    said = run(
        "fio",
        f"--name={job}",
        f"--directory={folder}",
        *JOBS[job].split(),
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_dump=0",
        "--verify_state_save=0",
        "--randrepeat=1",
        "--group_reporting",
        "--output-format=json",
        *options,
        deadline_s=DEADLINE_S,
        install="make conformance-programs",
    )
    (result,) = json.loads(said[said.index("{") :])["jobs"]
    assert result["error"] == 0, said
    assert result["read"]["total_ios"] > 0, "fio must have verified something"
