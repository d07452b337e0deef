"""
The SQL in the files of C{sql/}.

A file has one statement, or a part of one.  Where a query needs what SQL has no parameters for, such as the name of a
table, the file has a mark C{@name@}.  Comments at the top of a file are about the file and are not sent.
"""

from __future__ import annotations

import re
from importlib.resources import files

_MARK = re.compile(r"@([a-z_]+)@")
_HEAD = re.compile(r"\A(?:--.*\n)+")
# all at once: a service that has given up its rights, or changed its root folder, could not read them later
_TEXTS = {
    f"{folder.name}/{file.name.removesuffix('.sql')}": _HEAD.sub("", file.read_text("utf-8")).removesuffix("\n")
    for folder in files("dcm_ws.postgres").joinpath("sql").iterdir()
    if folder.is_dir()
    for file in folder.iterdir()
    if file.name.endswith(".sql")
}


def statement(name: str, /, **parts: str) -> str:
    """
    Returns the SQL of a file with its marks replaced.

    @param name: the file's path in C{sql/}, without C{.sql}.
    @param parts: SQL for each mark, by the mark's name.
    @raise KeyError: a mark has no part.
    @raise ValueError: a part has no mark.
    """
    text = _TEXTS[name]
    if unused := parts.keys() - _MARK.findall(text):
        raise ValueError(f"{name}.sql has no mark {', '.join(sorted(unused))}")
    return _MARK.sub(lambda mark: parts[mark[1]], text)


def literal(text: str) -> str:
    """
    A string as SQL, for C{standard_conforming_strings = on}.
    """
    return "'" + text.replace("'", "''") + "'"
