"""
Connection strings of PostgreSQL: made of parts, compared with them, and checked before anything connects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from urllib.parse import quote, unquote

import psycopg2
from psycopg2.extensions import parse_dsn

DEFAULTS = {"host": "localhost", "port": "5432", "dbname": "claude_context", "user": "dcm"}
"""
What an installation of DCM uses for each part that nobody has given, by libpq's names.
"""

_SCHEMES = ("postgresql://", "postgres://")
_USE = "use postgresql://user:password@host:port/name"
# of a parameter or a value that another driver has: what to write for libpq
_HINTS = {
    "schema": "remove it, or to use another schema write options=-csearch_path%3DNAME",
    "no-verify": "use sslmode=require, which does not verify the certificate either",
}
_WHOLE_NUMBERS = (
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    "tcp_user_timeout",
)
# a folder that no socket can be in: libpq checks all parameters and reaches nobody
_NOWHERE = "/dev/null"


class DSNError(ValueError):
    """
    A connection string can never lead to a database; the text says why, in one line, and shows no password.
    """


def made_of(parts: Mapping[str, str]) -> str:
    """
    A URL.

    @param parts: by libpq's names; the L{DEFAULTS} for what is missing or empty.
    @raise DSNError: the host cannot be one.
    """
    given = DEFAULTS | {name: part for name, part in parts.items() if part}
    user, password = quote(given["user"], safe=""), quote(given.get("password", ""), safe="")
    login = f"{user}:{password}" if password else user
    where = ",".join(map(_host, given["host"].split(",")))
    return f"postgresql://{login}@{where}:{given['port']}/{quote(given['dbname'], safe='')}"


def _host(host: str) -> str:
    """
    A host as part of a URL.
    """
    address = host.strip("[]")
    if ":" not in address or address.startswith(("/", "@")):
        return quote(host, safe="")
    if not _is_ip_address(address):
        raise DSNError("it is not the name or the address of a host; a port goes into DB_PORT")
    return f"[{quote(address, safe=':')}]"


def differing(url: str, parts: Mapping[str, str]) -> list[str]:
    """
    The names of those parts that are not what the connection string says.
    """
    try:
        said = {"host": DEFAULTS["host"], "port": DEFAULTS["port"]} | parse_dsn(url)
    except psycopg2.ProgrammingError:
        return list(parts)
    alike: dict[str, Callable[[str], str]] = {
        "host": lambda host: host.lower().strip("[]"),
        "port": lambda port: port.lstrip("0"),
    }
    return [
        name for name, part in parts.items() if alike.get(name, str)(said.get(name, "")) != alike.get(name, str)(part)
    ]


def shown(url: str) -> str:
    """
    Where a connection string leads, without any secret.
    """
    try:
        parts = parse_dsn(url)
    except psycopg2.ProgrammingError:
        return "***"
    return " ".join(f"{name}={parts[name]}" for name in ("host", "port", "dbname", "user") if name in parts)


def check(url: str) -> None:
    """
    Check everything about a connection string that no change of the database or of the network can make right.

    @raise DSNError: it is invalid.
    """
    is_url = url.startswith(_SCHEMES)
    authority, _, rest = url.partition("://")[2].partition("/")
    path, _, query = rest.partition("?")
    # libpq would take a part of the password for the host or the name of the database
    torn = is_url and (authority.count("@") > 1 or ("@" not in authority and "@" in path))
    try:
        parts = parse_dsn(url)
    except psycopg2.ProgrammingError:
        if is_url and not torn and ("@" in authority or "@" not in query):
            unknown = [_unknown_text(name, value) for name, value in _unknown(query)]
            if unknown:
                raise DSNError("; ".join(unknown)) from None
        # the error's own text may show the password
        raise DSNError(f"it is not a PostgreSQL URL: {_USE}") from None
    # a port that is not a number may be a piece of a password that should have been quoted
    if not all(_is_port(port) for port in parts.get("port", "").split(",")):
        raise DSNError(f"it is not a PostgreSQL URL: {_USE}")
    if torn:
        raise DSNError("write @ as %40 and / as %2F in the user and the password")
    _check_counts(parts)
    for name in _WHOLE_NUMBERS:
        if name in parts and not re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", parts[name]):
            raise DSNError(f"{name} must be a whole number, not {parts[name]!r}")
    _check_values(parts)


def _unknown(query: str) -> Iterator[tuple[str, str]]:
    """
    The parameters of a URL that libpq does not have.
    """
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        name = unquote(name)
        if name == "ssl":
            if value != "true":
                yield name, value
            continue
        try:
            parse_dsn(f"{name}=1" if re.fullmatch(r"\w+", name) else "=")
        except psycopg2.ProgrammingError:
            yield name, value


def _unknown_text(name: str, value: str) -> str:
    hint = _HINTS.get(name, f"remove {name}={value} from the URL" if value else f"remove {name} from the URL")
    return f"there is no parameter {name!r} in PostgreSQL's connection strings: {hint}"


def _is_port(text: str) -> bool:
    return not text.strip() or (re.fullmatch(r"\s*[0-9]{1,5}\s*", text) is not None and 1 <= int(text) <= 65_535)


def _check_counts(parts: Mapping[str, str]) -> None:
    """
    @raise DSNError: there are not as many addresses, ports and hosts, or one of the addresses is invalid.
    """
    addresses, hosts, ports = (parts[name].split(",") if name in parts else [] for name in ("hostaddr", "host", "port"))
    for address in filter(None, addresses):
        if not _is_ip_address(address.strip()):
            raise DSNError(f"hostaddr {address!r} is not an IP address")
    if addresses and hosts and len(addresses) != len(hosts):
        raise DSNError(f"{len(hosts)} hosts do not match {len(addresses)} addresses in hostaddr")
    places = addresses or hosts
    if places and len(ports) > 1 and len(ports) != len(places):
        raise DSNError(f"{len(ports)} ports do not match {len(places)} hosts")


def _is_ip_address(text: str) -> bool:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def _check_values(parts: Mapping[str, str]) -> None:
    """
    Have libpq check the values, and those of its environment, without a connection to anybody.

    @raise DSNError: a value is invalid.
    """
    nowhere = {**parts, "host": _NOWHERE, "hostaddr": "", "port": "5432"}
    try:
        psycopg2.connect(**nowhere, async_=True).close()
    except psycopg2.Error as error:
        text = str(error).strip().partition("\n")[0]
        if f"{_NOWHERE}/" in text:
            return
        hint = next((f": {hint}" for value, hint in _HINTS.items() if f'"{value}"' in text), "")
        found = re.match(r'(?:invalid|definition of) "?(\w+)"? ', text)
        origin = "" if found is None or found[1] in parts else f" (PG{found[1].upper().replace('_', '')} is set)"
        raise DSNError(f"{text}{origin}{hint}") from None
