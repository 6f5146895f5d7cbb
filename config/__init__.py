"""What the operator decides: process settings, relay.yaml, presets and references to secrets."""
