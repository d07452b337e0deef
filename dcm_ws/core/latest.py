"""
Events of which only the latest matters: a client that is behind receives only the last one of each subject.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b

import msgspec
from msgspec import Raw, Struct, defstruct

from dcm_ws.protocol.events import EVENT_RULE, SHEDDABLE, TRACKED, is_event, is_family
from dcm_ws.protocol.rawjson import agent_of

_SUBJECT_MAX = 128
_KEPT_MAX = 4096

Subject = Callable[[bytes], str]
"""
Returns what an event is about, given its data.
"""


class LatestEvents:
    """
    The events of which only the latest matters, and their subjects: C{metric.update} and C{agent.heartbeat},
    by the agent that their data names, and those that the operator adds.

    @param extra: C{PATTERN} or C{PATTERN:FIELD}: a name, in which C{*} may stand for all that follows a last C{.} or
        C{:}, and the field of the data that says what the event is about.  The last colon separates them, so a name
        with a colon and no field ends with another colon.
    @raise ValueError: a pattern is invalid, or fits tracked events, which must all be delivered.

    @ivar subject_of: returns the function that reads the subject of an event of that name; None if every such event
        matters.
    """

    def __init__(self, extra: Iterable[str] = ()) -> None:
        self._by_name: dict[str, Subject] = dict.fromkeys(SHEDDABLE, agent_of)
        self._by_prefix: list[tuple[str, Subject]] = []
        # events have few names, of 64 characters at most
        self.subject_of: Callable[[str], Subject | None] = lru_cache(maxsize=_KEPT_MAX)(self._subject_of)
        for text in extra:
            pattern, field = _parts(text)
            subject = _field_reader(field) if field else _no_subject
            if is_event(pattern):
                self._by_name[pattern] = subject
            else:
                self._by_prefix.append((pattern[:-1], subject))

    def _subject_of(self, event: str) -> Subject | None:
        subject = self._by_name.get(event)
        if subject is None:
            for prefix, subject_of_prefix in self._by_prefix:
                if event.startswith(prefix):
                    return subject_of_prefix
        return subject


def _parts(text: str) -> tuple[str, str]:
    pattern, colon, field = text.rpartition(":")
    if not colon or field == "*":
        pattern, field = text, ""
    if not is_event(pattern) and not is_family(pattern):
        raise ValueError(
            f"{text!r} is not PATTERN or PATTERN:FIELD: a pattern has {EVENT_RULE};"
            " * may stand at its end, after . or :"
        )
    prefix = pattern.removesuffix("*")
    if prefix.startswith(TRACKED) or (prefix != pattern and any(family.startswith(prefix) for family in TRACKED)):
        raise ValueError(f"{text!r} fits tracked events, which must all be delivered")
    return pattern, field


def _no_subject(data: bytes) -> str:
    return ""


def _field_reader(field: str) -> Subject:
    """
    A function that returns the value of C{field} in an event's data, as its JSON text; a long one is hashed.  Empty if
    the data is not an object that has it.
    """
    about: type[Struct] = defstruct("about", [("value", Raw, Raw(b""))], rename={"value": field})
    decode = msgspec.json.Decoder(about).decode

    def subject(data: bytes) -> str:
        try:
            value = bytes(decode(data).value)  # type: ignore[attr-defined]
            return value.decode() if len(value) <= _SUBJECT_MAX else blake2b(value, digest_size=16).hexdigest()
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return ""

    return subject
