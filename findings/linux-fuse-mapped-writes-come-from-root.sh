#!/bin/bash
# Linux 6.18 with libfuse 3.14.0 (Debian 12): what a program writes through a shared mapping reaches a FUSE file system as a WRITE of uid 0,
# gid 0 and pid 0, whoever the program is; write(2) of the same program names its uid. RELEASE is from uid 0 too. So a file system
# that looks at the caller (fuse_get_context(), fusepy's fuse_get_context()) for permissions, quotas or an audit log takes these for
# root's. What it may decide by is the open file; libfuse says `writepage` for such a WRITE.
#
# Output seen (a program of uid 1000):
#   write(2):        WRITE uid 1000 gid 1000 writepage 0
#   through mmap(2): WRITE uid 0 gid 0 writepage 1
#   close(2):        FLUSH uid 1000 gid 1000
#                    RELEASE uid 0 gid 0
# Needs root and /dev/fuse.
# Versions: libfuse3-3 3.14.0-4, libfuse3-dev 3.14.0-4.
. "$(dirname "$0")/lib.sh"
unpack libfuse3-3=3.14.0-4 libfuse3-dev=3.14.0-4
need python3 # of any version, for a user who may not enter root's home
build <<'C'
#include <fuse.h>
#include <stdio.h>
#include <string.h>
static void say(const char *request) {
  printf("%s uid %d gid %d", request, (int)fuse_get_context()->uid, (int)fuse_get_context()->gid);
}
static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi) {
  (void)fi;
  memset(st, 0, sizeof *st);
  st->st_mode = strcmp(path, "/") ? S_IFREG | 0666 : S_IFDIR | 0777;
  st->st_nlink = 1;
  st->st_size = 4096;
  return 0;
}
static int fs_open(const char *path, struct fuse_file_info *fi) { (void)path; (void)fi; return 0; }
static int fs_read(const char *path, char *to, size_t size, off_t offset, struct fuse_file_info *fi) {
  (void)path; (void)fi;
  if (offset >= 4096) return 0;
  memset(to, 0, size);
  return size;
}
static int fs_write(const char *path, const char *from, size_t size, off_t offset, struct fuse_file_info *fi) {
  (void)path; (void)from; (void)offset;
  say("WRITE");
  printf(" writepage %d\n", fi->writepage);
  return size;
}
static int fs_flush(const char *path, struct fuse_file_info *fi) { (void)path; (void)fi; say("FLUSH"); puts(""); return 0; }
static int fs_release(const char *path, struct fuse_file_info *fi) { (void)path; (void)fi; say("RELEASE"); puts(""); return 0; }
static const struct fuse_operations operations = {.getattr = fs_getattr, .open = fs_open, .read = fs_read, .write = fs_write,
  .flush = fs_flush, .release = fs_release};
int main(int argc, char **argv) { return fuse_main(argc, argv, &operations, NULL); }
C
mkdir "$work/mount"
chmod 755 "$work"
timeout 60 "$work/fs" -s -f -o allow_other "$work/mount" >"$work/seen" &
until_mounted "$work/mount"
timeout 30 setpriv --reuid=1000 --regid=1000 --clear-groups /usr/bin/python3 - "$work/mount/file" <<'PY'
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
os.write(file, b"x")
with mmap.mmap(file, 4096) as mapping:
    mapping[100] = 1
    mapping.flush()
os.close(file)
PY
umount "$work/mount"
wait
# close() of the mapping's own descriptor flushes too, and to say so twice tells nothing
as_seen "$(uniq "$work/seen")" "WRITE uid 1000 gid 1000 writepage 0
WRITE uid 0 gid 0 writepage 1
FLUSH uid 1000 gid 1000
RELEASE uid 0 gid 0" || exit 1
