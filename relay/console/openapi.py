"""The OpenAPI 3.1 document, made of the table that serves the requests.

https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from relay import __version__
from relay.console.endpoints import PREFIX, Endpoint, is_list
from relay.console.faults import ErrorAnswer

_REFERENCE = "#/components/schemas/{name}"


def document(endpoints: Sequence[Endpoint[Any, Any]]) -> dict[str, Any]:
    """Return the whole document."""
    types: set[type[msgspec.Struct]] = {ErrorAnswer, *(endpoint.answer for endpoint in endpoints)}
    types |= {endpoint.body for endpoint in endpoints if endpoint.takes_body}
    types |= {endpoint.query for endpoint in endpoints}
    ordered = sorted(types, key=lambda one: one.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_REFERENCE)
    schema_of = dict(zip(ordered, schemas, strict=True))
    parameters = {
        endpoint.query: components.pop(endpoint.query.__name__, {}) for endpoint in endpoints
    }
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operations = paths.setdefault(PREFIX + endpoint.path, {})
        operations[endpoint.method.lower()] = _operation(
            endpoint, parameters[endpoint.query].get("properties", {}), schema_of
        )
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "deploy-relay",
            "version": __version__,
            "description": "Deliveries and deploys of webhooks, and what operators do to them.",
        },
        "paths": paths,
        "security": [{"token": []}],
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    endpoint: Endpoint[Any, Any], query: dict[str, Any], schema_of: dict[type[msgspec.Struct], Any]
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.run.__name__,
        "summary": (endpoint.run.__doc__ or "").partition("\n")[0],
        "description": f"Needs the role {endpoint.role}.",
        "parameters": [
            *(
                {
                    "name": name,
                    "in": "path",
                    "required": True,
                    "schema": {"type": "string", "minLength": 1},
                }
                for name in re.findall(r"\{(\w+)\}", endpoint.path)
            ),
            *_parameters(endpoint.query, query),
        ],
        "responses": {
            "200": _answer("Done.", schema_of[endpoint.answer]),
            **{
                status: _answer(why, schema_of[ErrorAnswer])
                for status, why in _failures(endpoint).items()
            },
        },
    }
    if endpoint.takes_body:
        content = {"application/json": {"schema": schema_of[endpoint.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(of: type[msgspec.Struct], query: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": field.encode_name,
            "in": "query",
            "schema": query[field.encode_name],
            **({"style": "form", "explode": True} if is_list(field) else {}),
        }
        for field in msgspec.structs.fields(of)
    ]


def _failures(endpoint: Endpoint[Any, Any]) -> dict[str, str]:
    failures = {
        "400": "The parameters or the body are not valid.",
        "401": "No valid token.",
        "403": "The role does not allow it.",
        "503": "The ledger cannot be read or written now, or the audit takes no lines.",
    }
    if "{" in endpoint.path or endpoint.large:
        failures["404"] = "No delivery, deploy or target has this name."
    if endpoint.takes_body:
        failures["408"] = "The body took too long."
        failures["413"] = "The body is too large."
        failures["415"] = "The body is not JSON."
    return failures


def _answer(why: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": why, "content": {"application/json": {"schema": schema}}}
