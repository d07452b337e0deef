from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fuzz.corpus import MOST, corpus
from tests.fuzz.mutator import mutate
from tests.fuzz.oracle import fields, same, value_of
from tests.fuzz.targets import TARGETS

INPUTS = [(target, path) for target in TARGETS for path in corpus(target)]


@pytest.mark.parametrize(("target", "path"), INPUTS, ids=[f"{target}-{path.name}" for target, path in INPUTS])
def test_kept_input_is_answered_as_promised(target: str, path: Path) -> None:
    """
    Nothing but a refusal escapes, and what is accepted is what was meant.
    """
    TARGETS[target](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_corpus_is_small_and_there(target: str) -> None:
    """
    Each target has inputs to begin with, and few enough to replay with every run of the tests.
    """
    assert 5 <= len(corpus(target)) <= MOST
    assert all(path.stat().st_size <= 4097 for path in corpus(target))


@pytest.mark.parametrize("text", ["[]", "NaN", '{"a":Infinity}', '{"a":01}', "", '{"a":1,}', b'{"a":"\xff"}'])
def test_second_opinion_knows_what_is_no_object(text: str | bytes) -> None:
    """
    What the decoder must refuse, Python's json refuses, too, if it is configured to be strict.
    """
    assert fields(text) is None


@pytest.mark.parametrize(("one", "other"), [("1", "1.0"), ("1", "true"), ("0", "-0.0"), ('"1"', "1"), ("{}", "[]")])
def test_second_opinion_tells_values_apart(one: str, other: str) -> None:
    """
    Values that Python holds equal, or that look alike, are not the same on the wire.
    """
    assert not same(value_of(one), value_of(other))
    assert same(value_of(one), value_of(f" {one} "))


def test_mutations_stay_json() -> None:
    """
    An input that is JSON is changed into others that are; one seed gives one change.
    """
    data = b'\0{"type":"publish","channel":"topics/a","event":"task.created","data":[1,{"a":"b"}],"id":1}'
    changed = [mutate(data, 4096, seed, lambda blind, _: blind) for seed in range(200)]
    assert changed == [mutate(data, 4096, seed, lambda blind, _: blind) for seed in range(200)]
    assert len(set(changed)) > 50
    for text in changed:
        with suppress(RecursionError):
            json.loads(text.removeprefix(b"\0").decode("utf-8", "surrogatepass"))
