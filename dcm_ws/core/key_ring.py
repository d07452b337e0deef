"""
The keys of an identity provider, and the clients that wait for one that is not known yet.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from dcm_ws.core.counters import Count
from dcm_ws.core.counts import Counts
from dcm_ws.protocol.errors import ProtocolError
from dcm_ws.protocol.web_tokens import SECRET_ALGORITHM, Header, KeySet, is_web_token, read_header

MIN_INTERVAL = 5.0
"""
Seconds between two times that keys are fetched because a token has an unknown one.
"""

WAITING_MAX = 1000
"""
Clients that may wait for a key.
"""

WAITING_PER_ADDRESS = 10
"""
Those of one address.
"""

PAUSE = 60.0
"""
Seconds for which nothing is fetched for an address whose token had a key that was unknown also after that.
"""

_PAUSES_MAX = 10_000


class _Waiter(NamedTuple):
    header: Header
    address: str
    ready: Callable[[], object]


class KeyRing:
    """
    Keeps the keys, and has them fetched again if a token has one that is not among them: as often as the limits allow,
    so that nobody can have them fetched at will.

    @param now: monotonic seconds.

    @ivar keys: the keys that are known.
    @ivar fetch: begins to fetch them, which ends with L{fetched}; None if there are none to fetch.
    """

    def __init__(self, now: Callable[[], float], counts: Counts) -> None:
        self._now = now
        self._counts = counts.token_keys
        self._limits = counts.limits
        self.keys = KeySet()
        self.fetch: Callable[[], object] | None = None
        self._fetching = False
        self._next_at = float("-inf")
        self._waiters: list[_Waiter] = []
        self._waiting: dict[str, int] = {}
        # in the order of ending
        self._pauses: OrderedDict[str, float] = OrderedDict()

    def await_key(self, token: str, ready: Callable[[], object], address: str) -> bool:
        """
        Have the key of a token fetched, if it is not known and the limits allow it.

        @param ready: called once when the token should be looked at again.
        @param address: what the limits per address count the client by.
        @return: whether C{ready} will be called; otherwise the token can be verified now.
        """
        if self.fetch is None or not is_web_token(token):
            return False
        try:
            header = read_header(token)
        except ProtocolError:
            return False
        if header.alg == SECRET_ALGORITHM or self.keys.find(header):
            return False
        exceeded = self._exceeded(address)
        if exceeded is not None:
            exceeded.add()
            self._counts.refused += 1
            return False
        self._waiters.append(_Waiter(header, address, ready))
        self._waiting[address] = self._waiting.get(address, 0) + 1
        self.refresh()
        return True

    def _exceeded(self, address: str) -> Count | None:
        """
        The count of the limit for which another client of C{address} may not wait; None if it may.
        """
        if len(self._waiters) >= WAITING_MAX or self._waiting.get(address, 0) >= WAITING_PER_ADDRESS:
            return self._limits.max_token_key_waiting
        now = self._now()
        if self._pauses.get(address, 0.0) > now or (not self._fetching and now < self._next_at):
            return self._limits.token_key_fetches
        return None

    def refresh(self) -> None:
        """
        Fetch the keys, unless that is being done.
        """
        if self.fetch is not None and not self._fetching:
            self._fetching = True
            self._counts.fetches += 1
            self.fetch()

    def fetched(self, keys: KeySet | None) -> None:
        """
        The keys have been fetched.

        @param keys: None if they could not be: then those from before stay valid.
        """
        self._fetching = False
        now = self._now()
        self._next_at = now + MIN_INTERVAL
        if keys is None:
            self._counts.failures += 1
        else:
            self.keys = keys
        waiters, self._waiters = self._waiters, []
        self._waiting.clear()
        for waiter in waiters:
            if keys is not None and not keys.find(waiter.header):
                self._pause(waiter.address, now + PAUSE)
        for waiter in waiters:
            waiter.ready()

    def _pause(self, address: str, until: float) -> None:
        self._pauses[address] = until
        self._pauses.move_to_end(address)
        if len(self._pauses) > _PAUSES_MAX:
            self._pauses.popitem(last=False)
