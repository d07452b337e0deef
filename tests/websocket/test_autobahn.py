"""
What C{dcm_ws.websocket.autobahn} uses of Autobahn without its being documented is still there, and as expected.

These tests import Autobahn and not that module, so that they can say what is missing.
"""

from __future__ import annotations

import ast
import importlib
from collections import deque
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import Any

import pytest
import txaio
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflate, PerMessageDeflateOfferAccept
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

MODULE = "dcm_ws/websocket/autobahn.py"
AUTOBAHN = f"Autobahn {version('autobahn')}"
HANDSHAKE = (
    b"GET /ws?a=b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)

METHODS = {
    "_closeConnection": "aborts slow clients one by one in its place",
    "_connectionMade": "sets up the state of a connection with it",
    "_dataReceived": "lets it read whatever is not a short message",
    "_max_message_size_exceeded": "counts the messages that are too long in it",
    "_onOpen": "releases what the handshake took in its place",
    "dropConnection": "sees to it that the connection ends, whatever the client reads",
    "onCloseFrame": "notes in it that the client is closing",
    "sendCloseFrame": "closes with codes that sendClose() rejects, and writes what is queued before it",
    "sendHttpErrorResponse": "rejects handshakes with an error in JSON in its place",
    # of the API, but the module replaces what they do to message_data
    "onMessageBegin": "puts the message together in a bytearray",
    "onMessageEnd": "does not fire the signal that it fires",
    "onMessageFrameBegin": "charges fragments to the client in it",
    "onMessageFrameData": "puts the message together in a bytearray",
}

# in the middle of the first frame of a message, over a connection with compression
ATTRIBUTES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "_perMessageCompress": (PerMessageDeflate, "reads the size of the window of the compression from it"),
    "current_frame": (object, "reads the rest of a frame by it"),
    "current_frame_masker": (object, "reads the rest of a frame by it"),
    "data": (bytes, "looks in it for the beginning of a frame"),
    "failedByMe": (bool, "drops what comes after an error"),
    "http_request_data": (bytes, "reads the headers of the request from it"),
    "http_request_uri": (str, "reads the target of the request from it"),
    "inside_message": (bool, "lets Autobahn read the rest of a message that is in fragments"),
    "is_closed": (Deferred, "puts an object for all connections in its place"),
    "is_open": (Deferred, "puts an object for all connections in its place"),
    "localCloseCode": (NoneType, "logs it when a client leaves"),
    "message_data": (list, "puts a bytearray in its place"),
    "message_is_binary": (bool, "gives it to onMessage()"),
    "remoteCloseCode": (NoneType, "logs it when a client leaves"),
    "send_queue": (deque, "puts an object for all connections in its place"),
    "state": (int, "reads short messages while the connection is open, and opens it"),
    "trackedTimings": (NoneType, "leaves it out of each connection"),
    "trafficStats": (object, "puts an object for all connections in its place"),
    "autoPingPending": (NoneType, "leaves it out of each connection"),
    "autoPingPendingCall": (NoneType, "leaves it out of each connection"),
    "autoPingTimeoutCall": (NoneType, "leaves it out of each connection"),
    "maxFramePayloadSize": (int, "limits the messages of clients that have not authenticated with it"),
    "maxMessagePayloadSize": (int, "limits the messages of clients that have not authenticated with it"),
    "tcpNoDelay": (bool, "leaves it out of each connection"),
    "wasServingFlashSocketPolicyFile": (bool, "leaves it out of each connection"),
    "websocket_version": (int, "leaves it out of each connection after the handshake"),
    "peer": (str, "sets it"),
    "transport": (object, "writes to it"),
}

# of the class, or of one of its bases
CONSTANTS: dict[str, tuple[type, str]] = {
    "CLOSE_STATUS_CODES_ALLOWED": (list, "adds 1014 to it"),
    "CONFIG_ATTRS": (list, "puts the options that it names into the class of the connections"),
    "STATE_CONNECTING": (int, "compares the state with it"),
    "STATE_OPEN": (int, "compares the state with it"),
    "log": (object, "puts a log that drops everything in its place"),
}

DOCUMENTED = {"onMessage", "onOpen", "connectionMade", "dataReceived"}


class Fresh(WebSocketServerProtocol):
    """
    A protocol of Autobahn's as it is.
    """


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """
    A connection of Autobahn's own, with compression, in the middle of the first frame of a fragmented message.
    """
    clock = Clock()
    monkeypatch.setattr(txaio.config, "loop", clock)  # type: ignore[attr-defined]
    factory = WebSocketServerFactory(reactor=clock)
    factory.setProtocolOptions(
        failByDrop=False, perMessageCompressionAccept=lambda offers: PerMessageDeflateOfferAccept(offers[0])
    )
    factory.protocol = Fresh
    connection: Any = factory.buildProtocol(None)
    connection.makeConnection(StringTransport())
    connection.dataReceived(HANDSHAKE)
    connection.dataReceived(b"\x01\x85\0\0\0\0he")
    yield connection
    connection.connectionLost()


