"""
NATS servers, alone and in clusters.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dcm_ws.nats.nkeys import UserKey
from tests.integration.machine import free_port, until

PROGRAM = Path(sysconfig.get_path("scripts")) / "nats-server"
KINDS = {"operator": 14 << 3, "account": 0, "user": 20 << 3}


class NatsServer:
    """
    A NATS server of the test's own, which may be stopped and started again on the same port.

    @param configuration: of the server, in its own language, in addition to its port.
    @param interface: what it listens on.
    """

    def __init__(self, folder: Path, configuration: str = "", interface: str = "127.0.0.1") -> None:
        self.port = free_port()
        self._interface = interface
        self.log = folder / f"{self.port}.log"
        self._file = folder / f"{self.port}.conf"
        self._configuration = configuration
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """
        The number of its process.
        """
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """
        Start, and wait until it answers.
        """
        self._file.write_text(f"listen: {self._interface}:{self.port}\n{self._configuration}")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, "-c", self._file], stdout=log, stderr=log)

        def answers() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                self.info()
                return True
            return False

        until(answers)

    def info(self) -> dict[str, Any]:
        """
        What it says of itself.
        """
        with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            line = connection.makefile("rb").readline()
        if not line.startswith(b"INFO "):
            raise OSError("it does not say INFO yet")
        found: dict[str, Any] = json.loads(line[5:])
        return found

    def send_signal(self, number: int) -> None:
        """
        Send its process a signal.
        """
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, kill: bool = False) -> None:
        """
        Stop.
        """
        if self._process is not None:
            self._process.kill() if kill else self._process.terminate()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def nats(configuration: str = "") -> Iterator[NatsServer]:
    """
    A running server.
    """
    with _folder() as folder:
        server = NatsServer(folder, configuration)
        try:
            server.start()
            yield server
        finally:
            server.stop(kill=True)


@contextlib.contextmanager
def nats_cluster(size: int = 3, configuration: str = "") -> Iterator[list[NatsServer]]:
    """
    A running cluster.
    """
    with _folder() as folder:
        routes = [free_port() for _ in range(size)]
        others = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)
        servers = [
            NatsServer(
                folder,
                f"{configuration}\ncluster {{ name: tests, listen: 127.0.0.1:{port}, routes: [{others}] }}\n",
            )
            for port in routes
        ]
        try:
            start_cluster(servers)
            yield servers
        finally:
            for server in servers:
                server.stop(kill=True)


def start_cluster(servers: Sequence[NatsServer]) -> None:
    """
    Start all servers of a cluster, and wait until they know each other.
    """
    for server in servers:
        server.start()
    for server in servers:
        until(lambda server=server: len(server.info().get("connect_urls", [])) == len(servers))


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dcm-ws-test-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Key:
    """
    A key pair of NATS.

    @param kind: C{operator}, C{account} or C{user}.

    @ivar seed: the private key, as it is written in files.
    @ivar public: the public key.
    """

    def __init__(self, kind: str) -> None:
        prefix = KINDS[kind]
        self._key = Ed25519PrivateKey.generate()
        raw = self._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        self.seed = _written(bytes([18 << 3 | prefix >> 5, (prefix & 31) << 3]) + raw)
        self.public = _written(bytes([prefix]) + self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def token(self, subject: str, **claims: object) -> str:
        """
        A JWT of this key.
        """
        header = {"typ": "JWT", "alg": "ed25519-nkey"}
        body = {"jti": os.urandom(8).hex(), "iat": int(time.time()), "iss": self.public, "name": "test", "sub": subject}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, body | {"nats": claims}))
        return f"{text}.{_encoded(self._key.sign(text.encode()))}"


def with_operator(folder: Path) -> tuple[str, Path]:
    """
    The configuration of a server that knows its users by their JWTs, and the file of one of them.
    """
    operator, account, user = Key("operator"), Key("account"), Key("user")
    limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    own = operator.token(operator.public, type="operator", version=2)
    of_account = operator.token(account.public, type="account", version=2, limits=limits | {"wildcards": True})
    of_user = account.token(user.public, type="user", version=2, subs=-1, data=-1, payload=-1, pub={}, sub={})
    creds = folder / "user.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    configuration = f"operator: {own}\nresolver: MEMORY\nresolver_preload: {{ {account.public}: {of_account} }}\n"
    return configuration, creds


def with_nkey(folder: Path) -> tuple[str, Path]:
    """
    The configuration of a server that knows the key of a user, and the file with its seed.
    """
    user = Key("user")
    assert UserKey(user.seed).public == user.public
    seed = folder / "user.nk"
    seed.write_text(f"# a user\n{user.seed}\n")
    return f"authorization {{ users: [ {{ nkey: {user.public} }} ] }}\n", seed


Configured = Callable[[Path], tuple[str, Path]]


def _written(data: bytes) -> str:
    import binascii

    return base64.b32encode(data + binascii.crc_hqx(data, 0).to_bytes(2, "little")).decode().rstrip("=")


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
