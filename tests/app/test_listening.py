"""
The endpoints that the service listens on, on a reactor in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from dcm_ws.app.errors import StartError
from dcm_ws.app.listening import Endpoints


class Reactor(MemoryReactorClock):
    """
    A reactor whose IPv4 ports have the address that they were asked for.
    """

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        listening = super().listenTCP(port, factory, backlog, interface)
        if ":" not in interface:
            listening.getHost = lambda: IPv4Address("TCP", interface, port)
        return listening


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """
    What is logged.
    """
    logged: list[str] = []

    def observe(event: LogEvent) -> None:
        logged.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
    yield logged
    globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]


def listen(endpoints: Endpoints, description: str, *, is_public: bool = True) -> object:
    """
    What comes of listening: None, or the failure.
    """
    outcome: list[Any] = []
    factory = Factory()
    factory.noisy = False
    Deferred.fromCoroutine(endpoints.listen(description, factory, is_public=is_public)).addBoth(outcome.append)
    return outcome[0]


@pytest.mark.parametrize(
    ("description", "address"),
    [("tcp:3849:interface=127.0.0.1", "127.0.0.1:3849"), (r"tcp:3849:interface=\:\:1", "[::1]:3849")],
)
def test_address_is_logged(lines: list[str], description: str, address: str) -> None:
    """
    The log has the URLs of each TCP port, also that of its live page, and no warning if only this machine can reach it.
    """
    endpoints = Endpoints(Reactor(), production=False)
    assert listen(endpoints, description) is None
    assert lines == [
        f"listening on ws://{address}/ (health: http://{address}/health)",
        f"live page: http://{address}/live",
    ]


@pytest.mark.parametrize(
    ("description", "page"),
    [
        ("tcp:3849:interface=0.0.0.0", "http://127.0.0.1:3849/live"),
        (r"tcp:3849:interface=\:\:", "http://[::1]:3849/live"),
    ],
)
def test_live_page_of_all_addresses(lines: list[str], description: str, page: str) -> None:
    """
    If the port listens on all addresses of the machine, the live page is shown with one that a browser can open.
    """
    listen(Endpoints(Reactor(), production=True), description)
    assert f"live page: {page}" in lines


@pytest.mark.parametrize(
    ("description", "is_public"),
    [("tcp:3849:interface=127.0.0.1", False), ("haproxy:tcp:3849:interface=127.0.0.1", True)],
)
def test_no_live_page(lines: list[str], description: str, is_public: bool) -> None:
    """
    A port for operators, or for a proxy with the PROXY protocol, has no live page that a browser could use.
    """
    listen(Endpoints(Reactor(), production=True), description, is_public=is_public)
    assert len(lines) == 1
    assert lines[0].startswith("listening on ")


@pytest.mark.parametrize("production", [False, True])
def test_warning_in_development(lines: list[str], production: bool) -> None:
    """
    In development mode, a port that other machines can reach is logged with a warning.
    """
    listen(Endpoints(Reactor(), production=production), "tcp:3849:interface=192.0.2.1")
    warnings = [line for line in lines if line.startswith("development mode on 192.0.2.1:3849: everyone")]
    assert len(warnings) == (0 if production else 1)


def test_number_of_the_first_port() -> None:
    """
    The number and the address are those of the first TCP port, also when it does not listen any more; a Unix socket has
    none.
    """
    endpoints = Endpoints(Reactor(), production=True)
    assert endpoints.number is None
    assert endpoints.address == ""
    for port in (3850, 3849):
        listen(endpoints, f"tcp:{port}:interface=127.0.0.1")
    assert endpoints.number == 3850
    assert endpoints.address == "127.0.0.1:3850"
    assert len(endpoints.ports) == 2


@pytest.mark.parametrize("description", ["nonsense", "tcp:port=none", "unix"])
def test_no_endpoint(description: str) -> None:
    """
    A text that is not an endpoint is an error in one line, which shows what one looks like.
    """
    endpoints = Endpoints(Reactor(), production=True)
    failure = listen(endpoints, description)
    assert isinstance(failure, Failure)
    assert failure.check(StartError)
    text = str(failure.value)
    assert text.startswith(f"cannot listen on {description!r}, which should be a Twisted endpoint")
    assert "\n" not in text
    assert endpoints.ports == []
