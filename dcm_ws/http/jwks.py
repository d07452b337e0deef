"""
The keys of an identity provider, read from a file or fetched from a URL (RFC 7517).
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent

from dcm_ws.core.counts import LimitCounts
from dcm_ws.core.key_ring import KeyRing
from dcm_ws.http.fetching import TooLargeError, fetch, reason_of
from dcm_ws.protocol.web_tokens import KeySet, TooManyKeysError, read_keys

MAX_BYTES = 256 << 10
"""
Bytes of a key set.
"""

TIMEOUT = 5.0
"""
Seconds for fetching it.
"""

REFRESH = 600.0
"""
Seconds after which it is fetched again.
"""

RETRY = 10.0
"""
The same if it could not be fetched.
"""

_log = Logger(namespace="dcm_ws.jwks")


def is_url(source: str) -> bool:
    """
    Is C{source} a URL, and not the path of a file?
    """
    return "://" in source


def check_source(source: str) -> None:
    """
    Check where keys are to come from.

    @raise ValueError: who answers for that address is not known for sure; the text follows the name of a setting.
    """
    if not is_url(source):
        return
    parts = urlsplit(source)
    if parts.username is not None:
        raise ValueError("must be a URL without a user and a password: keys are public")
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme != "http" or not parts.hostname or not _is_loopback(parts.hostname):
        raise ValueError(f"must be a file or an https URL, or http on a loopback address, not {source!r}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class KeySource:
    """
    Keeps a ring of keys up to date.

    @param source: a path or a URL, which L{check_source} has allowed.
    @param limits: where exceeded limits are counted.
    @param now: monotonic seconds.
    """

    def __init__(self, source: str, ring: KeyRing, limits: LimitCounts, reactor: Any, now: Callable[[], float]) -> None:
        self._source = source
        self._ring = ring
        self._limits = limits
        self._reactor = reactor
        self._now = now
        self._agent = Agent(reactor)
        self._due = float("-inf")
        ring.fetch = self._fetch

    def start(self) -> None:
        """
        Read the file, or begin to fetch the URL.

        @raise ValueError: the file cannot be read, or is not a key set.
        """
        if is_url(self._source):
            self._ring.refresh()
        else:
            self._ring.keys = self._read()
            self._due = self._now() + REFRESH

    def look(self) -> None:
        """
        Fetch the keys if it is time for that.
        """
        if self._now() >= self._due:
            self._ring.refresh()

    def _fetch(self) -> None:
        # not at once: those that wait for a key must not be called before they wait
        fetching = Deferred.fromCoroutine(self._fetched()) if is_url(self._source) else self._read_later()
        fetching.addTimeout(TIMEOUT, self._reactor, self._took_too_long)
        fetching.addCallbacks(self._arrived, self._failed)

    def _took_too_long(self, _: object, seconds: float) -> None:
        self._limits.token_keys_time.add()
        raise ValueError(f"{self._source}: it did not answer within {seconds:g} s")

    def _read_later(self) -> Deferred[KeySet]:
        reading: Deferred[None] = Deferred()
        self._reactor.callLater(0, reading.callback, None)
        return reading.addCallback(lambda _: self._read())

    def _read(self) -> KeySet:
        path = Path(self._source)
        try:
            with path.open("rb") as file:
                text = file.read(MAX_BYTES + 1)
            if len(text) > MAX_BYTES:
                raise TooLargeError(MAX_BYTES)
            return read_keys(text)
        except (OSError, ValueError) as error:
            self._count(error)
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"{path}: {reason}") from None

    async def _fetched(self) -> KeySet:
        try:
            return read_keys(await fetch(self._agent, self._source, MAX_BYTES))
        except ValueError as error:
            self._count(error)
            raise ValueError(f"{self._source}: {error}") from None

    def _count(self, error: Exception) -> None:
        """
        Count the limit that was exceeded, if one was.
        """
        if isinstance(error, TooLargeError):
            self._limits.max_token_keys_size.add()
        elif isinstance(error, TooManyKeysError):
            self._limits.max_token_keys.add()

    def _arrived(self, keys: KeySet) -> None:
        self._due = self._now() + REFRESH
        _log.info("{n} keys of tokens from {source}", n=len(keys), source=self._source)
        self._ring.fetched(keys)

    def _failed(self, failure: Failure) -> None:
        self._due = self._now() + RETRY
        reason = str(failure.value) if failure.check(ValueError) else f"{self._source}: {reason_of(failure)}"
        _log.warn("the keys of tokens stay as they are: {reason}", reason=reason)
        self._ring.fetched(None)
