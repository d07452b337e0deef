"""
What Hypothesis may let happen.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.core.promises.course import Course

CHANNELS = ("global", "metrics", "agents/ann", "agents/bob", "sessions/s", "topics/t", "topics/u")
Operation = tuple[Any, ...]

settings = st.fixed_dictionaries(
    {
        "max_events": st.sampled_from((4, 10, 10_000)),
        "keep": st.sampled_from((20.0, 86_400.0, 86_400.0)),
        "max_pending": st.sampled_from((1, 2, 4, 10_000)),
        "max_attempts": st.sampled_from((3, 14)),
        "production": st.booleans(),
        "anonymous_listeners": st.booleans(),
        "mirror_clients": st.sampled_from((True, True, False)),
        "ephemeral": st.sampled_from(((), ("session.*",))),
        "eager": st.sampled_from((0, 2)),
    }
)

_app = st.integers(0, 3)
_few = st.integers(0, 3)
_agent = st.sampled_from((None, "ann", "ann", "bob"))
_own = st.sampled_from(("global", "sessions/s", "topics/t", "topics/t", "topics/u", "metrics"))
_event = st.sampled_from(("task.created", "task.created", "message.new", "session.created", "system.info"))
_source = st.sampled_from(("pia", "paul", "anonymous", "database", "service"))
_place = st.none() | st.tuples(st.sampled_from(("old", "old", "old", "ahead", "epoch")), st.integers(0, 6))

_start = st.tuples(
    st.just("start"),
    _agent,
    st.sampled_from((False, False, True)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(_own, max_size=3, unique=True),
    _place,
)
_publish = st.tuples(st.just("publish"), st.integers(1, 4), _source, st.sampled_from(CHANNELS), _event)
_ack = st.tuples(st.just("acknowledge"), _app, st.sampled_from(("one", "all", "twice", "unknown")), _few)
_return = st.tuples(st.just("return"), _app, st.sampled_from((True, True, False)))
_read = st.tuples(st.just("read"), _app, st.integers(1, 6))
_drop = st.tuples(st.just("drop"), _app, _few)
_cut = st.tuples(st.just("cut"), _app, _few)
_pass = st.tuples(st.just("advance"), st.sampled_from((1, 5, 5, 6, 18, 25, 59, 60, 61)))

operation: st.SearchStrategy[Operation] = st.one_of(
    # what a failing sequence does not need becomes this
    st.just(("nothing",)),
    _publish,
    _publish,
    _publish,
    _publish,
    _start,
    _start,
    _return,
    _return,
    _read,
    _read,
    _ack,
    _ack,
    _drop,
    _drop,
    _cut,
    _pass,
    _pass,
    st.tuples(st.just("subscribe"), _app, _own),
    st.tuples(st.just("unsubscribe"), _app, _own),
    st.tuples(st.just("begin"), _app),
    st.tuples(st.just("intrude"), st.sampled_from(("agents/ann", "agents/bob"))),
    st.just(("drain",)),
)
operations = st.lists(operation, min_size=20, max_size=60)


def play(choices: dict[str, Any], todo: list[Operation]) -> None:
    """
    Let everything happen in order, and then everything end.

    @raise BrokenPromiseError: the core broke a promise.
    """
    course = Course(choices)
    for each in todo:
        _do(course, *each)
        course.look()
    course.finish()


def _do(course: Course, name: str, *arguments: Any) -> None:
    match name:
        case "publish":
            times, *what = arguments
            for _ in range(times):
                course.publish(*what)
        case "start":
            if len(course.apps) < 4:
                course.start(*arguments)
        case "nothing":
            pass
        case "advance" | "intrude" | "drain":
            getattr(course, name)(*arguments)
        case _ if course.apps:
            which, *rest = arguments
            app = course.apps[which % len(course.apps)]
            if name == "return":
                if app.connection is None or app.connection.ended:
                    course.connect(app)
                    if rest[0]:
                        course.begin(app)
            elif name == "begin":
                if app.connection is not None:
                    course.begin(app)
            else:
                getattr(course, name)(app, *rest)
