"""
docs/troubleshooting.md quotes messages that the service has, and leaves out no code.
"""

from __future__ import annotations

import ast
import re
from functools import cache

from dcm_ws.protocol.errors import CloseCode, ErrorCode
from tests.integration.machine import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()


@cache
def texts() -> str:
    """
    The texts in the code, without the parts that are filled in.
    """
    found = []
    for path in (ROOT / "dcm_ws").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def rows(heading: str) -> list[list[str]]:
    """
    The cells of the table below a heading, without its head.
    """
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][2:]


def unknown(message: str) -> list[str]:
    """
    The parts of a message between its gaps that no text of the code has.
    """
    return [part for part in message.split("…") if len(part.strip(" ;:,")) > 3 and part.strip() not in texts()]


def test_messages_exist() -> None:
    """
    Each message that is quoted in a first cell is in the code.
    """
    headings = re.findall(r"^## (.*)$", PAGE, re.M)
    cells = [row[0] for heading in headings for row in rows(heading)]
    messages = [cell.strip("`") for cell in cells if re.fullmatch("`[^`]*[ …][^`]*`", cell)]
    assert len(messages) > 25
    assert {message: parts for message in messages if (parts := unknown(message))} == {}
    assert unknown("nothing listens at … (no such message)") == [" (no such message)"]


def test_every_close_code_has_a_row() -> None:
    """
    The table has each code that the service sends, with its reason.
    """
    found = {int(row[0]): row[1].strip("`") for row in rows("The connection is closed")}
    assert found == {int(code): code.reason for code in CloseCode}


def test_every_error_code_has_a_row() -> None:
    """
    The table has each code of a refusal.
    """
    assert [row[0].strip("`") for row in rows("A request is refused")] == [str(code) for code in ErrorCode]


def test_every_option_exists() -> None:
    """
    The options that the page names are options of the service or of a command.
    """
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE)) - {"--help"}
    known = (ROOT / "docs" / "settings.md").read_text() + (ROOT / "docs" / "command-line.md").read_text()
    assert {option for option in named if option not in known} == set()
