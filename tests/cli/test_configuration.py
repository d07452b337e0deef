"""
The TOML file, and what stands above it.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from dcm_ws.app.commandline import Options
from dcm_ws.app.options import BY_NAME
from dcm_ws.app.settings import Settings, SettingsError
from dcm_ws.cli.check_settings import shown_settings
from tests import forking


class Unjudged(Options):
    def postOptions(self) -> None:
        pass


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A working folder and an environment without settings.
    """
    from tests.cli.running import clean

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.environ", clean(tmp_path))


def sources(*arguments: str) -> Any:
    options = Unjudged()
    options.parseOptions(list(arguments))
    return options.sources()


def settings(*arguments: str) -> Settings:
    options = Unjudged()
    options.parseOptions(list(arguments))
    return options.read_settings()


def write(folder: Path, text: str, name: str = "dcm-ws.toml") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_every_kind_of_setting(tmp_path: Path) -> None:
    """
    A file may give numbers, strings, truths and lists.
    """
    write(
        tmp_path,
        """
        ws-port = 4000
        host = "::1"
        ack-timeout = 2.5
        enforce-expiry = true
        compression = true
        extra-event = ["pipeline.*", "build.done"]
        extra-channel = ["projects", "epic-sessions/*"]
        allowed-origin = "https://example.com"
        rate-limit = "50/s"
        log-format = "json"
        """,
    )
    read = settings()
    assert read.listen == ("tcp:4000:interface=\\:\\:1:backlog=4096",)
    assert (read.ack_timeout, read.enforce_expiry, read.compression) == (2.5, True, True)
    assert read.extra_events == ("pipeline.*", "build.done")
    assert read.extra_channels == ("projects", "epic-sessions/*")
    assert (read.allowed_origins, read.rate_limit, read.log_format) == (("https://example.com",), 50.0, "json")


@pytest.mark.parametrize("name,default,values", [("log-level", "info", ("debug", "warn", "error"))])
def test_precedence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, default: str, values: tuple[str, str, str]
) -> None:
    """
    An option overrides the environment, which overrides the file, which overrides the default; check shows the source.
    """
    file, variable, option = values
    assert (settings().log_level, sources().origins[name]) == (default, "default")
    path = write(tmp_path, f'{name} = "{file}"')
    assert (settings().log_level, sources().origins[name]) == (file, str(path))
    monkeypatch.setenv("LOG_LEVEL", variable)
    assert (settings().log_level, sources().origins[name]) == (variable, "environment")
    assert (settings(f"--{name}", option).log_level, sources(f"--{name}", option).origins[name]) == (option, "option")


@pytest.mark.parametrize(
    "name,file,given,attribute,want",
    [
        ("ack-timeout", "9", "5.0", "ack_timeout", 5.0),
        ("compression", "'on'", "off", "compression", False),
        ("log-format", "'json'", "text", "log_format", "text"),
        ("max-depth", "9", "100", "max_depth", 100),
    ],
)
def test_an_option_that_says_the_default_stands_above_the_file(
    tmp_path: Path, name: str, file: str, given: str, attribute: str, want: object
) -> None:
    """
    Who gives the default by hand wants it.
    """
    write(tmp_path, f"{name} = {file}")
    assert getattr(settings(), attribute) != want
    assert getattr(settings(f"--{name}", given), attribute) == want


