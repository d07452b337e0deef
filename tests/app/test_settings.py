from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from psycopg2.extensions import parse_dsn

from dcm_ws.app.commandline import Options
from dcm_ws.app.options import BY_NAME
from dcm_ws.app.reading import settings_of
from dcm_ws.app.settings import DEFAULT_SECRET, Settings, SettingsError
from dcm_ws.app.sources import merge

SECRET = "0123456789abcdef0123456789abcdef"
DATABASE = "postgresql://u:p@db:5432/dcm"


class Unchecked(Options):
    """
    The options alone, without the environment.
    """

    def postOptions(self) -> None:
        pass


def chosen(*arguments: str, **environment: str) -> Settings:
    """
    What a command line and an environment come to.
    """
    options = Unchecked()
    options.parseOptions(list(arguments))
    return settings_of(merge(options, environment).given)


def test_defaults() -> None:
    """
    Without options and variables the service is as documented.
    """
    settings = chosen()
    assert settings.listen == (r"tcp:3849:interface=127.0.0.1:backlog=4096",)
    assert settings.secret == DEFAULT_SECRET == "dcm-dev-secret-change-me"
    assert not settings.production
    assert not settings.enforce_expiry
    assert settings.database is None
    assert settings.embedded
    assert settings.data_folder is None
    assert (settings.ack_timeout, settings.max_attempts, settings.retry_interval) == (5, 3, 1)
    assert (settings.heartbeat_interval, settings.heartbeat_timeout, settings.auth_timeout) == (30, 60, 10)
    assert (settings.metrics_interval, settings.drain) == (5, 2)
    assert (settings.max_connections, settings.max_subscriptions, settings.max_pending) == (10_000, 1000, 10_000)
    assert (settings.max_message_size, settings.max_send_buffer) == (1_048_576, 4_194_304)
    assert settings.extra_events == ()
    assert settings.extra_channels == ()
    assert (settings.log_level, settings.log_format) == ("info", "text")


@pytest.mark.parametrize(
    ("option", "variable", "name", "values", "meant"),
    [
        ("ws-auth-secret", "WS_AUTH_SECRET", "secret", ("one", "two"), ("one", "two")),
        ("database-url", "DATABASE_URL", "database", ("postgres://a/1", "postgresql://b/2"), None),
        ("dcm-env", "DCM_ENV", "production", ("development", "development"), (False, False)),
        ("dcm-data-dir", "DCM_DATA_DIR", "data_folder", ("/one", "/two"), (Path("/one"), Path("/two"))),
        ("log-level", "LOG_LEVEL", "log_level", ("debug", "WARN"), ("debug", "warn")),
        (
            "ws-port",
            "WS_PORT",
            "listen",
            ("1", "0"),
            (("tcp:1:interface=127.0.0.1:backlog=4096",), ("tcp:0:interface=127.0.0.1:backlog=4096",)),
        ),
        (
            "host",
            "HOST",
            "listen",
            ("0.0.0.0", "h"),
            (("tcp:3849:interface=0.0.0.0:backlog=4096",), ("tcp:3849:interface=h:backlog=4096",)),
        ),
    ],
)
def test_option_wins_over_variable(
    option: str, variable: str, name: str, values: tuple[str, str], meant: tuple[object, object] | None
) -> None:
    """
    An option wins over its variable, the variable over the default, and an empty variable is none.
    """
    meant = meant or values
    one, two = values
    assert getattr(chosen(f"--{option}", one, **{variable: two}), name) == meant[0]
    assert getattr(chosen(**{variable: two}), name) == meant[1]
    assert getattr(chosen(**{variable: ""}), name) == getattr(chosen(), name)


