#!/bin/bash
# mfusepy 3.1.1 over libfuse 3.14.0 (Debian 12): `touch FILE` arrives at the file system as one second after 1970. utimensat(2) says "now"
# and "leave it" with two special numbers of nanoseconds, UTIME_NOW and UTIME_OMIT. mfusepy hands them on as times, 1.073741823 s and
# 1.073741822 s, so a file system that keeps what it is given sets the modification time to 1970 at touch(1), tar -x and cp -p
# included where they set only one of the two times. make then builds everything again, backups by time leave the file out. A file
# system on mfusepy and libfuse 3 has to look for the two numbers itself; over libfuse 2 (2.9.9) they do not arrive.
#
# Output seen (what the operation utimens gets, in nanoseconds: access time, modification time):
#   touch:                 1073741823 1073741823
#   touch -a:              1073741823 1073741822
#   touch -m:              1073741822 1073741823
#   touch -m -d @5.25:     1073741822 5250000000
# Needs root and /dev/fuse.
. "$(dirname "$0")/lib.sh"
unpack libfuse3-3=3.14.0-4
venv mfusepy==3.1.1
cat >"$work/fs.py" <<'PY'
import errno, stat, sys
import mfusepy

class OneFile(mfusepy.Operations):
    use_ns = True
    def getattr(self, path, fh=None):
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path == "/file":
            return {"st_mode": stat.S_IFREG | 0o644, "st_nlink": 1}
        raise mfusepy.FuseOSError(errno.ENOENT)
    def utimens(self, path, times=None):
        print(*times, flush=True)
        return 0

mfusepy.FUSE(OneFile(), sys.argv[1], foreground=True, nothreads=True)
PY
mkdir "$work/mount"
FUSE_LIBRARY_PATH="$libraries/libfuse3.so.3" timeout 60 "$work/venv/bin/python" "$work/fs.py" "$work/mount" >"$work/seen" &
until_mounted "$work/mount"
touch "$work/mount/file"
touch -a "$work/mount/file"
touch -m "$work/mount/file"
touch -m -d @5.25 "$work/mount/file"
umount "$work/mount"
wait
as_seen "$(cat "$work/seen")" "1073741823 1073741823
1073741823 1073741822
1073741822 1073741823
1073741822 5250000000" || exit 1