@pytest.mark.parametrize(
    "file,variable,value,attribute,want",
    [
        ("database-url='postgresql://a/a'", "DB_HOST", "b", "database", "postgresql://dcm@b:5432/claude_context"),
        ("db-host='a'\ndb-name='n'", "DATABASE_URL", "postgresql://b/b", "database", "postgresql://b/b"),
        ("db-host='a'\ndb-name='n'", "DB_HOST", "b", "database", "postgresql://dcm@b:5432/n"),
        ("ws-auth-secrets='a,b'", "WS_AUTH_SECRET", "c", "secrets", ("c",)),
        ("ws-auth-secret-file='none'", "WS_AUTH_SECRET", "c", "secrets", ("c",)),
        ("ws-auth-secret='a'", "WS_AUTH_SECRETS", "b,c", "secrets", ("b", "c")),
        ("listen=['unix:a']", "WS_PORT", "4001", "listen", ("tcp:4001:interface=127.0.0.1:backlog=4096",)),
        ("production=true", "DCM_ENV", "development", "production", False),
    ],
)
def test_the_nearer_way_to_say_a_thing_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, variable: str, value: str, attribute: str, want: object
) -> None:
    """
    A database, a secret, a port or the mode given by the environment puts aside the file's, however that says it.
    """
    write(tmp_path, file)
    monkeypatch.setenv(variable, value)
    assert getattr(settings(), attribute) == want


@pytest.mark.parametrize(
    "variables,arguments,attribute,want",
    [
        ({"WS_AUTH_SECRETS": "a,b"}, ("--ws-auth-secret", "c"), "secrets", ("c",)),
        ({"WS_AUTH_SECRET_FILE": "none"}, ("--ws-auth-secret", "c"), "secrets", ("c",)),
        ({"WS_AUTH_SECRET_FILE": "none"}, ("--ws-auth-secrets", "c,d"), "secrets", ("c", "d")),
        ({"WS_AUTH_SECRET": "a"}, ("--ws-auth-secrets", "c,d"), "secrets", ("c", "d")),
        (
            {"DATABASE_URL": "postgresql://a/a"},
            ("--db-host", "b"),
            "database",
            "postgresql://dcm@b:5432/claude_context",
        ),
        ({"DB_NAME": "n"}, ("--db-host", "b"), "database", "postgresql://dcm@b:5432/n"),
        ({"DB_HOST": "a"}, ("--database-url", "postgresql://b/b"), "database", "postgresql://b/b"),
        (
            {"DB_HOST": "a", "DB_PASSWORD_FILE": "none"},
            ("--db-password", "p"),
            *("database", "postgresql://dcm:p@a:5432/claude_context"),
        ),
        ({"DATABASE_URL": "postgresql://a/a", "DB_HOST": "a"}, ("--no-database",), "database", None),
        ({"DATABASE_URL": "postgresql://a/a", "DB_HOST": "a"}, ("--no-database",), "embedded", False),
        ({"WS_PORT": "none"}, ("--listen", "unix:a"), "listen", ("unix:a",)),
    ],
)
def test_an_option_stands_above_every_variable(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    arguments: tuple[str, ...],
    attribute: str,
    want: object,
) -> None:
    """
    An option puts aside what the environment says of the same thing in another way, and that is said of nothing then.
    """
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert getattr(settings(*arguments), attribute) == want
    used = {name for name, origin in sources(*arguments).origins.items() if origin == "environment"}
    assert used - {"dcm-data-dir"} == (
        {"db-name"} if "DB_NAME" in variables else {"db-host"} if "--db-password" in arguments else set()
    )


URL = "postgresql://u:p4ss@h:5432/d"


