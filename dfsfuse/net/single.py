"""One request to one server, for a caller who needs no other: over an idle connection, without an exchange.

When all is well it takes three system calls: send, wait, receive. Anything unusual is left to an exchange, which takes
over the call as it stands: there is no idle connection, or it is lost, the answer is an error, or does not come in
time. So nothing is checked here but that the answer fits such a request.

Threads: any.
"""

from __future__ import annotations

from dfs_server.protocol import messages
from dfs_server.protocol.frames import ProtocolError
from dfs_server.protocol.messages import Reply
from dfsfuse.errors import DfsError
from dfsfuse.net import meanwhile
from dfsfuse.net.calls import Answer, Call
from dfsfuse.net.connection import Connection
from dfsfuse.net.exchange import Exchange
from dfsfuse.net.expected import REPLIES
from dfsfuse.net.handshake import RefusalError
from dfsfuse.net.lines import Lines


def ask_one(lines: Lines, call: Call, patience_s: float) -> Answer | Exchange:
    """Return the answer, if it comes within `patience_s`; else an exchange, not yet entered, that has the call in
    flight or finished. Until such an exchange is left, the call's buffers belong to it."""
    exchange: Exchange | None = None
    connection = lines.borrow_unasked(call.server)
    if connection is not None:
        try:
            reply = _reply(lines, connection, call, patience_s)
        except (OSError, ProtocolError, RefusalError, DfsError) as error:
            connection.close()  # the server may have closed it long ago: it is asked again, over another one
            if isinstance(error, ProtocolError):
                lines.note_fault(call.server, f"no answer to {type(call.request).__name__}: {error}")
        except BaseException:
            connection.close()
            raise
        else:
            if _is_as_hoped(call, connection, reply):
                assert reply is not None
                answer = Answer(call, reply, connection.payload_bytes)
                lines.give_back(connection)
                lines.answered(call.server)
                return answer
            exchange = Exchange(lines)
            exchange.go_on(call, connection, reply)
    if exchange is None:
        exchange = Exchange(lines)
        exchange.start(call)
    return exchange


def _reply(lines: Lines, connection: Connection, call: Call, patience_s: float) -> Reply | None:
    """Return the reply to the call; None if it has not come in time."""
    connection.begin(messages.encode(call.request), call.payload, call.sink, call.head_bytes)
    until = lines.clock() + patience_s
    while True:
        events = meanwhile.wait(connection.fd, connection.events, until - lines.clock())
        reply = connection.advance(events) if events else None
        if reply is not None or not events:
            return reply


def _is_as_hoped(call: Call, connection: Connection, reply: Reply | None) -> bool:
    """Return whether the call was answered, by a server that is known."""
    return isinstance(reply, REPLIES[type(call.request)]) and connection.is_met and connection.finish()
