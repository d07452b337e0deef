"""
Dead letters over HTTP: C{/v1/dead} and C{/v1/dead/redrive} (docs/protocol.md, section 12).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, get_args

import msgspec
from msgspec import Meta, Struct
from twisted.internet.defer import Deferred
from twisted.web.server import Request

from dcm_ws.core.agent_records import Choice, LetterPlace, place_of
from dcm_ws.core.dead_letters import Listed, Reason
from dcm_ws.http.api import Gate
from dcm_ws.http.operators import MOST, PAGE, OperatorPage, Records, as_deferred
from dcm_ws.http.queries import TIME_MAX, identifier, malformed, text, texts, whole
from dcm_ws.protocol.commands import NOT_JSON, POSITION_MAX
from dcm_ws.protocol.errors import ErrorCode, ProtocolError

IDS_MAX = 1000
"""
Events that a caller may name.
"""

REASONS = get_args(Reason)


class DeadPage(OperatorPage):
    """
    C{/v1/dead}: the dead letters, in the order of dying.
    """

    def __init__(self, wall_ms: Callable[[], int], gate: Gate, records: Records) -> None:
        super().__init__(wall_ms, gate)
        self._records = records

    def answer_operator(self, request: Request) -> Deferred[bytes]:
        most = whole(request, "limit", 1, MOST) or PAGE
        reasons = texts(request, "reason")
        if not set(reasons) <= set(REASONS):
            raise malformed("reason", f"use {', '.join(REASONS)}")
        agent = text(request, "agent")
        choice = Choice(
            agent=None if agent is None else identifier(agent, "agent"),
            event_ids=texts(request, "id")[:IDS_MAX],
            reasons=reasons,
            since=whole(request, "since", 0, TIME_MAX),
            until=whole(request, "until", 0, TIME_MAX),
            after=_read_place(text(request, "after")),
            most=most + 1,
        )
        found = as_deferred(self._records.letters(choice))
        return found.addCallback(lambda letters: self._answer_page(request, letters, most))

    def _answer_page(self, request: Request, letters: Sequence[Listed], most: int) -> bytes:
        more = {"next": _write_place(place_of(letters[most - 1]))} if len(letters) > most else {}
        return self.answer(request, {"letters": [_letter(one) for one in letters[:most]]} | more)


# PostgreSQL has no text with NUL
_Ids = Annotated[list[Annotated[str, Meta(max_length=128, pattern=r"^[^\0]*$")]], Meta(max_length=IDS_MAX)]


class _Wanted(Struct, frozen=True, forbid_unknown_fields=True):
    """
    The body of a redrive.
    """

    agent: str | None = None
    ids: _Ids = []
    reasons: list[Reason] = []
    since: Annotated[int, Meta(ge=0, le=TIME_MAX)] | None = None
    until: Annotated[int, Meta(ge=0, le=TIME_MAX)] | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST)] = PAGE


_wanted = msgspec.json.Decoder(_Wanted)


class RedrivePage(OperatorPage):
    """
    C{/v1/dead/redrive}: has dead letters sent again.
    """

    allowed = ("POST", "OPTIONS")

    def __init__(self, wall_ms: Callable[[], int], gate: Gate, records: Records) -> None:
        super().__init__(wall_ms, gate)
        self._records = records

    def answer_operator(self, request: Request) -> Deferred[bytes]:
        wanted = _decode(self.take_body(request) or b"{}")
        choice = Choice(
            agent=None if wanted.agent is None else identifier(wanted.agent, "agent"),
            event_ids=wanted.ids,
            reasons=wanted.reasons,
            since=wanted.since,
            until=wanted.until,
            most=wanted.limit,
        )
        number = as_deferred(self._records.redrive(choice))
        return number.addCallback(lambda number: self.answer(request, {"letters": number}))


def _decode(body: bytes) -> _Wanted:
    try:
        return _wanted.decode(body.decode())
    except msgspec.ValidationError as error:
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, f"Invalid redrive: {error}") from None
    except NOT_JSON:
        raise ProtocolError(ErrorCode.PARSE_ERROR, "Failed to parse the body: it must be JSON") from None


def _letter(letter: Listed) -> dict[str, object]:
    return {
        "agent_id": letter.agent,
        "id": letter.event_id,
        "pos": letter.pos,
        "channel": letter.channel,
        "event": letter.event,
        "data": msgspec.Raw(letter.data),
        "timestamp": letter.at,
        "sent": letter.deliveries,
        "reason": letter.reason,
        "died_at": letter.died_at,
        "redriven_at": letter.redriven_at,
    }


def _write_place(place: LetterPlace) -> str:
    return f"{place.died_at}.{place.pos}.{place.agent}"


def _read_place(value: str | None) -> LetterPlace | None:
    """
    @raise ProtocolError: C{INVALID_MESSAGE}.
    """
    if value is None:
        return None
    died_at, _, rest = value.partition(".")
    pos, dot, agent = rest.partition(".")
    if not (dot and all(part.isascii() and part.isdigit() and len(part) <= 16 for part in (died_at, pos))):
        raise malformed("after", "use `next` of the response before")
    if int(died_at) > TIME_MAX or int(pos) > POSITION_MAX:
        raise malformed("after", "use `next` of the response before")
    return LetterPlace(int(died_at), identifier(agent, "after"), int(pos))
