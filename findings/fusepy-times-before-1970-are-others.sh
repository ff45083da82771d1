#!/bin/bash
# fusepy 3.0.1 with libfuse 2.9.9 (Debian 12): a time before 1970 with a fraction, in seconds as os.lstat() gives it, is shown as
# another one, up to two seconds away. The fraction is cut off toward zero, so what is left of it is negative (set_st_attrs), and
# comes out as nearly a second. With `use_ns = True` and whole nanoseconds the time is right.
#
# Output seen:
#   st_mtime  -0.50: 0.999999999
#   st_mtime  -1.25: -0.000000001
#   st_mtime   1.50: 1.500000000
#   use_ns    -1.25: -1.250000000
# Needs root and /dev/fuse.
. "$(dirname "$0")/lib.sh"
unpack libfuse2=2.9.9-6+b1
export FUSE_LIBRARY_PATH=$libraries/libfuse.so.2
mkdir "$work/mount"
venv fusepy==3.0.1
cat >"$work/fs.py" <<'PY'
import errno, stat, sys
from fuse import FUSE, FuseOSError, Operations

class Times(Operations):
    use_ns = sys.argv[2] == "use_ns"
    def getattr(self, path, fh=None):
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        try:
            time = float(path[1:])
        except ValueError:
            raise FuseOSError(errno.ENOENT)
        return {"st_mode": stat.S_IFREG | 0o644, "st_nlink": 1, "st_mtime": int(time * 10**9) if self.use_ns else time}

FUSE(Times(), sys.argv[1], foreground=True, nothreads=True)
PY
shown() { # how the mount shows this time: name of the mode, time
    timeout 30 "$work/venv/bin/python" "$work/fs.py" "$work/mount" "$1" 2>/dev/null &
    until_mounted "$work/mount"
    printf '%-8s %6s: %s\n' "$1" "$2" "$(stat -c %.9Y "$work/mount/$2")"
    umount "$work/mount"
    wait
}
seen=$(shown st_mtime -0.50; shown st_mtime -1.25; shown st_mtime 1.50; shown use_ns -1.25)
as_seen "$seen" "st_mtime  -0.50: 0.999999999
st_mtime  -1.25: -0.000000001
st_mtime   1.50: 1.500000000
use_ns    -1.25: -1.250000000" || exit 1
