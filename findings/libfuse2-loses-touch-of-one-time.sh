#!/bin/bash
# libfuse 2.9.9 (Debian 12): setting only one of a file's two times succeeds and does nothing. `touch -m FILE` ends with 0, and the file
# system's utimens is not called: libfuse 2 calls it only if both times are set, unless the file system declares with
# flag_utime_omit_ok that it knows UTIME_OMIT, which fusepy 3.0.1 cannot. So with fusepy `touch -m` and `touch -a` are lost without an
# error, and so is what programs set by utimensat() with UTIME_OMIT.
#
# Output seen (what the operation utimens gets, in nanoseconds: access time, modification time):
#   touch -m -d @5.25: status 0
#   touch -a -d @6.25: status 0
#   touch -d @7.25: status 0
#   utimens 7250000000 7250000000
# Needs root and /dev/fuse.
. "$(dirname "$0")/lib.sh"
unpack libfuse2=2.9.9-6+b1
venv fusepy==3.0.1
export FUSE_LIBRARY_PATH=$libraries/libfuse.so.2
cat >"$work/fs.py" <<'PY'
import errno, stat, sys
from fuse import FUSE, FuseOSError, Operations

class OneFile(Operations):
    use_ns = True
    def getattr(self, path, fh=None):
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path == "/file":
            return {"st_mode": stat.S_IFREG | 0o644, "st_nlink": 1}
        raise FuseOSError(errno.ENOENT)
    def utimens(self, path, times=None):
        print("utimens", *times, flush=True)
        return 0

FUSE(OneFile(), sys.argv[1], foreground=True, nothreads=True)
PY
mkdir "$work/mount"
timeout 60 "$work/venv/bin/python" "$work/fs.py" "$work/mount" >"$work/seen" &
until_mounted "$work/mount"
for options in "-m -d @5.25" "-a -d @6.25" "-d @7.25"; do
    status=0
    touch $options "$work/mount/file" || status=$?
    echo "touch $options: status $status" >>"$work/said"
done
umount "$work/mount"
wait
as_seen "$(cat "$work/said" "$work/seen")" "touch -m -d @5.25: status 0
touch -a -d @6.25: status 0
touch -d @7.25: status 0
utimens 7250000000 7250000000" || exit 1
