"""
What C{dcm-ws check} finds out about the places that the service listens on.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from contextlib import suppress

from dcm_ws.app.settings import Settings
from dcm_ws.cli.findings import Finding
from dcm_ws.cli.probes import DEADLINE

_ANSWER_MAX = 8 << 20


def ports(settings: Settings) -> Iterator[Finding]:
    """
    Whether each place that the service would listen on is free, or has a dcm-ws on it.
    """
    from twisted.internet.endpoints import serverFromString
    from twisted.internet.protocol import Factory
    from twisted.internet.testing import MemoryReactor

    for endpoint in (*settings.listen, *settings.admin_listen):
        if endpoint.startswith("systemd:"):
            yield Finding("port", True, f"{endpoint}: given by systemd when it starts the service")
            continue
        reactor = MemoryReactor()
        try:
            # it is not listened to: the reactor only takes down what it was asked for
            serverFromString(reactor, endpoint).listen(Factory())
        except Exception as error:
            yield Finding("port", False, f"{endpoint}: {error}", "see --listen in docs/operations.md")
            continue
        for port, _, _, interface in reactor.tcpServers:
            yield _port(port, interface, tls=False)
        for port, _, _, _, interface in reactor.sslServers:
            yield _port(port, interface, tls=True)
        for path, _, _, _, lock in reactor.unixServers:
            yield _unix(path, lock=bool(lock))


def _unix(path: str, *, lock: bool) -> Finding:
    folder = os.path.dirname(os.path.abspath(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        trouble = "may not be written to" if os.path.isdir(folder) else "is no folder"
        return Finding("port", False, f"unix:{path}: {folder} {trouble}", "make it, for whom the service runs as")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return Finding("port", True, f"unix:{path} is free")
        except ConnectionRefusedError:
            # Twisted takes away a socket whose lock is there, too
            if lock and os.path.islink(f"{path}.lock") and stat.S_ISSOCK(os.stat(path).st_mode):
                return Finding("port", True, f"unix:{path} was left behind, and will be replaced")
            return Finding("port", False, f"unix:{path}: a file is in its place", "remove it, or choose another")
        except BlockingIOError:
            pass
        except OSError as error:
            return Finding("port", False, f"unix:{path}: {error.strerror or error}", "choose another with --listen")
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(DEADLINE)
        asking.connect(path)
        if version := _version(asking):
            return Finding("port", True, f"unix:{path}: dcm-ws {version} is running here")
    hint = "stop what listens there, or choose another with --listen"
    return Finding("port", False, f"unix:{path} is in use by something that is not dcm-ws", hint)


def _port(port: int, interface: str, *, tls: bool) -> Finding:
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    where = f"{interface or '*'}:{port}" if family == socket.AF_INET else f"[{interface}]:{port}"
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((interface, port))
            # two may bind, and only one may listen
            probe.listen()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return Finding("port", False, f"{where}: {error.strerror}", "choose another with WS_PORT or HOST")
            if version := _running(port, interface, tls=tls):
                return Finding("port", True, f"{where}: dcm-ws {version} is running here")
            hint = "stop what listens there, or choose another with WS_PORT"
            return Finding("port", False, f"{where} is in use by something that is not dcm-ws", hint)
    return Finding("port", True, f"{where} is free" if port else "the system chooses one")


def _running(port: int, interface: str, *, tls: bool) -> str | None:
    """
    The version of the dcm-ws that listens there; None if none does.
    """
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(interface, interface)
    with suppress(OSError), socket.create_connection((host, port), timeout=DEADLINE) as plain:
        if not tls:
            return _version(plain)
        context = ssl.create_default_context()
        # the question is who it is to us, and nothing secret is sent
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(plain) as secure:
            return _version(secure)
    return None


def _version(connection: socket.socket) -> str | None:
    """
    What C{/health} says on a fresh connection; None if it is not that of dcm-ws, or takes longer than L{DEADLINE}.
    """
    end = time.monotonic() + DEADLINE
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = b""
    while len(answer) < _ANSWER_MAX and (left := end - time.monotonic()) > 0:
        connection.settimeout(left)
        data = connection.recv(1 << 16)
        if not data:
            break
        answer += data
    body = answer.partition(b"\r\n\r\n")[2]
    try:
        health = json.loads(body)
    except ValueError:
        return None
    if not isinstance(health, dict) or health.get("type") != "websocket" or "pendingDeliveries" not in health:
        return None
    version = health.get("version")
    return version if isinstance(version, str) else None
