"""
HAProxy, Caddy and nginx in front of several nodes, with the configurations of contrib/ and docs/topologies.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path

from websockets.sync.client import connect

from tests.integration.clients import Client
from tests.integration.machine import PATIENCE, ROOT, debian_command, free_port, unprivileged, until
from tests.integration.proxies import LANGUAGES, NGINX
from tests.integration.tokens import make_token

NAMES = ("haproxy", "caddy", "nginx")


def configuration(name: str) -> str:
    """
    The configuration of a load balancer for three nodes, as it is published.
    """
    if name == "haproxy":
        return (ROOT / "contrib" / "haproxy.cfg").read_text()
    text = (ROOT / "docs" / "topologies.md").read_text()
    (found,) = re.findall(rf"^```{LANGUAGES[name]}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return str(found)


class Balancer:
    """
    A load balancer in front of nodes.

    @param nodes: the addresses of three nodes, or their ports on this machine.

    @ivar port: where it listens.
    """

    def __init__(self, name: str, folder: Path, nodes: Sequence[int | str]) -> None:
        self.name = name
        self.port = free_port()
        self._clients = contextlib.ExitStack()
        self._log = folder / "output.log"
        text = configuration(name)
        # the only differences from what is published: where it listens, and where the nodes are
        listen = {"haproxy": "bind :8080", "caddy": ":8080 {", "nginx": "listen 8080;"}[name]
        here = {
            "haproxy": f"bind 127.0.0.1:{self.port}",
            "caddy": f"http://127.0.0.1:{self.port} {{\n\tbind 127.0.0.1",
            "nginx": f"listen 127.0.0.1:{self.port};",
        }[name]
        addresses = [f"127.0.0.1:{node}" if isinstance(node, int) else node for node in nodes]
        places = [(f"node{number}:3849", address) for number, address in enumerate(addresses, 1)]
        for old, new in ((listen, here), *places):
            assert text.count(old) == 1, (name, old)
            text = text.replace(old, new)
        text = text.replace("/var/log/nginx/", f"{folder}/")
        (folder / "dcm-ws.conf").write_text(text)
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
        command = {
            "haproxy": ["-db", "-f", f"{folder}/dcm-ws.conf"],
            "caddy": ["run", "--config", f"{folder}/dcm-ws.conf", "--adapter", "caddyfile"],
            "nginx": ["-e", f"{folder}/start.log", "-c", f"{folder}/nginx.conf"],
        }[name]
        account = unprivileged(folder, *folder.iterdir())
        environment = {"PATH": os.defpath, "HOME": str(folder), "CADDY_ADMIN": f"127.0.0.1:{free_port()}"}
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [debian_command(name), *command], stdout=output, stderr=output, cwd="/", env=environment, **account
            )
        until(self._listens)

    def _listens(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def connect(self, agent: str, source: str = "127.0.0.9") -> Client:
        """
        An agent that the service has accepted.

        @param source: an address of this machine, from which it connects.
        """
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE, source_address=(source, 0))
        url = f"ws://127.0.0.1:{self.port}/?token={make_token(agent)}"
        # without a limit of messages that wait, so that it always notices the end
        opening = connect(url, sock=plain, create_connection=Client, open_timeout=PATIENCE, max_queue=None)
        client = self._clients.enter_context(opening)
        assert isinstance(client, Client)
        client.connected = json.loads(client.recv(timeout=PATIENCE))
        return client

    def status(self, path: str) -> int:
        """
        The status that a page has.
        """
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as asking:
            asking.request("GET", path)
            return asking.getresponse().status

    def logs(self) -> str:
        """
        All that it has logged.
        """
        return "".join(path.read_text() for path in sorted(self._log.parent.glob("*.log")))

    def stop(self) -> None:
        """
        Close the clients, and end it.
        """
        self._clients.close()
        self._process.terminate()
        self._process.wait(timeout=PATIENCE)


@contextlib.contextmanager
def balancers(names: Sequence[str], nodes: Sequence[int | str]) -> Iterator[list[Balancer]]:
    """
    Running load balancers in front of the same nodes.

    @param nodes: as for L{Balancer}.
    """
    # not under pytest's own folder, which an unprivileged account may not enter
    folder = Path(tempfile.mkdtemp(prefix="dcm-ws-test-"))
    folder.chmod(0o755)
    running: list[Balancer] = []
    try:
        for name in names:
            (folder / name).mkdir()
            running.append(Balancer(name, folder / name, nodes))
        yield running
    finally:
        for one in running:
            one.stop()
        shutil.rmtree(folder)