@pytest.mark.parametrize(
    ("option", "value", "name", "meant"),
    [
        ("ack-timeout", "0.25", "ack_timeout", 0.25),
        ("max-attempts", "7", "max_attempts", 7),
        ("retry-interval", "0.5", "retry_interval", 0.5),
        ("heartbeat-interval", "1.5", "heartbeat_interval", 1.5),
        ("heartbeat-timeout", "2", "heartbeat_timeout", 2.0),
        ("metrics-interval", "0.1", "metrics_interval", 0.1),
        ("auth-timeout", "3", "auth_timeout", 3.0),
        ("drain", "0", "drain", 0.0),
        ("max-connections", "5", "max_connections", 5),
        ("max-message-size", "100", "max_message_size", 100),
        ("max-send-buffer", "100", "max_send_buffer", 100),
        ("max-subscriptions", "9", "max_subscriptions", 9),
        ("max-pending", "9", "max_pending", 9),
        ("log-format", "json", "log_format", "json"),
        ("extra-event", "pipeline.*", "extra_events", ("pipeline.*",)),
        ("extra-channel", "epic-sessions/*", "extra_channels", ("epic-sessions/*",)),
        ("mirror", "all", "mirror_clients", True),
        ("mirror", "database", "mirror_clients", False),
        ("anonymous", "none", "anonymous_listeners", False),
        ("anonymous", "listen", "anonymous_listeners", True),
        ("private", "seed", "strict_private", False),
        ("private", "strict", "strict_private", True),
        ("listen", "unix:/run/x.sock", "listen", ("unix:/run/x.sock",)),
    ],
)
def test_options(option: str, value: str, name: str, meant: object) -> None:
    """
    Each option sets what it says.
    """
    assert getattr(chosen(f"--{option}", value), name) == meant


def test_repeatable_options() -> None:
    """
    --listen, --extra-event and --extra-channel may be given more than once; --listen takes the place of port and host.
    """
    settings = chosen("--listen", "tcp:1", "--listen", "unix:/x", "--ws-port", "9", HOST="h")
    assert settings.listen == ("tcp:1", "unix:/x")
    assert chosen("--extra-event", "a.b", "--extra-event", "c.*").extra_events == ("a.b", "c.*")
    assert chosen("--extra-channel", "a", "--extra-channel", "b/*").extra_channels == ("a", "b/*")


@pytest.mark.parametrize(
    ("given", "limit"), [("100/s", 100), ("6000/m", 100), ("90/m", 1.5), ("100", 100), ("0.5/s", 0.5), ("off", 0)]
)
def test_rate_limit(given: str, limit: float) -> None:
    """
    A rate limit is so many messages a second or a minute, or none.
    """
    assert chosen("--rate-limit", given).rate_limit == limit
    assert chosen().rate_limit is None


def test_several_secrets(tmp_path: Path) -> None:
    """
    Several secrets may be given while one replaces another, in a variable or in a file; the first one signs.
    """
    one, two = "1" * 40, "2" * 40
    file = tmp_path / "secrets"
    file.write_text(f"{one}\n{two}\n")
    for settings in (
        chosen(WS_AUTH_SECRETS=f"{one},{two}"),
        chosen(WS_AUTH_SECRETS=f" {one}  {two} ", WS_AUTH_SECRET="other"),
        chosen(WS_AUTH_SECRET_FILE=str(file), WS_AUTH_SECRETS="other"),
        chosen("--ws-auth-secret-file", str(file)),
    ):
        assert settings.secrets == (one, two)
        assert one not in repr(settings)
        assert two not in repr(settings)
    assert chosen(WS_AUTH_SECRET=one).secrets == (one,)
    file.write_text(" \n")
    with pytest.raises(SettingsError, match="WS_AUTH_SECRET_FILE"):
        chosen(WS_AUTH_SECRET_FILE=str(file))
    file.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="WS_AUTH_SECRET_FILE"):
        chosen(WS_AUTH_SECRET_FILE=str(file))


def test_password_file(tmp_path: Path) -> None:
    """
    The database's password may come from a file, whose last line feed is none of it.
    """
    file = tmp_path / "password"
    file.write_text("p@ss word\n")
    url = chosen(DB_HOST="h", DB_USER="u", DB_PASSWORD_FILE=str(file), DB_PASSWORD="other").database
    assert url is not None
    assert parse_dsn(url)["password"] == "p@ss word"


