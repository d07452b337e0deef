"""
What commands print, and how: escaped, in one line, with a progress bar; and their exit statuses.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress

INTERRUPTED = 130
"""
The exit status of a command that Ctrl-C ends before it is done.
"""

TERMINATED = 143
"""
The exit status of a command that SIGTERM ends before it is done.
"""

TIMED_OUT = 124
"""
The exit status of a command whose time is over before it is done, as that of C{timeout}.
"""

# C0 and C1 controls, text-direction marks and line separators: a terminal acts on them
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """
    Escape everything in the text that a terminal would act on.
    """
    return _CONTROLS.sub(
        lambda found: f"\\x{ord(found[0]):02x}" if found[0] < "\xff" else f"\\u{ord(found[0]):04x}", text
    )


def one_line(text: object) -> str:
    """
    An error or another text as one harmless line.
    """
    return harmless(" ".join(str(text).split()))


def compact(value: object) -> str:
    """
    JSON in one harmless line for people to read.
    """
    return harmless(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def json_line(value: object) -> str:
    """
    JSON in one line for programs to read, all ASCII.
    """
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")


def say(text: str) -> None:
    """
    Write a line on standard error, which may be closed.
    """
    with suppress(OSError):
        click.echo(text, err=True)


def progress_bar() -> Progress:
    """
    A progress bar on standard error, which is only shown on a terminal, and disappears at its end.
    """
    # rich takes a tenth of a second to import, which commands without a progress bar need not wait for
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)
