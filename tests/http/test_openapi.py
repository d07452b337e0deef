"""
C{/openapi.json}: valid, and of the calls that there are.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from twisted.internet.testing import MemoryReactorClock

from dcm_ws.app.build import make_service
from dcm_ws.app.settings import Settings
from dcm_ws.http.api import ApiPage
from dcm_ws.http.api_calls import CALLS
from dcm_ws.http.api_schemas import schemas
from dcm_ws.http.openapi import document
from tests.http.service import Service


def test_document_is_valid() -> None:
    """
    The document is valid OpenAPI 3.1, and refers to nothing that is not there.
    """
    made = json.loads(json.dumps(document(CALLS, "1.2.3")))
    validate(made, cls=OpenAPIV31SpecValidator)
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(made)))
    assert referred == set(schemas())
    assert len({call.name for call in CALLS}) == len(CALLS)
    assert [call.tag for call in CALLS if call.tag not in {tag["name"] for tag in made["tags"]}] == []


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("Channel", "topics/a b/ü", True),
        ("Channel", "topics/", False),
        ("Channel", "epic-sessions/7", True),
        ("Channel", "epic-sessions/", False),
        ("Channel", "projects", True),
        ("Channel", "project.", False),
        ("Publishable", "task.created", True),
        ("Publishable", "task-created", False),
        ("Publishable", "pipeline.done", True),
        ("Publishable", "pipeline.", False),
    ],
)
def test_names_of_the_operator(name: str, value: str, fits: bool) -> None:
    """
    The document knows the channels and the events that the operator adds.
    """
    made = schemas(["projects", "epic-sessions/*"], ["pipeline.*"])
    assert bool(re.search(made[name]["pattern"], value)) is fits


def resources() -> dict[bytes, Any]:
    """
    All pages of a service, by path.
    """
    reactor: Any = MemoryReactorClock()
    service = make_service(Settings(), reactor)
    root = service._port._web.resource  # type: ignore[attr-defined]

    def below(page: Any, path: bytes) -> dict[bytes, Any]:
        found = {path: page}
        for name, child in page.children.items():
            found |= below(child, path + b"/" + name)
        return found

    return below(root, b"")


def test_every_call_is_described() -> None:
    """
    Each call of the service is in the document with all of its methods, and each call in the document is one of the
    service.
    """
    pages = {path.decode(): page for path, page in resources().items() if isinstance(page, ApiPage)}
    described: dict[str, set[str]] = {}
    for call in CALLS:
        if call.path.startswith("/v1/"):
            place = max((path for path in pages if (call.path + "/").startswith(path + "/")), key=len)
            described.setdefault(place, set()).add(call.method.upper())
    assert set(described) == set(pages)
    for path, methods in described.items():
        # HEAD is a GET without the body
        assert methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set()) == set(pages[path].allowed)


def test_documents_are_served() -> None:
    """
    The service serves the document to pages of any origin, and a page that shows it, with all that the page needs.
    """
    pages = resources()
    assert json.loads(pages[b"/openapi.json"]._content)["openapi"] == "3.1.0"
    service = Service()
    service.put(b"openapi.json", pages[b"/openapi.json"])
    status, headers, _ = service.get("/openapi.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert headers["Access-Control-Allow-Origin"] == "*"
    status, headers, page = service.get("/docs")
    assert (status, "script-src 'self'" in headers["Content-Security-Policy"]) == (200, True)
    for place in re.findall(r'(?:href|src)="([^"]+)"', page.decode()):
        assert service.get(f"/{place}")[0] == 200, place
    assert service.get("/docs/")[1]["Location"] == "../docs"


def test_licence_is_shipped() -> None:
    """
    Swagger UI is not ours: its licence comes with it.
    """
    folder = files("dcm_ws") / "web" / "docs"
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert (folder / "NOTICE").read_text()
