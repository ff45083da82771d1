"""What client and server say to each other. Pure: bytes in, values out, and back.

Nothing in this package knows a socket, a clock, a thread, a disk or randomness. It is all that
dfsfuse may import from the server's side (besides the reader of config files).

- `frames`: how a message and its payload are laid out on the wire, and the limits of both.
- `messages`: the requests and the replies.
- `batches`: the unit of change of a namespace's log, and its digest.
- `ballots`: who may propose.
- `pieces`: digests of a piece, on two levels.
- `status`: why a request failed.
- `limits`: numbers that both must have in common.
"""