@pytest.mark.parametrize(("host", "interface"), [("::1", r"\:\:1"), ("[::1]", r"\:\:1"), ("::", r"\:\:")])
def test_ipv6_host(host: str, interface: str) -> None:
    """
    An IPv6 address may be given with brackets or without.
    """
    assert chosen(HOST=host).listen == (f"tcp:3849:interface={interface}:backlog=4096",)


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        ([], {"WS_PORT": "http"}, "WS_PORT"),
        ([], {"WS_PORT": "65536"}, "WS_PORT"),
        (["--ws-port", "-1"], {}, "WS_PORT"),
        (["--ws-port", "1.5"], {}, "WS_PORT"),
        ([], {"DB_HOST": "h", "DB_PORT": "x"}, "DB_PORT"),
        ([], {"DB_HOST": "h", "DB_PORT": "0"}, "DB_PORT"),
        ([], {"DB_HOST": "h:6000"}, "DB_HOST"),
        ([], {"DB_HOST": "a,b:6000"}, "DB_HOST"),
        ([], {"DB_HOST": "postgres://u:p@h/x"}, "DB_HOST"),
        ([], {"DB_HOST": "::1::"}, "DB_HOST"),
        ([], {"DATABASE_URL": "mysql://secret"}, "DATABASE_URL"),
        (["--database-url", "postgresql://u:secret@[h/x"], {}, "DATABASE_URL"),
        ([], {"DCM_ENV": "staging"}, "DCM_ENV"),
        (["--dcm-env", "Production"], {}, "DCM_ENV"),
        ([], {"LOG_LEVEL": "loud"}, "LOG_LEVEL"),
        (["--log-format", "xml"], {}, "--log-format"),
        (["--extra-event", "no space"], {}, "--extra-event"),
        (["--extra-channel", "a*b"], {}, "--extra-channel"),
        (["--extra-channel", "agents/*"], {}, "--extra-channel"),
        (["--extra-channel", ""], {}, "--extra-channel"),
        (["--mirror", "none"], {}, "--mirror"),
        (["--anonymous", "publish"], {}, "--anonymous"),
        (["--extra-event", "a.*.b"], {}, "--extra-event"),
        (["--extra-event", "*"], {}, "--extra-event"),
        (["--extra-event", "x." + "y" * 63], {}, "--extra-event"),
        *[
            ([f"--{name}", value], {}, f"--{name}")
            for name in (
                "ack-timeout",
                "retry-interval",
                "heartbeat-interval",
                "heartbeat-timeout",
                "metrics-interval",
                "auth-timeout",
                "handshake-timeout",
            )
            for value in ("x", "0", "-1", "nan", "inf", "86401", "")
        ],
        (["--drain", "-1"], {}, "--drain"),
        (["--compression", "yes"], {}, "--compression"),
        *[(["--rate-limit", value], {}, "--rate-limit") for value in ("x", "5/h", "5/", "/s", "-1/s", "nan", "inf/s")],
        (["--rate-burst", "0"], {}, "--rate-burst"),
        (["--max-connections-per-ip", "-1"], {}, "--max-connections-per-ip"),
        (["--trusted-proxy", "somewhere"], {}, "--trusted-proxy"),
        ([], {"WS_AUTH_SECRET_FILE": "/no/such/file"}, "WS_AUTH_SECRET_FILE"),
        ([], {"WS_AUTH_SECRETS": " , "}, "WS_AUTH_SECRETS"),
        ([], {"DB_HOST": "h", "DB_PASSWORD_FILE": "/no/such/file"}, "DB_PASSWORD_FILE"),
        *[
            ([f"--{name}", value], {}, f"--{name}")
            for name in (
                "max-attempts",
                "max-connections",
                "max-message-size",
                "max-send-buffer",
                "max-subscriptions",
                "max-pending",
                "max-pending-bytes",
                "max-depth",
                "max-head-size",
            )
            for value in ("x", "0", "-1", "1.5", "")
        ],
    ],
)
def test_bad_values(arguments: list[str], environment: dict[str, str], named: str) -> None:
    """
    A bad value is refused in one line, which names the option or the variable, and shows no secret.
    """
    with pytest.raises(SettingsError) as refused:
        chosen(*arguments, **environment)
    text = str(refused.value)
    assert named in text
    assert "\n" not in text
    assert ":secret@" not in text
    assert "//secret" not in text


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cr@et@host/db",
        "postgresql://u:s3cr@et@host",
        "postgresql://u:s3cr/et@host/db",
        "postgresql://u:123/s3cret@host/db",
        "postgresql://u:123456/s3cret@host/db",
        "postgresql://u:p%zzs3cr@host/db",
        "host=h password=it's s3cret",
    ],
)
def test_a_password_that_is_not_quoted(url: str) -> None:
    """
    A URL that libpq would cut in the wrong places is refused, without a piece of the password.
    """
    with pytest.raises(SettingsError, match="DATABASE_URL") as refused:
        chosen(DATABASE_URL=url)
    assert "s3cr" not in str(refused.value) and "123" not in str(refused.value) and "et@" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u%40corp:p%40ss%2Fw@h1:1,h2:2/we@ird?user=me@x&application_name=a@b",
        "postgresql:///db?host=/run/postgresql",
        "postgresql://",
        "host=h password=a://b@c@d/e@f",
    ],
)
def test_a_database_that_is_oddly_named(url: str) -> None:
    """
    What libpq takes as it was meant is let through.
    """
    assert chosen(DATABASE_URL=url).database == url


