"""Templates of deploy calls: Jinja2 in a sandbox, where an unknown name is an error. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from jinja2 import StrictUndefined, TemplateError, Undefined, UndefinedError
from jinja2.exceptions import SecurityError
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from config.errors import RelayError

MAX_OUTPUT = 65_536
"""Characters that one template may render to."""

_DOTS = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?=/|\Z)", re.IGNORECASE)
"""A segment that servers resolve, encoded or not, so that the call would go elsewhere."""


class PlanError(RelayError):
    """A call cannot be made from this event: a template does not render."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, where an error quotes no value and ``'x' * n`` is bounded too."""

    intercepted_binops = frozenset({"*"})

    def __init__(self, finalize: Callable[[Any], Any] | None = None) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            keep_trailing_newline=True,
            finalize=finalize,
        )
        # It would quote its argument too, and finds nothing on an event that a template needs.
        del self.filters["attr"]

    def getitem(self, obj: Any, argument: Any) -> Any:
        found = super().getitem(obj, argument)
        if isinstance(found, Undefined):
            # Jinja's own message would quote the subscript, which may be a secret.
            return self.undefined("a subscript finds nothing")
        return found

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        for items, times in ((left, right), (right, left)):
            if isinstance(items, Sequence) and len(items) * times > MAX_OUTPUT:
                raise OverflowError
        return super().call_binop(context, operator, left, right)


def _quoted(value: Any) -> Any:
    return value if isinstance(value, StrictUndefined) else quote(str(value), safe="")


_plain = _Sandbox()
_url = _Sandbox(finalize=_quoted)


class Template:
    """One text of a call. ``where`` names it in errors."""

    __slots__ = ("_compiled", "_in_url", "_literal", "_where", "names")

    def __init__(self, source: str, where: str, *, in_url: bool = False) -> None:
        """``in_url`` percent-encodes every value, so that none can add a segment or parameter,
        and refuses values that would take one away.

        Raises PlanError if the template is not well formed.
        """
        self._where = where
        self._in_url = in_url
        self._literal = None if "{" in source else source
        try:
            source.encode()  # half a surrogate pair is no text, and could not be sent
            self._compiled = (_url if in_url else _plain).from_string(source)
            self.names = frozenset(
                find_undeclared_variables(_plain.parse(source)) if self._literal is None else ()
            )
            """What it speaks of, such as event or route."""
        except TemplateError as error:
            raise PlanError(f"{where}: {error.message}") from None
        except (RecursionError, ValueError) as error:
            raise PlanError(f"{where}: {type(error).__name__} in the template") from None

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
            text = "".join(parts)
            text.encode()
        except (UndefinedError, SecurityError) as error:
            raise PlanError(f"{self._where}: {error.message}") from None
        # What others say is not told: it may quote a value, and that may be a secret.
        except (
            ArithmeticError,
            LookupError,
            MemoryError,
            RecursionError,
            TemplateError,
            TypeError,
            ValueError,
        ) as error:
            raise PlanError(f"{self._where}: {type(error).__name__} in the template") from None
        if self._in_url and _DOTS.search(re.split("[?#]", text, maxsplit=1)[0]):
            raise PlanError(f"{self._where}: a path segment would be '.' or '..'")
        return text
