"""
The files for browsers: the live page, the dashboard and the JavaScript client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files

from twisted.web.resource import IResource
from twisted.web.server import Request

from dcm_ws.http.bundles import bundle
from dcm_ws.http.request_headers import header
from dcm_ws.http.resources import Page, redirect

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""
What the pages may load, and that no page may put them into a frame (Content Security Policy, level 3).
"""

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "ts": "text/plain; charset=utf-8",
}
_WITH_MODULES = ("live", "dashboard")
"""
The pages whose scripts are made of modules.
"""


class StaticFile(Page):
    """
    A file for browsers, which stays the same as long as the service runs.
    """

    def __init__(self, wall_ms: Callable[[], int], content: bytes, content_type: str) -> None:
        super().__init__(wall_ms)
        self._content = content
        self._type = content_type
        self._etag = f'"{sha256(content).hexdigest()[:32]}"'

    def getChild(self, path: bytes, request: Request) -> IResource:
        if path == b"" and not request.postpath and self._type.startswith("text/html"):
            return _WithoutSlash(self.wall_ms)
        return super().getChild(path, request)

    def get(self, request: Request) -> bytes:
        request.setHeader("Content-Type", self._type)
        request.setHeader("Content-Security-Policy", POLICY)
        request.setHeader("X-Content-Type-Options", "nosniff")
        request.setHeader("Referrer-Policy", "no-referrer")
        # browsers ask each time, and get 304 if it is unchanged: no page runs with a script of another version
        request.setHeader("Cache-Control", "no-cache")
        # the client, its types and the description of the calls may be read by pages of any origin
        if self._type.startswith(("text/", "application/")) and not self._type.startswith("text/html"):
            request.setHeader("Access-Control-Allow-Origin", "*")
        if self._is_known(header(request, "If-None-Match")):
            request.setResponseCode(HTTPStatus.NOT_MODIFIED.value)
            request.setHeader("ETag", self._etag)
            return b""
        request.setHeader("ETag", self._etag)
        return self._content

    def _is_known(self, tags: str) -> bool:
        """
        True if the client has this version already.  Tags are compared weakly, since a proxy that compresses the file
        changes its tag (RFC 9110, section 13.1.2).
        """
        known = (tag.strip().removeprefix("W/") for tag in tags.split(","))
        return any(tag in ("*", self._etag) for tag in known)


class _WithoutSlash(Page):
    """
    Redirects C{/live/} to C{/live}.
    """

    def render(self, request: Request) -> bytes:
        page = request.path.rstrip(b"/").rpartition(b"/")[2]
        return redirect(request, f"../{page.decode('ascii')}")


def pages(wall_ms: Callable[[], int]) -> Iterator[tuple[bytes, StaticFile]]:
    """
    Each file with its path, which is without C{.html} for pages.
    """
    web = files("dcm_ws") / "web"
    # a page before the files in its folder
    for folder, place in (("", web), ("docs/", web / "docs")):
        for file in place.iterdir():
            ending = file.name.rpartition(".")[2]
            if ending in _TYPES:
                path = folder + file.name.removesuffix(".html")
                yield path.encode(), StaticFile(wall_ms, file.read_bytes(), _TYPES[ending])
    for page in _WITH_MODULES:
        script = bundle(f"modules/{page}.js", lambda path: (web / path).read_text("utf-8"))
        yield f"{page}.js".encode(), StaticFile(wall_ms, script.encode(), _TYPES["js"])
