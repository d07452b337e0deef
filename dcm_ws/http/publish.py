"""
C{POST /v1/publish}: one event, or several that are published together (docs/protocol.md, section 12).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.web.server import Request

from dcm_ws.core.counts import LimitCounts
from dcm_ws.core.entries import Published
from dcm_ws.core.ports import Later
from dcm_ws.core.publishing import Checked, Publishing
from dcm_ws.core.router import not_logged
from dcm_ws.core.session import Session
from dcm_ws.http.api import ApiPage, Gate, too_large
from dcm_ws.http.request_headers import header
from dcm_ws.protocol.commands import KEY_MAX
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.posts import BATCH_MAX, Post, decode_posts


class PublishPage(ApiPage):
    """
    Publishes what it is sent.

    @param later: calls something in a later turn.
    @param max_event: bytes of one event.
    """

    allowed = ("POST", "OPTIONS")

    def __init__(
        self,
        wall_ms: Callable[[], int],
        gate: Gate,
        publishing: Publishing,
        limits: LimitCounts,
        *,
        later: Later,
        max_event: int,
    ) -> None:
        super().__init__(wall_ms, gate)
        self._publishing = publishing
        self._limits = limits
        self._later = later
        self._max_event = max_event

    def answer_call(self, request: Request, session: Session) -> bytes | Deferred[bytes]:
        body = self.take_body(request)
        if not body:
            raise ProtocolError(ErrorCode.PARSE_ERROR, "The request has no body: send one event, or an array of events")
        posts = decode_posts(body)
        key = _key(header(request, "Idempotency-Key"))
        if isinstance(posts, Post):
            self._check_size(len(body), self._limits.max_message_size.add)
            published = [self._publish_one(session, posts, key)]
            return self._answer_later(request, published, partial(self._answer_one, request, published[0]))
        if key:
            raise ProtocolError(
                ErrorCode.INVALID_MESSAGE,
                "Idempotency-Key is the key of a single event: give each event of an array a `key`",
            )
        published = self._publish_all(session, posts)
        return self._answer_later(request, published, partial(self._answer_all, request, published))

    def _check_size(self, size: int, count: Callable[[], object]) -> None:
        if size > self._max_event:
            count()
            raise too_large(f"The event is larger than {self._max_event} bytes")

    def _publish_one(self, session: Session, post: Post, key: str) -> Published:
        if key and post.key and post.key != key:
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, "Idempotency-Key is not the same as `key`")
        return self._publishing.publish(session, post.channel, post.event, post.data, key or post.key)

    def _publish_all(self, session: Session, posts: list[Post]) -> list[Published]:
        if len(posts) > BATCH_MAX:
            self._limits.max_batch_events.add()
            raise too_large(f"There are {len(posts)} events: send {BATCH_MAX} at most")
        self.gate.callers.charge_more(session, len(posts) - 1)
        checked: list[Checked] = []
        for number, post in enumerate(posts):
            try:
                self._check_size(len(bytes(post.data)), self._limits.max_message_size.add)
                checked.append(self._publishing.check(session, post.channel, post.event, post.data, post.key))
            except ProtocolError as error:
                raise ProtocolError(error.code, f"Event {number}: {error.reason}") from None
        return self._publishing.publish_all(session, checked, self._later) if checked else []

    def _answer_later(
        self, request: Request, published: list[Published], answer: Callable[[], bytes]
    ) -> bytes | Deferred[bytes]:
        """
        Answer when the log has answered for all events.
        """
        waiting = [one for one in published if one.waiting]
        if not waiting:
            return answer()
        answered: Deferred[None] = Deferred()
        left = len(waiting)

        def one_answered() -> None:
            nonlocal left
            left -= 1
            if not left:
                answered.callback(None)

        for one in waiting:
            one.then(one_answered)
        return answered.addCallback(lambda _: answer())

    def _answer_one(self, request: Request, published: Published) -> bytes:
        return self.answer(request, _shown(published) | {"timestamp": self.wall_ms()})

    def _answer_all(self, request: Request, published: list[Published]) -> bytes:
        return self.answer(request, [_shown(one) for one in published])


def _shown(published: Published) -> dict[str, object]:
    """
    @raise ProtocolError: C{NOT_AVAILABLE}: it is not in the log.
    """
    if published.pos is None:
        raise not_logged()
    shown: dict[str, object] = {"id": published.id}
    if published.pos:
        shown["pos"] = published.pos
    if published.duplicate:
        shown["duplicate"] = True
    return shown


def _key(text: str) -> str:
    """
    The key in an C{Idempotency-Key} header, with or without quotes; empty without one.

    @raise ProtocolError: C{INVALID_MESSAGE}: it is too long.
    """
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if len(text) > KEY_MAX:
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, f"Idempotency-Key may have {KEY_MAX} characters at most")
    return text
