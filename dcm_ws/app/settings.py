"""
What the operator may choose, checked once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TypeVar

from dcm_ws.core.latest import LatestEvents
from dcm_ws.http.addresses import TrustedProxies
from dcm_ws.http.origins import AllowedOrigins
from dcm_ws.postgres import dsn
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.events import Publishable

DEFAULT_PORT = 3849
DEFAULT_HOST = "127.0.0.1"
DEFAULT_SECRET = "dcm-dev-secret-change-me"
SECRET_MIN = 32
"""
Characters that a production secret must have.
"""

DATABASE_PARTS = {
    "db-host": "host",
    "db-port": "port",
    "db-name": "dbname",
    "db-user": "user",
    "db-password": "password",
}
"""
The options for the parts of the database's address, and libpq's names of them.
"""

LOG_LEVELS = ("debug", "info", "warn", "error", "critical")
LOG_FORMATS = ("text", "json")

_SECONDS_MAX = 86_400.0
_MAY_BE_OFF = frozenset(
    {"rate_limit", "rate_burst", "rate_bytes", "stranger_rate", "max_connections_per_ip", "max_http_per_ip"}
)

_Text = Callable[..., str]
_T = TypeVar("_T")


class SettingsError(ValueError):
    """
    A setting is invalid; the text names it, in one line.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    All times in seconds, all sizes in bytes.

    @ivar listen: Twisted endpoint strings.
    @ivar admin_listen: Twisted endpoint strings of a port with C{/metrics}, which is not on the others then.
    @ivar ready_needs_database: C{/readyz} fails while the database is not listened to.
    @ivar database: a C{postgresql://} URL or a libpq connection string; None for none.
    @ivar embedded: run an embedded PostgreSQL.
    @ivar data_folder: where that keeps its data; None for the platform's place.
    @ivar more_secrets: secrets whose tokens are good, too, while one takes over from another.
    @ivar max_connections_per_ip: None for 1000 in production, and no limit in development; 0 for no limit.
    @ivar max_http_per_ip: None for 100 in production, and for no more than C{max_connections_per_ip}; 0 for
        no limit.
    @ivar rate_limit: messages a second from one client; None for 100 in production, and no limit in development; 0 for
        no limit.
    @ivar rate_burst: messages at once; None for what the rate limit allows in a second.
    @ivar rate_bytes: bytes a second from one client; None for 2 MiB in production, and no limit in development; 0 for
        no limit.
    @ivar stranger_rate: messages a second from a client that has not authenticated, in production; 0 for no limit.
    @ivar max_stranger_message: bytes of a message from such a client.
    @ivar allowed_origins: web pages that may connect; none for no others than L{same_host} allows in production, and
        all in development.
    @ivar same_host: web pages of the host that they connect to may connect, too.
    @ivar server_names: the names under which C{same_host} holds; none for any name.
    @ivar trusted_proxies: addresses or networks whose C{X-Forwarded-For} is believed.
    @ivar extra_channels: public channels in addition to those of the protocol; C{*} at the end stands for any rest.
    @ivar compression: offer permessage-deflate.
    @ivar mirror_clients: mirror to C{global} what clients publish, and not only what the database does.
    @ivar anonymous_listeners: in production, clients without a token may listen to public channels.
    @ivar testee: replace the application by an echo, to be held against a testsuite.

    @raise SettingsError: a value is invalid.
    """

    listen: tuple[str, ...] = (f"tcp:{DEFAULT_PORT}:interface={DEFAULT_HOST}:backlog=4096",)
    admin_listen: tuple[str, ...] = ()
    ready_needs_database: bool = False
    secret: str = field(default=DEFAULT_SECRET, repr=False)
    more_secrets: tuple[str, ...] = field(default=(), repr=False)
    production: bool = False
    enforce_expiry: bool = False
    database: str | None = field(default=None, repr=False)
    embedded: bool = False
    data_folder: Path | None = None
    ack_timeout: float = 5.0
    max_attempts: int = 3
    retry_interval: float = 1.0
    heartbeat_interval: float = 30.0
    heartbeat_timeout: float = 60.0
    metrics_interval: float = 5.0
    auth_timeout: float = 10.0
    drain: float = 2.0
    max_connections: int = 10_000
    max_message_size: int = 1 << 20
    max_send_buffer: int = 4 << 20
    max_subscriptions: int = 1000
    max_pending: int = 10_000
    max_pending_bytes: int = 256 << 20
    max_depth: int = 100
    max_agents: int = 10_000
    max_kept: int = 500_000
    max_recent_events: int = 100_000
    max_recent_bytes: int = 64 << 20
    max_connections_per_ip: int | None = None
    http_timeout: float = 30.0
    max_http_connections: int = 1000
    max_http_per_ip: int | None = None
    rate_limit: float | None = None
    rate_burst: float | None = None
    rate_bytes: float | None = None
    stranger_rate: float = 10.0
    max_stranger_message: int = 64 << 10
    max_partial_bytes: int = 128 << 20
    handshake_timeout: float = 5.0
    max_head_size: int = 16 << 10
    allowed_origins: tuple[str, ...] = ()
    same_host: bool = True
    server_names: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    compression: bool = False
    extra_events: tuple[str, ...] = ()
    latest_events: tuple[str, ...] = ()
    extra_channels: tuple[str, ...] = ()
    mirror_clients: bool = True
    anonymous_listeners: bool = False
    testee: bool = False
    log_level: str = "info"
    log_format: str = "text"

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.name in _MAY_BE_OFF:
                # with no message at once there would be none at all
                least = 1 if setting.name == "rate_burst" else 0
                if value is not None and not least <= value <= 1e9:
                    raise SettingsError(f"{_name(setting.name)} must be {least} or more, not {value:g}")
            elif isinstance(value, float):
                lowest = 0.0 if setting.name == "drain" else 0.001
                if not lowest <= value <= _SECONDS_MAX:
                    raise SettingsError(
                        f"{_name(setting.name)} must be from {lowest:g} to {_SECONDS_MAX:g} seconds, not {value:g}"
                    )
            elif type(value) is int and value < 1:
                raise SettingsError(f"{_name(setting.name)} must be 1 or more, not {value}")
        if not self.listen:
            raise SettingsError("there is nothing to listen on")
        if not self.secret:
            raise SettingsError("WS_AUTH_SECRET is empty")
        if self.log_level not in LOG_LEVELS:
            raise SettingsError(f"LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}, not {self.log_level!r}")
        if self.log_format not in LOG_FORMATS:
            raise SettingsError(f"--log-format must be one of {', '.join(LOG_FORMATS)}, not {self.log_format!r}")
        for option, check in (
            ("trusted-proxy", lambda: TrustedProxies(self.trusted_proxies)),
            ("server-name", lambda: AllowedOrigins((), self.server_names)),
            ("extra-event", lambda: Publishable(self.extra_events)),
            ("latest-event", lambda: LatestEvents(self.latest_events)),
            ("extra-channel", lambda: Channels(self.extra_channels)),
        ):
            try:
                check()
            except ValueError as error:
                raise SettingsError(f"--{option}: {error}") from None
        if self.database is not None:
            check_database(self.database)
        if self.production:
            self._check_production()

    @property
    def secrets(self) -> tuple[str, ...]:
        """
        All secrets whose tokens are good; new tokens are signed with the first.
        """
        return (self.secret, *self.more_secrets)

    def _check_production(self) -> None:
        if self.testee:
            raise SettingsError("--testee has no authentication, and is refused in production")
        if any(secret == DEFAULT_SECRET or len(secret) < SECRET_MIN for secret in self.secrets):
            raise SettingsError(
                f"production needs a WS_AUTH_SECRET of {SECRET_MIN} characters or more,"
                " and not the default one: try `openssl rand -hex 32`"
            )
        if self.database is None:
            raise SettingsError(
                "production needs a database: set DATABASE_URL to postgresql://user:password@host:port/name"
            )


def check_database(url: str) -> None:
    """
    Check whether it can lead to a database, before psycopg2 does, whose errors may show pieces of a password.

    @raise SettingsError: it never can.
    """
    try:
        dsn.check(url)
    except dsn.DSNError as error:
        raise SettingsError(f"DATABASE_URL: {error}") from None


def from_mappings(options: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """
    Settings from options, and from the environment where there is no option.

    @param options: what was given on the command line, by option name; None where it was not.
    @raise SettingsError: a value is invalid.
    """

    text = _text(options, environment)

    def seconds(option: str) -> float:
        try:
            value = float(str(options[option]))
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise SettingsError(f"--{option} must be a number of seconds, not {options[option]!r}")
        return value

    def count(option: str) -> int:
        return _whole(f"--{option}", str(options[option]))

    production = is_production(options, environment)
    database = _database(text)
    folder = text("dcm-data-dir", "DCM_DATA_DIR")
    secret, *more_secrets = _secrets(text)
    listen = options.get("listen") or [_short_form(text)]
    assert isinstance(listen, list)
    return Settings(
        listen=tuple(listen),
        admin_listen=_several(options, "admin-listen"),
        ready_needs_database=bool(options.get("ready-needs-database")),
        secret=secret,
        more_secrets=tuple(more_secrets),
        production=production,
        enforce_expiry=bool(options.get("enforce-expiry")),
        database=database,
        embedded=database is None and not production and not options.get("no-database"),
        data_folder=path_of("DCM_DATA_DIR", folder) if folder else None,
        ack_timeout=seconds("ack-timeout"),
        max_attempts=count("max-attempts"),
        retry_interval=seconds("retry-interval"),
        heartbeat_interval=seconds("heartbeat-interval"),
        heartbeat_timeout=seconds("heartbeat-timeout"),
        metrics_interval=seconds("metrics-interval"),
        auth_timeout=seconds("auth-timeout"),
        drain=seconds("drain"),
        max_connections=count("max-connections"),
        max_message_size=count("max-message-size"),
        max_send_buffer=count("max-send-buffer"),
        max_subscriptions=count("max-subscriptions"),
        max_pending=count("max-pending"),
        max_pending_bytes=count("max-pending-bytes"),
        max_depth=count("max-depth"),
        max_agents=count("max-agents"),
        max_kept=count("max-kept"),
        max_recent_events=count("max-recent-events"),
        max_recent_bytes=count("max-recent-bytes"),
        max_connections_per_ip=_maybe(
            options.get("max-connections-per-ip"), partial(_whole, "--max-connections-per-ip")
        ),
        http_timeout=seconds("http-timeout"),
        max_http_connections=count("max-http-connections"),
        max_http_per_ip=_maybe(options.get("max-http-per-ip"), partial(_whole, "--max-http-per-ip")),
        rate_limit=_maybe(options.get("rate-limit"), partial(_rate, "--rate-limit")),
        rate_burst=_maybe(options.get("rate-burst"), partial(_whole, "--rate-burst")),
        rate_bytes=_maybe(options.get("rate-bytes"), partial(_bytes, "--rate-bytes")),
        stranger_rate=_rate("--stranger-rate", str(options["stranger-rate"])),
        max_stranger_message=count("max-stranger-message"),
        max_partial_bytes=count("max-partial-bytes"),
        handshake_timeout=seconds("handshake-timeout"),
        max_head_size=count("max-head-size"),
        allowed_origins=_several(options, "allowed-origin"),
        same_host=not options.get("no-same-host"),
        server_names=_several(options, "server-name"),
        trusted_proxies=_several(options, "trusted-proxy"),
        compression=_choice("--compression", str(options.get("compression") or "off"), {"off": False, "on": True}),
        extra_events=_several(options, "extra-event"),
        latest_events=_several(options, "latest-event"),
        extra_channels=_several(options, "extra-channel"),
        mirror_clients=_choice("--mirror", str(options.get("mirror") or "all"), {"all": True, "database": False}),
        anonymous_listeners=_choice(
            "--anonymous", str(options.get("anonymous") or "none"), {"none": False, "listen": True}
        ),
        testee=bool(options.get("testee")),
        log_level=text("log-level", "LOG_LEVEL", "info").lower(),
        log_format=str(options["log-format"] or "text"),
    )


def is_production(options: Mapping[str, object], environment: Mapping[str, str]) -> bool:
    """
    The mode alone, as L{from_mappings} finds it.

    @raise SettingsError: there is no such mode.
    """
    mode = _text(options, environment)("dcm-env", "DCM_ENV")
    if mode not in ("", "development", "production"):
        raise SettingsError(f"DCM_ENV must be development or production, not {mode!r}")
    # NODE_ENV has other values, which are none of our business
    mode = mode or environment.get("NODE_ENV", "")
    return bool(options.get("production")) or mode == "production"


def secrets_from(options: Mapping[str, object], environment: Mapping[str, str]) -> tuple[str, ...]:
    """
    The secrets alone, as L{from_mappings} finds them.

    @raise SettingsError: they cannot be read.
    """
    return tuple(_secrets(_text(options, environment)))


def database_from(options: Mapping[str, object], environment: Mapping[str, str]) -> str | None:
    """
    The database alone, as L{from_mappings} finds it; None for none.

    @raise SettingsError: a value is invalid.
    """
    url = _database(_text(options, environment))
    if url is not None:
        check_database(url)
    return url


def _text(options: Mapping[str, object], environment: Mapping[str, str]) -> _Text:
    def text(option: str, variable: str, default: str = "") -> str:
        given = options.get(option)
        return str(given) if given is not None else environment.get(variable) or default

    return text


def _secrets(text: _Text) -> list[str]:
    """
    The secrets, from wherever they were given: a file with one in each line, a list, or a single one.
    """
    file = text("ws-auth-secret-file", "WS_AUTH_SECRET_FILE")
    several = text("ws-auth-secrets", "WS_AUTH_SECRETS")
    if file:
        name, found = "WS_AUTH_SECRET_FILE", [line.strip() for line in _read("WS_AUTH_SECRET_FILE", file).splitlines()]
    elif several:
        name, found = "WS_AUTH_SECRETS", several.replace(",", " ").split()
    else:
        return [text("ws-auth-secret", "WS_AUTH_SECRET", DEFAULT_SECRET)]
    secrets = [secret for secret in found if secret]
    if not secrets:
        raise SettingsError(f"{name} holds no secret")
    return secrets


def _read(name: str, given: str) -> str:
    path = path_of(name, given)
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{name}: cannot read {given!r}: {reason}") from None


def path_of(name: str, given: str) -> Path:
    """
    The path, with C{~} made out.

    @param name: of the setting.
    @raise SettingsError: it is the home of nobody.
    """
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise SettingsError(f"{name}: nobody has the home folder of {given!r}") from None


def _several(options: Mapping[str, object], name: str) -> tuple[str, ...]:
    given = options.get(name) or []
    assert isinstance(given, list)
    return tuple(given)


def _maybe(given: object, read: Callable[[str], _T]) -> _T | None:
    return None if given is None else read(str(given))


def _rate(name: str, given: str) -> float:
    """
    Messages a second, of C{100/s}, C{6000/m}, C{100} or C{off}.
    """
    if given == "off":
        return 0.0
    number, slash, unit = given.partition("/")
    try:
        return float(number) / {"s": 1, "m": 60}[unit if slash else "s"]
    except (ValueError, KeyError):
        raise SettingsError(f"{name} must be such as 100/s, 6000/m or off, not {given!r}") from None


def _bytes(name: str, given: str) -> float:
    return 0.0 if given == "off" else float(_whole(name, given))


def _short_form(text: _Text) -> str:
    port = _whole("WS_PORT", text("ws-port", "WS_PORT", str(DEFAULT_PORT)))
    if not 0 <= port <= 65_535:
        raise SettingsError(f"WS_PORT must be from 0 to 65535, not {port}")
    host = text("host", "HOST", DEFAULT_HOST)
    # a colon separates the parts of an endpoint string, and an IPv6 address is made of them
    interface = host.strip("[]").replace("\\", "\\\\").replace(":", "\\:")
    # the kernel drops what comes beyond the backlog, and clients that come back all at once then wait a second
    return f"tcp:{port}:interface={interface}:backlog=4096"


def _database(text: _Text) -> str | None:
    """
    C{DATABASE_URL}, else what the C{DB_*} variables say, if there is any of them.
    """
    url = text("database-url", "DATABASE_URL").strip()
    if url:
        return url
    parts = database_parts(text)
    file = text("db-password-file", "DB_PASSWORD_FILE").strip()
    if file:
        parts["password"] = _read("DB_PASSWORD_FILE", file).strip("\r\n")
    if not parts:
        return None
    port = _whole("DB_PORT", parts.get("port", dsn.DEFAULTS["port"]))
    if not 1 <= port <= 65_535:
        raise SettingsError(f"DB_PORT must be from 1 to 65535, not {port}")
    try:
        return dsn.made_of(parts | {"port": str(port)})
    except dsn.DSNError as error:
        raise SettingsError(f"DB_HOST: {error}") from None


def database_parts(text: Callable[[str, str], str]) -> dict[str, str]:
    """
    What the C{DB_*} variables say, by libpq's names; without those that are empty or blank.

    @param text: what an option or its variable says.
    """
    parts = {part: text(name, name.upper().replace("-", "_")) for name, part in DATABASE_PARTS.items()}
    return {part: value if part == "password" else value.strip() for part, value in parts.items() if value.strip()}


def _whole(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise SettingsError(f"{name} must be a whole number, not {value!r}") from None


def _choice(name: str, value: str, choices: Mapping[str, bool]) -> bool:
    if value not in choices:
        raise SettingsError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return choices[value]


def _name(setting: str) -> str:
    return "--" + setting.replace("_", "-")
