"""
Reports to a service manager, on real sockets.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from dcm_ws.app.commandline import SEPARATE_WORKERS
from dcm_ws.app.sd_notify import ServiceManager
from tests.app.test_process import clean, command
from tests.forking import Popen

PID = 4242


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """
    The socket of a service manager.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


def reports(manager: socket.socket) -> list[str]:
    """
    What has been sent to the service manager until now.
    """
    found = []
    manager.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            found.append(manager.recv(4096).decode())
    manager.settimeout(30)
    return found


def environment(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.getsockname(), "HOME": "/", **more}


def test_life_of_a_service(manager: socket.socket, clock: Clock) -> None:
    """
    It reports that it is ready, reads its secrets again and stops, and gives signs of life twice as often as asked.
    """
    variables = environment(manager, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(PID))
    service = ServiceManager(clock, variables, PID, monotonic=lambda: 12.5)
    # processes that the service starts do not report
    assert variables == {"HOME": "/"}
    service.start_watchdog()
    service.ready()
    with service.reload():
        pass
    service.stopping(14.0)
    assert reports(manager) == [
        "WATCHDOG=1",
        "READY=1\nSTATUS=serving clients",
        "RELOADING=1\nMONOTONIC_USEC=12500000",
        "READY=1\nSTATUS=serving clients",
        "STOPPING=1\nSTATUS=draining clients\nEXTEND_TIMEOUT_USEC=14000000",
    ]
    clock.advance(14.9)
    assert reports(manager) == []
    clock.advance(0.1)
    assert reports(manager) == ["WATCHDOG=1"]


def test_not_ready(manager: socket.socket, clock: Clock) -> None:
    """
    A service that reads its secrets again before it is ready, or while it stops, is not reported as ready.
    """
    service = ServiceManager(clock, environment(manager), PID)
    with service.reload():
        pass
    assert reports(manager) == []
    service.ready()
    service.stopping(1.0)
    with service.reload():
        pass
    assert len(reports(manager)) == 2


def test_failed_reload(manager: socket.socket, clock: Clock) -> None:
    """
    A service is ready again even if it could not read its secrets.
    """
    service = ServiceManager(clock, environment(manager), PID)
    service.ready()
    with pytest.raises(ValueError, match="no luck"), service.reload():
        raise ValueError("no luck")
    assert [one.partition("\n")[0] for one in reports(manager)] == ["READY=1", "RELOADING=1", "READY=1"]


@pytest.mark.parametrize(
    ("microseconds", "of", "seconds"),
    [("20000000", "", 10.0), ("20000000", "4242", 10.0), ("20000000", "1", None), ("0", "", None), ("x", "", None)],
)
def test_watchdog(manager: socket.socket, clock: Clock, microseconds: str, of: str, seconds: float | None) -> None:
    """
    Signs of life are sent only if this process is asked for them.
    """
    variables = environment(manager, WATCHDOG_USEC=microseconds, WATCHDOG_PID=of)
    service = ServiceManager(clock, variables, PID)
    assert service.watchdog == seconds
    service.start_watchdog()
    assert reports(manager) == ["WATCHDOG=1"] * (seconds is not None)


def test_abstract_socket(clock: Clock) -> None:
    """
    The socket may be an abstract one.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0dcm-ws-test-{os.getpid()}")
        ServiceManager(clock, {"NOTIFY_SOCKET": f"@dcm-ws-test-{os.getpid()}"}, PID).ready()
        assert len(reports(listening)) == 1


def test_full_socket(manager: socket.socket, clock: Clock) -> None:
    """
    A service manager that does not read holds nothing up; it gets the latest report when it reads again.
    """
    service = ServiceManager(clock, environment(manager), PID)
    for _ in range(10_000):
        service.ready()
        if clock.getDelayedCalls():
            break
    service.ready()
    service.stopping(1.0)
    clock.advance(1.0)
    assert len(clock.getDelayedCalls()) == 1
    assert {one.partition("\n")[0] for one in reports(manager)} == {"READY=1"}
    clock.advance(1.0)
    (last,) = reports(manager)
    assert last.startswith("STOPPING=1")
    assert clock.getDelayedCalls() == []


def test_no_service_manager(clock: Clock, tmp_path: Path) -> None:
    """
    Without a socket, with one of an unknown kind, and if nobody listens, nothing happens.
    """
    for variables in ({}, {"NOTIFY_SOCKET": "vsock:2:1234"}, {"NOTIFY_SOCKET": str(tmp_path / "missing")}):
        service = ServiceManager(clock, variables | {"WATCHDOG_USEC": "1000000"}, PID)
        service.start_watchdog()
        service.ready()
        with service.reload():
            pass
        service.stopping(1.0)
        clock.advance(1.0)
        assert service.watchdog == 0.5


@pytest.mark.parametrize("workers", [1, 2])
def test_process(manager: socket.socket, tmp_path: Path, workers: int) -> None:
    """
    The service reports when it is ready, when it has read its secrets again, and when it stops; so does the supervisor
    of several workers.
    """
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    secret.chmod(0o400)
    variables = {SEPARATE_WORKERS: "1"} | clean(
        NOTIFY_SOCKET=manager.getsockname(), WATCHDOG_USEC="1000000", WS_AUTH_SECRET_FILE=str(secret), DCM_ENV=""
    )
    arguments = ("--no-database", "--ws-port=0", "--drain-delay=0.5", "--workers", str(workers))
    process = Popen(command(*arguments), env=variables, stdout=subprocess.DEVNULL)

    alive = 0

    def next_report() -> str:
        nonlocal alive
        while (text := manager.recv(4096).decode()) == "WATCHDOG=1":
            alive += 1
        return text

    try:
        assert next_report().startswith("READY=1\n")
        process.send_signal(signal.SIGHUP)
        assert next_report().startswith("RELOADING=1\n")
        assert next_report().startswith("READY=1\n")
        process.terminate()
        # the drain delay, the drain time, and what workers may take beyond that
        assert next_report().endswith("EXTEND_TIMEOUT_USEC=14500000")
        assert process.wait(timeout=30) == 0
        assert alive > 0
        # while it stops, too
        assert "WATCHDOG=1" in reports(manager)
    finally:
        process.kill()
        process.wait()
