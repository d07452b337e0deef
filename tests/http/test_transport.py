"""
What C{dcm_ws.http.transport} uses of Twisted without its being documented is still there, and as expected.

The first tests import Twisted and not that module, so that they can say what is missing.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import socket
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.tcp import Connection, Server
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from tests.integration.machine import until

MODULE = "dcm_ws/http/transport.py"
TWISTED = f"Twisted {version('twisted')}"


def tcp() -> Any:
    return Server(FakeSocket(), Protocol(), ("192.0.2.1", 1), None, 1, MemoryReactorClock())  # type: ignore[arg-type]


def channel() -> Any:
    return HTTPChannel()


def asked() -> Any:
    """
    A channel in the middle of a request.
    """
    made = channel()
    made.site = Site(Resource())
    made.requestFactory = Request
    made.makeConnection(StringTransport())
    made.dataReceived(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
    return made


def request() -> Any:
    made = channel()
    made.site = Site(Resource())
    made.makeConnection(StringTransport())
    return Request(made)


def tls() -> Any:
    factory = TLSMemoryBIOFactory(optionsForClientTLS("localhost"), True, Factory.forProtocol(Protocol))
    protocol = factory.buildProtocol(None)
    protocol.makeConnection(StringTransport())
    return protocol


def proxied() -> Any:
    wrapper = importlib.import_module("twisted.protocols.haproxy._wrapper")
    return wrapper.HAProxyProtocolWrapper(WrappingFactory(Factory.forProtocol(Protocol)), Protocol())


class FakeSocket:
    """
    A socket whose kernel takes up to C{room} bytes.
    """

    def __init__(self) -> None:
        self.taken = b""
        self.room = 1 << 20

    def send(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        size = min(len(data), self.room)
        self.room -= size
        self.taken += bytes(data[:size])
        return size

    def fileno(self) -> int:
        return 99

    def setblocking(self, flag: bool) -> None:
        pass


# by what makes an object that has it: the name, the kind of its value, and what it is used for
USED: list[tuple[Callable[[], Any], str, object, str]] = [
    (tcp, "TLS", bool, "tells plain TCP from TLS by it"),
    (tcp, "_tempDataBuffer", list, "joins the writes that wait in it"),
    (tcp, "_tempDataLen", int, "counts the bytes that wait"),
    (tcp, "bufferSize", int, "limits with it what one turn of the reactor reads"),
    (tcp, "connected", (int, bool), "does not abort a connection that has ended"),
    (tcp, "dataBuffer", bytes, "counts the bytes that wait"),
    (tcp, "offset", int, "counts the bytes that wait"),
    (tcp, "socket", FakeSocket, "writes to it at once"),
    (channel, "_abortingCall", type(None), "aborts HTTP connections in time by it"),
    (channel, "_buffer", bytes, "sees in it whether a request has begun"),
    (channel, "_dataBuffer", list, "sees in it whether the client pipelines"),
    (channel, "_handlingRequest", bool, "sees by it whether a response is missing"),
    (channel, "_log", object, "puts a log that drops everything in its place"),
    (channel, "_respondToBadRequestAndDisconnect", callable, "responds in JSON in its place"),
    (channel, "_send100Continue", callable, "asks for no body that is too large"),
    (asked, "_path", bytes, "reads in it which page a body is for"),
    (channel, "abortTimeout", int, "aborts HTTP connections in that time"),
    (channel, "callLater", callable, "aborts HTTP connections in time by it"),
    (channel, "forceAbortClient", callable, "aborts HTTP connections by it"),
    (request, "_log", object, "puts a log that drops everything in its place"),
    (tls, "_appSendBuffer", list, "counts the bytes that wait for TLS"),
    (proxied, "_parser", type(None), "sees by it whether the head of the PROXY protocol has begun"),
    (proxied, "_proxyInfo", type(None), "sees by it whether the head of the PROXY protocol is complete"),
]

NAMES = {name for _, name, _, _ in USED}


@pytest.mark.parametrize(("make", "name", "kind", "use"), USED, ids=lambda value: getattr(value, "__name__", None))
def test_names(make: Callable[[], Any], name: str, kind: Any, use: str) -> None:
    """
    Each name that is used is there, and of the kind expected.
    """
    owner = make()
    assert hasattr(owner, name), f"{TWISTED} has no {type(owner).__name__}.{name} any more: see {MODULE}, which {use}"
    value = getattr(owner, name)
    assert callable(value) if kind is callable else isinstance(value, kind), (
        f"{TWISTED}: {type(owner).__name__}.{name} is {value!r}, and not of {kind}: see {MODULE}, which {use}"
    )


def test_table_is_complete() -> None:
    """
    Every private name that the module uses is in the table above, and every name of the table is used.
    """
    tree = ast.parse((Path(__file__).parents[2] / MODULE).read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    used |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    private = {name for name in used if name.startswith("_") and not name.endswith("__")} - {"_SILENCE"}
    assert private <= NAMES
    assert used >= NAMES


def test_what_waits_in_a_connection() -> None:
    """
    What a TCP connection has been given and not written is in the two buffers that are counted, in order.
    """
    ours = importlib.import_module("dcm_ws.http.transport")
    transport = tcp()
    transport.socket.room = 10
    assert ours.unsent(transport) == 0
    assert ours.send_now(transport, b"0123456") == 7
    assert ours.send_now(transport, b"0123456") == 3
    assert ours.send_now(transport, b"3") == 0
    transport.write(b"3456")
    assert ours.send_now(transport, b"789") == -1
    for piece in (b"a", b"b", b"c"):
        transport.write(piece)
    ours.join_last_writes(transport, 3)
    assert (transport._tempDataBuffer, ours.unsent(transport)) == ([b"3456", b"abc"], 7), (
        f"{TWISTED} keeps elsewhere what waits to be written; see unsent() in {MODULE}"
    )
    transport.socket.room = 2
    transport.doWrite()
    transport.write(b"d")
    assert ours.unsent(transport) == 6, f"{TWISTED} keeps elsewhere what it has written; see unsent() in {MODULE}"
    transport.socket.room = 100
    transport.doWrite()
    transport.doWrite()
    assert transport.socket.taken == b"01234560123456abcd"
    assert ours.unsent(transport) == 0


def test_what_waits_in_wrappers() -> None:
    """
    What TLS holds counts as well as what the connection below it holds.
    """
    ours = importlib.import_module("dcm_ws.http.transport")
    secure, below = tls(), tcp()
    secure._appSendBuffer = []
    secure.transport = below
    assert ours.unsent(secure) == 0
    below.write(b"12345")
    secure._appSendBuffer = [b"123", b"1"]
    assert ours.unsent(secure) == 9
    assert ours.unsent(None) == 0


def test_plain_tcp() -> None:
    """
    Only TCP connections without TLS are plain; their reads can be limited.
    """
    ours = importlib.import_module("dcm_ws.http.transport")
    transport = tcp()
    assert ours.is_plain_tcp(transport)
    transport.TLS = True
    assert not ours.is_plain_tcp(transport)
    assert not ours.is_plain_tcp(StringTransport())
    near, far = socket.socketpair()
    with near, far:
        reader: Any = Server(near, Protocol(), ("", 0), None, 1, MemoryReactorClock())  # type: ignore[arg-type]
        read: list[bytes] = []
        reader.protocol.dataReceived = read.append
        ours.read_at_most(reader, 4)
        far.send(b"0123456")
        reader.doRead()
        assert read == [b"0123"], f"{TWISTED} does not read bufferSize bytes at a time; see read_at_most() in {MODULE}"


@pytest.mark.parametrize("wrapped", [False, True])
def test_bytes_that_wait_in_the_kernel(wrapped: bool) -> None:
    """
    Bytes that have arrived and have not been read are seen, and left where they are.
    """
    ours = importlib.import_module("dcm_ws.http.transport")
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        connection: Any = Server(near, None, ("", 0), None, 1, MemoryReactorClock())  # type: ignore[arg-type]
        transport: Any = connection
        if wrapped:
            # as TLS has it
            transport = ProtocolWrapper(WrappingFactory(Factory.forProtocol(Protocol)), Protocol())
            transport.transport = connection
        assert not ours.has_unread(transport)
        far.send(b"x")
        assert ours.has_unread(transport)
        assert ours.has_unread(transport)
        assert near.recv(10) == b"x"
        assert not ours.has_unread(transport)
        far.close()
        assert not ours.has_unread(transport)
        connection.connected = False
        assert not ours.has_unread(transport)
    assert not ours.has_unread(None)


def test_unacknowledged() -> None:
    """
    What the far end's system has not taken is seen, also under TLS; a connection that is gone has nothing.
    """
    ours = importlib.import_module("dcm_ws.http.transport")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    far = socket.create_connection(listener.getsockname())
    near, _ = listener.accept()
    with listener, far, near:
        far.setblocking(False)
        connection = Connection(far, Protocol(), MemoryReactorClock())
        connection.connected = True
        transport = ProtocolWrapper(WrappingFactory(Factory.forProtocol(Protocol)), Protocol())
        transport.transport = connection
        assert not ours.unacknowledged(connection)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += far.send(bytes(1 << 16))
        assert ours.unacknowledged(connection)
        assert ours.unacknowledged(transport)
        near.settimeout(10)
        while sent:
            sent -= len(near.recv(1 << 20))
        until(lambda: not ours.unacknowledged(transport))
        connection.write(b"not sent yet")
        assert ours.unacknowledged(transport)
    # the socket is closed
    connection.connected = True
    connection._tempDataBuffer, connection._tempDataLen = [], 0
    assert not ours.unacknowledged(connection)
    connection.connected = False
    assert not ours.unacknowledged(connection)
    assert not ours.unacknowledged(None)


def test_abort() -> None:
    """
    A connection is aborted if it is still there.
    """
    ours = importlib.import_module("dcm_ws.http.transport")
    transport = StringTransport()
    transport.connected = True
    ours.abort(transport)
    assert transport.disconnected
    gone = StringTransport()
    gone.connected = False
    ours.abort(gone)
    assert not gone.disconnected


def test_connection_is_the_base_of_server() -> None:
    """
    The connections that a port accepts are of the class that is looked for.
    """
    assert issubclass(Server, Connection)
