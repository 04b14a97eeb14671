"""The agency interface as one table of operations, and the OpenAPI 3.1 document that is made of it."""

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic.json_schema import models_json_schema

from gateway.http.documents import Problem, Query
from gateway.services.submit import Request
from protocols.messages import without_null
from protocols.messages.fields import described
from protocols.messages.shared import Model
from protocols.ports.access import SCOPES, Caller
from protocols.problems import CODES

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
OCTETS = "application/octet-stream"
PROBLEM = "application/problem+json"
_HEADERS: dict[str, dict[str, Any]] = {
    "Idempotency-Key": {
        "required": True,
        "schema": {"type": "string", "pattern": "^[!-~][ -~]{6,126}[!-~]$"},
        "description": "Fresh for each new request; a repetition under the same key within 7 days gets the same answer.",
    },
    "If-Match": {
        "required": True,
        "schema": {"type": "string", "pattern": '^"[0-9]{1,17}(-[A-Za-z0-9_-]{11})?"$'},
        "description": "The ETag of the thread as you read it.",
    },
    "If-None-Match": {
        "schema": {"type": "string"},
        "description": "An ETag: 304 where the thread is still that one.",
    },
    "Range": {
        "schema": {"type": "string", "pattern": "^bytes=[0-9]{1,12}-$"},
        "description": "`bytes=N-`: from a byte on, to go on where a transfer broke off (RFC 9110).",
    },
    "Prefer": {
        "schema": {"type": "string"},
        "description": "`wait=30`: answer when there is something, after 30 s at most (RFC 7240).",
    },
}
_ANY = (
    "http.framing", "http.header", "http.header_timeout", "http.header_too_large", "http.version", "http.query",
    "ledger.rollback", "store.busy", "internal",
)  # fmt: skip
_TOKEN = ("auth.missing", "auth.invalid", "auth.scope")
_BODY = ("http.media_type", "http.content_encoding", "http.too_large", "http.body_timeout")
_STRICT = ("json.invalid", "json.encoding", "json.duplicate", "json.depth", "json.number", "schema.invalid")
_BY_HEADER = {
    "Idempotency-Key": ("idempotency.missing", "idempotency.reused"),
    "If-Match": ("precondition.required", "precondition.failed"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that was checked: who asks, its query and body as models, and what its headers say."""

    caller: Caller
    query: Any
    body: Any = None
    idempotency: Request | None = None
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One route of `/v1`, stated once: what it takes is checked by these models before `call` runs.

    `call` gets the request and what was `Asked`; its docstring describes the operation, its first line is the summary.
    `reads` False leaves the body to `call`. `problems` are the codes beyond those that follow from the rest. `audited`: the
    scope `audit:read` does as well, since what it shows then is no content.
    """

    method: str
    path: str
    scope: str | None
    call: Callable[[web.Request, Asked], Awaitable[web.StreamResponse]]
    query: type[Query] = Query
    headers: tuple[str, ...] = ()
    body: type[Model] | None = None
    media: tuple[str, ...] = (JSON,)
    reads: bool = True
    answer: type[Model] | None = None
    answers: str = JSON
    status: int = 200
    problems: tuple[str, ...] = ()
    audited: bool = False

    @property
    def scopes(self) -> tuple[str, ...]:
        """Any of these is enough; empty where none is needed."""
        return (*([self.scope] if self.scope else []), *(["audit:read"] if self.audited else []))

    @property
    def codes(self) -> list[str]:
        """Every problem code that it may answer."""
        found = [*_ANY, *(_TOKEN if self.scope else ()), *self.problems]
        if self.body or OCTETS in self.media:
            found += [*_BODY, *(_STRICT if JSON in self.media else ())]
        for header in self.headers:
            found += _BY_HEADER.get(header, ())
        return sorted(set(found))


def openapi(operations: Sequence[Operation], *, title: str, version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a table of operations."""
    models = {model for each in operations for model in (each.body, each.answer, each.query) if model} | {Problem}
    schemas, definitions = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda model: model.__name__)],
        ref_template="#/components/schemas/{model}",
    )
    defined = {name: described(name, part) for name, part in without_null(definitions["$defs"]).items()}
    named = {model: schema["$ref"] for (model, _), schema in schemas.items()}
    queries = {model: defined.pop(model.__name__) for model in models if issubclass(model, Query)}
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for each in operations:
        path = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", each.path)
        paths[path][each.method.lower()] = _operation(each, path, named, queries[each.query])
    flow = {"tokenUrl": "/v1/token", "scopes": dict(SCOPES)}
    token = {
        "type": "oauth2",
        "description": "Client credentials with private_key_jwt (RFC 7523): an assertion signed by the client's Ed25519 key.",
        "flows": {"clientCredentials": flow},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "paths": dict(paths),
        "components": {"schemas": defined, "securitySchemes": {"token": token}},
    }


def _operation(each: Operation, path: str, named: Mapping[Any, str], query: dict[str, Any]) -> dict[str, Any]:
    summary, _, description = (each.call.__doc__ or "").strip().partition("\n")
    shown: dict[str, Any] = {
        "operationId": each.call.__name__,
        "summary": summary,
        "parameters": [*_parameters(each, path), *_query(query)],
        "responses": _responses(each, named),
        "security": [{"token": [scope]} for scope in each.scopes],
    }
    if description.strip():
        shown["description"] = " ".join(description.split())
    if each.body:
        lines = {"type": "string", "description": f"Each line, or row, is a {each.body.__name__}."}
        schema = {"$ref": named[each.body]} if JSON in each.media or FORM in each.media else lines
        content = {media: {"schema": schema} for media in each.media}
        shown["requestBody"] = {"required": True, "content": content}
    elif OCTETS in each.media:
        shown["requestBody"] = {
            "required": True,
            "content": {OCTETS: {"schema": {"type": "string", "minLength": 1, "description": "The file's bytes."}}},
        }
    return shown


def _parameters(each: Operation, path: str) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)\}", path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    for name in each.headers:
        yield {"name": name, "in": "header", **_HEADERS[name]}


def _query(schema: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for name, value in schema.get("properties", {}).items():
        yield {"name": name, "in": "query", "schema": value}


def _responses(each: Operation, named: Mapping[Any, str]) -> dict[str, Any]:
    schema = {"$ref": named[each.answer]} if each.answer else {}
    found: dict[str, Any] = {str(each.status): {"description": "Done.", "content": {each.answers: {"schema": schema}}}}
    if "If-None-Match" in each.headers:
        found["304"] = {"description": "Not changed."}
    by_status: dict[int, list[str]] = defaultdict(list)
    for code in each.codes:
        by_status[CODES[code].status].append(code)
    for status, codes in sorted(by_status.items()):
        content = {PROBLEM: {"schema": {"$ref": named[Problem]}}}
        found[str(status)] = {"description": ", ".join(f"`{code}`" for code in codes), "content": content}
    return found
