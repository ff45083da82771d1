"""The messages between client and server. Pure: converts between bytes and values.

Nothing in this package uses a socket, a clock, a thread, a disk or randomness. It is the only part of the server that
dfsfuse may import (besides the reader of config files).

- `frames`: how a message and its payload are laid out on the wire, and their limits.
- `messages`: the requests and the replies.
- `batches`: the unit of change of a namespace's log, and its digest.
- `ballots`: who may propose.
- `pieces`: digests of a piece, on two levels.
- `status`: why a request failed.
- `limits`: numbers on which both sides must agree.
"""
