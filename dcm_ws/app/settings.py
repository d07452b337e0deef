"""
L{Settings}: what the operator may choose, checked once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dcm_ws.app.options import BY_FIELD, BY_NAME, SECRET_MIN, Fields
from dcm_ws.app.rows import Row
from dcm_ws.postgres import dsn

DEFAULT_SECRET: str = BY_FIELD["secret"].default


class SettingsError(ValueError):
    """
    A setting is invalid; the text names it, in one line.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Fields):
    """
    All settings of the service.  All times are in seconds, all sizes in bytes.

    The fields are in L{Fields<dcm_ws.app.options.Fields>}, and in a table of docs/embedding.md.

    @raise SettingsError: a value is invalid.
    """

    def __post_init__(self) -> None:
        for name, row in BY_FIELD.items():
            value = getattr(self, name)
            # None means the default of the mode
            if value is not None:
                _check(row, value)
        if not self.listen:
            raise SettingsError("there is nothing to listen on")
        if not self.secret:
            raise SettingsError(f"{BY_FIELD['secret'].label} is empty")
        if self.database is not None:
            check_database(self.database)
        if self.nats_creds is not None and self.nats_nkey is not None:
            raise SettingsError("--nats-creds and --nats-nkey exclude each other")
        if self.nats and not self.cluster:
            raise SettingsError("--nats is for the nodes of a cluster: set --cluster, too")
        if self.cluster and (self.log == "memory" or not (self.embedded or self.database is not None)):
            raise SettingsError("--cluster needs the durable log: name a database, and leave out --log memory")
        if self.production:
            self._check_production()

    @property
    def secrets(self) -> tuple[str, ...]:
        """
        All secrets whose tokens are accepted; new tokens are signed with the first.
        """
        return (self.secret, *self.more_secrets)

    def _check_production(self) -> None:
        if self.testee:
            raise SettingsError("--testee has no authentication, and is refused in production")
        if any(is_weak(secret) for secret in self.secrets):
            raise SettingsError(
                f"production needs a WS_AUTH_SECRET of {SECRET_MIN} characters or more,"
                " and not the default one: try `openssl rand -hex 32`"
            )
        if self.database is None:
            raise SettingsError(
                "production needs a database: set DATABASE_URL to postgresql://user:password@host:port/name"
            )


def is_weak(secret: str) -> bool:
    """
    Return whether production refuses a secret.
    """
    return secret == DEFAULT_SECRET or len(secret) < SECRET_MIN


def short_secrets(settings: Settings) -> tuple[str, ...]:
    """
    Return a sentence if a secret is too short for HS256, which needs 32 bytes (RFC 7518, section 3.2).  The default one
    is known to be for development only.
    """
    short = sum(len(secret) < SECRET_MIN and secret != DEFAULT_SECRET for secret in settings.secrets)
    if not short:
        return ()
    return (
        f"{short} of {len(settings.secrets)} secrets (WS_AUTH_SECRET) have fewer than {SECRET_MIN} characters:"
        " tokens can be forged by trying; production refuses them; make one with `openssl rand -hex 32`",
    )


def read(row: Row, text: str) -> Any:
    """
    The value that a text means for a setting.

    @raise SettingsError: there is no such value, or it is out of bounds.
    """
    try:
        value = row.kind.read(text)
        row.kind.check(value)
        return value
    except ValueError as error:
        raise SettingsError(f"{row.label} {error}") from None


def check_database(url: str) -> None:
    """
    Check whether a connection string can lead to a database, before psycopg2 does, whose errors may show pieces of a
    password.

    @raise SettingsError: it never can.
    """
    try:
        dsn.check(url)
    except dsn.DSNError as error:
        raise SettingsError(f"{BY_NAME['database-url'].label}: {error}") from None


def _check(row: Row, value: Any) -> None:
    try:
        row.kind.check(value)
    except ValueError as error:
        # what checks a list says it in a sentence of its own
        raise SettingsError(f"{row.label}{':' if row.repeatable else ''} {error}") from None
