"""Constants and sizes match linux/fuse.h, as a C compiler sees it if there is one, and otherwise the table here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from struct import Struct

import pytest

from dfsfuse.fusekernel import wire

HEADER = Path("/usr/include/linux/fuse.h")
STRUCTURES = {name: value for name, value in vars(wire).items() if isinstance(value, Struct)}
CONSTANTS = {
    name: value
    for name, value in vars(wire).items()
    if re.match("FUSE_|FATTR_|FOPEN_", name) and isinstance(value, int) and "VERSION" not in name
}
BYTES = {
    "fuse_in_header": 40,
    "fuse_out_header": 16,
    "fuse_init_in": 64,
    "fuse_init_out": 64,
    "fuse_entry_out": 40 + 88,
    "fuse_attr_out": 16 + 88,
    "fuse_open_out": 16,
    "fuse_forget_in": 8,
    "fuse_forget_one": 16,
    "fuse_batch_forget_in": 8,
    "fuse_getattr_in": 16,
    "fuse_setattr_in": 88,
    "fuse_mknod_in": 16,
    "fuse_mkdir_in": 8,
    "fuse_rename_in": 8,
    "fuse_rename2_in": 16,
    "fuse_link_in": 8,
    "fuse_open_in": 8,
    "fuse_create_in": 16,
    "fuse_read_in": 40,
    "fuse_write_in": 40,
    "fuse_write_out": 8,
    "fuse_flush_in": 24,
    "fuse_release_in": 24,
    "fuse_fsync_in": 16,
    "fuse_statfs_out": 80,
    "fuse_setxattr_in": 8,  # FUSE_COMPAT_SETXATTR_IN_SIZE
    "fuse_getxattr_in": 8,
    "fuse_getxattr_out": 8,
    "fuse_lk_in": 48,
    "fuse_lk_out": 24,
    "fuse_access_in": 8,
    "fuse_interrupt_in": 8,
    "fuse_fallocate_in": 32,
    "fuse_lseek_in": 24,
    "fuse_lseek_out": 8,
    "fuse_copy_file_range_in": 56,
    "fuse_dirent": 24,
    "fuse_direntplus": 128 + 24,
    "fuse_notify_inval_inode_out": 24,
    "fuse_notify_inval_entry_out": 16,
    "fuse_notify_delete_out": 24,
}


def test_sizes() -> None:
    assert {name: structure.size for name, structure in STRUCTURES.items()} == BYTES


def test_every_structure_of_whole_words_so_that_what_follows_is_aligned() -> None:
    assert [name for name, size in BYTES.items() if size % 8] == []


def test_some_constants_by_heart() -> None:
    assert (wire.FUSE_LOOKUP, wire.FUSE_INIT, wire.FUSE_RENAME2, wire.FUSE_LSEEK) == (1, 26, 45, 46)
    assert (wire.FUSE_MAX_PAGES, wire.FUSE_INIT_EXT, wire.FUSE_HAS_EXPIRE_ONLY) == (1 << 22, 1 << 30, 1 << 35)
    assert (wire.FATTR_KILL_SUIDGID, wire.FOPEN_PARALLEL_DIRECT_WRITES) == (1 << 11, 1 << 6)


@pytest.mark.parametrize("name", sorted({*STRUCTURES, *CONSTANTS}))
def test_the_header_has_it_under_this_name(name: str) -> None:
    """On a machine without the header, only the tables above can be compared with."""
    if HEADER.exists() and _header_minor() >= wire.FUSE_KERNEL_MINOR_VERSION:
        assert re.search(rf"\b{name}\b", HEADER.read_text())
    assert name in BYTES or isinstance(CONSTANTS[name], int)


def test_the_compiler_agrees(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not HEADER.exists() or _header_minor() < wire.FUSE_KERNEL_MINOR_VERSION:
        assert {name: structure.size for name, structure in STRUCTURES.items()} == BYTES
        return
    lines = [f'printf("{name} %zu\\n", sizeof(struct {name}));' for name in STRUCTURES]
    lines += [f'printf("{name} %llu\\n", (unsigned long long){name} & 0xffffffffffull);' for name in CONSTANTS]
    source = tmp_path / "sizes.c"
    source.write_text("#include <stdio.h>\n#include <linux/fuse.h>\nint main(void){" + "\n".join(lines) + "}\n")
    program = tmp_path / "sizes"
    subprocess.run([compiler, "-w", "-o", program, source], check=True, timeout=60)
    printed = subprocess.run([program], check=True, capture_output=True, text=True, timeout=10).stdout
    found = {name: int(value) for name, value in (line.split() for line in printed.splitlines())}
    expected = BYTES | CONSTANTS | {"fuse_setxattr_in": 16}
    assert found == expected


def _header_minor() -> int:
    match = re.search(r"#define FUSE_KERNEL_MINOR_VERSION (\d+)", HEADER.read_text())
    return int(match[1]) if match else 0
