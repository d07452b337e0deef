"""
Connection strings of PostgreSQL: made from parts, compared with parts, and checked before anything connects.
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
The values that an installation of DCM uses for parts that are not set, by libpq's names.
"""

_SCHEMES = ("postgresql://", "postgres://")
_USE = "use postgresql://user:password@host:port/name"
# for parameters and values of other drivers: what to write for libpq
_HINTS = {
    "schema": "remove it, or to use another schema write options=-csearch_path%3DNAME",
    "no-verify": "use sslmode=require, which does not verify the certificate either",
}
_WHOLE_NUMBERS = (
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    "tcp_user_timeout",
)
# no socket can be in this "folder": libpq checks all parameters and connects to nothing
_NOWHERE = "/dev/null"


class DSNError(ValueError):
    """
    A connection string is invalid; the text says why, in one line, and shows no password.
    """


def made_of(parts: Mapping[str, str]) -> str:
    """
    Returns a URL made from parts.

    @param parts: by libpq's names; the L{DEFAULTS} replace missing and empty ones.
    @raise DSNError: the host is invalid.
    """
    given = DEFAULTS | {name: part for name, part in parts.items() if part}
    user, password = quote(given["user"], safe=""), quote(given.get("password", ""), safe="")
    login = f"{user}:{password}" if password else user
    where = ",".join(map(_host, given["host"].split(",")))
    return f"postgresql://{login}@{where}:{given['port']}/{quote(given['dbname'], safe='')}"


def _host(host: str) -> str:
    """
    Returns a host as it is written in a URL.
    """
    address = host.strip("[]")
    if ":" not in address or address.startswith(("/", "@")):
        return quote(host, safe="")
    if not _is_ip_address(address):
        raise DSNError("it is not the name or the address of a host; set the port with DB_PORT")
    return f"[{quote(address, safe=':')}]"


def differing(url: str, parts: Mapping[str, str]) -> list[str]:
    """
    Returns the names of the parts that differ from the connection string.
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
    Returns the parts of a connection string that are not secret.
    """
    try:
        parts = parse_dsn(url)
    except psycopg2.ProgrammingError:
        return "***"
    return " ".join(f"{name}={parts[name]}" for name in ("host", "port", "dbname", "user") if name in parts)


def check(url: str) -> None:
    """
    Reject a connection string that is invalid whatever the state of the database and of the network.

    @raise DSNError: it is invalid.
    """
    is_url = url.startswith(_SCHEMES)
    authority, _, rest = url.partition("://")[2].partition("/")
    path, _, query = rest.partition("?")
    # libpq would read a part of the password as the host or as the name of the database
    torn = is_url and (authority.count("@") > 1 or ("@" not in authority and "@" in path))
    try:
        parts = parse_dsn(url)
    except psycopg2.ProgrammingError:
        if is_url and not torn and ("@" in authority or "@" not in query):
            unknown = [_unknown_text(name, value) for name, value in _unknown(query)]
            if unknown:
                raise DSNError("; ".join(unknown)) from None
        # the text of the error may show the password
        raise DSNError(f"it is not a PostgreSQL URL: {_USE}") from None
    # a port that is not a number may be a part of a password that was not quoted
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
    Yields the parameters of a URL that libpq does not know, with their values.
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
    Check that there are as many hosts, addresses and ports, and that the addresses are valid.

    @raise DSNError: they are not.
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
    Have libpq check the values, and those of its environment variables, without connecting to anything.

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
