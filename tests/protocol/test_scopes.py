"""
What the scopes of a token allow.
"""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.scopes import MAX_SCOPE, MAX_SCOPES, Scope, check_scopes, read_scope


@pytest.mark.parametrize(
    ("scope", "yes", "no"),
    [
        ("subscribe:global", ["global"], ["globa", "globals", "topics/global", ""]),
        ("subscribe:topics/a", ["topics/a"], ["topics/A", "topics/a ", "topics/ab", "xtopics/a", "topics/a\n"]),
        (
            "subscribe:topics/*",
            ["topics/a", "topics/*", "topics/a:b"],
            ["topics", "topics/a/b", "agents/a", "topics/a\n"],
        ),
        ("subscribe:topics/team/*", ["topics/team/a"], ["topics/a", "topics/team/a/b", "topics/xteam/a"]),
        ("subscribe:*/a", ["topics/a", "agents/a"], ["a", "topics/x/a", "topics/ab"]),
        ("subscribe:*", ["global", "metrics", "projects"], ["topics/a"]),
        ("subscribe:topics/a*b*c", ["topics/abc", "topics/axbxbxc"], ["topics/ac", "topics/ab/c", "topics/abcd"]),
        ("subscribe:topics/a**c", ["topics/ac", "topics/abc"], ["topics/a/c"]),
        ("subscribe:topics/a.c", ["topics/a.c"], ["topics/abc"]),
        ("subscribe:topics/a%2Ab", ["topics/a*b"], ["topics/axb", "topics/a%2Ab"]),
        ("subscribe:topics/a%2A*", ["topics/a*", "topics/a*b"], ["topics/ab"]),
        ("subscribe:topics/50%25", ["topics/50%"], ["topics/50%25"]),
        ("subscribe:topics/a:b", ["topics/a:b"], ["topics/a"]),
        ("subscribe:topics/a%3ab", ["topics/a:b"], ["topics/a%3ab"]),
        ("operator", ["global", "agents/x", "topics/a/b"], []),
        ("publish:topics/a:*", [], ["topics/a", "global"]),
    ],
)
def test_subscribing(scope: str, yes: list[str], no: list[str]) -> None:
    """
    A star stands for any characters of a name but a slash.
    """
    read = Scope((scope,))
    assert [channel for channel in yes + no if read.may_subscribe(channel)] == yes


@pytest.mark.parametrize(
    ("scope", "yes", "no"),
    [
        (
            "publish:topics/a:task.created",
            ["topics/a task.created"],
            ["topics/a task.updated", "topics/b task.created"],
        ),
        (
            "publish:topics/a:task.*",
            ["topics/a task.created", "topics/a task.a.b"],
            ["topics/a tasks", "global task.a"],
        ),
        ("publish:*/*:*", ["topics/a x", "agents/b y:z"], ["global x", "topics/a/b x"]),
        (
            "publish:topics/a:b:task.*",
            ["topics/a:b task.created"],
            ["topics/a task.created", "topics/a b:task.created"],
        ),
        ("publish:topics/a:pipeline%3A*", ["topics/a pipeline:x"], ["topics/a pipeline.x", "topics/a:pipeline x"]),
        ("operator", ["global system.info", "agents/x task.created"], []),
        ("subscribe:topics/a", [], ["topics/a task.created"]),
    ],
)
def test_publishing(scope: str, yes: list[str], no: list[str]) -> None:
    """
    The last colon parts the channel from the event.
    """
    read = Scope((scope,))
    assert [both for both in yes + no if read.may_publish(*both.split(" "))] == yes


def test_several() -> None:
    """
    One scope that allows something is enough.
    """
    read = read_scope(("subscribe:global", "subscribe:topics/a*", "subscribe:topics/b*", "publish:x:y", "publish:z:*"))
    assert [read.may_subscribe(name) for name in ("global", "topics/a1", "topics/b1", "topics/c1")] == [True] * 3 + [
        False
    ]
    assert [read.may_publish(*both) for both in (("x", "y"), ("z", "y"), ("x", "z"))] == [True, True, False]
    assert not read.operator
    empty = read_scope(())
    assert not empty.may_subscribe("global") and not empty.may_publish("global", "task.created")


@pytest.mark.parametrize(
    ("scope", "spans"),
    [
        ("operator", True),
        ("subscribe:*/*", True),
        ("subscribe:a*", True),
        ("subscribe:agents/*", True),
        ("subscribe:sessions/x-*", True),
        ("subscribe:agents/x", False),
        ("subscribe:topics/*", False),
        ("subscribe:b*", False),
        ("publish:agents/*:*", False),
    ],
)
def test_spanning_private_channels(scope: str, spans: bool) -> None:
    """
    It is known which scopes may reach private channels that they do not name.
    """
    assert Scope((scope,)).spans_private is spans


@pytest.mark.parametrize(
    "scope",
    [
        *("subscribe", "subscribe:", "publish", "publish:", "publish:a", "publish:a:", "publish::b"),
        *("subscribe:topics/50%", "subscribe:%2a*%", "publish:a%:b", "publish:a:%41"),
        "subscribe:" + "x" * MAX_SCOPE,
    ],
)
def test_malformed(scope: str) -> None:
    """
    The refusal names a malformed scope, shortened.
    """
    with pytest.raises(ProtocolError, match=r"Invalid token: .* scope") as refused:
        read_scope(("subscribe:global", scope))
    assert refused.value.code is ErrorCode.TOKEN_INVALID
    assert len(refused.value.reason) < 250
    with pytest.raises(ValueError, match=r"scope|subscribe:|publish:"):
        check_scopes([scope])


@pytest.mark.parametrize("scope", ["", "x", "*", "Operator", "operator ", "operator:", "read:global", "openid", "%"])
def test_unknown(scope: str) -> None:
    """
    A scope of an unknown kind allows nothing; a person who asks for one is told so.
    """
    read = read_scope((scope,))
    assert not read.operator and not read.may_subscribe("global") and not read.may_publish("global", "task.created")
    with pytest.raises(ValueError, match="is not subscribe:CHANNEL"):
        check_scopes(["operator", scope])


def test_number() -> None:
    """
    The number of scopes is limited.
    """
    read_scope(("operator",) * MAX_SCOPES)
    with pytest.raises(ProtocolError, match="more than 64"):
        read_scope(("operator",) * (MAX_SCOPES + 1))
    check_scopes(["operator"])


@given(st.text("a/*", max_size=8), st.text("a/", max_size=8))
def test_as_a_regular_expression(pattern: str, name: str) -> None:
    """
    A star is what it would be in a plain regular expression.
    """
    expected = re.fullmatch("[^/]*".join(map(re.escape, pattern.split("*"))), name)
    assert not pattern or Scope((f"subscribe:{pattern}",)).may_subscribe(name) is (expected is not None)


def test_cost() -> None:
    """
    Many stars do not make a name expensive that does not match.
    """
    read = Scope(tuple(f"publish:topics/{'a*' * 50}{number}:task.*" for number in range(20)))
    name, began = "topics/" + "a" * 128, time.perf_counter()
    for _ in range(100):
        assert not read.may_publish(name, "task.created")
    # about 50 us each; without atomic groups it would not end
    assert time.perf_counter() - began < 2.0