def gone(name: str, use: str) -> str:
    return f"{AUTOBAHN} has no WebSocketServerProtocol.{name} any more: see {MODULE}, which {use}"


@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str) -> None:
    """
    Each method that is called, or replaced, is there.
    """
    method = getattr(WebSocketServerProtocol, name, None)
    assert callable(method), gone(name, METHODS[name])


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes(connection: Any, name: str) -> None:
    """
    Each attribute of a connection that is used has a value of the kind expected.
    """
    kind, use = ATTRIBUTES[name]
    assert hasattr(connection, name), gone(name, use)
    value = getattr(connection, name)
    assert isinstance(value, kind), (
        f"{AUTOBAHN}: WebSocketServerProtocol.{name} is {value!r}, and not of {kind}: see {MODULE}, which {use}"
    )


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants(name: str) -> None:
    """
    Each attribute of the class that is used is there, and of the kind expected.
    """
    kind, use = CONSTANTS[name]
    assert isinstance(getattr(WebSocketServerProtocol, name, None), kind), gone(name, use)


def test_frame_being_read(connection: Any) -> None:
    """
    The frame says how long it is, and the masker how much of it has been read.
    """
    frame = connection.current_frame
    found = (frame.length, bool(frame.fin), frame.opcode, connection.current_frame_masker.pointer())
    assert found == (5, False, 1, 2), (
        f"{AUTOBAHN}: current_frame or current_frame_masker has changed; see _finish_frame() in {MODULE}"
    )
    assert connection.inside_message
    assert connection._perMessageCompress.server_max_window_bits == 15, (
        f"{AUTOBAHN}: the size of the window is elsewhere; see window_bits in {MODULE}"
    )
    connection.dataReceived(b"llo\x80")
    assert (connection.current_frame, connection.data) == (None, b"\x80"), (
        f"{AUTOBAHN} does not keep the beginning of a frame in data any more; see _finish_frame() in {MODULE}"
    )


@pytest.mark.parametrize("module", ["autobahn.websocket.protocol", "autobahn.twisted.websocket"])
@pytest.mark.parametrize("name", ["hltype", "hlval"])
def test_formatters(module: str, name: str) -> None:
    """
    The functions that format the debug log are where they are replaced.
    """
    assert hasattr(importlib.import_module(module), name), (
        f"{AUTOBAHN} has no {module}.{name} any more: what formats its debug log now? See _nothing() in {MODULE}"
    )


def test_bad_gateway_is_still_missing() -> None:
    """
    Autobahn itself does not know close code 1014, which is registered.
    """
    codes = WebSocketServerProtocol.CLOSE_STATUS_CODES_ALLOWED
    assert codes.count(1014) <= 1, f"{AUTOBAHN} allows close code 1014 now: remove it from {MODULE}"


def test_options_are_of_the_class(connection: Any) -> None:
    """
    The factory has each option that a connection would copy.
    """
    factory = connection.factory
    missing = [name for name in WebSocketServerProtocol.CONFIG_ATTRS if not hasattr(factory, name)]
    # set by WebSocketAdapterFactory's subclasses, or never
    assert missing in ([], ["tcpNoDelay"]), (
        f"{AUTOBAHN}: its factory lacks the options {missing}; see configured() in {MODULE}"
    )


def test_released_attributes_exist(connection: Any) -> None:
    """
    What is released after the handshake is something that the handshake leaves behind.
    """
    ours = importlib.import_module("dcm_ws.websocket.autobahn")
    unknown = [name for name in ours._HANDSHAKE_ATTRIBUTES if name not in vars(connection)]
    assert not unknown, f"{AUTOBAHN} does not set {unknown} any more: remove them from {MODULE}"


def test_table_is_complete(connection: Any) -> None:
    """
    Every name of Autobahn's that the module uses is in one of the tables above, and none of them is there in vain.
    """
    tree = ast.parse((Path(__file__).parents[2] / MODULE).read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and ast.unparse(node.value) in ("self", "super()", "factory", "WebSocketServerProtocol")
    }
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    used |= {"maxFramePayloadSize", "maxMessagePayloadSize"}
    theirs = {name for name in used if hasattr(connection, name) and not name.startswith("__")}
    listed = METHODS.keys() | ATTRIBUTES.keys() | CONSTANTS.keys()
    assert theirs - listed == DOCUMENTED
    assert listed <= used
