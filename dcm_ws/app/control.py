"""
The channel between a supervisor and each of its workers: a pair of connected sockets, and a line of JSON per message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from dcm_ws.app.node_memory import Plan
from dcm_ws.app.settings import Settings
from dcm_ws.app.sockets import Inherited

CONTROL, MEMORY, SOCKETS = 3, 4, 5
"""
Descriptors of a worker: the channel, the common memory, and the first of its listening sockets.
"""

NOTHING = msgspec.Raw(b"null")
"""
What is there in place of a report that has not come.
"""

_LONGEST = 256 << 20

_log = Logger(namespace="dcm_ws.workers")


class Start(msgspec.Struct, tag=True):
    """
    The first message to a worker: what it is.

    @ivar worker: its number, from 1 on.
    @ivar reactor: the name of the module with its reactor.
    """

    worker: int
    reactor: str
    settings: Settings
    sockets: list[Inherited]
    plan: Plan


class IsStopping(msgspec.Struct, tag=True):
    """
    To a worker: the service is about to stop, and goes on until the drain delay has passed.
    """


class Drain(msgspec.Struct, tag=True):
    """
    To a worker: end, as on SIGTERM.
    """


class Check(msgspec.Struct, tag=True):
    """
    To a worker, which returns it: does it still run?
    """


class Renew(msgspec.Struct, tag=True):
    """
    To a worker: what has been read again on SIGHUP.
    """

    secrets: list[str]
    database: str | None


class Running(msgspec.Struct, tag=True):
    """
    From a worker: it answers questions.
    """


class Ready(msgspec.Struct, tag=True):
    """
    From a worker: it serves clients.
    """


class Failed(msgspec.Struct, tag=True):
    """
    From a worker: why it cannot start.
    """

    reason: str


class Locate(msgspec.Struct, tag=True):
    """
    From a worker: where is the embedded PostgreSQL?
    """

    request: int


class Located(msgspec.Struct, tag=True):
    """
    The answer: a connection string, or why there is none.
    """

    request: int
    dsn: str
    error: str


class Gather(msgspec.Struct, tag=True):
    """
    From a worker: what do the other workers say?

    @ivar what: C{health}, C{stats}, C{metrics} or C{ready}.
    @ivar names: include names in the report.
    """

    request: int
    what: str
    names: bool


class Ask(msgspec.Struct, tag=True):
    """
    To the other workers: the same question.
    """

    request: int
    what: str
    names: bool


class Answer(msgspec.Struct, tag=True):
    """
    From one of them.
    """

    request: int
    value: msgspec.Raw


class Part(msgspec.Struct):
    """
    What one of the other workers has said.

    @ivar pid: of its process; 0 if there is none.
    @ivar value: C{null} if it has not answered in time.
    """

    worker: int
    pid: int
    value: msgspec.Raw = NOTHING


class Gathered(msgspec.Struct, tag=True):
    """
    To the worker that asked.

    @ivar own: what the supervisor adds to the report.
    """

    request: int
    parts: list[Part]
    own: msgspec.Raw


ToWorker = Start | IsStopping | Drain | Check | Renew | Located | Ask | Gathered
FromWorker = Running | Ready | Failed | Check | Locate | Gather | Answer


def _plain(value: object) -> object:
    # paths, of which there are some among the settings
    return str(value)


def _made(kind: Any, value: object) -> object:
    return kind(value)


_encoder = msgspec.json.Encoder(enc_hook=_plain)
_to_worker: msgspec.json.Decoder[ToWorker] = msgspec.json.Decoder(ToWorker, dec_hook=_made)
_from_worker: msgspec.json.Decoder[FromWorker] = msgspec.json.Decoder(FromWorker)


def encode(value: object) -> bytes:
    """
    A message, or a report within one, as JSON.
    """
    return _encoder.encode(value)


class Channel(LineOnlyReceiver):
    """
    One end of the channel.

    @param decode: makes a message of a line.
    @param received: called with each message.
    @param lost: called when the other process has ended or closed its end.
    """

    delimiter = b"\n"
    MAX_LENGTH = _LONGEST

    def __init__(
        self, decode: Callable[[bytes], Any], received: Callable[[Any], object], lost: Callable[[], object]
    ) -> None:
        self._decode = decode
        self._received = received
        self._lost = lost

    def send(self, message: msgspec.Struct) -> None:
        """
        Send a message; nothing happens if the other process has ended.
        """
        if self.connected:
            self.sendLine(_encoder.encode(message))

    def lineReceived(self, line: bytes) -> None:
        try:
            self._received(self._decode(line))
        except Exception:
            _log.failure("a message between the supervisor and a worker failed")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost()


def to_workers(received: Callable[[FromWorker], object], lost: Callable[[], object]) -> Channel:
    """
    The supervisor's end of a channel.
    """
    return Channel(_from_worker.decode, received, lost)


def to_supervisor(received: Callable[[ToWorker], object], lost: Callable[[], object]) -> Channel:
    """
    A worker's end.
    """
    return Channel(_to_worker.decode, received, lost)


def open_channel(reactor: Any, descriptor: int, family: int, channel: Channel) -> None:
    """
    Send and receive on a connected socket, whose descriptor the caller may close afterwards.
    """
    reactor.adoptStreamConnection(descriptor, family, Factory.forProtocol(lambda: channel))


def read_start(read: Callable[[int], bytes]) -> Start:
    """
    Wait for the first message.

    @param read: reads so many bytes of it at most.
    @raise EOFError: the supervisor has ended.
    """
    line = bytearray()
    # nothing else may be read yet, and it is short
    while not line.endswith(b"\n"):
        byte = read(1)
        if not byte:
            raise EOFError("the supervisor has ended")
        line += byte
    start = _to_worker.decode(bytes(line))
    assert isinstance(start, Start)
    return start
