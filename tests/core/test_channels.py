from __future__ import annotations

import pytest

from dcm_ws.channels import GLOBAL, METRICS, Channel, agent_channel, is_identifier, parse_channel, session_channel
from dcm_ws.errors import ErrorCode, ProtocolError

GOOD_IDENTIFIERS = ["a", "Z", "0", "_", ".", ":", "@", "-", "backend-laravel", "user@host:1.2_3", "x" * 128]
BAD_IDENTIFIERS = ["", "x" * 129, "a b", "a/b", "a\n", "\na", "a\0", "é", "٣", "a*", "a#", "a+b", "a,b", 'a"', "ａ"]  # noqa: RUF001


@pytest.mark.parametrize("text", GOOD_IDENTIFIERS)
def test_identifiers(text: str) -> None:
    """
    An id of 1 to 128 letters, digits and C{_ . : @ -} can name an agent or a session.
    """
    assert is_identifier(text)
    assert parse_channel(f"agents/{text}") == Channel(f"agents/{text}", agent=text)
    assert parse_channel(f"sessions/{text}") == Channel(f"sessions/{text}")


@pytest.mark.parametrize("text", BAD_IDENTIFIERS)
def test_what_is_no_identifier(text: str) -> None:
    """
    Anything else names neither, nor a channel of theirs.
    """
    assert not is_identifier(text)
    for family in ("agents", "sessions"):
        with pytest.raises(ProtocolError) as refusal:
            parse_channel(f"{family}/{text}")
        assert refusal.value.code is ErrorCode.INVALID_CHANNEL


@pytest.mark.parametrize("topic", ["a", "A.b:c@d_e-f", "a/b", "a/b/c/d", "x" * 128, "/".join("a" * 64) + "b", "."])
def test_topics(topic: str) -> None:
    """
    A topic is up to 128 characters of the same, in parts between slashes.
    """
    assert parse_channel(f"topics/{topic}") == Channel(f"topics/{topic}")


def test_longest_topic_counts_its_slashes() -> None:
    """
    The slashes of a topic count towards its 128 characters.
    """
    assert len("a/" * 63 + "aa") == 128
    assert parse_channel("topics/" + "a/" * 63 + "aa").name
    with pytest.raises(ProtocolError):
        parse_channel("topics/" + "a/" * 64 + "a")


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
        "agents/a/b",
        "sessions",
        "sessions/",
        "sessions/a/b",
        "topics",
        "topics/",
        "topics//",
        "topics//a",
        "topics/a/",
        "topics/a//b",
        "topics/a b",
        "topics/a\n",
        "topics/é",
        "topics/" + "x" * 129,
        "Topics/a",
        "topic/a",
        "/topics/a",
        "projects",
        "epic-sessions",
        "rooms/1",
        "agents/*",
        "topics/#",
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
