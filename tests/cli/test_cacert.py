"""
--cacert of the commands that are clients, at a service with a certificate that the system does not trust.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from dcm_ws.cli.certificates import advice
from dcm_ws.client.reasons import reason_of
from tests.cli.running import run
from tests.integration.certificates import Certificate
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def secure(certificate: Certificate) -> Iterator[Service]:
    """
    A service with TLS.
    """
    with service("--listen", certificate.endpoint()) as running:
        yield running


COMMANDS = [
    ("publish", "topics/builds", "task.created"),
    ("top", "--once"),
    ("kick", "nobody"),
    # there is an event in the log already
    ("tail", "topics/builds", "--since", "0", "--count", "1"),
    ("run", "--agent-id", "ci", "--", "true"),
]


def test_trusted(tmp_path: Path, secure: Service, certificate: Certificate) -> None:
    """
    With --cacert the commands trust the authority in the file.
    """
    url = f"wss://localhost:{secure.port}/"
    for words in COMMANDS:
        name, *rest = words
        done = run(tmp_path, name, "--url", url, "--cacert", str(certificate.file), *rest)
        assert done.returncode == 0, (words, done.stderr)
        assert "dcm-ws run" not in done.stderr


@pytest.mark.parametrize("words", COMMANDS[:4], ids=" ".join)
def test_not_trusted(tmp_path: Path, secure: Service, words: tuple[str, ...]) -> None:
    """
    Without it, the error says that there is the option.
    """
    name, *rest = words
    done = run(tmp_path, name, "--url", f"wss://localhost:{secure.port}/", *rest)
    assert done.returncode == 1 and "the certificate is not accepted" in done.stderr
    assert "--cacert" in done.stderr.splitlines()[-1]


def test_invalid(tmp_path: Path, secure: Service) -> None:
    """
    A file that is not there, or has no certificate, and a URL without TLS are errors of one line.
    """
    (tmp_path / "empty.pem").touch()
    for file, url, status, text in (
        ("empty.pem", f"wss://localhost:{secure.port}/", 1, "there is no certificate in 'empty.pem'"),
        ("none.pem", f"wss://localhost:{secure.port}/", 1, "cannot read the certificates in 'none.pem': No such file"),
        ("empty.pem", "ws://localhost/", 2, "--cacert is for a --url that begins with wss://, not 'ws://localhost/'"),
    ):
        for command in ("tail", "top"):
            done = run(tmp_path, command, "--url", url, "--cacert", file)
            assert done.returncode == status and f"Error: {text}" in done.stderr.splitlines()[-1], done.stderr
    done = run(tmp_path, "run", "--url", "wss://localhost:1/", "--cacert", "none.pem", "--", "touch", "ran")
    assert (done.returncode, (tmp_path / "ran").exists()) == (1, False)
    assert "cannot read the certificates in 'none.pem'" in done.stderr
    done = run(tmp_path, "hook", "--url", "wss://localhost:1/", "--cacert", "empty.pem")
    assert (done.returncode, done.stdout) == (0, "")
    assert "dcm-ws hook: there is no certificate in 'empty.pem'" in done.stderr


@pytest.mark.parametrize(
    "trusts,host,until,text,advised",
    [
        (False, "localhost", 1, "self-signed certificate", True),
        (True, "localhost", -0.5, "certificate has expired", False),
        (True, "other.example", 1, "Hostname mismatch, certificate is not valid for 'other.example'.", False),
        (True, "127.0.0.2", 1, "IP address mismatch, certificate is not valid for '127.0.0.2'.", False),
    ],
)
def test_advice(tmp_path: Path, trusts: bool, host: str, until: float, text: str, advised: bool) -> None:
    """
    The advice to give --cacert is only for certificates of unknown authorities: it helps neither with one that has
    expired, nor with one for another host.
    """
    certificate = Certificate(tmp_path, "localhost", until=until)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate.file, certificate.key)
    trusting = certificate.trusting if trusts else ssl.create_default_context()
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname=host)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLCertVerificationError) as raised:
        for end in (client, server, client):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert reason_of(raised.value) == f"TLS: the certificate is not accepted: {text}"
    assert ("--cacert" in advice(raised.value)) == advised
