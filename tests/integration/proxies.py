"""
nginx, HAProxy and Caddy, with the configurations that docs/operations.md prints.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from http.client import HTTPMessage, HTTPResponse
from pathlib import Path

import pytest

from tests.integration.certificates import Authority
from tests.integration.clients import RawClient
from tests.integration.machine import ROOT, debian_command, free_port, unprivileged, until

HOST = "dcm.example.com"
NAMES = ("nginx", "haproxy", "caddy")
LANGUAGES = {"nginx": "nginx", "haproxy": "haproxy", "caddy": "caddyfile"}

# what a packaged nginx has around the files in conf.d
NGINX = """
daemon off;
pid {folder}/nginx.pid;
events {{}}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/dcm-ws.conf;
}}
"""


def printed(name: str) -> str:
    """
    The configuration of a proxy as docs/operations.md has it.
    """
    text = (ROOT / "docs" / "operations.md").read_text()
    found = re.findall(rf"^```{LANGUAGES[name]}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(found) == 1, name
    configuration: str = found[0]
    return configuration


class Proxy:
    """
    A proxy in front of a service.

    @ivar port: where it listens.
    """

    def __init__(self, name: str, folder: Path, authority: Authority, service_port: int) -> None:
        self.name = name
        self.port = free_port()
        self._folder = folder
        self._trusting = authority.trusting
        for file, content in authority.files.items():
            (folder / file).write_bytes(content)
        configuration = printed(name)
        # the only differences from what is printed: where it listens, where the service is, and the folders
        listen = {"nginx": "listen 443 ssl", "haproxy": "bind :443 ssl", "caddy": f"{HOST}:443 {{"}[name]
        here = listen.replace(":443", "443").replace("443", f"127.0.0.1:{self.port}")
        if name == "caddy":
            here = f"{HOST}:{self.port} {{\n\tbind 127.0.0.1"
        for old, new in (
            # before the port is in it, which may be 38490
            ("127.0.0.1:3849", f"127.0.0.1:{service_port}"),
            (listen, here),
            (f"/etc/ssl/{HOST}/", f"{folder}/"),
            (f"/var/log/{name}/", f"{folder}/"),
        ):
            # HAProxy logs to its standard output
            assert old in configuration or (name == "haproxy" and old.startswith("/var/log")), (name, old)
            configuration = configuration.replace(old, new)
        (folder / "dcm-ws.conf").write_text(configuration)
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
        self._clients = contextlib.ExitStack()
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = {
            "nginx": ["-e", f"{self._folder}/start.log", "-c", f"{self._folder}/nginx.conf"],
            "haproxy": ["-db", "-f", f"{self._folder}/dcm-ws.conf"],
            "caddy": ["run", "--config", f"{self._folder}/dcm-ws.conf", "--adapter", "caddyfile"],
        }[self.name]
        account = unprivileged(self._folder, *self._folder.iterdir())
        # two instances of Caddy may not share their port for administration
        environment = {"PATH": os.defpath, "HOME": str(self._folder), "CADDY_ADMIN": f"127.0.0.1:{free_port()}"}
        with (self._folder / "output.log").open("wb") as output:
            return subprocess.Popen(
                [debian_command(self.name), *command], stdout=output, stderr=output, cwd="/", env=environment, **account
            )

    def wait(self) -> None:
        """
        Wait until it listens.
        """

        def listens() -> bool:
            assert self._process.poll() is None, self.logs()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        until(listens)

    def stop(self) -> None:
        """
        Close the clients that L{connect} made, and end it.
        """
        self._clients.close()
        self._process.terminate()
        self._process.wait(timeout=20)

    def logs(self) -> str:
        """
        All that it has logged.
        """
        return "".join(path.read_text() for path in sorted(self._folder.glob("*.log")))

    def dial(self, source: str) -> socket.socket:
        """
        A TCP connection from an address of this machine.
        """
        return socket.create_connection(("127.0.0.1", self.port), timeout=20, source_address=(source, 0))

    def ask(self, path: str, source: str) -> socket.socket:
        """
        A request through the proxy whose response goes on.
        """
        plain = self._clients.enter_context(self._trusting.wrap_socket(self.dial(source), server_hostname=HOST))
        plain.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\n\r\n".encode())
        return plain

    def connect(self, path: str, source: str, *headers: str, origin: str = "") -> RawClient:
        """
        A WebSocket through the proxy, from an address of this machine, that has read its C{connected} frame.

        @param origin: that of a page of the proxy's own host unless it is given.
        @raise AssertionError: the handshake is refused; the text has the answer.
        """
        # of one thread alone: a TLS connection that one thread reads from and another writes to may lose data
        plain = self._clients.enter_context(self._trusting.wrap_socket(self.dial(source), server_hostname=HOST))
        place = f"{HOST}:{self.port}"
        client = RawClient(plain, path, b"", f"Origin: {origin or f'https://{place}'}", *headers, host=place)
        client.connected = client.hear()
        return client

    def refusal(self, path: str, source: str, *headers: str, origin: str = "") -> int:
        """
        The status with which a handshake is refused.
        """
        with pytest.raises(AssertionError, match=r"HTTP/1\.1 ") as refused:
            self.connect(path, source, *headers, origin=origin)
        return int(str(refused.value).partition("HTTP/1.1 ")[2][:3])

    def get(self, path: str, source: str = "127.0.0.9", **headers: str) -> tuple[int, HTTPMessage, bytes]:
        """
        What a request through the proxy gets: status, headers and body.
        """
        lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}:{self.port}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        with self._trusting.wrap_socket(self.dial(source), server_hostname=HOST) as plain:
            plain.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())
            answer = HTTPResponse(plain)
            answer.begin()
            return answer.status, answer.headers, answer.read()


@contextlib.contextmanager
def proxies(authority: Authority, service_port: int) -> Iterator[dict[str, Proxy]]:
    """
    All three in front of one service.
    """
    # not under pytest's own folder, which an unprivileged account may not enter
    folder = Path(tempfile.mkdtemp(prefix="dcm-ws-test-"))
    folder.chmod(0o755)
    running: dict[str, Proxy] = {}
    try:
        for name in NAMES:
            (folder / name).mkdir()
            running[name] = Proxy(name, folder / name, authority, service_port)
        for proxy in running.values():
            proxy.wait()
        yield running
    finally:
        for proxy in running.values():
            proxy.stop()
        shutil.rmtree(folder)
