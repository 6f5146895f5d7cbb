"""Fills templates. Every value is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from relay.console import words
from relay.console.access import CALLER
from relay.console.action_texts import MESSAGES
from relay.ledger.records import Record, RecordKind

_FOLDER = Path(__file__).parent

STATIC = _FOLDER / "static"

_templates = Environment(
    loader=FileSystemLoader(_FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_templates.filters |= {
    "moment": words.moment,
    "relative": words.relative,
    "shape": words.shape,
    "place": words.place,
    "actions": words.actions,
    "relations": words.relations,
    "note": words.note,
    "label": words.label,
    "shown_status": words.shown_status,
}


class Who(NamedTuple):
    """The operator or viewer who uses the page. A program that sent its token has no forms."""

    name: str
    role: str
    csrf: str
    may_act: bool


class PageMessage(NamedTuple):
    """The message at the top of a page: the result of an action."""

    text: str
    tone: str = "good"


def page(
    request: web.Request, template: str, *, status: int = 200, here: str = "", **values: Any
) -> web.Response:
    """Return a whole page; ``here`` is the part of the navigation that it belongs to."""
    shown = {"who": _who(request), "here": here, "message": None, **values}
    return web.Response(
        text=_templates.get_template(template).render(shown),
        status=status,
        content_type="text/html",
    )


def row(kind: RecordKind, record: Record) -> str:
    """Return one line of a list."""
    shown = {"who": None, "kind": kind, "record": record}
    return _templates.get_template("row.html").render(shown)


def message_of(request: web.Request) -> PageMessage | None:
    """Return the message of the action that led to the page."""
    text = MESSAGES.get(request.query.get("done", ""))
    return PageMessage(text) if text else None


def _who(request: web.Request) -> Who | None:
    caller = request.get(CALLER)
    if caller is None:
        return None
    csrf = caller.session.form_key if caller.session else ""
    return Who(caller.name, caller.token.role, csrf, bool(csrf) and caller.may("operator"))
