"""
Every setting once: its names, its kind, its default, its help text and its field.

A setting is one line in the class L{Fields}, or, if it is one part of a field, one L{Row} above that class.
The command line, the environment, the TOML file, C{--help}, C{dcm-ws check}, the tables in C{docs/} and the checks of
L{Settings<dcm_ws.app.settings.Settings>} are made from these rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dcm_ws.app.kinds import (
    ByteRate,
    Choice,
    Flag,
    Judged,
    Kind,
    Port,
    Rate,
    Seconds,
    Several,
    Subject,
    Switch,
    Whole,
    Workers,
)
from dcm_ws.app.rows import Row, part, rows_of, setting
from dcm_ws.core.latest import LatestEvents
from dcm_ws.http.addresses import TrustedProxies
from dcm_ws.http.jwks import check_source
from dcm_ws.http.origins import AllowedOrigins
from dcm_ws.nats.urls import read_urls
from dcm_ws.postgres.dsn import DEFAULTS
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.events import Ephemeral, Publishable

TEXT = Kind()
PATH = Kind(is_path=True)
FLAG = Flag()
SECONDS = Seconds()
COUNT = Whole()
BYTES = Whole(unit="bytes")
SEVERAL = Several()
_MANY = 10**9

SECRET_MIN = 32
"""
Characters that a production secret must have.
"""


def tcp_endpoint(port: int, host: str) -> str:
    """
    The Twisted endpoint for a port and an address.
    """
    # a colon separates the parts of an endpoint string, and an IPv6 address is made of them
    interface = host.strip("[]").replace("\\", "\\\\").replace(":", "\\:")
    # the kernel drops what comes beyond the backlog, and clients that come back all at once then wait a second
    return f"tcp:{port}:interface={interface}:backlog=4096"


FILES = (
    Row(
        name="config",
        kind=PATH,
        otherwise="`dcm-ws.toml` in the working folder, or in the user's config folder",
        help="a TOML file with these settings by the names of their options; options and variables override it",
        see="[The file](#the-file)",
    ),
    Row(
        name="env-file",
        kind=PATH,
        help="a file of `NAME=VALUE` lines, read for the variables that the environment does not set",
        see="[The env file](#the-env-file)",
    ),
)
"""
The options that name files with settings, and are not settings.
"""

_SHOWN_IN_PS = "; other users of the machine can see an option in `ps`, so prefer the variable"

_WS_PORT = part(
    "ws-port", Port(lowest=0), "TCP port; 0 asks the system for a free one, which is logged", default=3849, short="p"
)
_HOST = part("host", TEXT, "IP address to listen on", default="127.0.0.1", short="H")
_SECRETS = part(
    "ws-auth-secrets",
    TEXT,
    "several secrets, separated by commas or blanks: the first one signs, and tokens of all of them are accepted",
    secret=True,
)
_SECRET_FILE = part(
    "ws-auth-secret-file",
    PATH,
    "a file with one secret per line: the first one signs, and tokens of all of them are accepted; read again on"
    " SIGHUP",
    holds_secret=True,
)
_MODE = part(
    "dcm-env",
    Choice(words=("development", "production")),
    "the mode; if it is not given, `NODE_ENV=production` selects production, too",
    default="development",
    old_variable="NODE_ENV",
    see="[Development and production](operations.md#development-and-production)",
)
_DATABASE_PARTS = (
    part(
        "db-host",
        TEXT,
        "database host; this and the following are used if `DATABASE_URL` is unset and any of them is set",
        default=DEFAULTS["host"],
        libpq="host",
    ),
    part("db-port", Port(), "database port", default=int(DEFAULTS["port"]), libpq="port"),
    part("db-name", TEXT, "database name", default=DEFAULTS["dbname"], libpq="dbname"),
    part("db-user", TEXT, "database user", default=DEFAULTS["user"], libpq="user"),
    part("db-password", TEXT, f"password of the database user{_SHOWN_IN_PS}", secret=True, libpq="password"),
    part(
        "db-password-file",
        PATH,
        "a file that holds the password of the database user; read again on SIGHUP",
        holds_secret=True,
    ),
)
_NO_DATABASE = Row(
    name="no-database",
    kind=FLAG,
    default=False,
    help="run without a database, even if a variable or the file names one: only events of clients are delivered",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """
    The fields of L{Settings<dcm_ws.app.settings.Settings>}, each with its row.

    The class and this module are long because they are one table: all settings, in the order of the documentation.
    """

    listen: tuple[str, ...] = setting(
        (tcp_endpoint(_WS_PORT.default, _HOST.default),),
        SEVERAL,
        "a Twisted endpoint to listen on instead of port and host, such as `tcp:3849:interface=127.0.0.1`,"
        " `ssl:443:privateKey=key.pem:certKey=cert.pem`, `unix:/run/dcm-ws.sock` or `systemd:domain=INET:index=0`",
        otherwise="port and host",
        heading="Listening",
        also=(_WS_PORT, _HOST),
    )
    name: str | None = setting(
        None,
        TEXT,
        "name of this installation, such as `staging`: the pages and `/health` show it to everybody",
        otherwise="none",
    )
    admin_listen: tuple[str, ...] = setting(
        (),
        SEVERAL,
        "a Twisted endpoint of a port for operators: it serves `/metrics`, which the other ports then do not serve,"
        " the pages, `/health` and `/stats`, and opens no WebSockets",
        see="[Monitoring](monitoring.md)",
    )
    ready_needs_database: bool = setting(
        False, FLAG, "answer `/readyz` with 503 while the service does not listen to the database"
    )
    workers: int = setting(
        1,
        Workers(),
        "number of processes that serve clients, or `auto` for one per core that the service may use; with more than"
        " one, the database needs the durable log",
        see="[Workers](workers.md)",
    )
    production: bool = setting(
        False,
        FLAG,
        "the same as `DCM_ENV=production`: tokens are required, and so is a database",
        heading="Mode and tokens",
        also=(_MODE,),
    )
    secret: str = setting(
        "dcm-dev-secret-change-me",
        TEXT,
        f"the secret that signs tokens; production needs {SECRET_MIN} characters or more{_SHOWN_IN_PS}",
        "ws-auth-secret",
        has_variable=True,
        secret=True,
        also=(_SECRETS, _SECRET_FILE),
    )
    more_secrets: tuple[str, ...] = setting(
        (), SEVERAL, "further secrets whose tokens are accepted", has_option=False, secret=True
    )
    jwks: str | None = setting(
        None,
        Judged(judge=check_source, is_path=True),
        "a file or an `https` URL with the public keys of an identity provider (a JWK set), whose JSON Web Tokens are"
        " accepted, too; the file is read again on SIGHUP, the URL every 10 minutes",
        see="[JSON Web Tokens](identity.md#json-web-tokens)",
    )
    jwt_audience: tuple[str, ...] = setting(
        (), SEVERAL, "accept only JSON Web Tokens with this `aud`; repeatable: one of them is enough"
    )
    jwt_issuer: str = setting("", TEXT, "accept only JSON Web Tokens with this `iss`", otherwise="any")
    enforce_expiry: bool = setting(False, FLAG, "close a client with 4001 when its token expires")
    auth_timeout: float = setting(
        10.0, SECONDS, "time that a client has to authenticate in production", in_production=True
    )
    anonymous_listeners: bool = setting(
        False,
        Switch(words=("none", "listen"), on="listen"),
        "`listen` lets clients without a token subscribe to public channels in production",
        "anonymous",
        see="[Clients without a token](operations.md#clients-without-a-token)",
    )
    strict_private: bool = setting(
        False,
        Switch(words=("seed", "strict"), on="strict"),
        "`strict` keeps `agents/X` and `sessions/X` for their own agent or session and for tokens whose scope names"
        " them, also on `global`",
        "private",
        see="[Identity and rights](identity.md#private-channels)",
    )

    database: str | None = setting(
        None,
        TEXT,
        "`postgresql://user:password@host:port/name`, with `@` and `/` in a password written as `%40` and `%2F`;"
        " or a libpq connection string",
        "database-url",
        short="d",
        has_variable=True,
        secret=True,
        otherwise="an embedded PostgreSQL in development",
        heading="Database",
        also=(*_DATABASE_PARTS, _NO_DATABASE),
    )
    embedded: bool = setting(
        False, FLAG, "run an embedded PostgreSQL; set it only if `database` is `None`", has_option=False
    )
    data_folder: Path | None = setting(
        None,
        PATH,
        "folder for the data of the embedded PostgreSQL",
        "dcm-data-dir",
        has_variable=True,
        otherwise="the platform's user data folder; `/var/lib/dcm-ws` for root",
    )

    nats: tuple[str, ...] = setting(
        (),
        Several(judge=read_urls),
        "URL of a NATS server over which the nodes of a cluster send each other messages, such as `nats://host:4222`,"
        " or `tls://host:4222` with TLS; a token or a password is written `token@host` or `user:password@host`; implies"
        " `--cluster`; without this option, the nodes use PostgreSQL",
        secret=True,
        heading="Cluster",
    )
    nats_ca: Path | None = setting(
        None,
        PATH,
        "a file with the certificates of the authorities that may sign the certificates of NATS servers",
        otherwise="those of the system",
    )
    nats_creds: Path | None = setting(
        None,
        PATH,
        "a credentials file, as `nsc` writes it, with the JWT and the key of a NATS user; read again for each"
        " connection",
        holds_secret=True,
    )
    nats_nkey: Path | None = setting(
        None,
        PATH,
        "a file with the seed of a NATS user's nkey; read again for each connection",
        holds_secret=True,
    )
    nats_prefix: str = setting("dcm-ws", Subject(), "first part of all NATS subjects that the nodes use")
    max_bus_waiting: int = setting(
        8 << 20,
        BYTES,
        "maximum size of the messages to other nodes that cannot be sent yet; beyond it, the oldest are dropped, of the"
        " topics that have most",
    )

    log_level: str = setting(
        "info",
        Choice(words=("debug", "info", "warn", "error", "critical"), any_case=True),
        "the lowest level that is logged",
        has_variable=True,
        heading="Log",
    )
    log_format: str = setting(
        "text", Choice(words=("text", "json")), "the format of the log, for people or for machines"
    )

    ack_timeout: float = setting(
        5.0,
        SECONDS,
        "time to wait for an acknowledgement before a tracked event is redelivered",
        heading="Delivery and time-outs",
    )
    max_attempts: int = setting(3, COUNT, "deliveries of a tracked event in all, before it is given up")
    retry_interval: float = setting(
        1.0, SECONDS, "time between redelivery checks; more than 1 second counts as 1 second"
    )
    heartbeat_interval: float = setting(30.0, SECONDS, "time between pings to a client")
    heartbeat_timeout: float = setting(60.0, SECONDS, "time of silence after which a client is closed with 4000")
    metrics_interval: float = setting(5.0, SECONDS, "time between snapshots of the metrics")
    drain: float = setting(
        2.0, Seconds(lowest=0), "maximum time over which the connections are closed when the service stops"
    )
    drain_delay: float | None = setting(
        None,
        Seconds(lowest=0),
        "time between the signal to stop and the closing of connections: `/readyz` answers 503, and new clients are"
        " still accepted",
        otherwise="2 s with `--cluster`, otherwise 0",
        see="[Rolling restarts](cluster.md#rolling-restarts)",
    )

    max_connections: int = setting(
        10_000, COUNT, "maximum number of clients; one more is closed with 1013", heading="Connections"
    )
    max_connections_per_ip: int | None = setting(
        None,
        Whole(lowest=0, highest=_MANY, zero="no limit"),
        "maximum number of WebSockets from one address, or from one /64 network of IPv6, and of connections without a"
        " request; 0 for no limit; Unix sockets are not counted",
        modes=(1000, 0),
    )
    max_http_connections: int = setting(
        1000, COUNT, "maximum number of HTTP connections; one more is answered with 503"
    )
    max_http_per_ip: int | None = setting(
        None,
        Whole(lowest=0, highest=_MANY, zero="no limit"),
        "maximum number of HTTP connections from one address, by default never more than `--max-connections-per-ip`;"
        " 0 for no limit",
        modes=(100, 0),
    )
    handshake_timeout: float = setting(5.0, SECONDS, "time that a connection has to send its request")
    http_timeout: float = setting(30.0, SECONDS, "time that an HTTP connection has for its next request, body included")
    long_poll: float = setting(20.0, SECONDS, "time that a long poll of a stream waits for an event")
    max_head_size: int = setting(16 << 10, BYTES, "maximum size of the head of a request")
    compression: bool = setting(
        False,
        Switch(words=("off", "on"), on="on"),
        "`on` accepts `permessage-deflate` if a client offers it; it costs CPU and memory for each client that uses it",
    )

    max_message_size: int = setting(
        1 << 20,
        BYTES,
        "maximum size of a client's message; a larger one closes the connection with 1009",
        heading="Messages",
    )
    max_batch_size: int = setting(
        1 << 20,
        BYTES,
        "maximum size of the events that are published with one HTTP request; at least `--max-message-size`",
    )
    max_depth: int = setting(100, COUNT, "maximum nesting depth of event data")
    rate_limit: float | None = setting(
        None,
        Rate(),
        "messages per agent, such as `100/s` or `6000/m`, or `off`;"
        " a client that sends ten times as many is closed with 4029",
        modes=(100.0, 0.0),
    )
    rate_burst: float | None = setting(
        None,
        Whole(highest=_MANY),
        "messages that an agent may send at once",
        otherwise="as many as the rate limit allows in a second",
    )
    rate_bytes: float | None = setting(
        None,
        ByteRate(),
        "size of the messages that an agent may send per second, and at once, or `off`",
        modes=(float(2 << 20), 0.0),
    )
    stranger_rate: float = setting(
        10.0,
        Rate(),
        "messages of a client that has not authenticated, in production, or `off`; five times as many at once",
        in_production=True,
    )
    max_stranger_message: int = setting(
        64 << 10,
        BYTES,
        "maximum size of a message, and of all messages per second, of a client that has not authenticated,"
        " in production",
        in_production=True,
    )
    max_partial_bytes: int = setting(
        128 << 20,
        BYTES,
        "maximum size of all incomplete messages together; in production, an eighth of it for clients that have not"
        " authenticated",
    )

    max_send_buffer: int = setting(
        4 << 20,
        BYTES,
        "maximum size of what waits for a client to read it; beyond it, the client is closed with 4008",
        heading="What the service holds for clients",
    )
    max_subscriptions: int = setting(1000, COUNT, "maximum number of channels that a client is subscribed to")
    max_pending: int = setting(
        10_000, COUNT, "maximum unacknowledged events per client; beyond it, further ones wait in the log"
    )
    max_pending_bytes: int = setting(
        256 << 20,
        BYTES,
        "maximum size of all unacknowledged events; beyond it, the agents that owe most get no more until they"
        " acknowledge some, and a quarter beyond it they lose their oldest, which become dead letters",
    )
    keep_deliveries: float | None = setting(
        None,
        SECONDS,
        "time for which the events that an absent agent misses or has not acknowledged are kept for it, if it"
        " acknowledges events; 5 minutes at the most for others",
        otherwise="24 h with the log in the database, 5 min with it in memory",
    )
    max_agents: int = setting(
        10_000,
        COUNT,
        "agents whose subscriptions are remembered; beyond it, one that shared a connection with most others is"
        " forgotten, or the one absent for longest",
    )
    max_agent_bytes: int = setting(
        64 << 20,
        BYTES,
        "maximum size of the subscriptions remembered; beyond it, agents of the connections that were subscribed to"
        " most are forgotten",
    )
    max_kept: int = setting(
        500_000,
        COUNT,
        "deliveries kept for absent agents; beyond it, the agents that have most lose their oldest",
    )
    max_recent_events: int = setting(
        100_000, COUNT, "events of the log in memory; beyond it, the publisher that has most there loses its oldest"
    )
    max_recent_bytes: int = setting(
        64 << 20,
        BYTES,
        "no effect: what is kept for absent agents is in the log; accepted so that older settings keep working",
    )
    max_dead_letters: int = setting(
        10_000, COUNT, "dead letters kept; beyond it, the agents that have most lose their oldest"
    )
    max_dead_letter_bytes: int = setting(64 << 20, BYTES, "maximum size of the dead letters kept")
    max_ledger: int = setting(
        16 << 20,
        Whole(unit="bytes", lowest=0, zero="no ledger"),
        "maximum size of the ledger in memory, which says what became of each event at each agent; beyond it, its"
        " oldest part is forgotten; 0 keeps no ledger",
    )
    ledger_max_bytes: int = setting(
        1 << 30,
        BYTES,
        "maximum size of the ledger in the database, where it is kept as long as the log; beyond it, its oldest part"
        " is dropped",
    )
    max_keys: int = setting(
        100_000,
        COUNT,
        "keys of publishes remembered; beyond it, the publishers that have most lose their oldest",
    )
    log: str = setting(
        "auto",
        Choice(words=("auto", "memory", "postgres")),
        "where the log is; `auto` is the database, if it has the schema `dcm_ws` and this role may use it, and memory"
        " otherwise; `postgres` refuses to start without that schema",
    )
    cluster: bool = setting(
        False,
        FLAG,
        "run as a node of a cluster: all services with this option on one database serve clients together; the database"
        " needs the durable log",
        see="[Several nodes](cluster.md)",
    )
    node_name: str | None = setting(
        None, TEXT, "name of this node in `dcm-ws nodes` and in logs", otherwise="host name and port"
    )
    log_keep: float = setting(86_400.0, SECONDS, "time for which an event stays in the log")
    log_max_bytes: int | None = setting(
        None,
        BYTES,
        "maximum size of the log; in memory, the publisher that has most there loses its oldest beyond it; in the"
        " database, the oldest events are dropped",
        otherwise="4 GiB in the database, 64 MiB in memory",
    )
    max_log_waiting: int = setting(
        10_000,
        COUNT,
        "events of clients that wait to be written to the log in the database; beyond it, and beyond 64 MiB of them,"
        " the publisher that has most is refused",
    )

    allowed_origins: tuple[str, ...] = setting(
        (),
        SEVERAL,
        "origin of web pages that may connect, such as `https://*.example.com`, in addition to pages of the same host;"
        " `*` for all",
        "allowed-origin",
        modes=((), ("*",)),
        see="[Web pages](operations.md#web-pages)",
        heading="Web pages and proxies",
    )
    same_host: bool = setting(
        True,
        Flag(given=False),
        "allow only the web pages that `--allowed-origin` names, and not those of the service's own host",
        "no-same-host",
    )
    server_names: tuple[str, ...] = setting(
        (),
        Several(judge=lambda names: AllowedOrigins((), names)),
        "a name under which browsers reach the service, such as `dcm.example.com` or `*.example.com`; if any is given,"
        " pages of the same host may connect only under these names, `localhost` and IP addresses",
        "server-name",
    )
    trusted_proxies: tuple[str, ...] = setting(
        (),
        Several(judge=TrustedProxies),
        "address or network (`10.0.0.0/8`) of a proxy whose `X-Forwarded-For`, `-Host` and `-Proto` are trusted,"
        " or `unix` for Unix sockets",
        "trusted-proxy",
    )

    extra_events: tuple[str, ...] = setting(
        (),
        Several(judge=Publishable),
        "an event that clients may publish in addition to the catalogue; it may end with `*` after a dot or a colon,"
        " as in `pipeline.*`",
        "extra-event",
        heading="Events and channels",
    )
    latest_events: tuple[str, ...] = setting(
        (),
        Several(judge=LatestEvents),
        "`PATTERN` or `PATTERN:FIELD`: events of which only the latest for each value of a field of their data matters,"
        " such as `capacity.update:project_id`; clients that read too slowly receive only that one",
        "latest-event",
        see="[Events of which only the latest matters](limits.md#events-of-which-only-the-latest-matters)",
    )
    ephemeral_events: tuple[str, ...] = setting(
        (),
        Several(judge=Ephemeral),
        "an event that is not logged, and that a client that resumes does not get; it may end with `*` after a dot or a"
        " colon; tracked events are always logged",
        "ephemeral-event",
    )
    extra_channels: tuple[str, ...] = setting(
        (),
        Several(judge=Channels),
        "a public channel in addition to those of the protocol, such as `projects`; it may end with `*`, as in"
        " `epic-sessions/*`, and `*` alone makes every other name a channel",
        "extra-channel",
    )
    mirror_clients: bool = setting(
        True,
        Switch(words=("all", "database"), on="all"),
        "`database` makes `global` carry what the database publishes to other channels, and not what clients publish"
        " there, as the TypeScript server does",
        "mirror",
    )
    mcp: bool = setting(
        False,
        FLAG,
        "serve the Model Context Protocol over HTTP on `/mcp`; needs the extra `mcp`, and one worker",
        heading="MCP",
        see="[Over HTTP](mcp.md#over-http)",
    )
    max_mcp_sessions: int = setting(100, COUNT, "maximum number of MCP sessions over HTTP")
    max_mcp_per_agent: int = setting(5, COUNT, "maximum number of MCP sessions of one agent over HTTP")
    mcp_idle: float = setting(
        1800.0, SECONDS, "time without a request or a stream after which an MCP session over HTTP ends"
    )
    mcp_folder: Path | None = setting(
        None,
        PATH,
        "a folder in which it is kept up to where the agents have read that use MCP over HTTP, to go on there after a"
        " restart",
        otherwise="kept in memory",
    )

    testee: bool = setting(
        False, FLAG, "echo every message, to be tested by a WebSocket testsuite; refused in production"
    )


TABLE = tuple(rows_of(Fields))
"""
All settings, those of one group together.
"""

BY_NAME = {row.name: row for row in TABLE if row.name}
"""
The settings that have an option, by its name.
"""

BY_FIELD = {row.field: row for row in TABLE if row.field}
"""
The row of each field of L{Settings<dcm_ws.app.settings.Settings>}.
"""

DATABASE_PARTS = {row.name: row.libpq for row in TABLE if row.libpq}
"""
The options for the parts of the database's address, and libpq's names of them.
"""
