from __future__ import annotations

import json
from math import isinf

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.rawjson import agent_of, check_data, has_huge_number, is_nested_deeper, repair_surrogates

# depth


@pytest.mark.parametrize(
    ("data", "depth"),
    [
        ("1", 0),
        ('"[[[["', 0),
        ("[]", 1),
        ("{}", 1),
        ('[[], {}, [1], {"a": 1}]', 2),
        ('{"a": [{"b": {}}]}', 4),
        ('["]]]]", "{{{{", "\\"[[[[", "\\\\", []]', 2),
        ('{"[": {"}": ["\\\\\\"]"]}}', 3),
        ("[" * 50 + "[],[[]]" + "]" * 50, 52),
        ("[" * 500 + "]" * 500, 500),
        ("[" + "[[]]," * 1000 + "{}]", 3),
        ("[" + "[]," * 1000 + "{}]", 2),
    ],
    ids=lambda value: str(value)[:30],
)
def test_depth_of_nesting(data: str, depth: int) -> None:
    """
    Depth is counted in arrays and objects inside one another; brackets in text are none.
    """
    json.loads(data)

    assert not is_nested_deeper(data.encode(), depth)
    assert not is_nested_deeper(data.encode(), depth + 1)
    assert depth == 0 or is_nested_deeper(data.encode(), depth - 1)


# whom data is about


@pytest.mark.parametrize(
    ("data", "agent"),
    [
        ('{"agent_id": "ann", "n": [1]}', "ann"),
        ('{"agent_id": "\\u00e9"}', "é"),
        ("{}", ""),
        ('{"agent_id": 5}', ""),
        ('{"agent_id": null}', ""),
        ('{"agent_id": "\\ud83d"}', ""),
        ('["agent_id"]', ""),
        ("null", ""),
        ('"ann"', ""),
        ('{"agent_id": "general purpose"}', "general purpose"),
        ('{"agent_id": "%s"}' % ("x" * 129), ""),
        ('{"agent_id": "%s"}' % ("x" * 1_000_000), ""),
        ('{"agent_id": " "}', ""),
    ],
    ids=lambda value: str(value)[:40],
)
def test_whom_data_is_about(data: str, agent: str) -> None:
    """
    A heartbeat is one agent's where its data says so.
    """
    assert agent_of(data.encode()) == agent


# numbers


@pytest.mark.parametrize(
    "number",
    [
        *(
            "0",
            "-0",
            "1",
            "-1.5",
            "1e5",
            "1E5",
            "1e+16",
            "1e-400",
            "1.7976931348623157e308",
            "-1e308",
            "1e0000000000005",
        ),
        *("123456789012345678901234567890", "9" * 308, "0." + "9" * 5000, "1" + "0" * 400 + "e-300", "1e-99999"),
        *("1" + "0" * 209 + "e98", "0." + "0" * 400 + "1e700", "0e99999"),
    ],
    ids=lambda number: number[:30],
)
def test_numbers_that_every_client_reads(number: str) -> None:
    """
    A number that a double holds, if not to the last digit, is passed on.
    """
    for data in (number, f"[{number}]", f'{{"a":{number}}}', f"[1, {number} ,2]", f"\n{number}\t"):
        assert not has_huge_number(data.encode())
        json.loads(data)
        assert not isinf(json.loads(number, parse_int=float))


@pytest.mark.parametrize(
    "number",
    [
        *("1e400", "-1e999", "1E400", "1e+400", "1E+0400", "1.8e308", "2e308", "1e99999999999999999999"),
        *("9" * 4301, "-" + "9" * 4301, "1" + "0" * 309, "1" + "0" * 220 + "e99", "1" + "0" * 300 + ".5e+10"),
        *("0.0001e500", "12345678901e299", "1" + "0" * 308 + "e1"),
    ],
    ids=lambda number: number[:30],
)
def test_numbers_that_some_client_cannot_read(number: str) -> None:
    """
    JavaScript reads Infinity, msgspec nothing, or Python refuses to read so many digits.
    """
    for data in (number, f"[{number}]", f'{{"a":{number}}}', f'["1e400",{number}]', f'{{"e":[0,{number} ,1]}}'):
        assert has_huge_number(data.encode())


@pytest.mark.parametrize(
    "text", ["1e400", "9" * 5000, "3e123456-1e400", "\\\\", 'a\\"1e400', '\\"', "é 1e999 "], ids=lambda text: text[:20]
)
def test_text_is_no_number(text: str) -> None:
    """
    What stands in a string, or is a key, may look like any number.
    """
    for data in (f'"{text}"', f'["{text}", 1]', f'{{"{text}":"{text}"}}'):
        json.loads(data)
        assert not has_huge_number(data.encode())


numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,12})(\.[0-9]{1,12})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
texts = st.text(st.sampled_from('019eE+-."\\é,[]{}'), max_size=12)
documents = st.recursive(
    numbers | texts.map(json.dumps) | st.just("null"),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(texts.map(json.dumps), inner, max_size=4).map(
            lambda items: "{" + ",".join(f"{key}:{value}" for key, value in items.items()) + "}"
        )
    ),
    max_leaves=12,
)


@given(documents)
def test_huge_numbers_are_found_wherever_they_are(data: str) -> None:
    """
    Data is refused exactly where a reader gets an infinite number, and what is accepted, msgspec reads.
    """
    found: list[float] = []
    json.loads(
        data, parse_float=lambda text: found.append(float(text)), parse_int=lambda text: found.append(float(text))
    )

    assert has_huge_number(data.encode()) is any(map(isinf, found))
    if not any(map(isinf, found)):
        msgspec.json.decode(data)


# both checks


def test_data_that_is_in_order() -> None:
    """
    Nothing is counted for it.
    """
    crossed: list[None] = []
    check_data(b'{"a":[1]}', 2, lambda: crossed.append(None))

    assert not crossed


@pytest.mark.parametrize(("data", "word", "crossed"), [(b"[[[]]]", "nested", 1), (b"1e400", "number", 0)])
def test_data_that_is_refused(data: bytes, word: str, crossed: int) -> None:
    """
    The refusal names the field and the reason, and the depth has a counter of its own.
    """
    counted: list[None] = []
    with pytest.raises(ProtocolError) as refused:
        check_data(data, 2, lambda: counted.append(None))

    assert refused.value.code is ErrorCode.INVALID_MESSAGE
    assert "`data`" in refused.value.reason
    assert word in refused.value.reason
    assert len(counted) == crossed


# halves of characters


def test_halves_are_mended() -> None:
    """
    A pair of halves is one character, and each half alone becomes U+FFFD.
    """
    assert json.loads(repair_surrogates(r'"\ud83d\ude00\ud83d"')) == "\N{GRINNING FACE}\N{REPLACEMENT CHARACTER}"


def test_nothing_to_mend() -> None:
    """
    Text without a half is not what this is for.
    """
    with pytest.raises(ValueError, match="surrogate"):
        repair_surrogates(r'"\ud83d\ude00 \\ud83d"')