@pytest.mark.parametrize(
    "variables,arguments,file,want",
    [
        ({"DATABASE_URL": URL, "DB_HOST": "H", "DB_PORT": "5432", "DB_NAME": "d", "DB_PASSWORD": "p4ss"}, (), "", []),
        (
            {"DATABASE_URL": URL, "DB_HOST": "other", "DB_NAME": "d", "DB_PASSWORD": "0ther"},
            (),
            "",
            ["DB_HOST=other and DB_PASSWORD are ignored: DATABASE_URL (host=h port=5432 dbname=d user=u) is used"],
        ),
        (
            {"DATABASE_URL": "postgresql://h/d", "DB_USER": "u"},
            (),
            "",
            ["DB_USER=u is ignored: DATABASE_URL (host=h dbname=d) is used"],
        ),
        ({"DATABASE_URL": URL, "DB_HOST": " "}, (), "", []),
        ({"DATABASE_URL": URL, "DB_PORT": "05432"}, (), "", []),
        (
            {"DATABASE_URL": URL, "DB_NAME": "D", "DB_PASSWORD": "P4SS"},
            (),
            "",
            ["DB_NAME=D and DB_PASSWORD are ignored: DATABASE_URL (host=h port=5432 dbname=d user=u) is used"],
        ),
        (
            {"DATABASE_URL": "postgresql://h", "DB_NAME": "claude_context", "DB_USER": "dcm"},
            (),
            "",
            ["DB_NAME=claude_context and DB_USER=dcm are ignored: DATABASE_URL (host=h) is used"],
        ),
        (
            {"DATABASE_URL": URL},
            ("--db-host", "b", "--db-password", "s3cr"),
            "",
            ["DATABASE_URL is ignored: --db-host and --db-password are used"],
        ),
        (
            {"DATABASE_URL": URL},
            ("--db-user", "x"),
            "",
            ["--db-user=x is ignored: DATABASE_URL (host=h port=5432 dbname=d user=u) is used"],
        ),
        ({"DATABASE_URL": URL}, ("--no-database",), "", ["DATABASE_URL is ignored: --no-database is used"]),
        ({"DB_PASSWORD": "s3cr"}, ("--no-database",), "", ["DB_PASSWORD is ignored: --no-database is used"]),
        (
            {"DB_USER": "x"},
            (),
            f"database-url = '{URL}'",
            ["DB_USER=x is ignored: database-url in FILE (host=h port=5432 dbname=d user=u) is used"],
        ),
        (
            {"DB_HOST": "x"},
            (),
            f"database-url = '{URL}'",
            ["database-url in FILE is ignored: DB_HOST is used"],
        ),
        (
            {"WS_AUTH_SECRET": "s3cr", "WS_AUTH_SECRETS": "s3cr,0ther", "WS_AUTH_SECRET_FILE": "f"},
            (),
            "",
            [
                "WS_AUTH_SECRETS is ignored: WS_AUTH_SECRET_FILE is used",
                "WS_AUTH_SECRET is ignored: WS_AUTH_SECRET_FILE is used",
            ],
        ),
        (
            {"DB_HOST": "h", "DB_PASSWORD": "s3cr", "DB_PASSWORD_FILE": "f"},
            (),
            "",
            ["DB_PASSWORD is ignored: DB_PASSWORD_FILE is used"],
        ),
        (
            {"WS_PORT": "4000", "HOST": "::"},
            ("--listen", "unix:a"),
            "",
            ["WS_PORT=4000 and HOST=:: are ignored: --listen is used"],
        ),
        ({}, (), "ws-port = 1\nlisten = 'unix:a'", ["ws-port in FILE=1 is ignored: listen in FILE is used"]),
        ({"WS_PORT": "4000"}, (), "listen = ['unix:a']", ["listen in FILE is ignored: WS_PORT is used"]),
        ({"WS_PORT": "4000"}, ("--ws-port", "4001"), "ws-port = 1", []),
        (
            {"NODE_ENV": "production", "DCM_ENV": "development"},
            (),
            "",
            ["NODE_ENV=production is ignored: DCM_ENV=development is used"],
        ),
        (
            {"DCM_ENV": "development"},
            ("--production",),
            "",
            ["DCM_ENV=development is ignored: --production is used"],
        ),
        ({"NODE_ENV": "test", "DCM_ENV": "development"}, (), "", []),
    ],
)
def test_what_is_ignored_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    arguments: tuple[str, ...],
    file: str,
    want: list[str],
) -> None:
    """
    One sentence for each setting that does not count since the same was given in another way; no secret is in it.
    """
    path = str(write(tmp_path, file))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert [sentence.replace(path, "FILE") for sentence in sources(*arguments).ignored] == want


