"""
What every test gets: a clock to advance, and a failure of its own if something logs one.
"""

from __future__ import annotations

import functools
import inspect
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from dcm_ws.core.counts import Counts
from tests.examples import NIGHTLY, examples
from tests.forking import share

# no test judges by the clock: the first text that Hypothesis makes on a new machine alone takes seconds
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# what is random must not decide whether a change may land; elsewhere it is random
settings.register_profile("ci", settings.get_profile("here"), derandomize=True, max_examples=examples(100))
settings.register_profile("nightly", settings.get_profile("here"), max_examples=examples(100))
settings.load_profile("nightly" if NIGHTLY else "ci" if os.environ.get("CI") else "here")

# a shell ignores Ctrl-C for what it runs in the background, and so would every program that is started here
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """
    Have the processes that run the tests side by side fork from one that has imported everything.
    """
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        folder = Path(tempfile.mkdtemp(prefix="dcm-ws-forks-"))
        config.add_cleanup(partial(shutil.rmtree, folder))
        config.add_cleanup(partial(os.close, share(folder)))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """
    Cancel an async test at half the time limit.

    pytest-timeout interrupts a test by an exception in a signal handler.  While an async test waits, that exception is
    raised in the reactor, which logs it and goes on.
    """
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return
    seconds = 0.5 * float(pyfuncitem.config.getini("timeout"))

    @functools.wraps(test)
    async def limited(**fixtures: Any) -> None:
        from twisted.internet import reactor  # pytest-twisted has chosen it by now

        running = ensureDeferred(test(**fixtures))
        limit = reactor.callLater(seconds, running.cancel)
        try:
            await running
        except CancelledError:
            pytest.fail(f"not done after {seconds:g} seconds")
        finally:
            if limit.active():
                limit.cancel()

    pyfuncitem.obj = limited


@pytest.fixture
def clock() -> Clock:
    """
    A clock that stands still until it is advanced.
    """
    clock = Clock()
    clock.advance(1000)
    return clock


@pytest.fixture
def counts() -> Counts:
    """
    Counts that are all 0.
    """
    return Counts()


@pytest.fixture(autouse=True)
def no_logged_failures() -> Iterator[list[LogEvent]]:
    """
    Fails the test if anything logged a failure, or a critical message.  A test that expects one clears the list.
    """
    failures: list[LogEvent] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        level = event.get("log_level")
        if event.get("log_failure") is not None or level is LogLevel.critical:
            failures.append(event)

    globalLogPublisher.addObserver(observe)
    yield failures
    globalLogPublisher.removeObserver(observe)
    texts = [
        f"{formatEvent(event)}\n{failure.getTraceback() if (failure := event.get('log_failure')) else ''}"
        for event in failures
    ]
    assert not texts, "\n".join(texts)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """
    What the service warns of.
    """
    texts: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.warn:
            texts.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield texts
    globalLogPublisher.removeObserver(observe)
