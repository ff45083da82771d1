#!/bin/bash
# Linux 6.18 with libfuse 3.14.0 (Debian 12): a write(2) whose source memory is not aligned to a page and was never touched reaches
# a FUSE file system in requests of 48 and 4,048 bytes instead of 1 MiB: 512 times as many. The kernel copies with page faults
# switched off, comes to a page that is not there, sends what it has got, and faults in one more page. Every bytes(n) of CPython is
# such memory (zeroed by calloc, 48 bytes behind the page's beginning), so a benchmark that writes zeros that way measures the
# cost of requests. Memory that was written to before, or that is aligned, is sent in requests of 1 MiB.
#
# Output seen (16 MiB in one write):
#   bytes(16 MiB):               8192 requests of 48 to 4048 bytes
#   the same, written to before:   16 requests of 1048576 to 1048576 bytes
#   untouched, aligned (mmap):     16 requests of 1048576 to 1048576 bytes
# Needs root and /dev/fuse.
. "$(dirname "$0")/lib.sh"
mkdir "$work/mount"
unpack libfuse3-3=3.14.0-4 libfuse3-dev=3.14.0-4
build <<'C'
#include <errno.h>
#include <fuse.h>
#include <stdio.h>
#include <string.h>
static size_t requests, smallest, largest;
static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi) {
  (void)fi;
  memset(st, 0, sizeof *st);
  st->st_mode = strcmp(path, "/") ? S_IFREG | 0644 : S_IFDIR | 0755;
  st->st_nlink = 1;
  return 0;
}
static int fs_open(const char *path, struct fuse_file_info *fi) {
  (void)path; (void)fi;
  requests = largest = 0;
  smallest = -1;
  return 0;
}
static int fs_write(const char *path, const char *data, size_t size, off_t offset, struct fuse_file_info *fi) {
  (void)path; (void)data; (void)offset; (void)fi;
  requests++;
  if (size < smallest) smallest = size;
  if (size > largest) largest = size;
  return size;
}
static int fs_release(const char *path, struct fuse_file_info *fi) {
  (void)path; (void)fi;
  printf("%zu requests of %zu to %zu bytes\n", requests, smallest, largest);
  fflush(stdout);
  return 0;
}
static const struct fuse_operations operations = {
  .getattr = fs_getattr, .open = fs_open, .write = fs_write, .release = fs_release};
int main(int argc, char **argv) { return fuse_main(argc, argv, &operations, NULL); }
C
timeout 60 "$work/fs" -s -f "$work/mount" >"$work/seen" 2>/dev/null &
until_mounted "$work/mount"
timeout 30 python3 - "$work/mount/file" <<'PY'
import mmap, os, sys
size = 16 << 20
for data in (bytes(size), b"\1" * size, mmap.mmap(-1, size)):
    file = os.open(sys.argv[1], os.O_WRONLY)
    os.write(file, data)
    os.close(file)
PY
umount "$work/mount"
wait
paste -d ' ' <(printf 'bytes(16 MiB):\nthe same, written to before:\nuntouched, aligned (mmap):\n') "$work/seen"
awk '{ ok = NR == 1 ? $1 > 4000 && $6 <= 8192 : $1 == 16; if (!ok) exit 1 } END { if (NR != 3) exit 1 }' "$work/seen" ||
    differs