def test_nothing_to_listen_on() -> None:
    """
    Settings made by another application are checked just as well.
    """
    with pytest.raises(SettingsError):
        Settings(listen=())
    with pytest.raises(SettingsError):
        Settings(secret="")


def test_secrets_are_not_shown() -> None:
    """
    Settings can be logged: neither the secret nor the database's password is in their repr.
    """
    assert "hidden" not in repr(chosen(WS_AUTH_SECRET="hidden", DATABASE_URL="postgresql://u:hidden@h/d"))


# the database


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"DATABASE_URL": DATABASE}, DATABASE),
        ({"DATABASE_URL": DATABASE, "DB_HOST": "other", "DB_NAME": "other"}, DATABASE),
        ({"DB_HOST": "db"}, "postgresql://dcm@db:5432/claude_context"),
        ({"DB_NAME": "x"}, "postgresql://dcm@localhost:5432/x"),
        ({"DB_HOST": "db", "DB_PORT": "6000", "DB_NAME": "x"}, "postgresql://dcm@db:6000/x"),
        ({"DB_HOST": "db", "DB_USER": "u"}, "postgresql://u@db:5432/claude_context"),
        ({"DB_HOST": "::1", "DB_NAME": "d"}, "postgresql://dcm@[::1]:5432/d"),
        ({"DB_HOST": "fe80::1%eth0"}, "postgresql://dcm@[fe80::1%25eth0]:5432/claude_context"),
        ({"DB_HOST": "a,::1"}, "postgresql://dcm@a,[::1]:5432/claude_context"),
        ({"DB_PORT": "+6_000"}, "postgresql://dcm@localhost:6000/claude_context"),
        ({"DB_PORT": "٦٠٠٠"}, "postgresql://dcm@localhost:6000/claude_context"),
        ({"DB_PORT": "6000", "DB_USER": "u", "DB_PASSWORD": "p"}, "postgresql://u:p@localhost:6000/claude_context"),
        ({"DB_USER": "u", "DB_PASSWORD": "p"}, "postgresql://u:p@localhost:5432/claude_context"),
        ({"DB_PORT": "6000"}, "postgresql://dcm@localhost:6000/claude_context"),
        ({"DB_USER": "u"}, "postgresql://u@localhost:5432/claude_context"),
        ({"DB_PASSWORD": " p "}, "postgresql://dcm:%20p%20@localhost:5432/claude_context"),
        ({"DB_HOST": " db\t", "DB_NAME": " ", "DB_PORT": " 1 "}, "postgresql://dcm@db:1/claude_context"),
        ({"DATABASE_URL": " ", "DB_USER": "u"}, "postgresql://u@localhost:5432/claude_context"),
        ({"DB_HOST": "", "DB_PORT": " ", "DB_NAME": "", "DB_USER": "\t", "DB_PASSWORD": " "}, None),
    ],
)
def test_database(environment: dict[str, str], url: str | None) -> None:
    """
    The database is DATABASE_URL, else what DB_* say if any of them is set, else the embedded one.
    """
    settings = chosen(**environment)
    assert settings.database == url
    assert settings.embedded is (url is None)


