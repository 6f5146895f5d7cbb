"""Templates of deploy calls: Jinja2 in a sandbox, where an unknown name is an error. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from config.errors import RelayError

MAX_OUTPUT = 65_536
"""Characters that one template may render to."""


class PlanError(RelayError):
    """A call cannot be made from this event: a template does not render."""


def _environment(finalize: Callable[[Any], Any] | None = None) -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        finalize=finalize,
    )


def _quoted(value: Any) -> Any:
    return value if isinstance(value, StrictUndefined) else quote(str(value), safe="")


_plain = _environment()
_url = _environment(finalize=_quoted)


class Template:
    """One text of a call. ``where`` names it in errors."""

    __slots__ = ("_compiled", "_literal", "_where")

    def __init__(self, source: str, where: str, *, in_url: bool = False) -> None:
        """``in_url`` percent-encodes every value, so that none can add a segment or parameter.

        Raises PlanError if the template is not well formed.
        """
        self._where = where
        self._literal = None if "{" in source else source
        try:
            self._compiled = (_url if in_url else _plain).from_string(source)
        except TemplateError as error:
            raise PlanError(f"{where}: {error.message}") from None

    def render(self, context: Mapping[str, Any]) -> str:
        """The text for one event. Raises PlanError."""
        if self._literal is not None:
            return self._literal
        parts: list[str] = []
        length = 0
        try:
            for part in self._compiled.generate(context):
                parts.append(part)
                length += len(part)
                if length > MAX_OUTPUT:
                    raise PlanError(f"{self._where}: renders to more than {MAX_OUTPUT} characters")
        except TemplateError as error:
            raise PlanError(f"{self._where}: {error.message}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError, MemoryError) as error:
            raise PlanError(f"{self._where}: {type(error).__name__} in the template") from None
        return "".join(parts)
