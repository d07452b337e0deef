"""
The keys under which events were published: a publisher who repeats a publish with the same key publishes nothing more
(protocol, sections 4 and 10).

A key belongs to its publisher, so nobody learns of the keys of others, or uses them up.  When there is no room, the
publishers that have most keys lose their oldest first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from hashlib import blake2b

from msgspec import Struct

from dcm_ws.core.counts import Counts
from dcm_ws.core.entries import Published
from dcm_ws.core.fairness import shorten

_EMPTY_MIN = 64
_DIGEST = 16


class _Key(Struct, gc=False):
    """
    One key that was used.  The garbage collector does not visit it: there may be very many.

    @ivar digest: of the publisher and the key, which has the same size whatever they have.
    @ivar id: the event's.
    @ivar pos: the event's, as in L{Published}.
    @ivar until: how long it is remembered (monotonic seconds).
    @ivar gone: it was forgotten before.
    """

    publisher: str
    digest: bytes
    id: str
    pos: int
    until: float
    gone: bool = False


class _Share:
    """
    The keys of one publisher, the oldest first.

    @ivar first: the index of the oldest in C{keys}; those before it are gone.
    """

    # not a deque: an empty one takes 600 bytes
    __slots__ = ("first", "keys")

    def __init__(self) -> None:
        self.keys: list[_Key] = []
        self.first = 0

    def __len__(self) -> int:
        return len(self.keys) - self.first

    def pop(self) -> _Key:
        """
        Take the oldest one out.
        """
        key = self.keys[self.first]
        self.first += 1
        if self.first > _EMPTY_MIN + len(self.keys) // 2:
            del self.keys[: self.first]
            self.first = 0
        return key


class PublishKeys:
    """
    Remembers what was published under which key.

    @param now: monotonic seconds.
    @param counts: receives its counts.
    @param max_keys: maximum keys remembered.  Their length does not matter, so this limits their bytes, too.
    @param keep: how long each is remembered, in seconds.
    """

    def __init__(self, now: Callable[[], float], counts: Counts, *, max_keys: int, keep: float = 600.0) -> None:
        self._now = now
        self._counts = counts
        self._max_keys = max_keys
        self._keep = keep
        self._known: dict[bytes, _Key] = {}
        # under which the log has not answered yet
        self._waiting: dict[bytes, Published] = {}
        # in the order of use; some of them are gone
        self._order: deque[_Key] = deque()
        self._shares: dict[str, _Share] = {}

    def __len__(self) -> int:
        """
        How many keys are remembered.
        """
        return len(self._known)

    def clear(self) -> None:
        """
        Forget all keys, except for those that wait for the log.
        """
        self._known.clear()
        self._order.clear()
        self._shares.clear()

    def once(self, publisher: str, key: str, publish: Callable[[str], Published]) -> Published:
        """
        Publish, unless C{publisher} has done so with this key: then return what was published then.  A publish that
        fails does not use the key.

        @param publish: receives what stands for the publisher and the key, as in L{Draft<dcm_ws.core.entries.Draft>}:
            the log may know of a publish that is not remembered here.
        @raise Exception: what C{publish} raises.
        """
        # with the length in front, no two publishers with their keys are the same text
        text = f"{len(publisher)} {publisher}{key}"
        digest = blake2b(text.encode(errors="surrogatepass"), digest_size=_DIGEST).digest()
        known = self._known.get(digest)
        if known is not None and known.until > self._now():
            self._counts.keys.duplicates += 1
            return Published(known.id, known.pos, duplicate=True)
        first = self._waiting.get(digest)
        if first is not None:
            self._counts.keys.duplicates += 1
            again = Published(first.id, duplicate=True, waiting=True)
            first.then(partial(_answer_again, first, again))
            return again
        published = publish(digest.hex())
        if published.waiting:
            self._waiting[digest] = published
            published.then(partial(self._answered, publisher, digest))
        else:
            self._keep_key(publisher, digest, published)
        return published

    def _answered(self, publisher: str, digest: bytes) -> None:
        self._keep_key(publisher, digest, self._waiting.pop(digest))

    def _keep_key(self, publisher: str, digest: bytes, published: Published) -> None:
        if published.duplicate:
            self._counts.keys.duplicates += 1
        if published.pos is not None:
            self._remember(_Key(publisher, digest, published.id, published.pos, self._now() + self._keep))

    def expire(self, most: int) -> bool:
        """
        Forget keys that have been remembered for long enough, C{most} at a time.  Returns if there may be more.
        """
        now, order = self._now(), self._order
        for _ in range(most):
            if not order or order[0].until > now:
                return False
            key = order.popleft()
            if not key.gone:
                self._drop_oldest(key.publisher)
        return True

    def _remember(self, key: _Key) -> None:
        # one that has expired is in order until it is its turn
        self._known[key.digest] = key
        self._order.append(key)
        share = self._shares.get(key.publisher)
        if share is None:
            share = self._shares[key.publisher] = _Share()
        share.keys.append(key)
        if len(self._known) > self._max_keys:
            self._make_room()

    def _make_room(self) -> None:
        """
        Shorten the largest shares until there is room for some more, so that this is done seldom.
        """
        sizes = {publisher: len(share) for publisher, share in self._shares.items()}
        shorten(sizes, self._max_keys - self._max_keys // 64, self._crowd_out)
        if len(self._order) > 2 * len(self._known) + _EMPTY_MIN:
            self._order = deque(key for key in self._order if not key.gone)

    def _crowd_out(self, publisher: str) -> int:
        self._drop_oldest(publisher)
        self._counts.limits.max_keys.add_of(publisher)
        return 1

    def _drop_oldest(self, publisher: str) -> None:
        share = self._shares[publisher]
        key = share.pop()
        key.gone = True
        if not len(share):
            del self._shares[publisher]
        # the key may have been used again since it expired
        if self._known[key.digest] is key:
            del self._known[key.digest]


def _answer_again(first: Published, again: Published) -> None:
    # the log may have found an event of before
    again.id = first.id
    again.answer(first.pos)