@pytest.mark.parametrize("text", ["p@ss:w/rd", "a b", "100%", "%41", "?x=1&y#z", "é😀", "'\"\\"])
def test_special_characters(text: str) -> None:
    """
    A name, a user or a password may hold any character: it gets to the database as it is.
    """
    url = chosen(DB_HOST="db", DB_NAME=text, DB_USER=text, DB_PASSWORD=text).database
    assert url is not None
    parsed = parse_dsn(url)
    assert (parsed["user"], parsed["password"], parsed["dbname"]) == (text, text, text)
    assert (parsed["host"], parsed["port"]) == ("db", "5432")
    assert unquote(urlsplit(url).password or "") == text


@pytest.mark.parametrize("option", ["host", "port", "name", "user", "password"])
def test_an_option_rules_out_the_embedded_database(option: str) -> None:
    """
    One --db-* option is enough.
    """
    settings = chosen(f"--db-{option}", "77")
    assert (settings.embedded, settings.database is None) == (False, False)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:p4ss@h/d?schema=public", "no parameter 'schema'.*options=-csearch_path"),
        ("postgresql://u:p4ss@h/d?sslmode=require&pgbouncer=true", "'pgbouncer'.*remove pgbouncer=true"),
        ("postgresql://u:p4ss@h/d?pgbouncer=true&connection_limit=1", "'pgbouncer'.*'connection_limit'"),
        ("postgresql://u:p4ss@h/d?connect_timeout=٣", "connect_timeout"),
        ("postgresql://u:p4ss@h/d?connection_limit=5", "'connection_limit'.*remove connection_limit=5"),
        ("postgres://u:p4ss@h/d?Schema", "'Schema'.*remove Schema"),
        ("postgresql://u:p4ss@h/d?ssl=no-verify", "'ssl'.*remove ssl=no-verify"),
        ("postgresql://u:p4ss@h/d?%73chema=x", "'schema'"),
        ("postgresql://u:p4ss@h/d?sslmode=no-verify", 'invalid sslmode value: "no-verify": use sslmode=require'),
        ("host=h password=p4ss sslmode=no-verify", 'invalid sslmode value: "no-verify"'),
        ("postgresql://u:p4ss@h/d?sslmode=", "invalid sslmode value"),
        ("postgresql://u:p4ss@h/d?target_session_attrs=write", "invalid target_session_attrs value"),
        ("postgresql://u:p4ss@h/d?channel_binding=yes", "invalid channel_binding value"),
        ("postgresql://u:p4ss@h/d?gssencmode=on", "invalid gssencmode value"),
        ("postgresql://u:p4ss@h/d?ssl_min_protocol_version=1.2", "invalid .*ssl_min_protocol_version.* value"),
        ("postgresql://u:p4ss@h/d?load_balance_hosts=yes", "load_balance_hosts"),
        ("postgresql://u:p4ss@h/d?connect_timeout=5s", "connect_timeout must be a whole number"),
        ("postgresql://u:p4ss@h/d?keepalives_idle=x", "keepalives_idle must be a whole number"),
        ("postgresql://u:p4ss@h1,h2/d?port=1,2,3", "3 ports do not match 2 hosts"),
        ("postgresql://u:p4ss@h/d?hostaddr=localhost", "hostaddr 'localhost' is not an IP address"),
        ("postgresql://u:p4ss@h1,h2/d?hostaddr=127.0.0.1", "2 hosts do not match 1 addresses"),
        ("postgresql://u:p4ss@h/d?port=0", "not a PostgreSQL URL"),
        ("postgresql://u:p4ss@h/d?service=no-such-service", "no-such-service"),
        ("postgresql://u:p4ss/w?0rd=x@h/d", "not a PostgreSQL URL"),
    ],
)
def test_a_database_that_can_never_be_reached(url: str, words: str) -> None:
    """
    What no change of the database can make right is refused at the start, with the parameter and what to do, and
    without the password.
    """
    with pytest.raises(SettingsError, match=rf"^--database-url \(DATABASE_URL\): .*{words}") as error:
        chosen(DATABASE_URL=url)
    assert "p4ss" not in str(error.value)
    assert "0rd" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@h/d?sslmode=verify-full&sslrootcert=/no/such/file&connect_timeout=5&ssl=true",
        "postgresql://u@h1:1,h2:2/d?target_session_attrs=prefer-standby&load_balance_hosts=random",
        "postgresql://u@h1,h2/d?port=5432&hostaddr=127.0.0.1,::1",
        "postgresql://u@h/d?options=-csearch_path%3Ddcm&application_name=me&client_encoding=nonsense",
    ],
)
def test_a_database_that_may_be_reached_one_day(url: str) -> None:
    """
    What depends on files, on names and on the database is let through.
    """
    assert chosen(DATABASE_URL=url).database == url


