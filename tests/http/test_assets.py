"""
The files that browsers get.
"""

from __future__ import annotations

import re
from urllib.parse import urljoin

import pytest

from dcm_ws.http.assets import pages
from tests.http.service import Service


@pytest.mark.parametrize(
    ("path", "content_type", "holds"),
    [
        ("/live", "text/html; charset=utf-8", b"<title>dcm-ws live</title>"),
        ("/dashboard", "text/html; charset=utf-8", b"<title>dcm-ws dashboard</title>"),
        ("/live.js", "text/javascript; charset=utf-8", b"new Stream()"),
        ("/live.css", "text/css; charset=utf-8", b":root"),
        ("/dcm-ws.js", "text/javascript; charset=utf-8", b"export class DCMClient"),
        ("/dcm-ws.d.ts", "text/plain; charset=utf-8", b"export class DCMClient"),
        ("/icon.svg", "image/svg+xml", b"<svg"),
    ],
)
def test_files(service: Service, path: str, content_type: str, holds: bytes) -> None:
    """
    Browsers get the pages and the client, may load nothing from other sites, and revalidate each time.
    """
    status, headers, body = service.get(path)
    assert (status, headers["Content-Type"]) == (200, content_type)
    assert holds in body
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-cache"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy
    assert service.get(path, "HEAD")[2] == b""
    for tag in (headers["ETag"], f"W/{headers['ETag']}", f'"other",{headers["ETag"]}', "*"):
        assert service.get(path, **{"If-None-Match": tag})[::2] == (304, b"")
    assert service.get(path, **{"If-None-Match": '"other"'})[0] == 200
    # scripts may be imported from elsewhere, and pages not be read
    shared = headers["Content-Type"].startswith(("text/javascript", "text/plain", "text/css"))
    assert headers.get("Access-Control-Allow-Origin") == ("*" if shared else None)
    assert service.get(path, "POST")[0] == 405
    assert service.get(f"{path}/more")[0] == 404


@pytest.mark.parametrize("page", ["/live", "/dashboard"])
def test_few_files(service: Service, page: str) -> None:
    """
    A page consists of a few files, also where a proxy opens a connection for each at once: its scripts import nothing.
    """
    places = re.findall(r'(?:href|src)="([^"#]+\.\w+)"', service.get(page)[2].decode())
    assert f"{page[1:]}.js" in places
    assert len(set(places)) <= 4
    for place in places:
        status, _, content = service.get(f"/{place}")
        assert status == 200
        assert re.search(rb"^(import|export)\b", content, re.MULTILINE) is None


@pytest.mark.parametrize("path", ["/live", "/dashboard"])
def test_slash_at_the_end(service: Service, path: str) -> None:
    """
    A path of a page with a slash at the end is redirected to the page.
    """
    status, headers, _ = service.get(f"{path}/")
    assert (status, urljoin(f"http://x/dcm{path}/", headers["Location"])) == (302, f"http://x/dcm{path}")
    assert service.get(f"{path}//")[0] == 404


def test_pages_below_a_path(service: Service) -> None:
    """
    Every link of the pages and their scripts is relative: they work at the root, and below any path of a proxy.
    """
    kinds = (b"live", b"dashboard", b".js", b".css")
    # what is below docs is Swagger UI, which is not ours
    files = [path for path, _ in pages(service.core.world.wall_ms) if path.endswith(kinds) and b"/" not in path]
    assert {b"live", b"dashboard", b"live.js", b"dashboard.js", b"live.css"} <= set(files)
    for path in files:
        text = re.sub(r"/\*.*?\*/", "", service.get(f"/{path.decode()}")[2].decode(), flags=re.DOTALL)
        links = re.findall(r"""(?:src|href|action)=["']([^"']*)|url\(["']?([^"')]*)""", text)
        links += re.findall(r"""(?:(?:from|import) |(?:ask|fetch|DCMClient)\()["']([^"']*)()["']""", text)
        for link in map("".join, links):
            if not link.startswith(("#", "data:")) and path != b"dcm-ws-react.js":
                below = urljoin("http://x/dcm/live", link)
                assert below.startswith("http://x/dcm/"), (path, link)
                assert below == "http://x/dcm/ws" or service.get(below.removeprefix("http://x/dcm"))[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/live.html",
        "/modules",
        "/modules/chart.js",
        "/chart.js",
        "/package.json",
        "/..%2fsetup.cfg",
        "/web",
        "/dcm_ws.py",
    ],
)
def test_no_other_files(service: Service, path: str) -> None:
    """
    Other files of the package are not served.
    """
    assert service.get(path)[0] == 404
