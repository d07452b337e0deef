"""
Limits for connections of one kind, in all and per address.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

from dcm_ws.core.counters import Count
from dcm_ws.http.addresses import UNIX, UNKNOWN, limit_key, normal_address, parse_address


def address_of(peer: IAddress) -> str:
    """
    The IP address of a connection's far end, in its one form; L{UNIX} if it has none.
    """
    if not isinstance(peer, IPv4Address | IPv6Address):
        return UNIX
    # the PROXY protocol may send any text, and must not send this one
    return UNKNOWN if peer.host == UNIX else normal_address(peer.host)


def loopback_port(here: IAddress) -> int | None:
    """
    Return the port that a connection was made to, if that is on a loopback address.

    @param here: the near end of the connection.
    """
    if not isinstance(here, IPv4Address | IPv6Address):
        return None
    address = parse_address(here.host)
    return here.port if address is not None and address.is_loopback else None


class Share:
    """
    Counts the connections of one kind, and refuses those beyond the limits.

    @param most: connections at once; 0 for no limit.
    @param per_address: connections at once from one address; 0 for no limit.  L{UNIX} is not limited.

    @ivar full: counts the connections that were refused because of C{most}.
    @ivar crowded: counts the connections that were refused because of C{per_address}.
    """

    def __init__(
        self, most: int = 0, per_address: int = 0, *, full: Count | None = None, crowded: Count | None = None
    ) -> None:
        self.most = most
        self.per_address = per_address
        self.full = Count() if full is None else full
        self.crowded = Count() if crowded is None else crowded
        self._taken = 0
        self._by_address: defaultdict[str, int] = defaultdict(int)

    def __len__(self) -> int:
        """
        The connections that are open now.
        """
        return self._taken

    def __bool__(self) -> bool:
        return True

    def refuses(self, address: str) -> bool:
        """
        True if another connection of C{address} is beyond a limit; the refusal is counted.
        """
        if self.per_address and address != UNIX and self._by_address.get(limit_key(address), 0) >= self.per_address:
            self.crowded.add()
            return True
        if self.most and self._taken >= self.most:
            self.full.add()
            return True
        return False

    def enter(self, address: str) -> None:
        """
        Count a connection from now on.
        """
        self._taken += 1
        self._by_address[limit_key(address)] += 1

    def leave(self, address: str) -> None:
        """
        A connection that was counted is gone.
        """
        charged = limit_key(address)
        self._taken -= 1
        self._by_address[charged] -= 1
        if not self._by_address[charged]:
            del self._by_address[charged]


class Tally(Protocol):
    """
    Counts the connections of one kind that several processes have together.
    """

    def reserve(self, address: str) -> tuple[int, int]:
        """
        Announce a connection of an address, until the next call of any method.

        @return: the connections that the other processes have or have announced: in all, and of this address.
        """

    def cancel(self) -> None:
        """
        The connection that was announced is refused.
        """

    def enter(self, address: str) -> None:
        """
        Count a connection from now on.
        """

    def leave(self, address: str) -> None:
        """
        A connection that was counted is gone.
        """


class CommonShare(Share):
    """
    A share of which other processes take, too: the limits hold for all of them together.

    If two processes ask for the last connection at the same time, it may be that neither gets it.

    @param tally: counts the connections of all processes.
    """

    def __init__(
        self,
        tally: Tally,
        most: int = 0,
        per_address: int = 0,
        *,
        full: Count | None = None,
        crowded: Count | None = None,
    ) -> None:
        super().__init__(most, per_address, full=full, crowded=crowded)
        self._tally = tally

    def refuses(self, address: str) -> bool:
        name = limit_key(address)
        elsewhere, of_address = self._tally.reserve(name)
        if self.per_address and address != UNIX and self._by_address.get(name, 0) + of_address >= self.per_address:
            self.crowded.add()
        elif self.most and self._taken + elsewhere >= self.most:
            self.full.add()
        else:
            return False
        self._tally.cancel()
        return True

    def enter(self, address: str) -> None:
        super().enter(address)
        self._tally.enter(limit_key(address))

    def leave(self, address: str) -> None:
        super().leave(address)
        self._tally.leave(limit_key(address))
