"""
What is published over HTTP, decoded from the body of a request (protocol, section 12).

The C{data} of an event is kept as the JSON text that the publisher sent, as in L{dcm_ws.protocol.commands}.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from dcm_ws.protocol.commands import KEY_MAX, NOT_JSON, NULL
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.rawjson import repair_surrogates

BATCH_MAX = 1000
"""
Events in one request, at most.
"""


class Post(Struct, frozen=True, gc=False):
    """
    One event.

    @ivar key: an empty one counts as absent.
    """

    channel: str
    event: str
    data: Raw = NULL
    key: Annotated[str, Meta(max_length=KEY_MAX)] | None = None


_one = msgspec.json.Decoder(Post)
_many = msgspec.json.Decoder(list[Post])


def decode_posts(body: bytes) -> Post | list[Post]:
    """
    Decode one event, or an array of events.

    @raise ProtocolError: C{PARSE_ERROR} or C{INVALID_MESSAGE}.
    """
    try:
        text = body.decode().lstrip(" \t\r\n")
        decoder: msgspec.json.Decoder[Post] | msgspec.json.Decoder[list[Post]]
        decoder = _many if text.startswith("[") else _one
        try:
            return decoder.decode(text)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return decoder.decode(repair_surrogates(text))
    except msgspec.ValidationError as error:
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, f"Invalid publish message: {error}") from None
    except NOT_JSON:
        raise ProtocolError(ErrorCode.PARSE_ERROR, "Failed to parse the body: it must be JSON") from None
