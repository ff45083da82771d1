#!/bin/bash
# sshfs 3.7.3 with OpenSSH's sftp-server 9.2 (Debian 12): a time before 1970 or after February 2106 is set and shown as another one,
# 136 years away, and touch(1) succeeds. The protocol has 32 bits for a time, without a sign; neither side refuses what does not fit.
# A file of 1960 that lies on the server is shown as one of 2096: newer than anything, for make and for backups by time.
#
# Output seen:
#   touch -d 1960-01-01 through sshfs: status 0, on the server 2096-02-06
#   touch -d 2110-01-01 through sshfs: status 0, on the server 1973-11-24
#   a file of 1960-01-01 on the server: through sshfs 2096-02-06
# Needs root and /dev/fuse.
# Versions: sshfs 3.7.3-1.2~deb12u1, libfuse3-3 3.14.0-4, openssh-sftp-server 1:9.2p1-2+deb12u10.
. "$(dirname "$0")/lib.sh"
unpack sshfs=3.7.3-1.2~deb12u1 libfuse3-3=3.14.0-4 openssh-sftp-server=1:9.2p1-2+deb12u10
need libglib2.0-0 # of any version
mkdir "$work/far" "$work/near"
printf '#!/bin/sh\nexec %s/usr/lib/openssh/sftp-server\n' "$debian" >"$work/ssh" # no network: the server at the other end of a pipe
chmod +x "$work/ssh"
sshfs -o ssh_command="$work/ssh" "server:$work/far" "$work/near"
day() { stat -c %y "$1" | cut -d ' ' -f 1; }
seen=""
touch "$work/near/file"
for date in 1960-01-01 2110-01-01; do
    status=0
    touch -d "$date" "$work/near/file" || status=$?
    seen="${seen}touch -d $date through sshfs: status $status, on the server $(day "$work/far/file")
"
done
touch -d 1960-01-01 "$work/far/old"
seen="${seen}a file of $(day "$work/far/old") on the server: through sshfs $(day "$work/near/old")"
umount "$work/near"
as_seen "$seen" "touch -d 1960-01-01 through sshfs: status 0, on the server 2096-02-06
touch -d 2110-01-01 through sshfs: status 0, on the server 1973-11-24
a file of 1960-01-01 on the server: through sshfs 2096-02-06" || exit 1