def test_a_variable_of_libpq_that_can_never_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It is refused as the URL's own parameters are, and named.
    """
    monkeypatch.setenv("PGSSLMODE", "no-verify")
    with pytest.raises(SettingsError, match="PGSSLMODE is set"):
        chosen(DATABASE_URL="postgresql://u@h/d")
    assert chosen(DATABASE_URL="postgresql://u@h/d?sslmode=require").database


def test_unix_socket() -> None:
    """
    DB_HOST may be the folder of a Unix socket.
    """
    url = chosen(DB_HOST="/var/run/postgresql", DB_NAME="dcm").database
    assert url is not None
    assert parse_dsn(url)["host"] == "/var/run/postgresql"


def test_no_database() -> None:
    """
    --no-database is for clients' own events only.
    """
    settings = chosen("--no-database")
    assert settings.database is None
    assert not settings.embedded


# production


@pytest.mark.parametrize(
    ("arguments", "environment", "production"),
    [
        ([], {}, False),
        ([], {"NODE_ENV": "production"}, True),
        ([], {"NODE_ENV": "test"}, False),
        ([], {"NODE_ENV": "production", "DCM_ENV": "development"}, False),
        ([], {"NODE_ENV": "development", "DCM_ENV": "production"}, True),
        (["--dcm-env", "development"], {"DCM_ENV": "production"}, False),
        (["--dcm-env", "production"], {}, True),
        (["--production"], {}, True),
        (["--production"], {"DCM_ENV": "development"}, True),
    ],
)
def test_production(arguments: list[str], environment: dict[str, str], production: bool) -> None:
    """
    Production is asked for by option, by DCM_ENV, or by NODE_ENV as in existing installations.
    """
    needed = {"WS_AUTH_SECRET": SECRET, "DATABASE_URL": DATABASE}
    assert chosen(*arguments, **environment, **needed).production is production


@pytest.mark.parametrize("secret", [None, "", DEFAULT_SECRET, SECRET[:31]])
def test_production_needs_a_secret(secret: str | None) -> None:
    """
    Production refuses a secret that is unset, the default, or shorter than 32 characters.
    """
    environment = {} if secret is None else {"WS_AUTH_SECRET": secret}
    with pytest.raises(SettingsError, match=r"^[^\n]*WS_AUTH_SECRET[^\n]*$") as refused:
        chosen("--production", DATABASE_URL=DATABASE, **environment)
    assert secret is None or secret == "" or secret not in str(refused.value)
    with pytest.raises(SettingsError, match="WS_AUTH_SECRET"):
        chosen("--production", DATABASE_URL=DATABASE, WS_AUTH_SECRETS=f"{SECRET} short")


@pytest.mark.parametrize("arguments", [[], ["--no-database"]])
def test_production_needs_a_database(arguments: list[str]) -> None:
    """
    Production does not start an embedded database, nor go without one.
    """
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        chosen("--production", *arguments, WS_AUTH_SECRET=SECRET)
    assert (
        chosen("--production", WS_AUTH_SECRET=SECRET, DB_NAME="dcm").database == "postgresql://dcm@localhost:5432/dcm"
    )


@pytest.mark.parametrize(("text", "count"), [("auto", 0), ("1", 1), ("64", 64)])
def test_workers(text: str, count: int) -> None:
    """
    --workers takes a number, or auto, which is kept as 0.
    """
    assert chosen("--workers", text).workers == count


@pytest.mark.parametrize("text", ["0", "65", "-1", "all", "2.5"])
def test_bad_workers(text: str) -> None:
    """
    No other text is a number of workers; 0 is not auto on a command line.
    """
    with pytest.raises(SettingsError, match="--workers must be"):
        chosen("--workers", text)


def test_text_of_auto() -> None:
    """
    What stands for auto is shown as auto.
    """
    kind = BY_NAME["workers"].kind
    assert [kind.written(value) for value in (0, 1, 4)] == ["auto", "1", "4"]
