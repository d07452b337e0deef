"""
The table of settings, and what is made from it.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcm_ws.app import configfile
from dcm_ws.app.alternatives import _ALTERNATIVES
from dcm_ws.app.commandline import Options, help_text
from dcm_ws.app.documentation import CODE, COMMAND, PAGES, with_tables
from dcm_ws.app.kinds import ByteRate, Choice, Port, Rate, Seconds, Whole
from dcm_ws.app.options import BY_FIELD, BY_NAME, FILES, TABLE
from dcm_ws.app.reading import settings_of
from dcm_ws.app.rows import Row
from dcm_ws.app.settings import Settings, SettingsError
from dcm_ws.app.sources import merge
from dcm_ws.cli.tail import command
from tests.examples import examples

DOCS = Path(__file__).parents[2] / "docs"

SAMPLES = {
    "listen": "unix:/run/x.sock",
    "admin-listen": "tcp:9000",
    "host": "::1",
    "ws-auth-secret": "one",
    "ws-auth-secrets": "one,two",
    "database-url": "postgresql://a/b",
    "allowed-origin": "https://*.example.com",
    "server-name": "dcm.example.com",
    "trusted-proxy": "10.0.0.0/8",
    "extra-event": "pipeline.*",
    "latest-event": "capacity.update:project_id",
    "extra-channel": "epic-sessions/*",
}
"""
Valid values of settings whose kind does not say which values are valid.
"""


class _Unchecked(Options):
    """
    The options alone, without the environment.
    """

    def postOptions(self) -> None:
        pass


def _values(row: Row, folder: Path) -> st.SearchStrategy[str]:
    """
    Texts for a setting, valid ones and others.
    """
    match row.kind:
        case Port():
            return st.one_of(st.integers(-2, 70_000).map(str), st.sampled_from(["1.5", "x"]))
        case Whole():
            return st.one_of(st.integers(-2, 2 * 10**9).map(str), st.sampled_from(["1.5", "x", "1e3"]))
        case Seconds():
            return st.one_of(st.floats(-1, 90_000).map(str), st.sampled_from(["nan", "inf", "x", "0", "86400"]))
        case Rate():
            return st.one_of(
                st.floats(0, 1e6).map(lambda rate: f"{rate}/s"), st.sampled_from(["off", "60/m", "5/h", "-1/s", "nan"])
            )
        case ByteRate():
            return st.one_of(st.integers(-1, 2 * 10**9).map(str), st.sampled_from(["off", "x"]))
        case Choice():
            return st.sampled_from([*row.kind.words, "nonsense", row.kind.words[0].upper()])
        case _:
            # a path in the file would be relative to the file
            return st.just(str(folder / "text") if row.kind.is_path else SAMPLES.get(row.name, "text"))


def _outcome(read: Callable[[], Settings]) -> object:
    """
    The settings, or the error in words.
    """
    try:
        return read()
    except SettingsError as error:
        return str(error)


def _by_option(row: Row, value: str) -> Settings:
    options = _Unchecked()
    options.parseOptions([f"--{row.name}"] if row.is_flag else [f"--{row.name}={value}"])
    return settings_of(merge(options, {}).given)


def _by_variable(row: Row, value: str) -> Settings:
    return settings_of(merge({}, {row.variable: value}).given)


def _by_file(row: Row, value: str, file: Path) -> Settings:
    quoted = "true" if row.is_flag else f"['{value}']" if row.repeatable else f"'{value}'"
    file.write_text(f"{row.name} = {quoted}\n")
    return settings_of(merge({"config": str(file)}, {}).given)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """
    A working folder without a file of settings, but with files for the settings that name one.
    """
    folder = tmp_path_factory.mktemp("settings")
    (folder / "text").write_text("from-a-file")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CONFIG_HOME", str(folder))
        yield folder


@pytest.mark.parametrize("name", BY_NAME)
def test_every_place_means_the_same(folder: Path, name: str) -> None:
    """
    The option, its variable and the file give the same settings, and refuse the same values in the same words.
    """
    row = BY_NAME[name]

    # inside, since pytest-twisted does not take parameters and examples together
    @settings(max_examples=examples(30))
    @given(_values(row, folder))
    def check(value: str) -> None:
        by_option = _outcome(lambda: _by_option(row, value))
        assert _outcome(lambda: _by_file(row, value, folder / "my.toml")) == by_option
        if row.has_variable:
            assert _outcome(lambda: _by_variable(row, value)) == by_option
        if isinstance(by_option, str):
            assert row.label in by_option or "WS_AUTH_SECRET" in by_option
            assert "\n" not in by_option

    check()


@pytest.mark.parametrize("name", [row.name for row in BY_NAME.values() if isinstance(row.kind, Whole | Seconds | Rate)])
@pytest.mark.parametrize("value", ["-1", "x", ""])
def test_messages_have_one_form(folder: Path, name: str, value: str) -> None:
    """
    An error names the option and its variable, what the value must be, and what it is.
    """
    row = BY_NAME[name]
    if row.libpq and not value:
        return  # an empty part of the address is one that was not given
    error = _outcome(lambda: _by_option(row, value))
    assert isinstance(error, str)
    assert re.fullmatch(rf"{re.escape(row.label)} must be .+, not .+", error), error


@pytest.mark.parametrize("field", BY_FIELD)
def test_fields_check_themselves(field: str) -> None:
    """
    Settings that an application makes are checked like those of the command, and a number must be one.
    """
    row = BY_FIELD[field]
    if isinstance(row.kind, Whole | Seconds | Rate | ByteRate):
        for bad in (-1, -0.5, "7"):
            with pytest.raises(SettingsError, match=rf"^--{row.name} must be .*, not"):
                Settings(**{field: cast(Any, bad)})


def test_every_field_has_one_row() -> None:
    """
    Each field of Settings has exactly one row, and its default is of its type.
    """
    names = [field.name for field in dataclasses.fields(Settings)]
    assert sorted(names) == sorted(row.field for row in TABLE if row.field)
    hints = get_type_hints(Settings)
    for name in names:
        default: Any = getattr(Settings(), name)
        assert default == BY_FIELD[name].default
        kind = hints[name]
        # a union has no class to ask for: since Python 3.14 its origin is typing.Union
        allowed = get_args(kind) if get_origin(kind) in (Union, UnionType) else get_origin(kind) or kind
        assert isinstance(default, allowed), name


def test_every_option_has_one_row() -> None:
    """
    Each option of the command is a row with a help text, and nothing else is one.
    """
    rows = [row.name for row in (*FILES, *TABLE) if row.name]
    assert len(rows) == len(set(rows))
    known = {name.rstrip("=") for name in Options().longOpt}
    assert known == {*rows, "help", "version"}
    for row in (*FILES, *TABLE):
        assert (row.help and row.heading) or row in FILES
        assert not row.help.endswith("."), row
        assert "\n" not in help_text(row)


def test_alternatives_are_options() -> None:
    """
    The options that are alternatives exist.
    """
    for ways in _ALTERNATIVES:
        for way in ways:
            assert {*way.names, *way.leading} <= BY_NAME.keys()


@pytest.mark.parametrize("page", PAGES)
def test_docs_are_current(page: str) -> None:
    """
    The tables of the documentation are those of the code.
    """
    text = (DOCS / page).read_text()
    assert with_tables(page, text) == text, f"docs/{page} is out of date: run {COMMAND}"


@pytest.mark.parametrize("name", CODE)
def test_types_are_current(name: str) -> None:
    """
    The types of events are those of the table of the catalogue.
    """
    text = (DOCS.parent / "dcm_ws" / name).read_text()
    assert CODE[name](text) == text, f"dcm_ws/{name} is out of date: run {COMMAND}"


def test_every_option_is_documented() -> None:
    """
    docs/settings.md has a row for each option, and docs/embedding.md for each field.
    """
    settings, embedding = ((DOCS / page).read_text() for page in ("settings.md", "embedding.md"))
    for row in (*FILES, *TABLE):
        assert not row.name or re.search(rf"^\| `--{row.name}`", settings, re.M), row.name
        assert not row.field or re.search(rf"^\| `{row.field}` ", embedding, re.M), row.field


def test_markers_are_needed() -> None:
    """
    A page without the place for its table is an error.
    """
    with pytest.raises(ValueError, match=r"docs/embedding\.md lacks the markers"):
        with_tables("embedding.md", "")


def test_the_example_file_is_valid(folder: Path) -> None:
    """
    The file that docs/settings.md shows is one.
    """
    text = (DOCS / "settings.md").read_text().partition("## The file")[2].partition("##")[0]
    example = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    file = folder / "example.toml"
    file.write_text(example)
    found, _ = configfile.read(file, given=True)
    assert found.keys() == tomllib.loads(example).keys() - {"production"} | {"dcm-env"}


def test_commands_find_the_service_without_options(folder: Path) -> None:
    """
    The commands that are clients connect by default to where the service listens by default.
    """
    url = next(option for option in command.params if option.name == "url").default
    assert url == f"ws://{BY_NAME['host'].default}:{BY_NAME['ws-port'].default}/"


def test_the_port_does_not_matter_where_it_is_not_used() -> None:
    """
    An invalid port is not an error if endpoints take its place.
    """
    assert settings_of({"listen": ["unix:a"], "ws-port": "x"}).listen == ("unix:a",)
