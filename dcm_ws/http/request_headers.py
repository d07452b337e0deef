"""
Reads the headers of requests.
"""

from __future__ import annotations

from twisted.web.server import Request


class BadRequestError(Exception):
    """
    The client's request is invalid; the text says why.
    """


def header(request: Request, name: str) -> str:
    """
    A header of the request, with several of that name joined by commas; empty if there is none.

    @raise BadRequestError: it is not UTF-8.
    """
    try:
        return b", ".join(request.requestHeaders.getRawHeaders(name.encode(), [])).decode()
    except UnicodeDecodeError:
        raise BadRequestError(f"The header {name} is not UTF-8") from None


def bearer_token(authorization: str) -> str:
    """
    The token in an C{Authorization} header of the scheme Bearer (RFC 6750, section 2.1); empty if there is none.
    """
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def accepted_types(accept: str) -> dict[str, float]:
    """
    The media types in an C{Accept} header, in lower case, with their qualities (RFC 9110, section 12.5.1).  A quality
    that is not a number counts as 0.
    """
    types: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        types[name] = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key == "q":
                try:
                    types[name] = float(value)
                except ValueError:
                    types[name] = 0.0
    return types


def read_headers(head: bytes) -> dict[str, str]:
    """
    The headers of a request by lower-case name; several of one name are joined by commas.

    Autobahn also ends a line where Unicode does, for example at C{U+0085}.  If a proxy passes on such a byte, a client
    could send headers in the proxy's name.

    @param head: the request line and the header lines.
    """
    headers: dict[str, str] = {}
    for line in head.decode("iso-8859-1").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