def test_no_database_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    no-database in the file puts aside nothing that is nearer, and is put aside by it; --no-database does all.
    """
    path = write(tmp_path, "no-database = true")
    assert (settings().embedded, sources().origins["no-database"]) == (False, str(path))
    monkeypatch.setenv("DATABASE_URL", "postgresql://b/b")
    assert (settings().database, sources().origins["no-database"]) == ("postgresql://b/b", "default")
    write(tmp_path, "database-url = 'postgresql://a/a'")
    assert (settings("--no-database").database, settings("--no-database").embedded) == (None, False)


def test_check_shows_every_setting() -> None:
    """
    C{dcm-ws check} shows what was given, and then the defaults, as they would be written.
    """
    given = ("--ws-port", "0", "--extra-event", "a.b", "--extra-event", "c.d", "--rate-limit", "60/m", "--db-host", "h")
    shown = {one.name: (one.value, one.origin) for one in shown_settings(sources(*given), settings(*given))}
    assert shown["ws-port"] == ("0", "option") and shown["extra-event"] == ("a.b, c.d", "option")
    assert shown["rate-limit"] == ("60/m", "option") and shown["db-host"] == ("h", "option")
    assert shown["ws-auth-secret"] == ("***", "default") and shown["stranger-rate"] == ("10/s", "default")
    assert shown["compression"] == ("off", "default") and shown["mirror"] == ("all", "default")
    assert shown["dcm-env"] == ("development", "default") and shown["production"] == ("off", "default")
    assert "listen" not in shown and "db-port" not in shown and "database-url" not in shown
    plain = {row.name for row in BY_NAME.values() if row.default not in (None, ()) and not row.otherwise}
    assert plain - shown.keys() == {"db-port", "db-name", "db-user"}


def test_folders_that_cannot_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A config folder that the system does not let us look into, and a working folder that is gone, have no file.
    """
    # not by its rights, which are nothing to root
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ("x" * 300)))
    assert sources().file is None
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert sources().file is None
    with pytest.raises(SettingsError, match="working folder that is gone"):
        sources("--config", "my.toml")


@pytest.mark.parametrize("name", ["config", "ws-auth-secret-file", "dcm-data-dir"])
def test_the_home_of_nobody(tmp_path: Path, name: str) -> None:
    """
    A path in the home folder of an account that there is not is one line.
    """
    with pytest.raises(SettingsError, match="the home folder of '~no-such-account/x' does not exist"):
        settings(f"--{name}", "~no-such-account/x")
    write(tmp_path, "ws-auth-secret-file = '~no-such-account/x'")
    with pytest.raises(SettingsError, match=r"dcm-ws.toml: ws-auth-secret-file: the home folder of"):
        settings()


def test_production_in_the_file(tmp_path: Path) -> None:
    """
    production = true takes effect, with all its requirements.
    """
    write(tmp_path, "production = true")
    with pytest.raises(SettingsError, match="WS_AUTH_SECRET of 32"):
        settings()


def test_where_it_is_looked_for(tmp_path: Path) -> None:
    """
    --config names the file; else it is the one in the working folder, else the one in the user's config folder.
    """
    user = write(tmp_path, "ws-port = 1", "config/dcm-ws/dcm-ws.toml")
    assert sources().file == user
    here = write(tmp_path, "ws-port = 2")
    assert sources().file == here
    other = write(tmp_path, "ws-port = 3", "other.toml")
    assert sources("--config", "other.toml").file == other
    with pytest.raises(SettingsError, match=r"cannot read .*none.toml.*No such file"):
        sources("--config", "none.toml")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """
    A file of secrets beside the TOML file is found from wherever the service is started.
    """
    write(tmp_path, "from-the-file", "etc/secret")
    write(tmp_path, 'ws-auth-secret-file = "secret"', "etc/my.toml")
    assert settings("--config", "etc/my.toml").secrets == ("from-the-file",)


