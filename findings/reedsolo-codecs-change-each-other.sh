#!/bin/bash
# reedsolo 1.7.0: to make a codec for symbols of more than 8 bits (c_exp) breaks those of 8 bits that exist already, and the other way round:
# what holds the symbols (bytearray or array) is one setting of the module, which each new codec changes. The first one's decode()
# then fails with a ValueError about item sizes, on what it decoded a moment before; encode() gives an array in place of a
# bytearray. Two kinds of codec cannot be used in turns in one process.
#
# Output seen:
#   8 bits: b'hello'
#   8 bits, after a codec of 10 bits was made: ValueError: bytes length not a multiple of item size
#   10 bits: [1000, 1, 2]
#   10 bits, after a codec of 8 bits was made: ValueError: byte must be in range(0, 256)
# Needs a network that reaches the package registry.
. "$(dirname "$0")/lib.sh"
venv reedsolo==1.7.0
as_seen "$(timeout 60 "$work/venv/bin/python" - <<'PY'
import reedsolo

def show(what, decoded):
    try:
        print(f"{what}: {decoded()}")
    except ValueError as error:
        print(f"{what}: {type(error).__name__}: {error}")

small = reedsolo.RSCodec(10)
damaged = small.encode(b"hello")
damaged[0] ^= 1
show("8 bits", lambda: bytes(small.decode(damaged)[0]))
large = reedsolo.RSCodec(12, c_exp=10, nsize=1023)
show("8 bits, after a codec of 10 bits was made", lambda: bytes(small.decode(damaged)[0]))
show("10 bits", lambda: list(large.decode(large.encode([1000, 1, 2]))[0]))
reedsolo.RSCodec(10)
show("10 bits, after a codec of 8 bits was made", lambda: list(large.decode(large.encode([1000, 1, 2]))[0]))
PY
)" "8 bits: b'hello'
8 bits, after a codec of 10 bits was made: ValueError: bytes length not a multiple of item size
10 bits: [1000, 1, 2]
10 bits, after a codec of 8 bits was made: ValueError: byte must be in range(0, 256)" || exit 1
