#!/bin/bash
# obstore 0.12.1 drops a slash at the beginning or end of a key: put("t/") replaces the object "t", and "/t" is the same object
# again. On S3 these are three objects (a key "t/" is what other tools make to mark a folder). An empty segment in the middle
# ("a//b"), which S3 permits, is a ValueError.
#
# Output seen:
#   after put t, t/, /t: ['t'] holding b'third'
#   a//b: ValueError
#
. "$(dirname "$0")/lib.sh"
venv obstore==0.12.1
timeout 30 "$work/venv/bin/python" - <<'PY' || differs
import sys
import obstore
from obstore.store import MemoryStore
store = MemoryStore()
for key, content in (("t", b"first"), ("t/", b"second"), ("/t", b"third")):
    obstore.put(store, key, content)
keys = [meta["path"] for chunk in obstore.list(store) for meta in chunk]
content = bytes(obstore.get(store, "t").bytes())
print(f"after put t, t/, /t: {keys} holding {content}")
try:
    obstore.put(store, "a//b", b"1")
    middle = "done"
except Exception as error:
    middle = type(error).__name__
print("a//b:", middle)
sys.exit((keys, content, middle) != (["t"], b"third", "ValueError"))
PY
