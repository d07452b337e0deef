"""
How C{dcm-ws tail} prints events: as lines in columns, or as JSON.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import TextIOWrapper

from rich.console import Console
from rich.text import Text

from dcm_ws.cli.event_lines import columns_of, fields_of
from dcm_ws.cli.terminal import harmless, json_line
from dcm_ws.client import Event, Gap

_COLOURS = {
    "task": "green",
    "subtask": "cyan",
    "message": "magenta",
    "agent": "yellow",
    "session": "blue",
    "metric": "dim",
    "system": "bold",
}
_FAILURES = ("failed", "error", "blocked")
_FOUND = "black on yellow"


@dataclass(frozen=True, slots=True)
class Style:
    """
    How events are printed.

    @ivar as_json: as JSON, whatever the rest says.
    @ivar dated: with the date.
    @ivar cut: at a terminal, lines that are longer than its width are cut, and not wrapped.
    @ivar found: this text is marked in the data, whatever its case; None for none.
    """

    as_json: bool = False
    dated: bool = False
    cut: bool = False
    found: str | None = None


class Printer:
    """
    Prints events on standard output.

    @param count: the number of events after which it ends; None for no end.
    @param end: called after C{count} events, and when standard output has been closed by its reader.
    """

    def __init__(self, count: int | None, style: Style, end: Callable[[], object]) -> None:
        self._left = count
        self._style = style
        self._end = end
        self._console = Console(highlight=False)
        if isinstance(sys.stdout, TextIOWrapper):
            # the encoding of the terminal may lack characters of an event
            sys.stdout.reconfigure(errors="backslashreplace")

    def print(self, item: Event | Gap) -> bool:
        """
        Print an event, or a gap, which does not count; returns False if nobody reads it, or C{count} events have been
        printed before.
        """
        if self._left == 0:
            return False
        try:
            sys.stdout.write(self._text(item))
            sys.stdout.flush()
        except BrokenPipeError:
            # Python would report the error again when it flushes at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._end()
            return False
        if self._left is not None and isinstance(item, Event):
            self._left -= 1
            if self._left == 0:
                self._end()
        return True

    def _text(self, item: Event | Gap) -> str:
        style = self._style
        if style.as_json:
            return json_line(gap_fields(item) if isinstance(item, Gap) else fields_of(item)) + "\n"
        # rich does not print it itself, because it ends the process if the pipe is closed
        line = gap_line(item) if isinstance(item, Gap) else line_of(item, style)
        with self._console.capture() as captured:
            if style.cut and self._console.is_terminal:
                self._console.print(line, no_wrap=True, overflow="ellipsis")
            else:
                self._console.print(line, soft_wrap=True)
        return captured.get()


def line_of(event: Event, style: Style) -> Text:
    """
    An event as a line: time, event, channel and data.
    """
    when, name, channel, shown = columns_of(event, dated=style.dated)
    data = Text(shown)
    if style.found:
        data.highlight_words([style.found], _FOUND, case_sensitive=False)
    family, _, rest = event.event.partition(".")
    colour = "bold red" if rest in _FAILURES else _COLOURS.get(family, "white")
    return Text.assemble((when, "dim"), " ", (name, colour), " ", (channel, "blue"), " ", data)


def gap_fields(gap: Gap) -> dict[str, object]:
    """
    A gap as C{--json} prints it.
    """
    return {"type": "gap", "reason": gap.reason, "first": gap.first, "epoch": gap.epoch, "pos": gap.pos}


def gap_line(gap: Gap) -> Text:
    """
    A gap as a line.
    """
    return Text(f"--- gap: {harmless(str(gap))} ---", "bold yellow")
