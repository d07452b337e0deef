"""
The ledger: which agents were sent a logged event, how often and when, when they acknowledged it, and when it became a
dead letter (protocol, section 12).

Noting something must cost next to nothing, since it happens with each delivery.  So what happens is appended to lists,
and nothing is looked up or sorted before somebody asks; that one event goes to many is noted once, with an audience
that is the same as that of former events if it can be.  About once a second the lists become a page, which is kept in
memory, or written to the database.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Set
from itertools import chain
from typing import Protocol

from dcm_ws.core.counters import Count
from dcm_ws.core.ledger_pages import LedgerPage, Page, Seldom, What

_PAGE_OVERHEAD = 200
_CLIENTS_MAX = 100_000
_PAGE_THINGS = 10_000
_PAGE_SECONDS = 10.0


class Client(Protocol):
    """
    A client, as far as the ledger goes.
    """

    #: stands for the agent that is present by it; 0 for none
    number: int


class Noted:
    """
    At which agents the same has happened to an event, since the page began.

    @ivar numbers: those of the agents; before those of one time comes that time, in ms, as a negative number.
    @ivar until: when that time is over (monotonic seconds).
    """

    __slots__ = ("numbers", "until")

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.until = 0.0


class Ledger:
    """
    Notes what happens to logged events at this node.

    @param now: monotonic seconds.
    @param wall_ms: ms since the epoch.
    @param dropped: counts pages that had to go before their time.
    @param max_bytes: of pages in memory; beyond it the oldest go.  0 for no ledger: then nothing is noted.

    @ivar bytes: of pages in memory.
    """

    def __init__(self, now: Callable[[], float], wall_ms: Callable[[], int], dropped: Count, *, max_bytes: int) -> None:
        self._now = now
        self._wall_ms = wall_ms
        self._dropped = dropped
        self._max_bytes = max_bytes
        self._number = 0
        # the agents of all clients by number, and the numbers of those that have left since the page began
        self._names: dict[int, str] = {}
        self._left: list[int] = []
        # by one of its clients: an audience, and its index in the page
        self._audiences: dict[object, tuple[Set[Client], int]] = {}
        self._page = Page()
        self._began = now()
        # clients in these audiences
        self._noted = 0
        # what is on the page, and may become more
        self._open: list[Noted] = []
        self._pages: deque[LedgerPage] = deque()
        # what is being written
        self._taken: list[LedgerPage] = []
        self.bytes = 0

    # who is there

    def join(self, client: Client, agent: str) -> None:
        """
        C{agent} is present by C{client} from now on.
        """
        if self._max_bytes:
            self._number = client.number = self._number + 1
            self._names[self._number] = agent
            # it may be in audiences without its agent
            self._audiences.clear()

    def leave(self, client: Client) -> None:
        """
        No agent is present by C{client} any more.
        """
        if client.number:
            self._left.append(client.number)
            client.number = 0
            self._audiences.clear()

    def clear(self) -> None:
        """
        Forget everything: the log has become another one, and all clients are closed.
        """
        self._pages.clear()
        self._taken = []
        self.bytes = 0
        self._names.clear()
        self._left.clear()
        self._begin_page()

    # what happens

    def sent(self, pos: int, clients: Set[Client], now: float) -> None:
        """
        The event at C{pos} has just gone out to C{clients}.
        """
        if not self._names:
            return
        if len(clients) == 1:
            (client,) = clients
            if client.number:
                self._page.alone += (pos, int(now * 1000), client.number)
            return
        one = next(iter(clients), None)
        known = self._audiences.get(one)
        if known is None or known[0] != clients:
            if self._noted > _CLIENTS_MAX:
                self.seal()
            self._noted += len(clients)
            numbers = [number for client in clients if (number := client.number)]
            known = set(clients), len(self._page.audiences) if numbers else -1
            self._audiences[one] = known
            if numbers:
                self._page.audiences.append(numbers)
        if known[1] >= 0:
            self._page.sent += (pos, int(now * 1000), known[1])

    def sent_to(self, client: Client, pos: int) -> None:
        """
        The event at C{pos} has just gone out to one client.
        """
        if client.number:
            self._page.alone += (pos, int(self._now() * 1000), client.number)

    def resent(self, number: int, noted: Noted, pos: int, now: float) -> None:
        """
        The event at C{pos} has just gone out again to the client of a number.

        The caller may add a number to C{noted} by itself before C{noted.until}, which takes a tenth of the time.

        @param noted: the others to which it went again at the same time.
        """
        self._add(self._page.again, number, noted, pos, now)

    def acked(self, number: int, noted: Noted, pos: int, at: float) -> None:
        """
        The client of a number has acknowledged the event at C{pos}.

        @param noted: the others that have, of this sending of the event; as in L{resent}.
        @param at: when the ack arrived (monotonic seconds).
        """
        self._add(self._page.acked, number, noted, pos, at)

    def _add(self, where: list[tuple[int, list[int]]], number: int, noted: Noted, pos: int, at: float) -> None:
        if not noted.numbers:
            self._open.append(noted)
            where.append((pos, noted.numbers))
        noted.numbers += (-int(at * 1000), number)
        noted.until = at + 0.001

    def note(self, agent: str, pos: int, what: What, reason: str = "") -> None:
        """
        Something happened to an event that an agent gets, which happens seldom.

        @param reason: as in L{LedgerEntry<dcm_ws.core.ledger_pages.LedgerEntry>}.
        """
        if self._max_bytes:
            self._page.seldom.append(Seldom(pos, int(self._now() * 1000), agent, what, reason))

    # the pages

    def seal(self) -> None:
        """
        What was noted becomes a page.
        """
        self._page.clock = self._wall_ms() - int(self._now() * 1000)
        for page in self._page.pages(self._names):
            self._pages.append(page)
            self.bytes += _size(page)
        self._make_room()
        for number in self._left:
            del self._names[number]
        self._left.clear()
        self._begin_page()

    def _begin_page(self) -> None:
        self._page = Page()
        self._began = self._now()
        self._noted = 0
        self._audiences.clear()
        for noted in self._open:
            noted.numbers = []
            noted.until = 0.0
        self._open.clear()

    def _make_room(self) -> None:
        while self.bytes > self._max_bytes and self._pages:
            self.bytes -= _size(self._pages.popleft())
            self._dropped.add()

    def expire(self, first: int) -> None:
        """
        Forget what is older than the log, and begin another page if this one is large or old.

        @param first: the oldest position of the log.
        """
        page = self._page
        things = len(page.sent) + len(page.alone) + len(page.again) + len(page.acked) + len(page.seldom)
        if things >= _PAGE_THINGS or self._now() - self._began >= _PAGE_SECONDS:
            self.seal()
        while self._pages and self._pages[0].upto < first:
            self.bytes -= _size(self._pages.popleft())

    def take(self, most_bytes: int) -> list[LedgerPage]:
        """
        The oldest pages, which are to be written; none if nothing was noted.  They have to be given to L{written} or
        L{put_back} before the next call.

        @param most_bytes: of them, beyond the first one.
        """
        self.seal()
        taken, size = [], 0
        while self._pages and size < most_bytes:
            taken.append(self._pages.popleft())
            size += _size(taken[-1])
        self._taken = taken
        return taken

    def written(self, pages: list[LedgerPage]) -> None:
        """
        C{pages} are in the database.
        """
        if pages is self._taken:
            self._taken = []
            self.bytes -= sum(map(_size, pages))

    def put_back(self, pages: list[LedgerPage]) -> None:
        """
        C{pages} could not be written, as far as is known: they come with the next ones.
        """
        if pages is self._taken:
            self._taken = []
            self._pages.extendleft(reversed(pages))
            self._make_room()

    def pages_of(self, pos: int) -> list[bytes]:
        """
        The pages in memory that may have something of the event at C{pos}, as JSON, the oldest first.
        """
        self.seal()
        pages = chain(self._taken, self._pages)
        return [page.entries for page in pages if page.first <= pos <= page.upto]


def _size(page: LedgerPage) -> int:
    return _PAGE_OVERHEAD + len(page.entries)
