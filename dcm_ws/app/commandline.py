"""
The options of C{twistd dcm-ws} and of C{dcm-ws serve}.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from twisted.logger import LogLevel, jsonFileLogObserver, textFileLogObserver
from twisted.python import usage

from dcm_ws.app.files import default_folder
from dcm_ws.app.settings import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    SECRET_MIN,
    Settings,
    SettingsError,
    from_mappings,
)
from dcm_ws.app.sources import Sources, merge, nearest
from dcm_ws.postgres.embedded import is_installed

_defaults = Settings()


def _default(name: str) -> Any:
    return getattr(_defaults, name)


class Options(usage.Options):
    """
    @cvar program: the command that a usage error names.
    @ivar settings: what the options and the environment come to.
    @ivar ignored: a sentence for each setting that was given and does not count, and for each file that is unsafe.
    """

    longdesc = (
        "Real-time events: PostgreSQL NOTIFY and clients' own publishing in, WebSocket channels out."
        " Each option that names a variable in capitals may be given by that environment variable"
        " instead; the option wins.  A TOML file may give each, too."
        " Without a database, development starts an embedded PostgreSQL."
    )

    optParameters = [
        [
            "config",
            None,
            None,
            "a TOML file with these settings by their names here; options and variables win"
            " [default: dcm-ws.toml in the working folder, or in the user's config folder]",
        ],
        [
            "env-file",
            None,
            None,
            "a file of NAME=VALUE lines, read for the variables that the environment does not set",
        ],
        # name, short, default, text: what a variable can give has no default here, so that it can be told apart
        [
            "ws-port",
            "p",
            None,
            f"WS_PORT: TCP port; 0 asks the system for one [default: {DEFAULT_PORT}]",
        ],
        ["host", "H", None, f"HOST: address to bind to [default: {DEFAULT_HOST}]"],
        [
            "ws-auth-secret",
            None,
            None,
            "WS_AUTH_SECRET: what tokens are signed with; an option shows in ps, so prefer the"
            f" variable; production needs {SECRET_MIN} characters or more"
            " [default: dcm-dev-secret-change-me]",
        ],
        [
            "ws-auth-secrets",
            None,
            None,
            "WS_AUTH_SECRETS: several secrets, separated by commas or blanks: the first signs, all are good",
        ],
        [
            "ws-auth-secret-file",
            None,
            None,
            "WS_AUTH_SECRET_FILE: a file with a secret in each line: the first signs, all are good;"
            " read again on SIGHUP",
        ],
        [
            "database-url",
            "d",
            None,
            "DATABASE_URL: postgresql://user:password@host:port/name [default: an embedded PostgreSQL in development]",
        ],
        [
            "db-host",
            None,
            None,
            "DB_HOST: database host; this or any other DB_ setting is used if DATABASE_URL is unset"
            " [default: localhost]",
        ],
        ["db-port", None, None, "DB_PORT: database port [default: 5432]"],
        ["db-name", None, None, "DB_NAME: database name [default: claude_context]"],
        ["db-user", None, None, "DB_USER: database user [default: dcm]"],
        [
            "db-password",
            None,
            None,
            "DB_PASSWORD: database password; an option shows in ps, so prefer the variable",
        ],
        ["db-password-file", None, None, "DB_PASSWORD_FILE: a file that holds the database password"],
        [
            "dcm-env",
            None,
            None,
            "DCM_ENV, or NODE_ENV: development or production [default: development]",
        ],
        [
            "dcm-data-dir",
            None,
            None,
            "DCM_DATA_DIR: where the embedded PostgreSQL keeps its data [default: the platform's user data folder]",
        ],
        [
            "log-level",
            None,
            None,
            "LOG_LEVEL: debug, info, warn, error or critical [default: info]",
        ],
        ["log-format", None, None, f"text, or json for machines [default: {_default('log_format')}]"],
        [
            "max-pending-bytes",
            None,
            _default("max_pending_bytes"),
            "bytes of unacknowledged events held in all; past it the oldest are given up",
        ],
        [
            "max-depth",
            None,
            _default("max_depth"),
            "arrays and objects inside one another in the data of an event",
        ],
        [
            "max-agents",
            None,
            _default("max_agents"),
            "agents whose subscriptions are remembered; past it the longest unseen is forgotten",
        ],
        [
            "max-kept",
            None,
            _default("max_kept"),
            "deliveries kept for absent agents, in all; past it those of the agent that left first are given up",
        ],
        [
            "max-recent-events",
            None,
            _default("max_recent_events"),
            "events remembered for absent agents; past it the oldest is forgotten",
        ],
        [
            "max-recent-bytes",
            None,
            _default("max_recent_bytes"),
            "bytes of those events, and as many again of the deliveries kept",
        ],
        [
            "max-connections-per-ip",
            None,
            None,
            "connections at once from one address; 0 for no limit [default: 1000 in production, 0 in development]",
        ],
        [
            "http-timeout",
            None,
            _default("http_timeout"),
            "seconds that an HTTP connection has for its next request and its body",
        ],
        [
            "max-http-connections",
            None,
            _default("max_http_connections"),
            "HTTP connections at once; one more gets 503",
        ],
        [
            "max-http-per-ip",
            None,
            None,
            "HTTP connections at once from one address; 0 for no limit [default: 100 in production, and no more than"
            " --max-connections-per-ip]",
        ],
        [
            "rate-limit",
            None,
            None,
            "messages from one client: 100/s, 6000/m or off; who sends ten times as many is closed with 4029"
            " [default: 100/s in production, off in development]",
        ],
        ["rate-burst", None, None, "messages at once [default: those of one second]"],
        [
            "rate-bytes",
            None,
            None,
            "bytes of messages a second, and at once, from one client, or off [default: 2097152 in production, off in"
            " development]",
        ],
        [
            "stranger-rate",
            None,
            f"{Settings().stranger_rate:g}/s",
            "messages from a client that has not authenticated, in production; five times as many at once",
        ],
        [
            "max-partial-bytes",
            None,
            _default("max_partial_bytes"),
            "bytes of messages that are not complete yet, in all; an eighth of it for clients that have not"
            " authenticated in production",
        ],
        [
            "max-stranger-message",
            None,
            _default("max_stranger_message"),
            "bytes of a message, and of all in a second, from a client that has not authenticated, in production",
        ],
        [
            "handshake-timeout",
            None,
            _default("handshake_timeout"),
            "seconds that a connection has to send its request",
        ],
        ["max-head-size", None, _default("max_head_size"), "bytes of a request's head"],
        [
            "mirror",
            None,
            None,
            "all, or database to give the subscribers of global only the database's events, and not those that clients"
            " publish to other channels [default: all]",
        ],
        [
            "anonymous",
            None,
            None,
            "none, or listen to let clients without a token listen to public channels in production [default: none]",
        ],
        [
            "compression",
            None,
            None,
            "off, or on to offer permessage-deflate: it costs CPU and memory for each client that takes it"
            " [default: off]",
        ],
        [
            "ack-timeout",
            None,
            _default("ack_timeout"),
            "seconds to wait for an ack before a tracked event is sent again",
        ],
        [
            "max-attempts",
            None,
            _default("max_attempts"),
            "times a tracked event is sent in all before it is given up",
        ],
        [
            "retry-interval",
            None,
            _default("retry_interval"),
            "seconds between two looks for what is to be sent again",
        ],
        [
            "heartbeat-interval",
            None,
            _default("heartbeat_interval"),
            "seconds between two pings to a client",
        ],
        [
            "heartbeat-timeout",
            None,
            _default("heartbeat_timeout"),
            "seconds of silence after which a client is closed with 4000",
        ],
        [
            "metrics-interval",
            None,
            _default("metrics_interval"),
            "seconds between two metrics snapshots",
        ],
        [
            "auth-timeout",
            None,
            _default("auth_timeout"),
            "seconds that a client has to authenticate in production",
        ],
        [
            "drain",
            None,
            _default("drain"),
            "seconds, at most, over which the connections are closed when the service stops",
        ],
        [
            "max-connections",
            None,
            _default("max_connections"),
            "clients at once; one more is closed with 1013",
        ],
        [
            "max-message-size",
            None,
            _default("max_message_size"),
            "bytes of a client's message; a larger one closes with 1009",
        ],
        [
            "max-send-buffer",
            None,
            _default("max_send_buffer"),
            "bytes that may wait for a client to read them; more closes it with 4008",
        ],
        [
            "max-subscriptions",
            None,
            _default("max_subscriptions"),
            "channels that one client may be subscribed to",
        ],
        [
            "max-pending",
            None,
            _default("max_pending"),
            "tracked events that one client may owe an ack for; past it the oldest is given up",
        ],
    ]

    optFlags = [
        ["testee", None, "echo every message, to be held against a WebSocket testsuite; refused in production"],
        [
            "production",
            None,
            "the same as DCM_ENV=production: tokens are required, and so is a database",
        ],
        ["enforce-expiry", None, "close a client with 4001 when its token expires"],
        ["ready-needs-database", None, "answer /readyz with 503 while the database is not listened to"],
        [
            "no-same-host",
            None,
            "allow only the web pages that --allowed-origin names, and none of the service's own host",
        ],
        ["no-database", None, "serve without a database: clients' own events only"],
    ]

    program = "twistd dcm-ws"
    settings: Settings
    ignored: Sequence[str] = ()

    def __init__(self) -> None:
        super().__init__()
        # docstrings have lines of their own
        self.docs = {name: " ".join(text.split()) for name, text in self.docs.items() if text}
        self["listen"] = []
        self["admin-listen"] = []
        self["extra-event"] = []
        self["latest-event"] = []
        self["extra-channel"] = []
        self["allowed-origin"] = []
        self["server-name"] = []
        self["trusted-proxy"] = []

    def opt_listen(self, endpoint: str) -> None:
        """
        a Twisted endpoint to listen on, in place of WS_PORT and HOST, such as tcp:3849:interface=127.0.0.1,
        ssl:443:privateKey=key.pem:certKey=cert.pem, unix:/run/dcm-ws.sock or systemd:domain=INET:index=0;
        may be given more than once
        """
        self["listen"].append(endpoint)

    def opt_extra_event(self, name: str) -> None:
        """
        an event that clients may publish in addition to those of the catalogue; * may stand at the end, after a dot or
        a colon, as in pipeline.*; may be given more than once
        """
        self["extra-event"].append(name)

    def opt_extra_channel(self, pattern: str) -> None:
        """
        a public channel in addition to those of the protocol, such as projects; * may stand at the end, as in
        epic-sessions/*; may be given more than once
        """
        self["extra-channel"].append(pattern)

    def opt_latest_event(self, pattern: str) -> None:
        """
        events of which only the latest for each value of a field of their data matters, as PATTERN or PATTERN:FIELD,
        such as capacity.update:project_id; who reads too slowly gets only that; may be given more than once
        """
        self["latest-event"].append(pattern)

    def opt_admin_listen(self, endpoint: str) -> None:
        """
        a Twisted endpoint of a port for operators, where /metrics is, which is not on the others then; the pages,
        /health and /stats are there too; may be given more than once
        """
        self["admin-listen"].append(endpoint)

    def opt_allowed_origin(self, pattern: str) -> None:
        """
        a web page's origin that may connect, such as https://*.example.com, in addition to pages of the service's own
        host; * for all; may be given more than once [default: none in production, * in development]
        """
        self["allowed-origin"].append(pattern)

    def opt_server_name(self, name: str) -> None:
        """
        a name under which browsers reach the service, such as dcm.example.com or *.example.com; with any, pages of
        the same host may connect under these names, localhost and IP addresses only; may be given more than once
        """
        self["server-name"].append(name)

    def opt_trusted_proxy(self, network: str) -> None:
        """
        an address or a network (10.0.0.0/8) whose X-Forwarded-For, -Host and -Proto are believed, or unix for Unix
        sockets; may be given more than once
        """
        self["trusted-proxy"].append(network)

    def opt_version(self) -> None:
        """
        show the version of dcm-ws and of Twisted, and exit
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
        The error, with the option that was probably meant if it names one that there is not.
        """
        names = [name.rstrip("=") for name in self.longOpt]
        if begun := re.fullmatch(r"option --(\S+) not a unique prefix", error):
            possible = ", ".join(sorted(f"--{name}" for name in names if name.startswith(begun[1])))
            return f"--{begun[1]} can be any of {possible}"
        found = re.fullmatch(r"option (-+)(\S+) not recognized", error)
        if found is None:
            return error
        near = nearest(found[2], names) if found[1] == "--" else None
        hint = f" (did you mean --{near}?)" if near else ""
        return f"there is no option {found[1]}{found[2]}{hint}"

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}")

    def postOptions(self) -> None:
        try:
            self.settings = self.read_settings()
            if self.settings.embedded and self.settings.data_folder is None:
                default_folder()
        except SettingsError as error:
            raise SystemExit(f"dcm-ws: {error}") from None
        if self.settings.embedded and not is_installed():
            raise SystemExit(
                "dcm-ws: there is no database: set DATABASE_URL to postgresql://user:password@host:port/name,"
                " or install the embedded one with pip install 'dcm-ws[embedded]'"
            )
        self._choose_log()

    def sources(self) -> Sources:
        """
        What the options, the environment and the file, as it is now, give.

        @raise SettingsError: the file is invalid.
        """
        return merge(self, self.defaults, os.environ)

    def read_settings(self) -> Settings:
        """
        @raise SettingsError: a value is invalid.
        """
        sources = self.sources()
        self.ignored = (*sources.ignored, *sources.warnings)
        return from_mappings(sources.options, sources.environment)

    def _choose_log(self) -> None:
        """
        Have twist log at our level and in our format.  (For twistd L{_Process} does that.)
        """
        if self.parent is not None and "fileLogObserverFactory" in self.parent:
            observer = jsonFileLogObserver if self.settings.log_format == "json" else textFileLogObserver
            self.parent["fileLogObserverFactory"] = observer
            self.parent["logLevel"] = LogLevel.levelWithName(self.settings.log_level)
