from __future__ import annotations

import tracemalloc

import pytest

from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.events import CATALOGUE, SHEDDABLE, Ephemeral, Publishable, is_event, is_tracked, traits_of

PROTOCOL = [
    "task.created",
    "task.updated",
    "task.completed",
    "task.failed",
    "subtask.created",
    "subtask.updated",
    "subtask.completed",
    "subtask.failed",
    "subtask.running",
    "message.new",
    "message.read",
    "message.expired",
    "agent.connected",
    "agent.disconnected",
    "agent.heartbeat",
    "agent.blocked",
    "agent.unblocked",
    "session.created",
    "session.ended",
    "metric.update",
    "system.error",
    "system.info",
]


def test_catalogue_is_that_of_the_protocol() -> None:
    """
    The 22 events of the protocol, no more and no fewer.
    """
    assert len(PROTOCOL) == 22
    assert frozenset(PROTOCOL) == CATALOGUE


@pytest.mark.parametrize("event", PROTOCOL)
def test_catalogue_may_be_published(event: str) -> None:
    """
    Each of them fits the grammar, and every client may publish it.
    """
    assert is_event(event)
    assert event in Publishable()


@pytest.mark.parametrize("event", PROTOCOL)
def test_tasks_subtasks_and_messages_are_tracked(event: str) -> None:
    """
    Just C{task.*}, C{subtask.*} and C{message.*} must be acknowledged.
    """
    assert is_tracked(event) == (event.split(".")[0] in {"task", "subtask", "message"})


@pytest.mark.parametrize("event", ["task.", "task.x.y", "message.a-b"])
def test_tracking_goes_by_the_first_part(event: str) -> None:
    """
    An event outside the catalogue is tracked by its first part, too.
    """
    assert is_tracked(event)


@pytest.mark.parametrize("event", ["task", "tasks.created", "mytask.created", "x.task.created"])
def test_a_likeness_is_not_tracked(event: str) -> None:
    """
    A first part that only looks like one of the three does not count.
    """
    assert not is_tracked(event)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "a",
            "Z",
            "7",
            ".",
            "..",
            "-",
            ":",
            "a.b",
            "a.b.c",
            "a..b",
            ".a",
            "a.",
            "x" * 64,
            "deploy",
            "task.statusChanged",
        ),
        *("build:done", "A.B", "wave_1-2"),
    ],
)
def test_event_names(name: str) -> None:
    """
    1 to 64 letters, digits, dots, colons, hyphens and underscores.
    """
    assert is_event(name)
    assert traits_of(name).tracked is is_tracked(name)


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a.b\n", "\na", "a.é", "a/b.c", "a.*", "x" * 65, 'a"', "a\\", "ａ", "٣", "a\0", "\ud800"],  # noqa: RUF001
)
def test_what_is_no_event_name(name: str) -> None:
    """
    Anything else is no event, neither for clients nor for the database.
    """
    assert not is_event(name)
    assert name not in Publishable()
    with pytest.raises(ProtocolError) as refused:
        traits_of(name)
    assert refused.value.code is ErrorCode.INVALID_EVENT


def test_refused_names_are_not_remembered() -> None:
    """
    A source that sends many huge names leaves nothing of them behind.
    """
    kept = traits_of.cache_info().currsize
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(256):
            with pytest.raises(ProtocolError):
                traits_of(f"task.{number}" + "x" * (1 << 20))
            assert not is_event(f"task.{number}" + "x" * (1 << 20))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert traits_of.cache_info().currsize == kept
    assert after - before < 1 << 20


def test_operator_adds_an_event() -> None:
    """
    C{--extra-event deploy.done} lets clients publish that, and nothing near it.
    """
    publishable = Publishable(["deploy.done"])

    assert "deploy.done" in publishable
    assert "deploy.started" not in publishable
    assert "deploy.done.x" not in publishable
    assert "task.created" in publishable


def test_operator_adds_a_family() -> None:
    """
    C{--extra-event pipeline.*} lets clients publish all that begins so and is an event.
    """
    publishable = Publishable(["pipeline.*", "a.b.*", "build:*"])

    assert "pipeline.started" in publishable
    assert "pipeline.stage.started" in publishable
    assert "a.b.c" in publishable
    assert "build:done" in publishable
    assert "build" not in publishable
    assert "pipeline.statusChanged" in publishable
    for name in ("pipeline", "pipeline.", "pipeline.*", "pipeline.é", "pipelines.x", "a.c", "pipeline." + "x" * 60):
        assert name not in publishable


@pytest.mark.parametrize(
    "name", ["", "*", "a*", "a.b*", ".*", ":*", "*.a", "a.*.b", "a.**", "a b", "a/*", "é.*", "x" * 63 + ".*", "x" * 65]
)
def test_bad_extra_event_ends_the_start(name: str) -> None:
    """
    What no event could be called is a mistake of the operator's, and named as one.
    """
    with pytest.raises(ValueError, match="is not an event name"):
        Publishable([name])


def test_only_what_need_not_arrive_is_shed() -> None:
    """
    Who is far behind may miss a snapshot or a heartbeat, but never what must be acknowledged.
    """
    assert SHEDDABLE <= CATALOGUE
    assert not any(map(is_tracked, SHEDDABLE))


def test_refusal_does_not_name_the_event() -> None:
    """
    The reason why a notification was refused is logged, and what is in a payload must not be.
    """
    with pytest.raises(ProtocolError) as refused:
        traits_of("SECRET of the payload")

    assert refused.value.code is ErrorCode.INVALID_EVENT
    assert "SECRET" not in refused.value.reason


@pytest.mark.parametrize(
    ("name", "ephemeral"),
    [
        ("metric.update", True),
        ("agent.heartbeat", True),
        ("agent.connected", True),
        ("system.info", True),
        ("agent.blocked", False),
        ("task.created", False),
        ("build.step", True),
        ("build.", False),
        ("deploy", True),
        ("deployed", False),
    ],
)
def test_ephemeral_events(name: str, ephemeral: bool) -> None:
    """
    Events that soon mean nothing are not logged; the operator adds others.
    """
    assert Ephemeral(["build.*", "deploy", "task.*"]).includes(name) == ephemeral
