"""
Which events C{dcm-ws wait} waits for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import click

from dcm_ws.cli.event_lines import fields_of
from dcm_ws.cli.terminal import one_line
from dcm_ws.client import Event

Where = Callable[[Event], bool]
"""
Whether an event fulfils the expression of C{--where}.
"""

_EXTRA = "--where needs the package jq: pip install 'dcm-ws[jq]'"


@dataclass(frozen=True, slots=True)
class Waiting:
    """
    Decides which events end the waiting.

    @ivar subscriptions: the channels to wait on.
    @ivar events: patterns of event names; none for all.
    @ivar where: None without C{--where}.
    @ivar everything: also what the agent is owed of other channels, which only C{--ack} gets.
    """

    subscriptions: tuple[str, ...]
    events: tuple[str, ...] = ()
    where: Where | None = None
    everything: bool = False

    def matches(self, event: Event) -> bool:
        """
        Whether the event counts.
        """
        return (
            (event.channel in self.subscriptions or (self.everything and event.tracked))
            # it also comes on the channel of its origin, and before this copy
            and event.origin not in self.subscriptions
            and (not self.events or any(fnmatchcase(event.event, pattern) for pattern in self.events))
            and (self.where is None or self.where(event))
        )


def compiled(expression: str) -> Where:
    """
    Compile an expression of jq.  It gets an event as C{--json} prints it.  An event counts if the first result is
    neither false nor null; it does not count if there is no result, or an error.

    @raise click.UsageError: the expression is invalid.
    @raise click.ClickException: jq is not installed.
    """
    try:
        # an extra, and 24 ms to import
        import jq
    except ImportError:
        raise click.ClickException(_EXTRA) from None
    try:
        program = jq.compile(expression)
    except ValueError as error:
        raise click.BadParameter(one_line(error), param_hint="--where") from None

    def where(event: Event) -> bool:
        try:
            result = program.input_text(_text(event)).first()
        except (StopIteration, ValueError):
            return False
        # 0 is equal to False, and counts
        return result is not None and result is not False

    return where


def _text(event: Event) -> str:
    """
    The event for jq, which does not take half a character.
    """
    return json.dumps(fields_of(event), ensure_ascii=False).encode("utf-8", "replace").decode()
