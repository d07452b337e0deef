"""
What C{dcm-ws check} finds out about the ports and Unix sockets that the service would listen on.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from contextlib import suppress

from dcm_ws.app.settings import Settings
from dcm_ws.cli.check_report import Finding
from dcm_ws.cli.probes import DEADLINE

_ANSWER_MAX = 8 << 20


def port_findings(settings: Settings) -> Iterator[Finding]:
    """
    Check that each port and Unix socket that the service would listen on is free, or that a dcm-ws listens on it.
    """
    from twisted.internet.endpoints import serverFromString
    from twisted.internet.protocol import Factory
    from twisted.internet.testing import MemoryReactor

    for endpoint in (*settings.listen, *settings.admin_listen):
        if endpoint.startswith("systemd:"):
            yield Finding("port", True, f"{endpoint}: systemd passes it when it starts the service")
            continue
        reactor = MemoryReactor()
        try:
            # this reactor does not listen, it only records what it is asked for
            serverFromString(reactor, endpoint).listen(Factory())
        except Exception as error:
            yield Finding(
                "port", False, f"{endpoint}: {error}", "correct it, as in --listen tcp:3849:interface=127.0.0.1"
            )
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
        trouble = "is not writable" if os.path.isdir(folder) else "is not a folder"
        made = f"mkdir -p {shlex.quote(folder)}"
        hint = f"{made}, and let the service's account write to it: chown ACCOUNT {shlex.quote(folder)}"
        return Finding("port", False, f"unix:{path}: {folder} {trouble}", hint)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return Finding("port", True, f"unix:{path} is free")
        except ConnectionRefusedError:
            # Twisted removes a socket that has a lock file
            if lock and os.path.islink(f"{path}.lock") and stat.S_ISSOCK(os.stat(path).st_mode):
                return Finding(
                    "port", True, f"unix:{path} was left behind by a service that was killed; it will be replaced"
                )
            return Finding("port", False, f"unix:{path}: there already is a file", "remove it, or choose another path")
        except BlockingIOError:
            pass
        except OSError as error:
            return Finding(
                "port", False, f"unix:{path}: {error.strerror or error}", "choose another path with --listen"
            )
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(DEADLINE)
        asking.connect(path)
        if version := _version(asking):
            return Finding("port", True, f"unix:{path}: dcm-ws {version} is running here")
    hint = "stop the program that listens there, which ss -lxp lists, or choose another path with --listen"
    return Finding("port", False, f"unix:{path} is in use by a program that is not dcm-ws", hint)


def _port(port: int, interface: str, *, tls: bool) -> Finding:
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    where = f"{interface or '*'}:{port}" if family == socket.AF_INET else f"[{interface}]:{port}"
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((interface, port))
            # two programs may bind, but only one may listen
            probe.listen()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return Finding(
                    "port",
                    False,
                    f"{where}: {error.strerror}",
                    "choose another port or address, as in WS_PORT=8080 HOST=127.0.0.1 dcm-ws check",
                )
            if version := _running(port, interface, tls=tls):
                return Finding("port", True, f"{where}: dcm-ws {version} is running here")
            hint = f"stop the program that ss -ltnp 'sport = :{port}' shows, or choose another port with WS_PORT"
            return Finding("port", False, f"{where} is in use by a program that is not dcm-ws", hint)
    return Finding("port", True, f"{where} is free" if port else "the system chooses a free one")


def _running(port: int, interface: str, *, tls: bool) -> str | None:
    """
    Return the version of the dcm-ws that listens there; None if none does.
    """
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(interface, interface)
    with suppress(OSError), socket.create_connection((host, port), timeout=DEADLINE) as plain:
        if not tls:
            return _version(plain)
        context = ssl.create_default_context()
        # any certificate will do: nothing secret is sent
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(plain) as secure:
            return _version(secure)
    return None


def _version(connection: socket.socket) -> str | None:
    """
    Return the version in C{/health} on a new connection; None if it is not dcm-ws, or takes longer than L{DEADLINE}.
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
