"""The secrets of relay.yaml: where it refers to them, and what they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Literal, get_args

from pydantic import SecretStr
from yarl import URL

from config.errors import ConfigProblem
from config.model import RelayConfig, SecretRef
from config.origin import Stamps, stamp
from config.positions import Keys, Places
from config.secret_values import MIN_SECRET_PART, MissingSecret, resolve, url_parts
from config.values import Strict

Section = Literal["sources", "targets", "notify"]

SECTIONS: tuple[Section, ...] = get_args(Section)


def secret_refs(
    config: RelayConfig, sections: Collection[Section]
) -> Iterator[tuple[Keys, SecretRef]]:
    """Every reference to a secret in these sections, and where it stands."""
    if "sources" in sections:
        for name, source in config.sources.items():
            yield from _refs(("sources", name), source)
    if "targets" in sections:
        for name, target in config.targets.items():
            yield from _refs(("targets", name), target)
    if "notify" in sections:
        for index, notifier in enumerate(config.notify):
            yield from _refs(("notify", index), notifier)


def secret_values(config: RelayConfig) -> frozenset[str]:
    """All secrets that were loaded, and of secret URLs the secret parts too."""
    values: set[str] = set()
    for path, ref in secret_refs(config, SECTIONS):
        if not ref.is_loaded:
            continue
        value = ref.reveal()
        values.add(value)
        if path[-1] == "url" and not url_mistake(value):
            values |= url_parts(value)
            path = URL(value, encoded=True).raw_path_qs
            if len(path) >= MIN_SECRET_PART:
                values.add(path)
    return frozenset(values)


def load_secrets(
    config: RelayConfig,
    places: Places,
    sections: Collection[Section],
    environ: Mapping[str, str],
    stamps: Stamps,
) -> Iterator[ConfigProblem]:
    """Look up the secrets of these sections and keep them in their references; yields what is
    wrong. ``stamps`` is given every file that is looked at."""
    for path, ref in secret_refs(config, sections):
        if ref.file is not None and ref.file not in stamps:
            stamps[ref.file] = stamp(ref.file)
        try:
            value = resolve(ref, environ, form=_form(path))
        except MissingSecret as error:
            yield places.problem(path, str(error), _meant(path, ref))
            continue
        if tuple(path[2:]) == ("url",) and (wrong := url_mistake(value)):
            yield places.problem(path, f"{ref}: {wrong}")
            continue
        ref.keep(SecretStr(value))


def url_mistake(text: str) -> str:
    """What is wrong with a target's URL, without quoting it; empty if nothing is."""
    scheme, separator, rest = text.partition("://")
    authority = rest.split("/", 1)[0].split("?", 1)[0]
    if scheme not in ("http", "https") or not separator:
        return "a URL must start with https:// or http://"
    if "{" in authority:
        return "host and port cannot be templates"
    if "@" in authority:
        return "a user and password in the URL are not supported: use headers"
    try:
        host = URL(f"{scheme}://{authority}").host
    except ValueError:
        host = None
    return "" if host else "a URL must name a host"


def _meant(path: Keys, ref: SecretRef) -> str:
    """What may have been meant by something in a body that looks like a secret."""
    if tuple(path[2:3]) != ("json",):
        return ""
    key, text = ("env", ref.env) if ref.env is not None else ("file", ref.file)
    return f"""is it no secret? then write {{{key}: "{{{{ '{text}' }}}}"}}"""


def _form(path: Keys) -> Literal["secret", "signing_token"]:
    return "signing_token" if tuple(path[2:3]) == ("signing_tokens",) else "secret"


def _refs(path: tuple[str | int, ...], value: object) -> Iterator[tuple[Keys, SecretRef]]:
    """References below a value. Options stand beside the other keys in the file."""
    if isinstance(value, SecretRef):
        yield path, value
    elif isinstance(value, Strict):
        for name, field in type(value).model_fields.items():
            below = path if name == "options" else (*path, field.alias or name)
            yield from _refs(below, getattr(value, name))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _refs((*path, key), item)
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield from _refs((*path, index), item)
