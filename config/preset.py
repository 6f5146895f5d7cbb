"""Presets: what a deploy platform expects of a call, as data in presets/*.yaml."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from config.model import On, Text
from config.policies import Scalar, Success
from config.values import Strict


class Option(Strict):
    """Something a target may choose; its key stands beside the target's other keys."""

    type: Literal["string", "boolean", "integer", "secret"]
    description: str
    required: bool = False
    default: Scalar | None = None


class Preset(Strict):
    """One platform. Texts are templates; what renders to nothing is left out of the call."""

    name: str
    title: str
    documentation: str
    """URL of the platform's own documentation of its deploy hooks."""
    description: str
    kinds: tuple[On, ...] = ("push", "tag", "pull_request", "delete")
    """Kinds of events it can be called for."""
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str = ""
    """Appended to the path of the target's URL."""
    query: dict[str, Text] = Field(default_factory=dict)
    headers: dict[str, Text] = Field(default_factory=dict)
    json_body: Annotated[Any, Field(alias="json")] = None
    form: dict[str, Text] | None = None
    success: Success = Success()
    deployment_id: str | None = None
    idempotent: bool = False
    """Whether the platform documents that calling twice deploys no more than calling once."""
    supersede: bool = True
    """Whether the newest state of a branch is enough, where the target does not say."""
    options: dict[str, Option] = Field(default_factory=dict)


@functools.cache
def presets() -> Mapping[str, Preset]:
    """Every preset by its name."""
    folder = resources.files("config") / "presets"
    found = (
        Preset.model_validate(yaml.safe_load(file.read_text("utf-8")))
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".yaml")
    )
    return {preset.name: preset for preset in found}
