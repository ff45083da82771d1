"""Constants and structures of the FUSE protocol, with their names in linux/fuse.h. No logic.

Numbers are in the machine's byte order; `=` selects the header's explicit sizes and explicit padding. Where the header
has an array of unused fields, the structure here has pad bytes. Times are signed, as in the kernel. A structure ends
where its fixed part ends: names, data and further records follow it.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

FUSE_KERNEL_VERSION: Final = 7
FUSE_KERNEL_MINOR_VERSION: Final = 38
"""The version implemented here; the kernel may support more or less, and both sides use the smaller one."""
FUSE_ROOT_ID: Final = 1
FUSE_MIN_READ_BUFFER: Final = 8192

# ---------------------------------------------------------------------- requests

FUSE_LOOKUP: Final = 1
FUSE_FORGET: Final = 2
FUSE_GETATTR: Final = 3
FUSE_SETATTR: Final = 4
FUSE_READLINK: Final = 5
FUSE_SYMLINK: Final = 6
FUSE_MKNOD: Final = 8
FUSE_MKDIR: Final = 9
FUSE_UNLINK: Final = 10
FUSE_RMDIR: Final = 11
FUSE_RENAME: Final = 12
FUSE_LINK: Final = 13
FUSE_OPEN: Final = 14
FUSE_READ: Final = 15
FUSE_WRITE: Final = 16
FUSE_STATFS: Final = 17
FUSE_RELEASE: Final = 18
FUSE_FSYNC: Final = 20
FUSE_SETXATTR: Final = 21
FUSE_GETXATTR: Final = 22
FUSE_LISTXATTR: Final = 23
FUSE_REMOVEXATTR: Final = 24
FUSE_FLUSH: Final = 25
FUSE_INIT: Final = 26
FUSE_OPENDIR: Final = 27
FUSE_READDIR: Final = 28
FUSE_RELEASEDIR: Final = 29
FUSE_FSYNCDIR: Final = 30
FUSE_GETLK: Final = 31
FUSE_SETLK: Final = 32
FUSE_SETLKW: Final = 33
FUSE_ACCESS: Final = 34
FUSE_CREATE: Final = 35
FUSE_INTERRUPT: Final = 36
FUSE_BMAP: Final = 37
FUSE_DESTROY: Final = 38
FUSE_IOCTL: Final = 39
FUSE_POLL: Final = 40
FUSE_NOTIFY_REPLY: Final = 41
FUSE_BATCH_FORGET: Final = 42
FUSE_FALLOCATE: Final = 43
FUSE_READDIRPLUS: Final = 44
FUSE_RENAME2: Final = 45
FUSE_LSEEK: Final = 46
FUSE_COPY_FILE_RANGE: Final = 47
FUSE_SYNCFS: Final = 50
FUSE_TMPFILE: Final = 51

# ---------------------------------------------------------------------- notifications

FUSE_NOTIFY_POLL: Final = 1
FUSE_NOTIFY_INVAL_INODE: Final = 2
FUSE_NOTIFY_INVAL_ENTRY: Final = 3
FUSE_NOTIFY_STORE: Final = 4
FUSE_NOTIFY_RETRIEVE: Final = 5
FUSE_NOTIFY_DELETE: Final = 6

# ---------------------------------------------------------------------- flags

FATTR_MODE: Final = 1 << 0
FATTR_UID: Final = 1 << 1
FATTR_GID: Final = 1 << 2
FATTR_SIZE: Final = 1 << 3
FATTR_ATIME: Final = 1 << 4
FATTR_MTIME: Final = 1 << 5
FATTR_FH: Final = 1 << 6
FATTR_ATIME_NOW: Final = 1 << 7
FATTR_MTIME_NOW: Final = 1 << 8
FATTR_LOCKOWNER: Final = 1 << 9
FATTR_CTIME: Final = 1 << 10
FATTR_KILL_SUIDGID: Final = 1 << 11
FOPEN_DIRECT_IO: Final = 1 << 0
FOPEN_KEEP_CACHE: Final = 1 << 1
FOPEN_NONSEEKABLE: Final = 1 << 2
FOPEN_CACHE_DIR: Final = 1 << 3
FOPEN_STREAM: Final = 1 << 4
FOPEN_NOFLUSH: Final = 1 << 5
FOPEN_PARALLEL_DIRECT_WRITES: Final = 1 << 6
FUSE_ASYNC_READ: Final = 1 << 0
FUSE_POSIX_LOCKS: Final = 1 << 1
FUSE_ATOMIC_O_TRUNC: Final = 1 << 3
FUSE_EXPORT_SUPPORT: Final = 1 << 4
FUSE_BIG_WRITES: Final = 1 << 5
FUSE_DONT_MASK: Final = 1 << 6
FUSE_SPLICE_WRITE: Final = 1 << 7
FUSE_SPLICE_MOVE: Final = 1 << 8
FUSE_SPLICE_READ: Final = 1 << 9
FUSE_FLOCK_LOCKS: Final = 1 << 10
FUSE_HAS_IOCTL_DIR: Final = 1 << 11
FUSE_AUTO_INVAL_DATA: Final = 1 << 12
FUSE_DO_READDIRPLUS: Final = 1 << 13
FUSE_READDIRPLUS_AUTO: Final = 1 << 14
FUSE_ASYNC_DIO: Final = 1 << 15
FUSE_WRITEBACK_CACHE: Final = 1 << 16
FUSE_NO_OPEN_SUPPORT: Final = 1 << 17
FUSE_PARALLEL_DIROPS: Final = 1 << 18
FUSE_HANDLE_KILLPRIV: Final = 1 << 19
FUSE_POSIX_ACL: Final = 1 << 20
FUSE_ABORT_ERROR: Final = 1 << 21
FUSE_MAX_PAGES: Final = 1 << 22
FUSE_CACHE_SYMLINKS: Final = 1 << 23
FUSE_NO_OPENDIR_SUPPORT: Final = 1 << 24
FUSE_EXPLICIT_INVAL_DATA: Final = 1 << 25
FUSE_HANDLE_KILLPRIV_V2: Final = 1 << 28
FUSE_INIT_EXT: Final = 1 << 30
FUSE_HAS_EXPIRE_ONLY: Final = 1 << 35
FUSE_RELEASE_FLUSH: Final = 1 << 0
FUSE_RELEASE_FLOCK_UNLOCK: Final = 1 << 1
FUSE_GETATTR_FH: Final = 1 << 0
FUSE_LK_FLOCK: Final = 1 << 0
FUSE_WRITE_CACHE: Final = 1 << 0
FUSE_WRITE_LOCKOWNER: Final = 1 << 1
FUSE_WRITE_KILL_SUIDGID: Final = 1 << 2
FUSE_READ_LOCKOWNER: Final = 1 << 1
FUSE_FSYNC_FDATASYNC: Final = 1 << 0
FUSE_OPEN_KILL_SUIDGID: Final = 1 << 0
FUSE_EXPIRE_ONLY: Final = 1 << 0

# ---------------------------------------------------------------------- structures

ATTR_FIELDS: Final = "QQQqqqIIIIIIIIII"
"""struct fuse_attr: ino size blocks atime mtime ctime atimensec mtimensec ctimensec mode nlink uid gid rdev blksize
flags. It is always part of another structure."""

fuse_in_header: Final = Struct("=IIQQIIIHH")
"""len opcode unique nodeid uid gid pid total_extlen padding"""
fuse_out_header: Final = Struct("=IiQ")
"""len error unique"""

fuse_init_in: Final = Struct("=IIIII44x")
"""major minor max_readahead flags flags2"""
fuse_init_out: Final = Struct("=IIIIHHIIHHIIH22x")
"""major minor max_readahead flags max_background congestion_threshold max_write time_gran max_pages map_alignment
flags2 max_stack_depth request_timeout"""
fuse_entry_out: Final = Struct("=QQQQII" + ATTR_FIELDS)
"""nodeid generation entry_valid attr_valid entry_valid_nsec attr_valid_nsec attr"""
fuse_attr_out: Final = Struct("=QII" + ATTR_FIELDS)
"""attr_valid attr_valid_nsec dummy attr"""
fuse_open_out: Final = Struct("=QII")
"""fh open_flags padding"""
fuse_forget_in: Final = Struct("=Q")
"""nlookup"""
fuse_forget_one: Final = Struct("=QQ")
"""nodeid nlookup"""
fuse_batch_forget_in: Final = Struct("=II")
"""count dummy"""
fuse_getattr_in: Final = Struct("=IIQ")
"""getattr_flags dummy fh"""
fuse_setattr_in: Final = Struct("=IIQQQqqqIIIIIIII")
"""valid padding fh size lock_owner atime mtime ctime atimensec mtimensec ctimensec mode unused4 uid gid unused5"""
fuse_mknod_in: Final = Struct("=IIII")
"""mode rdev umask padding"""
fuse_mkdir_in: Final = Struct("=II")
"""mode umask"""
fuse_rename_in: Final = Struct("=Q")
"""newdir"""
fuse_rename2_in: Final = Struct("=QII")
"""newdir flags padding"""
fuse_link_in: Final = Struct("=Q")
"""oldnodeid"""
fuse_open_in: Final = Struct("=II")
"""flags open_flags"""
fuse_create_in: Final = Struct("=IIII")
"""flags mode umask open_flags"""
fuse_read_in: Final = Struct("=QQIIQII")
"""fh offset size read_flags lock_owner flags padding"""
fuse_write_in: Final = Struct("=QQIIQII")
"""fh offset size write_flags lock_owner flags padding"""
fuse_write_out: Final = Struct("=II")
"""size padding"""
fuse_flush_in: Final = Struct("=QIIQ")
"""fh unused padding lock_owner"""
fuse_release_in: Final = Struct("=QIIQ")
"""fh flags release_flags lock_owner"""
fuse_fsync_in: Final = Struct("=QII")
"""fh fsync_flags padding"""
fuse_statfs_out: Final = Struct("=QQQQQIIII24x")
"""blocks bfree bavail files ffree bsize namelen frsize padding"""
fuse_setxattr_in: Final = Struct("=II")
"""size flags. FUSE_COMPAT_SETXATTR_IN_SIZE: the rest comes only with FUSE_SETXATTR_EXT, which is not asked for."""
fuse_getxattr_in: Final = Struct("=II")
"""size padding"""
fuse_getxattr_out: Final = Struct("=II")
"""size padding"""
fuse_lk_in: Final = Struct("=QQQQIIII")
"""fh owner start end type pid lk_flags padding"""
fuse_lk_out: Final = Struct("=QQII")
"""start end type pid"""
fuse_access_in: Final = Struct("=II")
"""mask padding"""
fuse_interrupt_in: Final = Struct("=Q")
"""unique"""
fuse_fallocate_in: Final = Struct("=QQQII")
"""fh offset length mode padding"""
fuse_lseek_in: Final = Struct("=QQII")
"""fh offset whence padding"""
fuse_lseek_out: Final = Struct("=Q")
"""offset"""
fuse_copy_file_range_in: Final = Struct("=QQQQQQQ")
"""fh_in off_in nodeid_out fh_out off_out len flags"""
fuse_dirent: Final = Struct("=QQII")
"""ino off namelen type"""
fuse_direntplus: Final = Struct(fuse_entry_out.format + fuse_dirent.format.lstrip("="))
"""entry_out dirent"""
fuse_notify_inval_inode_out: Final = Struct("=Qqq")
"""ino off len"""
fuse_notify_inval_entry_out: Final = Struct("=QII")
"""parent namelen flags"""
fuse_notify_delete_out: Final = Struct("=QQII")
"""parent child namelen padding"""
