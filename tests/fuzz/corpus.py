"""
The kept inputs, and how few of them do: one for each thing that any of them does.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import dcm_ws

MOST = 60
"""
Inputs kept for one target.
"""

_CORPUS = Path(__file__).with_name("corpus")
_TRACED = tuple(map(str, (Path(dcm_ws.__file__).parent, *map(Path(__file__).with_name, ("oracle.py", "targets.py")))))
_VARYING = re.compile(r"\d+|(?<=type: ).*", re.DOTALL)


def corpus_folder(target: str) -> Path:
    """
    Where the inputs of one target are.
    """
    return _CORPUS / target


def corpus(target: str) -> list[Path]:
    """
    The inputs of one target, in an order that does not change.
    """
    return sorted(path for path in corpus_folder(target).iterdir() if path.is_file())


def distilled(target: Callable[[bytes], str], inputs: Iterable[bytes]) -> list[bytes]:
    """
    Those that do something that no shorter one does; C{MOST} at most.
    """
    seen: set[object] = set()
    found: list[tuple[int, bytes]] = []
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        new = deeds(target, data) - seen
        if new:
            seen |= new
            found.append((len(new), data))
    found.sort(key=lambda entry: -entry[0])
    return [data for _, data in found[:MOST]]


def deeds(target: Callable[[bytes], str], data: bytes) -> set[object]:
    """
    What is done with C{data}: the steps from line to line, in the package and its check, and what becomes of it.
    """
    done: set[object] = set()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        path = frame.f_code.co_filename
        if not path.startswith(_TRACED):
            return None
        last = 0

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            done.add((path, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        done.add(_VARYING.sub("", target(data)))
    except Exception as crash:
        # inputs that crashed once are kept and always replayed
        done.add(type(crash))
    finally:
        sys.settrace(before)
    return done


def keep(name: str, inputs: Iterable[bytes]) -> int:
    """
    Make C{inputs} the corpus of a target; answers how many there are.
    """
    folder = corpus_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    for old in corpus(name):
        old.unlink()
    count = 0
    for data in inputs:
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        count += 1
    return count
