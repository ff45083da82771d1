#!/bin/bash
# cpio 2.13 (Debian 12): of a file's inode number an archive has room for 32 bits (newc, crc; 18 in odc, 16 in bin), and the rest is cut off
# without a word. Two files that have other names too (hard links) and whose numbers differ only in the part that was cut become one
# at extraction: the first one's content, four names. Both commands end with 0. Network and FUSE file systems often have numbers of
# 64 bits, with a server or a table in the upper half. `cpio --renumber-inodes` or `cpio -H ustar` (which links by name) help; cp -a
# (coreutils 9.1) and rsync -aH (3.5.0) keep the two apart.
#
# Output seen (a1 and a2 are one file, b1 and b2 another; what is in the copies):
#   newc: first first first first
#   odc: first first first first
#   newc --renumber-inodes: first first second second
#   ustar: first first second second
# Needs root and /dev/fuse.
# Versions: libfuse3-3 3.14.0-4, libfuse3-dev 3.14.0-4, cpio 2.13+dfsg-7.1.
. "$(dirname "$0")/lib.sh"
unpack libfuse3-3=3.14.0-4 libfuse3-dev=3.14.0-4 cpio=2.13+dfsg-7.1
build <<'C'
#include <errno.h>
#include <fuse.h>
#include <string.h>
static const char *names[] = {"/a1", "/a2", "/b1", "/b2"};
static int number_of(const char *path) {
  for (int number = 0; number < 4; number++)
    if (!strcmp(path, names[number])) return number;
  return -1;
}
static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi) {
  int number = number_of(path);
  (void)fi;
  memset(st, 0, sizeof *st);
  st->st_mtime = 1700000000;
  st->st_nlink = 2;
  st->st_ino = 1;
  st->st_mode = S_IFDIR | 0755;
  if (!strcmp(path, "/")) return 0;
  if (number < 0) return -ENOENT;
  st->st_mode = S_IFREG | 0644;
  st->st_size = 7;
  st->st_ino = number < 2 ? 0x100000007 : 0x200000007;
  return 0;
}
static int fs_read(const char *path, char *to, size_t size, off_t offset, struct fuse_file_info *fi) {
  (void)fi;
  if (offset >= 7) return 0;
  if (offset + size > 7) size = 7 - offset;
  memcpy(to, (number_of(path) < 2 ? " first\n" : "second\n") + offset, size);
  return size;
}
static void *fs_init(struct fuse_conn_info *connection, struct fuse_config *config) {
  (void)connection;
  config->use_ino = 1;
  return NULL;
}
static const struct fuse_operations operations = {.init = fs_init, .getattr = fs_getattr, .read = fs_read};
int main(int argc, char **argv) { return fuse_main(argc, argv, &operations, NULL); }
C
mkdir "$work/mount"
timeout 60 "$work/fs" -f "$work/mount" 2>/dev/null &
until_mounted "$work/mount"
copied() { # options of cpio
    rm -rf "$work/copy"
    mkdir "$work/copy"
    (cd "$work/mount" && printf '%s\n' a1 a2 b1 b2 | cpio --quiet -o -H "$@") >"$work/archive"
    (cd "$work/copy" && cpio --quiet -i <"$work/archive")
    echo "$*: $(cat "$work"/copy/?? | xargs)"
}
seen=$(copied newc && copied odc && copied newc --renumber-inodes && copied ustar)
umount "$work/mount"
wait
as_seen "$seen" "newc: first first first first
odc: first first first first
newc --renumber-inodes: first first second second
ustar: first first second second" || exit 1
