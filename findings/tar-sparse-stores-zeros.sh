#!/bin/bash
# GNU tar 1.34 (Debian 12) with --sparse stores zeros in place of a file's content if the file system says st_blocks = 0, and ends with 0
# and without a word. It takes such a file for one hole and does not read it, with --hole-detection=raw neither. Zero is what a FUSE
# file system says that leaves st_blocks out, which fusepy 3.0.1 and libfuse permit. cp --sparse=always (coreutils 9.1) and
# rsync --sparse (3.5.0) read the file. A file system that knows nothing better should say the size in units of 512 bytes,
# rounded up.
#
# Output seen (1 MiB of "x" with st_blocks = 0; how much of it is in the copy):
#   tar: 1048576
#   tar --sparse: 0
#   tar --sparse --hole-detection=raw: 0
#   cp --sparse=always: 1048576
# Needs root and /dev/fuse.
# Versions: libfuse3-3 3.14.0-4, libfuse3-dev 3.14.0-4, tar 1.34+dfsg-1.2+deb12u1, coreutils 9.1-1.
. "$(dirname "$0")/lib.sh"
unpack libfuse3-3=3.14.0-4 libfuse3-dev=3.14.0-4 tar=1.34+dfsg-1.2+deb12u1 coreutils=9.1-1
build <<'C'
#include <errno.h>
#include <fuse.h>
#include <string.h>
static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi) {
  (void)fi;
  memset(st, 0, sizeof *st);
  st->st_nlink = 1;
  st->st_mtime = 1700000000;
  st->st_mode = S_IFDIR | 0755;
  if (!strcmp(path, "/")) return 0;
  if (strcmp(path, "/file")) return -ENOENT;
  st->st_mode = S_IFREG | 0644;
  st->st_size = 1 << 20;
  return 0;
}
static int fs_read(const char *path, char *to, size_t size, off_t offset, struct fuse_file_info *fi) {
  (void)path; (void)fi; (void)offset;
  memset(to, 'x', size);
  return size;
}
static const struct fuse_operations operations = {.getattr = fs_getattr, .read = fs_read};
int main(int argc, char **argv) { return fuse_main(argc, argv, &operations, NULL); }
C
mkdir "$work/mount"
timeout 60 "$work/fs" -f "$work/mount" 2>/dev/null &
until_mounted "$work/mount"
content() { tr -d -c x | wc -c; }
archived() { timeout 30 tar -c "$@" -f "$work/archive" -C "$work/mount" file && tar -x -O -f "$work/archive" | content; }
seen="tar: $(archived)
tar --sparse: $(archived --sparse)
tar --sparse --hole-detection=raw: $(archived --sparse --hole-detection=raw)
cp --sparse=always: $(cp --sparse=always "$work/mount/file" "$work/copy" && content <"$work/copy")"
umount "$work/mount"
wait
as_seen "$seen" "tar: 1048576
tar --sparse: 0
tar --sparse --hole-detection=raw: 0
cp --sparse=always: 1048576" || exit 1
