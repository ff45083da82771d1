#!/bin/bash
# msgspec 0.23.0: a time with more than six digits of a second, as programs with nanoseconds write, is rounded to the nearest microsecond
# when it is decoded from JSON, and with it the second, the day and the year go up; a datetime.time goes to the beginning of the same day,
# 24 hours back; the last microsecond of 9999 is refused as "Invalid RFC3339". datetime.fromisoformat() of Python and msgspec's own
# decoders of YAML and TOML cut the digits off. So the end of an interval that was written as ...59.9999999 lies outside of it.
#
# Output seen:
#   JSON 2020-12-31T23:59:59.9999999Z: 2021-01-01 00:00:00+00:00
#   YAML 2020-12-31T23:59:59.9999999Z: 2020-12-31 23:59:59.999999+00:00
#   JSON 23:59:59.9999999: 00:00:00
#   JSON 9999-12-31T23:59:59.9999999Z: Invalid RFC3339 encoded datetime
# Needs a network that reaches the package registry.
. "$(dirname "$0")/lib.sh"
venv msgspec==0.23.0 PyYAML==6.0.3
as_seen "$(timeout 60 "$work/venv/bin/python" - <<'PY'
import datetime
import msgspec

def show(what, decoded):
    try:
        print(f"{what}: {decoded()}")
    except msgspec.ValidationError as error:
        print(f"{what}: {error}")

new_year, midnight, last = "2020-12-31T23:59:59.9999999Z", "23:59:59.9999999", "9999-12-31T23:59:59.9999999Z"
show(f"JSON {new_year}", lambda: msgspec.json.decode(f'"{new_year}"', type=datetime.datetime))
show(f"YAML {new_year}", lambda: msgspec.yaml.decode(new_year, type=datetime.datetime))
show(f"JSON {midnight}", lambda: msgspec.json.decode(f'"{midnight}"', type=datetime.time))
show(f"JSON {last}", lambda: msgspec.json.decode(f'"{last}"', type=datetime.datetime))
PY
)" "JSON 2020-12-31T23:59:59.9999999Z: 2021-01-01 00:00:00+00:00
YAML 2020-12-31T23:59:59.9999999Z: 2020-12-31 23:59:59.999999+00:00
JSON 23:59:59.9999999: 00:00:00
JSON 9999-12-31T23:59:59.9999999Z: Invalid RFC3339 encoded datetime" || exit 1
