"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path

import click

CONFIG = click.option(
    "--config",
    "-c",
    type=click.Path(dir_okay=False, path_type=Path),
    help="relay.yaml to use [env: RELAY_CONFIG, default: relay.yaml].",
)
HOST = click.option("--host", help="Address to listen on [env: RELAY_HOST, default: 127.0.0.1].")
PORT = click.option("--port", type=int, help="Port to listen on [env: RELAY_PORT, default: 8080].")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