@pytest.mark.parametrize(
    "text,words",
    [
        ("ws_port = 1", "no setting 'ws_port'; did you mean 'ws-port'"),
        ("max-conections = 1", "did you mean 'max-connections'"),
        ("Secret = 'x'", "no setting 'Secret'"),
        ("[server]\nport = 1", "at the top of the file, without [server]"),
        ("config = 'x'", "no setting 'config'"),
        ("ws-port = [1]", "ws-port must be a string or a number"),
        ("ws-port = true", "ws-port must be a string or a number"),
        ("enforce-expiry = 'yes'", "enforce-expiry must be true or false, not 'yes'"),
        ("listen = 1", "listen must be a list of strings"),
        ("listen = ['a', 1]", "listen must be a list of strings"),
        ("production = true\ndcm-env = 'development'", "contradict"),
        ("ws-port = ", "is not TOML"),
        ("ws-port = 'x'", "--ws-port (WS_PORT) must be a whole number, not 'x'"),
    ],
)
def test_what_is_no_good_is_said(tmp_path: Path, text: str, words: str) -> None:
    """
    A key that there is not, and a value of the wrong kind, are errors that name it.
    """
    write(tmp_path, text)
    with pytest.raises(SettingsError, match=re.escape(words)):
        settings()


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    """
    An error about a secret does not tell it.
    """
    write(tmp_path, "ws-auth-secret = ['hidden']")
    with pytest.raises(SettingsError) as error:
        settings()
    assert "hidden" not in str(error.value)


def test_not_utf8_and_too_large(tmp_path: Path) -> None:
    """
    A file that is no text, or no settings by its size, is refused.
    """
    (tmp_path / "dcm-ws.toml").write_bytes(b"host = '\xff'")
    with pytest.raises(SettingsError, match="is not UTF-8"):
        settings()
    (tmp_path / "dcm-ws.toml").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(SettingsError, match="larger than"):
        settings()


def test_an_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It gives what the environment does not set, before the TOML file, in the syntax that dotenv files have.
    """
    env = write(
        tmp_path,
        "\ufeff# the service\nexport WS_PORT=4001\nHOST='0.0.0.0' # all\nWS_AUTH_SECRET=\"a # $HOME b\"\nLOG_LEVEL=\n"
        "DB_HOST=db.example\nDB_PASSWORD=p$w${x}\nDB_NAME=n\nPGOPTIONS=-c x=y\nOTHER\nNODE_ENV=development\n",
        ".env",
    )
    write(tmp_path, 'ws-port = 4002\nlog-level = "warn"\n')
    monkeypatch.setenv("HOST", "::1")
    found = sources("--env-file", ".env")
    assert found.given["ws-port"] == "4001" and found.given["host"] == "::1"
    assert found.given["ws-auth-secret"] == "a # $HOME b" and found.given["db-password"] == "p$w${x}"
    assert found.given["log-level"] == "warn" and found.given.keys() <= BY_NAME.keys()
    assert found.origins["ws-port"] == str(env) and found.origins["host"] == "environment"
    assert settings("--env-file", str(env), "--ws-port", "4003").listen[0].startswith("tcp:4003:")
    assert (settings("--env-file", str(env)).database or "").startswith("postgresql://")


def test_alternatives_in_an_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It is nearer than the TOML file and farther than the environment, for what can be given in several ways, too.
    """
    write(tmp_path, "DATABASE_URL=postgresql://env-file/x\nNODE_ENV=production\n", ".env")
    write(tmp_path, "no-database = true\n")
    assert sources("--env-file", ".env").given["database-url"] == "postgresql://env-file/x"
    assert sources("--env-file", ".env").origins["dcm-env"] == str(tmp_path / ".env")
    monkeypatch.setenv("DB_HOST", "near")
    found = sources("--env-file", ".env")
    assert "database-url" not in found.given and found.given["db-host"] == "near"


