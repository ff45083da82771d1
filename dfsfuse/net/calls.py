"""Calls and their outcomes: values, and how a reply or a broken connection becomes an outcome. Pure.

A server's failure is a value, with a sentence that names the server; the exceptions of the layers below end here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from dfs_server.protocol.frames import ProtocolError
from dfs_server.protocol.messages import AcceptedAt, Done, Error, PutPiece, Reply, Request, ServerStatus
from dfs_server.protocol.pieces import Buffer
from dfs_server.protocol.status import Status
from dfsfuse.errors import AuthenticationError, DfsError, posix_error
from dfsfuse.net.expected import REPLIES
from dfsfuse.net.handshake import RefusalError
from dfsfuse.net.servers import ServerAddress, UnknownHostError
from dfsfuse.net.stalls import DEFAULT_S


class Call(msgspec.Struct, eq=False):
    """One request to one server. `payload` goes out after it; the reply's payload goes into `sink`.

    The buffers must not be changed (payload) or used (sink) before the call is finished. `stall_s`: if no byte moves in
    either direction for this long, the server is considered down. `is_patient`: servers that are slow together
    (`slowness`) are waited for longer; else the call ends after `stall_s`, and nothing is concluded about its server.
    `head_bytes`: the length of the reply's header and body if it is the expected one; 0 if unknown.
    """

    server: int
    request: Request
    payload: tuple[Buffer, ...] = ()
    sink: memoryview | None = None
    stall_s: float = DEFAULT_S
    is_patient: bool = False
    head_bytes: int = 0


class Answer(NamedTuple):
    """The server did it, or has a reason, defined by the protocol, not to. `reply` has a type that fits the request."""

    call: Call
    reply: Reply
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class Failure:
    """It did not. `status` is None if there was no answer (refused, lost, stalled): then it may still happen.

    `text` names the server. `error` is set if it is not the server that the config names, or rejects the user. `reason`
    says the same in a few words, for a table that already names the server.
    """

    call: Call
    status: Status | None
    text: str
    error: DfsError | None = None
    reason: str = field(default="", compare=False)


def outcome_of(call: Call, server: ServerAddress, reply: Reply, payload_bytes: int) -> Answer | Failure:
    """Return what a complete reply means for its call. Raises `ProtocolError` if it does not answer such a request."""
    if isinstance(reply, Error):
        return Failure(call, status_of(reply.status), f"{server}: {reply.text}")
    if isinstance(reply, REPLIES[type(call.request)]):
        return Answer(call, reply, payload_bytes)
    raise ProtocolError(f"{type(reply).__name__} is no answer to {type(call.request).__name__}")


def failure_of(call: Call, server: ServerAddress, error: Exception) -> Failure:
    """Return what the end of a connection means for its call."""
    if isinstance(error, RefusalError):
        return Failure(call, status_of(error.status), f"{server}: {error}", reason=str(error))
    if isinstance(error, DfsError):
        refused = isinstance(error, AuthenticationError)
        return Failure(call, None, str(error), error, "refused the password" if refused else "another server")
    if isinstance(error, ProtocolError):
        text = f"{server} does not speak this protocol: {error}"
        return Failure(call, None, text, reason="does not speak this protocol")
    return Failure(call, None, f"{server} does not answer: {_reason(error)}", reason=_in_a_few_words(error))


def is_full(outcome: Answer | Failure) -> bool | None:
    """Return whether the server has no room for data; None if the outcome does not show it."""
    if isinstance(outcome, Failure):
        return True if outcome.status == Status.NO_SPACE else None
    match outcome.reply:
        case AcceptedAt(full=full):
            return full
        case ServerStatus(free_bytes=free_bytes):
            return free_bytes == 0
        case Done() if isinstance(outcome.call.request, PutPiece):
            return False
    return None


def status_of(number: int) -> Status:
    """Return the status with this number; one that only a newer server knows becomes IO_ERROR."""
    try:
        return Status(number)
    except ValueError:
        return Status.IO_ERROR


def _in_a_few_words(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "no answer"
        case UnknownHostError():
            return "unknown host"
        case ConnectionResetError():
            return "closed the connection"
    return _reason(error)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
        return text[0].lower() + text[1:] if error.errno and text == posix_error(error.errno).strerror else text
    return str(error)
