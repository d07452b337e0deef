from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm_ws.protocol.channels import (
    GLOBAL,
    METRICS,
    Channels,
    agent_channel,
    is_identifier,
    parse_channel,
    session_channel,
)
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from tests.protocol.names import NAMES, NOT_NAMES, names

FAMILIES = ("agents", "sessions", "topics")


@pytest.mark.parametrize("text", NAMES, ids=ascii)
def test_identifiers(text: str) -> None:
    """
    An identifier names an agent, a session or a topic, and a channel of each.
    """
    assert is_identifier(text)
    for family in FAMILIES:
        channel = parse_channel(f"{family}/{text}")
        assert channel.name == f"{family}/{text}"
        assert json.loads(channel.json) == channel.name
        assert channel.agent == (text if family == "agents" else None)


@pytest.mark.parametrize("text", NOT_NAMES, ids=ascii)
def test_what_is_no_identifier(text: str) -> None:
    """
    Anything else names none of them.
    """
    assert not is_identifier(text)
    for family in FAMILIES:
        with pytest.raises(ProtocolError) as refusal:
            parse_channel(f"{family}/{text}")
        assert refusal.value.code is ErrorCode.INVALID_CHANNEL


@given(names)
def test_any_identifier(text: str) -> None:
    """
    Each fits, and with a control character or a space at its end it does not.
    """
    assert is_identifier(text)
    for wrong in (
        f"{text} ",
        f" {text}",
        f"{text}\n",
        f"\N{ZERO WIDTH SPACE}{text}",
        text * 129,
        f"{text}\N{IDEOGRAPHIC SPACE}",
    ):
        assert not is_identifier(wrong)


@given(st.text(max_size=140))
def test_no_text_is_too_odd_to_be_looked_at(text: str) -> None:
    """
    Any text is a channel, or is refused as one.
    """
    for name in (text, *(f"{family}/{text}" for family in FAMILIES)):
        try:
            assert json.loads(parse_channel(name).json) == name
        except ProtocolError as refusal:
            assert refusal.code is ErrorCode.INVALID_CHANNEL


def test_composed_and_decomposed_names_differ() -> None:
    """
    Names are compared as they are, without normalisation.
    """
    assert parse_channel("topics/\u00e9") != parse_channel("topics/e\u0301")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "Global",
        "GLOBAL",
        "global ",
        " global",
        "global/",
        "global/x",
        "metrics/",
        "metrics/x",
        "agents",
        "agents/",
        "sessions",
        "sessions/",
        "topics",
        "topics/",
        "topics/a\n",
        "topics/ a",
        "topics/a ",
        "agents/\u202ea",
        "sessions/\0",
        "topics/" + "x" * 129,
        "Topics/a",
        "topic/a",
        "/topics/a",
        "projects",
        "epic-sessions",
        "rooms/1",
        "global\0",
    ],
)
def test_what_is_no_channel(name: str) -> None:
    """
    Everything else is refused, and the text says which channel it was.
    """
    with pytest.raises(ProtocolError) as refusal:
        parse_channel(name)

    assert refusal.value.code is ErrorCode.INVALID_CHANNEL
    assert refusal.value.reason == f"Invalid channel format: {name}"


def test_refusal_of_a_huge_channel_is_short() -> None:
    """
    A channel name of a megabyte is not sent back whole.
    """
    with pytest.raises(ProtocolError) as refusal:
        parse_channel("x" * 1_000_000)

    assert refusal.value.reason.startswith("Invalid channel format: xxx")
    assert len(refusal.value.reason) < 600


def test_global_and_metrics_are_not_mirrored() -> None:
    """
    C{global} is not mirrored to itself, and C{metrics} not at all; the others are.
    """
    assert parse_channel("global") is GLOBAL
    assert parse_channel("metrics") is METRICS
    assert not GLOBAL.mirrored
    assert not METRICS.mirrored
    assert all(parse_channel(name).mirrored for name in ("agents/a", "sessions/s", "topics/t"))


def test_only_agents_channels_are_somebodys() -> None:
    """
    A private channel knows whose it is; a session's or a topic's is nobody's.
    """
    assert agent_channel("a") == parse_channel("agents/a")
    assert agent_channel("a").agent == "a"
    assert session_channel("a") == parse_channel("sessions/a")
    assert session_channel("a").agent is None
    assert parse_channel("topics/agents/a").agent is None


# channels that the operator adds


def test_operator_adds_channels() -> None:
    """
    C{--extra-channel} makes public channels of the names given, and of nothing near them.
    """
    parse = Channels(["projects", "epic-sessions/*", "\N{ROCKET} ships"]).parse

    for name in ("projects", "epic-sessions/1", "epic-sessions/a b/\N{ROCKET}", "\N{ROCKET} ships"):
        channel = parse(name)
        assert (channel.name, channel.agent, channel.mirrored) == (name, None, True)
        assert json.loads(channel.json) == name
    assert parse("agents/ann").agent == "ann"
    for name in ("project", "projects/1", "Projects", "epic-sessions", "epic-sessions/", "epic-sessions/a ", "x"):
        with pytest.raises(ProtocolError, match=f"Invalid channel format: {name}"):
            parse(name)


def test_a_star_is_every_other_name() -> None:
    """
    The families keep their grammar all the same.
    """
    parse = Channels(["*"]).parse

    assert parse("anything").mirrored
    assert parse("agents/ann").agent == "ann"
    assert not parse("metrics").mirrored
    for name in ("", "agents/", "topics/ a", " x", "x" * 129):
        with pytest.raises(ProtocolError):
            parse(name)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        " ",
        "a*b",
        "**",
        "*a",
        "a\n",
        " a",
        "x" * 129,
        "global",
        "metrics",
        "agents/*",
        "agents/x",
        "topics/t",
        "sessions/*",
    ],
)
def test_bad_extra_channel_ends_the_start(pattern: str) -> None:
    """
    What no other channel could be called is a mistake of the operator's, and named as one.
    """
    with pytest.raises(ValueError, match=r"is not a channel|need not be added"):
        Channels([pattern])


# what is remembered


def test_refused_names_are_not_remembered() -> None:
    """
    A client that sends many huge names leaves nothing of them behind.
    """
    parse = Channels().parse
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(256):
            with pytest.raises(ProtocolError):
                parse(f"topics/{number}" + "x" * (1 << 20))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < 1 << 20


def test_what_is_remembered_is_bounded() -> None:
    """
    Ten thousand of the longest names take a few megabytes at most.
    """
    parse = Channels().parse
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(10_000):
            parse(f"topics/{number:05d}" + "\N{GRINNING FACE}" * 123)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < 10 << 20
