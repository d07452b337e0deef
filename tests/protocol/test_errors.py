from __future__ import annotations

import pytest
from msgspec import Raw

from dcm_ws.protocol.errors import NO_REQUEST, CloseCode, ErrorCode, ProtocolError


@pytest.mark.parametrize("code", ErrorCode)
def test_error_codes_are_spelt_as_they_are_named(code: ErrorCode) -> None:
    """
    A client reads the very name of the error in C{code}.
    """
    assert str(code) == code.name


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (1001, "GOING_AWAY"),
        (1009, "TOO_BIG"),
        (1011, "INTERNAL_ERROR"),
        (1012, "RESTART"),
        (1013, "TRY_AGAIN_LATER"),
        (4000, "PING_TIMEOUT"),
        (4001, "AUTHENTICATION_REQUIRED"),
        (4008, "TOO_SLOW"),
        (4029, "TOO_MANY_MESSAGES"),
    ],
)
def test_close_codes_are_those_of_the_protocol(code: int, name: str) -> None:
    """
    The number that a client finds in the close frame means what the protocol says.
    """
    assert CloseCode[name] == code


@pytest.mark.parametrize("code", CloseCode)
def test_every_close_has_a_reason_that_fits_the_frame(code: CloseCode) -> None:
    """
    Every close says why, in the 123 bytes that a close frame has for it (RFC 6455, section 5.5).
    """
    assert 0 < len(code.reason.encode()) <= 123


def test_ping_timeout_says_so() -> None:
    """
    A client that was silent for too long reads C{Ping timeout}.
    """
    assert CloseCode.PING_TIMEOUT.reason == "Ping timeout"


def test_protocol_error_carries_what_the_answer_takes() -> None:
    """
    A refusal knows its code, its text and the request that it answers, if there was one.
    """
    error = ProtocolError(ErrorCode.INVALID_EVENT, "no such event", Raw(b"7"))
    anonymous = ProtocolError(ErrorCode.PARSE_ERROR, "no JSON")

    assert (error.code, error.reason, error.request) == (ErrorCode.INVALID_EVENT, "no such event", Raw(b"7"))
    assert anonymous.request == NO_REQUEST
    assert "no such event" in str(error)
