#!/bin/bash
# reedsolo 1.7.0: decode() takes the places of erasures counted from the beginning of the message, and tells the places of what it
# corrected counted from the beginning of their chunk (255 bytes), for all chunks in one list that does not say which chunk each
# one is in. So damage at the bytes 0, 300 and 520 comes back as 0, 45 and 10. Whoever logs where a disk or a network is bad, or hands
# them to the next decode() as erasures, gets wrong places as soon as a message is longer than 245 bytes.
#
# Output seen (512 bytes, 10 of parity for each 245):
#   erased and damaged 300 to 307, erase_pos=[300, ...]: decoded, told 45 to 52
#   damaged 0, 300, 520: decoded, told [0, 45, 10]
#   damaged 300 to 307, erase_pos=[45, ...] as told: ReedSolomonError
# Needs a network that reaches the package registry.
. "$(dirname "$0")/lib.sh"
venv reedsolo==1.7.0
as_seen "$(timeout 60 "$work/venv/bin/python" - <<'PY'
import reedsolo

codec = reedsolo.RSCodec(10)
message = bytes(range(256)) * 2

def decoded(damage, erased=None):
    encoded = bytearray(codec.encode(message))
    for place in damage:
        encoded[place] ^= 0xFF
    try:
        found, _, places = codec.decode(encoded, erase_pos=erased)
    except reedsolo.ReedSolomonError:
        return None, "ReedSolomonError"
    assert found == message
    return list(places), "decoded"

together = list(range(300, 308))
told, outcome = decoded(together, together)
print(f"erased and damaged 300 to 307, erase_pos=[300, ...]: {outcome}, told {told[0]} to {told[-1]}")
scattered, outcome = decoded([0, 300, 520])
print(f"damaged 0, 300, 520: {outcome}, told {scattered}")
print("damaged 300 to 307, erase_pos=[45, ...] as told:", decoded(together, told)[1])
PY
)" "erased and damaged 300 to 307, erase_pos=[300, ...]: decoded, told 45 to 52
damaged 0, 300, 520: decoded, told [0, 45, 10]
damaged 300 to 307, erase_pos=[45, ...] as told: ReedSolomonError" || exit 1
