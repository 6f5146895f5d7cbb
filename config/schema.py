"""The JSON Schema of relay.yaml, for editors that check and complete while one types."""

from __future__ import annotations

from typing import Any

from config.model import RelayConfig
from config.preset import presets

_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": ["string", "integer"]},
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "secret": {"$ref": "#/$defs/SecretRef"},
}


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12. The presets' options stand beside a target's other keys."""
    schema = RelayConfig.model_json_schema(by_alias=True)
    target = schema["$defs"]["Target"]["properties"]
    del target["options"]
    target["preset"]["enum"] = list(presets())
    for preset in presets().values():
        for name, option in preset.options.items():
            target.setdefault(
                name,
                {**_TYPES[option.type], "description": f"{preset.title}: {option.description}"},
            )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "relay.yaml of deploy-relay",
        **schema,
    }
