#!/bin/bash
# Linux 6.18 with libfuse 3.14.0 (Debian 12): a FUSE file system that has extended attributes gets a GETXATTR of security.capability before
# each WRITE, twice the requests; the kernel looks whether the file has a capability that a write must take away. It does not
# remember "no such attribute" (ENODATA), nor "not supported" (EOPNOTSUPP), but only "no such request" (ENOSYS), which is for all
# attributes of the mount. `ls -l` (coreutils 9.1) asks for two attributes of each file, unless it was told EOPNOTSUPP.
#
# Output seen (GETXATTR requests):
#   answered with ENODATA:    100 writes: 100    ls -l of 100 files: 203
#   answered with EOPNOTSUPP: 100 writes: 100    ls -l of 100 files: 2
#   answered with ENOSYS:     100 writes: 1      ls -l of 100 files: 0
# Needs root and /dev/fuse.
# Versions: libfuse3-3 3.14.0-4, libfuse3-dev 3.14.0-4, coreutils 9.1-1.
. "$(dirname "$0")/lib.sh"
unpack libfuse3-3=3.14.0-4 libfuse3-dev=3.14.0-4 coreutils=9.1-1
build <<'C'
#include <errno.h>
#include <fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi) {
  (void)fi;
  memset(st, 0, sizeof *st);
  st->st_mode = strcmp(path, "/") ? S_IFREG | 0644 : S_IFDIR | 0755;
  st->st_nlink = 1;
  return 0;
}
static int fs_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *fi,
                      enum fuse_readdir_flags flags) {
  (void)path; (void)offset; (void)fi; (void)flags;
  for (int number = 0; number < 100; number++) {
    char name[16];
    snprintf(name, sizeof name, "file%d", number);
    fill(buffer, name, NULL, 0, 0);
  }
  return 0;
}
static int fs_open(const char *path, struct fuse_file_info *fi) { (void)path; (void)fi; return 0; }
static int fs_write(const char *path, const char *from, size_t size, off_t offset, struct fuse_file_info *fi) {
  (void)path; (void)from; (void)offset; (void)fi;
  return size;
}
static int fs_getxattr(const char *path, const char *name, char *value, size_t size) {
  (void)path; (void)value; (void)size;
  puts(name);
  fflush(stdout);
  return -atoi(getenv("ANSWER"));
}
static const struct fuse_operations operations = {
  .getattr = fs_getattr, .readdir = fs_readdir, .open = fs_open, .write = fs_write, .getxattr = fs_getxattr};
int main(int argc, char **argv) { return fuse_main(argc, argv, &operations, NULL); }
C
mkdir "$work/mount"
asked() { # errno
    ANSWER=$1 timeout 60 "$work/fs" -s -f "$work/mount" >"$work/seen" 2>/dev/null &
    until_mounted "$work/mount"
    : >"$work/seen"
    timeout 30 dd if=/dev/zero of="$work/mount/file0" bs=4096 count=100 conv=notrunc status=none
    printf '100 writes: %-6s ' "$(wc -l <"$work/seen")"
    ls "$work/mount" >/dev/null
    local before=$(wc -l <"$work/seen")
    timeout 30 ls -l "$work/mount" >/dev/null
    printf 'ls -l of 100 files: %s' "$(($(wc -l <"$work/seen") - before))"
    umount "$work/mount"
    wait
}
as_seen "answered with ENODATA:    $(asked 61)
answered with EOPNOTSUPP: $(asked 95)
answered with ENOSYS:     $(asked 38)" "answered with ENODATA:    100 writes: 100    ls -l of 100 files: 203
answered with EOPNOTSUPP: 100 writes: 100    ls -l of 100 files: 2
answered with ENOSYS:     100 writes: 1      ls -l of 100 files: 0" || exit 1
