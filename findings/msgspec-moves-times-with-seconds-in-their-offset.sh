#!/bin/bash
# msgspec 0.23.0: a datetime whose offset from UTC has seconds is encoded as another instant, without an error: RFC 3339 has hours and
# minutes, and msgspec rounds the offset to minutes and leaves the clock time as it is. Liberia had such an offset until 1972, and every
# zone of zoneinfo has one before its first standard time. isoformat() of Python writes the seconds; MessagePack keeps the instant,
# and so does a datetime that is converted to UTC first.
#
# Output seen:
#   1971-06-01 in Monrovia: 1971-06-01T00:00:00-00:44:30
#   JSON: "1971-06-01T00:00:00-00:44"
#   decoded again: -30.0 s
#   MessagePack, decoded again: +0.0 s
# Needs a network that reaches the package registry.
. "$(dirname "$0")/lib.sh"
venv msgspec==0.23.0 tzdata==2025.2
as_seen "$(PYTHONTZPATH="" timeout 60 "$work/venv/bin/python" - <<'PY'
import datetime
import zoneinfo
import msgspec

old = datetime.datetime(1971, 6, 1, tzinfo=zoneinfo.ZoneInfo("Africa/Monrovia"))
print("1971-06-01 in Monrovia:", old.isoformat())
print("JSON:", msgspec.json.encode(old).decode())
for name, format in (("decoded again", msgspec.json), ("MessagePack, decoded again", msgspec.msgpack)):
    print(f"{name}: {(format.decode(format.encode(old), type=datetime.datetime) - old).total_seconds():+} s")
PY
)" "1971-06-01 in Monrovia: 1971-06-01T00:00:00-00:44:30
JSON: \"1971-06-01T00:00:00-00:44\"
decoded again: -30.0 s
MessagePack, decoded again: +0.0 s" || exit 1
