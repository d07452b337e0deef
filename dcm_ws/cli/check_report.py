"""
What C{dcm-ws check} reports: settings and findings, as text and as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dcm_ws.cli.terminal import harmless


class ShownSetting(NamedTuple):
    """
    A setting, its value with secrets masked, and where the value comes from.
    """

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One line of the report.

    @ivar good: whether it is green.
    @ivar hint: what to do about it; empty for nothing.
    """

    name: str
    good: bool
    text: str
    hint: str = ""


def report_json(settings: Sequence[ShownSetting], findings: Sequence[Finding]) -> str:
    """
    The report for programs.
    """
    return json.dumps(
        {
            "good": all(finding.good for finding in findings),
            "settings": [{"name": one.name, "value": one.value, "from": one.origin} for one in settings],
            "findings": [asdict(finding) for finding in findings],
        }
    )


def print_report(settings: Sequence[ShownSetting], findings: Sequence[Finding]) -> None:
    """
    Print the report for people.
    """
    console = Console(highlight=False)
    if settings:
        table = Table("setting", "value", "from", box=None, pad_edge=False, header_style="bold")
        for name, value, origin in settings:
            table.add_row(Text(name), Text(value), Text(origin, "dim" if origin == "default" else "cyan"))
        console.print(table)
        console.print()
    for finding in findings:
        mark, style = ("ok ", "green") if finding.good else ("RED", "bold red")
        console.print(
            Text.assemble((mark, style), " ", f"{finding.name:<9}", " ", harmless(finding.text)), soft_wrap=True
        )
        if finding.hint:
            console.print(Text(f"              do: {harmless(finding.hint)}", "yellow"), soft_wrap=True)
