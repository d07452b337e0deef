"""
The lines of a file or a pipe.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading

import pytest

from dcm_ws.cli.lines import LINE_MAX, Numbered, numbered

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("sizes", [(1,), (3, 1, 100), (65_536,)])
def test_lines_of_any_length(sizes: tuple[int, ...]) -> None:
    """
    Lines are the same in whatever pieces they arrive; only the beginning of a line that is too long is kept.
    """
    pieces = [b"\xef\xbb\xbfone", b"", b"x" * (LINE_MAX + 70_000) if len(sizes) == 1 and sizes[0] > 1 else b"y" * 99,
              b"\xef\xbb\xbf", b"last"]  # fmt: skip
    whole = b"\n".join(pieces)
    reader, writer = os.pipe()

    def write() -> None:
        with open(writer, "wb", buffering=0) as pipe:
            place = 0
            for size in itertools.cycle(sizes):
                place += pipe.write(whole[place : place + size])
                if place == len(whole):
                    return

    async def read() -> list[Numbered]:
        return [line async for line in numbered(os.fdopen(reader, "rb", buffering=0))]

    thread = threading.Thread(target=write)
    thread.start()
    lines = asyncio.run(read())
    thread.join()
    assert [line.number for line in lines] == [1, 2, 3, 4, 5]
    assert [line.text[: LINE_MAX + 1] for line in lines] == [b"one", *(piece[: LINE_MAX + 1] for piece in pieces[1:])]
    assert all(len(line.text) <= LINE_MAX + 1 + 65_536 for line in lines)
    assert sum(line.size for line in lines) == len(whole)
