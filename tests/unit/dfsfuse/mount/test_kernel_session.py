"""Which of the options after -o reach mount(2). tests/integration/test_mount_by_kernel.py uses a real mount."""

from __future__ import annotations

from dfsfuse.fusekernel.mounting import MountOptions
from dfsfuse.mount import options
from dfsfuse.mount.kernel_session import mount_options, write_size


def parsed(text: str, *, as_root: bool = False) -> MountOptions:
    return mount_options(options.parse(["binding=kernel", text], as_root=as_root).fuse)


def test_defaults() -> None:
    assert parsed("") == MountOptions(
        fsname="dfsfuse",
        subtype="dfs",
        default_permissions=True,
        max_read_bytes=1 << 20,
        flags=frozenset({"nosuid", "nodev"}),
    )
    assert parsed("", as_root=True).allow_other


def test_flags_are_passed_on() -> None:
    assert parsed("ro,noexec,noatime,sync,dirsync,suid,dev").flags == frozenset(
        "ro noexec noatime sync dirsync".split()
    )
    assert parsed("suid,nosuid").flags == frozenset({"nosuid", "nodev"})
    assert parsed("auto_unmount,fsname=mine,max_read=64K") == MountOptions(
        fsname="mine", subtype="dfs", default_permissions=True, max_read_bytes=65536, auto_unmount=True
    )


def test_write_requests_are_whole_pages() -> None:
    assert [write_size(wanted) for wanted in (0, 4096, 10_000, 1 << 20, 1 << 30)] == [
        4096,
        4096,
        8192,
        1 << 20,
        1 << 20,
    ]
