"""
The options of C{twistd dcm-ws} and of C{dcm-ws serve}, made from the table of settings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence

from twisted.logger import LogLevel, jsonFileLogObserver, textFileLogObserver
from twisted.python import usage

from dcm_ws.app.files import default_folder
from dcm_ws.app.modes import has_durable_log, worker_count
from dcm_ws.app.options import BY_NAME, FILES
from dcm_ws.app.reading import settings_of
from dcm_ws.app.rows import Row
from dcm_ws.app.setting_names import nearest_setting
from dcm_ws.app.settings import Settings, SettingsError, short_secrets
from dcm_ws.app.sources import Sources, merge
from dcm_ws.postgres.programs import is_installed

SEPARATE_WORKERS = "DCM_WS_TEST_SEPARATE_WORKERS"
"""
A variable with which tests run workers without a database.
"""

_SHOWN_MAX = 4
_ROWS = (*FILES, *BY_NAME.values())


def help_text(row: Row) -> str:
    """
    What C{--help} says about an option.
    """
    repeated = "; may be given more than once" if row.repeatable else ""
    default = "" if row.is_flag else row.default_text(row.kind.spoken)
    shown = f" [default: {default}]" if default else ""
    variable = f"{row.variable}: " if row.has_variable else ""
    return f"{variable}{row.meaning}{repeated}{shown}".replace("`", "")


class Options(usage.Options):
    """
    The options, and what they, the environment and the files mean together.

    Options have no defaults here: an option that is missing differs from one that was given with its default value.

    @cvar program: the command that a usage error names.
    @cvar others: the names of options of the command itself, which a usage error may suggest.
    @ivar settings: what the options and the environment come to.
    @ivar ignored: a sentence for each setting that was given and is overridden, and for each file that is unsafe.
    """

    longdesc = (
        "Real-time events: PostgreSQL NOTIFY and what clients publish in, WebSocket channels out."
        " If the text of an option begins with a name in capitals, an environment variable of that name has the same"
        " effect; the option overrides it.  A TOML file may contain all settings."
        " Without a database, the service starts an embedded PostgreSQL in development."
    )

    optParameters = [
        [row.name, row.short, None, help_text(row)] for row in _ROWS if not row.is_flag and not row.repeatable
    ]
    optFlags = [[row.name, row.short, help_text(row)] for row in _ROWS if row.is_flag]

    program = "twistd dcm-ws"
    others: Sequence[str] = ()
    settings: Settings
    ignored: Sequence[str] = ()

    def __init__(self) -> None:
        super().__init__()
        for row in _ROWS:
            if row.repeatable:
                self[row.name] = []

    def opt_version(self) -> None:
        """
        show the versions of dcm-ws and of Twisted, and exit
        """
        from dcm_ws.version import VERSION

        print(f"dcm-ws {VERSION}")
        super().opt_version()

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        # Twisted would print its whole help instead, and end with status 0
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"dcm-ws: {self._nearest(str(error))}; see {self.program} --help") from None

    def _nearest(self, error: str) -> str:
        """
        The error, with the option that was probably meant if it names one that does not exist.
        """
        names = [name.rstrip("=") for name in self.longOpt]
        if begun := re.fullmatch(r"option --(\S+) not a unique prefix", error):
            possible = ", ".join(sorted(f"--{name}" for name in names if name.startswith(begun[1])))
            return f"--{begun[1]} can be any of {possible}"
        found = re.fullmatch(r"option (-+)(\S+) not recognized", error)
        if found is None:
            return error
        if found[1] == "--":
            near = [nearest_setting(found[2], [*names, *self.others])]
        else:
            near = [name for name in [*names, *self.others] if name.startswith(found[2].lower())]
        meant = " or ".join(f"--{name}" for name in near if name)
        hint = f" (did you mean {meant}?)" if meant and len(near) <= _SHOWN_MAX else ""
        return f"there is no option {found[1]}{found[2]}{hint}"

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}")

    def postOptions(self) -> None:
        try:
            self.settings = self.read_settings()
            if self.settings.embedded and self.settings.data_folder is None:
                default_folder()
            self._check_workers()
        except SettingsError as error:
            raise SystemExit(f"dcm-ws: {error}") from None
        if self.settings.embedded and not is_installed():
            raise SystemExit(
                "dcm-ws: there is no database: set DATABASE_URL to postgresql://user:password@host:port/name,"
                " or install the embedded one with pip install 'dcm-ws[embedded]'"
            )
        self._choose_log()

    def _check_workers(self) -> None:
        """
        @raise SettingsError: the settings ask for workers whose clients would not hear of each other.
        """
        settings = self.settings
        if settings.mcp and worker_count(settings) > 1:
            raise SettingsError(
                "--mcp needs one worker, because a session is in one process: leave out --workers, or run another node"
                " of the cluster for MCP"
            )
        # tests of what workers have in common need no events
        if settings.testee or os.environ.get(SEPARATE_WORKERS):
            return
        if worker_count(settings) > 1 and not has_durable_log(settings):
            raise SettingsError(
                "--workers needs a database with the durable log, through which the workers pass on events:"
                " set DATABASE_URL, and leave out --no-database and --log memory"
            )

    def sources(self, environment: Mapping[str, str] | None = None) -> Sources:
        """
        What the options, the environment and the files, as they are now, give.

        @param environment: that of the process if it is None.
        @raise SettingsError: a file is invalid.
        """
        return merge(self, os.environ if environment is None else environment)

    def read_settings(self) -> Settings:
        """
        @raise SettingsError: a value is invalid.
        """
        sources = self.sources()
        settings = settings_of(sources.given)
        self.ignored = (*sources.ignored, *sources.warnings, *short_secrets(settings))
        return settings

    def _choose_log(self) -> None:
        """
        Have twist log at our level and in our format.  (For twistd C{dcm_ws.app.process} does that.)
        """
        if self.parent is not None and "fileLogObserverFactory" in self.parent:
            observer = jsonFileLogObserver if self.settings.log_format == "json" else textFileLogObserver
            self.parent["fileLogObserverFactory"] = observer
            self.parent["logLevel"] = LogLevel.levelWithName(self.settings.log_level)


def _adding(row: Row) -> Callable[[Options, str], None]:
    """
    The method with which Twisted takes an option that may be repeated.
    """

    def add(self: Options, value: str) -> None:
        self[row.name].append(value)

    add.__doc__ = help_text(row)
    return add


for _row in _ROWS:
    if _row.repeatable:
        setattr(Options, f"opt_{_row.name.replace('-', '_')}", _adding(_row))
