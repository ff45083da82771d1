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
# Needs root and /dev/fuse. Exit 0: as seen. exit 1: it behaves differently now.
set -eu
ldconfig -p | grep -q 'libfuse\.so\.2' || { apt-get update -qq; apt-get install -y -qq --no-install-recommends libfuse2 fuse3 >/dev/null; }
work=$(mktemp -d)
trap 'fusermount3 -u -z "$work/mount" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir "$work/mount"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check fusepy==3.0.1 2>/dev/null
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
    for _ in $(seq 100); do mountpoint -q "$work/mount" && break; sleep 0.1; done
    printf '%-8s %6s: %s\n' "$1" "$2" "$(stat -c %.9Y "$work/mount/$2")"
    fusermount3 -u "$work/mount"
    wait
}
seen=$(shown st_mtime -0.50; shown st_mtime -1.25; shown st_mtime 1.50; shown use_ns -1.25)
echo "$seen"
[ "$seen" = "st_mtime  -0.50: 0.999999999
st_mtime  -1.25: -0.000000001
st_mtime   1.50: 1.500000000
use_ns    -1.25: -1.250000000" ] || { echo "it behaves differently now"; exit 1; }
