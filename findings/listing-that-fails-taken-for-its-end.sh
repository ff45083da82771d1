#!/bin/bash
# A folder of 2,000 files whose listing gives EIO after 1,000 names, as an unreliable disk or network file system does: which programs
# take that for the folder's end, and end with status 0? (Debian 12.) Many tell: ls, find, du, tar, cp -r, rsync (with --delete
# it deletes nothing then), rclone sync, borg, restic, make, os.listdir and shutil.copytree of Python, node.
#
#   zip -r 3.0, no word          an archive of the first half
#   git add -A 2.39.5, no word   the first half
#   bash 5.2 and dash 0.5.12     "*" is the first half
#   perl 5.36 readdir            the first half, unless the program looks at $!
#   python 3.11 make_archive     of shutil, to zip: an archive without files; os.walk() leaves out what it cannot list
#   duplicity 0.8.22             a backup after which list-current-files has none, though the one before had 2,000
#   rdiff-backup 2.2.2           a mirror without files: the 2,000 copies are gone from it; it prints a line
#
# So a file system that cannot list a folder whole does its users a favour by refusing at opendir(), before the first name.
# Needs root and /dev/fuse.
. "$(dirname "$0")/lib.sh"
need zip=3.0-13+deb12u1 git=1:2.39.5-0+deb12u3 bash=5.2.15-2+b8 dash=0.5.12-2 perl-base=5.36.0-7+deb12u4 duplicity=0.8.22-1+b3 \
    rdiff-backup=2.2.2-1 python3.11=3.11.2-6+deb12u6 unzip
unpack libfuse3-3=3.14.0-4 libfuse3-dev=3.14.0-4
build <<'C'
#include <errno.h>
#include <fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi) {
  (void)fi;
  memset(st, 0, sizeof *st);
  st->st_mtime = 1700000000;
  st->st_nlink = 2;
  st->st_mode = S_IFDIR | 0755;
  if (!strcmp(path, "/") || !strcmp(path, "/folder")) return 0;
  if (strncmp(path, "/folder/file", 12)) return -ENOENT;
  st->st_mode = S_IFREG | 0644;
  st->st_nlink = 1;
  st->st_size = 1;
  return 0;
}
static int fs_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *fi,
                      enum fuse_readdir_flags flags) {
  int is_broken = access(getenv("BROKEN"), F_OK) == 0;
  (void)fi; (void)flags;
  if (!strcmp(path, "/")) { if (!offset) fill(buffer, "folder", NULL, 1, 0); return 0; }
  for (off_t at = offset; at < 2000; at++) {
    char name[32];
    if (at == 1000 && is_broken) return at == offset ? -EIO : 0;
    snprintf(name, sizeof name, "file%ld", (long)at);
    if (fill(buffer, name, NULL, at + 1, 0)) break;
  }
  return 0;
}
static int fs_read(const char *path, char *to, size_t size, off_t offset, struct fuse_file_info *fi) {
  (void)path; (void)fi; (void)size;
  if (offset) return 0;
  *to = 'x';
  return 1;
}
static const struct fuse_operations operations = {.getattr = fs_getattr, .readdir = fs_readdir, .read = fs_read};
int main(int argc, char **argv) { return fuse_main(argc, argv, &operations, NULL); }
C
cd "$work"
mkdir mount
BROKEN="$work/broken" timeout 500 ./fs -f -o attr_timeout=0,entry_timeout=0 mount 2>/dev/null &
until_mounted mount
export HOME="$work" PASSPHRASE="" folder="$work/mount/folder"
duplicity="--no-encryption --archive-dir $work/cache file://$work/backup"
mirror="rdiff-backup --api-version 201 backup $folder $work/mirror"
duplicity full "$folder" $duplicity >/dev/null
$mirror >/dev/null
export duplicity mirror
sleep 1.1 # two backups of one second are refused
touch broken
seen=""
try() { # name, then a shell line whose standard output is the number of files that it found
    local name=$1 status=0 files
    files=$(timeout 100 bash -o pipefail -c "$2" 2>/dev/null) || status=$?
    seen="$seen$name: status $status, $files files
"
}
try zip 'cd $folder && zip -q -r $HOME/archive.zip . && unzip -Z1 $HOME/archive.zip | wc -l'
try git 'git init -q tree && cd tree && git --work-tree=$folder add -A . && git ls-files | wc -l'
try bash 'cd $folder && set -- * && echo $#'
try dash 'cd $folder && dash -c "set -- * && echo \$#"'
try perl 'perl -e "opendir my \$folder, \$ENV{folder} or exit 1; print scalar(grep /file/, readdir \$folder)"'
try make_archive '/usr/bin/python3.11 -c "import os, shutil; shutil.make_archive(\"tree\", \"zip\", os.environ[\"folder\"])" &&
    { unzip -Z1 tree.zip || true; } | { grep -c "file[0-9]" || true; }'
try duplicity 'duplicity incr $folder $duplicity >/dev/null &&
    duplicity list-current-files $duplicity | { grep -c "file[0-9]" || true; }'
try rdiff-backup '$mirror >/dev/null && ls $HOME/mirror | { grep -c file || true; }'
as_seen "$seen" "zip: status 0, 1000 files
git: status 0, 1000 files
bash: status 0, 1000 files
dash: status 0, 1000 files
perl: status 0, 1000 files
make_archive: status 0, 0 files
duplicity: status 0, 0 files
rdiff-backup: status 0, 0 files
" || exit 1