@pytest.mark.parametrize(
    "text,said", [(None, "cannot read"), ("A=1\nwhat is this\n", "line 2 is not"), ("\xff", "UTF-8")]
)
def test_an_env_file_that_cannot_be_read(tmp_path: Path, text: str | None, said: str) -> None:
    """
    It is an error that names the file, and shows nothing of what is in it.
    """
    if text is not None:
        (tmp_path / ".env").write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match=said) as raised:
        settings("--env-file", ".env")
    assert "what is this" not in str(raised.value) and ".env" in str(raised.value)
    with pytest.raises(SettingsError, match="no setting 'env-file'"):
        write(tmp_path, "env-file = '.env'")
        settings()


def test_files_that_others_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A file with a secret that others may read is warned of, in one line each, and no other file is.
    """
    secret, env = write(tmp_path, "s" * 32, "secret"), write(tmp_path, "DB_PASSWORD=x\nDB_HOST=h\n", ".env")
    toml = write(tmp_path, "ws-auth-secret-file = 'secret'\n")
    for file, mode, warned in ((secret, 0o640, True), (env, 0o604, True), (toml, 0o644, False)):
        file.chmod(mode)
        said = [line for line in sources("--env-file", ".env").warnings if line.startswith(str(file))]
        assert len(said) == warned, said
        file.chmod(0o600)
    assert sources("--env-file", ".env").warnings == ()
    toml.write_text("database-url = 'postgresql://u:p@h/d'\n")
    toml.chmod(0o644)
    assert len(sources().warnings) == 1 and "chmod 600" in sources().warnings[0]


@pytest.mark.parametrize("owner,mode,said", [(12345, 0o644, "12345"), (0, 0o646, "everybody"), (0, 0o664, "group")])
@pytest.mark.parametrize("folder", ["", "config/dcm-ws/"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else(tmp_path: Path, owner: int, mode: int, said: str, folder: str) -> None:
    """
    A file that others may have written is not used because it is found; one that is given is, with a warning.
    """
    file = write(tmp_path, "ws-port = 4004\n", f"{folder}dcm-ws.toml")
    os.chown(file, owner, 12345)
    file.chmod(mode)
    with pytest.raises(SettingsError, match=said) as raised:
        settings()
    assert str(file) in str(raised.value) and "--config" in str(raised.value)
    found = sources("--config", str(file))
    assert found.given["ws-port"] == "4004" and said in found.warnings[0]


HOMELESS = """
import contextlib, io, os, sys
from dcm_ws.cli.main import main

def run(*arguments):
    try:
        main(list(arguments), standalone_mode=True)
    except SystemExit as end:
        return end.code

with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    for command in ("check --no-database --ws-port 0", "token a", "init-db --apply -d host=/x"):
        run(*command.split())
    import dcm_ws.app.twistd, dcm_ws.postgres.embedded, platformdirs.unix
os.chdir("/")
os.setgroups([]); os.setgid(12345); os.setuid(12345)
os.environ.clear()
sys.exit(run(*sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "arguments,status,said",
    [
        (("check", "--no-database", "--ws-port", "0"), 0, "development"),
        (("token", "a"), 0, ""),
        (("check", "--ws-port", "0"), 1, "set DCM_DATA_DIR or DATABASE_URL"),
        (("init-db", "--apply"), 1, "set DCM_DATA_DIR or DATABASE_URL"),
        (("check", "--config", "~/x.toml"), 1, "home folder of '~/x.toml'"),
        (("check", "--env-file", "~/x"), 1, "home folder of '~/x'"),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an account that does not exist")
def test_an_account_without_a_home(tmp_path: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    """
    Without HOME and without an entry for the account, what is optional is left out, and what is not has an error.
    """
    done = forking.run([sys.executable, "-c", HOMELESS, *arguments], input="", timeout=60, cwd=tmp_path)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == status and said in done.stdout + done.stderr, done
