#!/bin/bash
# A disk or file system that gives EIO in the middle of a file: which programs take it for the file's end and end with status 0?
# (Debian 12; the file has 1 MiB, of which the first half can be read.) Most tell: cp, rsync, gzip, xz, zstd, sed, sort, node.
#
#   zip 3.0, no word            an archive that holds the first half
#   curl 7.88.1 file://         the first half
#   perl 5.36 reading lines     the first half
#   bash 5.2 $(<file)           the first half
#   duplicity 0.8.22            a backup that restores to the first half; it prints two lines "Error Input/output error getting
#                               delta", and "Errors 0" in its statistics
#   cpio 2.13                   the first half, padded with zeros; it says so
#   numpy 2.4.6 fromfile        1 MiB: the second half is whatever was in the memory (zeros here)
#
# So a file system that knows at open() that a file cannot be read whole does its users a favour by refusing there.
# Needs root and /dev/fuse.
. "$(dirname "$0")/lib.sh"
need zip=3.0-13+deb12u1 curl=7.88.1-10+deb12u15 libcurl4=7.88.1-10+deb12u15 perl-base=5.36.0-7+deb12u4 bash=5.2.15-2+b8 \
    cpio=2.13+dfsg-7.1 duplicity=0.8.22-1+b3 unzip
mkdir "$work/mount"
venv numpy==2.4.6
unpack libfuse3-3=3.14.0-4 libfuse3-dev=3.14.0-4
build <<'C'
#include <errno.h>
#include <fuse.h>
#include <string.h>
static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi) {
  (void)fi;
  memset(st, 0, sizeof *st);
  st->st_nlink = 1;
  st->st_mtime = 1700000000;
  if (!strcmp(path, "/")) { st->st_mode = S_IFDIR | 0755; return 0; }
  if (strcmp(path, "/file")) return -ENOENT;
  st->st_mode = S_IFREG | 0644;
  st->st_size = 1 << 20;
  return 0;
}
static int fs_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *fi,
                      enum fuse_readdir_flags flags) {
  (void)path; (void)offset; (void)fi; (void)flags;
  fill(buffer, "file", NULL, 0, 0);
  return 0;
}
static int fs_read(const char *path, char *buffer, size_t size, off_t offset, struct fuse_file_info *fi) {
  (void)path; (void)fi;
  if (offset + size > 1 << 19) return -EIO;
  memset(buffer, 'x', size);
  return size;
}
static const struct fuse_operations operations = {.getattr = fs_getattr, .readdir = fs_readdir, .read = fs_read};
int main(int argc, char **argv) { return fuse_main(argc, argv, &operations, NULL); }
C
timeout 200 "$work/fs" -f "$work/mount" >/dev/null 2>&1 &
until_mounted "$work/mount"
cd "$work"
export PASSPHRASE=
seen=""
try() { # name, then a shell line whose standard output is what it made of the file
    local name=$1 status=0 bytes
    bytes=$(timeout 60 bash -o pipefail -c "$2" 2>/dev/null) || status=$?
    seen="$seen$name: status $status, $bytes bytes
"
}
try zip 'zip -q archive.zip mount/file && unzip -p archive.zip | wc -c'
try curl 'curl -s "file://$PWD/mount/file" | wc -c'
try perl 'perl -ne print mount/file | wc -c'
try bash 'x=$(<mount/file); echo ${#x}'
try duplicity 'duplicity full --no-encryption --archive-dir cache1 mount file://$PWD/backup >/dev/null &&
    duplicity restore --no-encryption --archive-dir cache2 file://$PWD/backup back >/dev/null && wc -c <back/file'
try cpio 'echo mount/file | cpio --quiet -o >archive.cpio && cpio --quiet -i --to-stdout <archive.cpio | wc -c'
try numpy 'venv/bin/python -c "import numpy; print(len(numpy.fromfile(\"mount/file\", \"u1\")))"'
as_seen "$seen" "zip: status 0, 524288 bytes
curl: status 0, 524288 bytes
perl: status 0, 524288 bytes
bash: status 0, 524288 bytes
duplicity: status 0, 524288 bytes
cpio: status 0, 1048576 bytes
numpy: status 0, 1048576 bytes
" || exit 1
