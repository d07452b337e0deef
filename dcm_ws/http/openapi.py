"""
C{/openapi.json}: the HTTP calls as OpenAPI 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from dcm_ws.http.api_calls import JSON, Answer, Call, Parameter
from dcm_ws.http.api_schemas import ref, schemas, text

_ERRORS = {
    400: "the request is invalid",
    401: "there is no valid token",
    403: "the token, or the web page, may not do this",
    404: "there is no such agent, channel or call",
    413: "the body, or an event in it, is too large",
    429: "too many requests, or connections",
    503: "the service cannot do this now; try again",
}
_ERROR_HEADERS = {
    401: {"WWW-Authenticate": "how to authenticate"},
    429: {"Retry-After": "seconds after which to try again"},
    503: {"Retry-After": "seconds after which to try again"},
}
_TAGS = {
    "publishing": "Publish events.",
    "reading": "Read channels.",
    "operators": "See and do what operators do; takes an operator's token in production.",
    "state": "The state of the service, for monitors.",
}


def document(
    calls: Iterable[Call], version: str, channels: Iterable[str] = (), events: Iterable[str] = ()
) -> dict[str, Any]:
    """
    Make the document.

    @param version: of the service.
    @param channels: and C{events}: as of L{schemas}.
    """
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dcm-ws",
            "version": version,
            "summary": "Real-time events over WebSockets and HTTP",
            "description": "In development no token is needed. In production a token is required.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        # relative to where this document is, since a proxy may serve it below any path
        "servers": [{"url": "."}],
        "tags": [{"name": name, "description": description} for name, description in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas(channels, events),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "tokenInQuery": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
    }


def _operation(call: Call) -> dict[str, Any]:
    answers = {str(answer.status): _response(answer) for answer in call.answers}
    for status in call.errors:
        headers = _ERROR_HEADERS.get(status, {})
        error = Answer(status, _ERRORS[status], {} if call.method == "head" else {JSON: ref("Error")}, headers)
        answers[str(status)] = _response(error)
    operation: dict[str, Any] = {
        "operationId": call.name,
        "tags": [call.tag],
        "summary": call.summary,
        "responses": dict(sorted(answers.items())),
        # without a token, production answers 401
        "security": [{}, {"token": []}, {"tokenInQuery": []}] if call.takes_token else [],
    }
    if call.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in call.parameters]
    if call.body is not None:
        # curl -d has another content type, and it is not read
        media = {"schema": call.body}
        operation["requestBody"] = {"required": call.body_required, "content": {JSON: media}}
    return operation


def _response(answer: Answer) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.description or HTTPStatus(answer.status).phrase}
    if answer.content:
        response["content"] = {kind: {"schema": schema} for kind, schema in answer.content.items()}
    if answer.headers:
        response["headers"] = {
            name: {"schema": text(), **({"description": description} if description else {})}
            for name, description in answer.headers.items()
        }
    return response


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "schema": parameter.schema,
        **({"description": parameter.description} if parameter.description else {}),
    }
