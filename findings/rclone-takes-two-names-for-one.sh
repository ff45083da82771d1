#!/bin/bash
# rclone 1.60.1 (Debian 12), local files: a name with "‛" (U+201B), which rclone uses for quoting, is doubled when it is listed and not
# halved when the file is opened. Such a file cannot be copied ("no such file or directory"), unless there is a file whose name
# has the character twice: then that one is read in its place. If both are of the same size and time, `rclone copy` ends with
# status 0, `rclone check` finds no difference, and one of the two files is not in the copy.
#
# Output seen:
#   one file, x‛y: copy 1, in the copy:
#   x‛y and x‛‛y: copy 0, check 0, in the copy: x‛‛y (two)
# Versions: rclone 1.60.1+dfsg-2+b5.
. "$(dirname "$0")/lib.sh"
unpack rclone=1.60.1+dfsg-2+b5
cd "$work"
export HOME="$work"
mkdir source copy
run() { # the exit status of a command of rclone
    local status=0
    timeout 60 rclone -q "$@" >/dev/null 2>&1 || status=$?
    echo "$status"
}
printf one >'source/x‛y'
touch -d @1700000000 source/*
alone="one file, x‛y: copy $(run copy source copy), in the copy: $(ls copy)"
printf two >'source/x‛‛y'
touch -d @1700000000 source/*
both="x‛y and x‛‛y: copy $(run copy source copy), check $(run check source copy), in the copy: $(ls copy) ($(cat copy/*))"
as_seen "$alone
$both" "one file, x‛y: copy 1, in the copy: 
x‛y and x‛‛y: copy 0, check 0, in the copy: x‛‛y (two)" || exit 1
