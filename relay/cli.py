"""The command line. No other module imports it."""

from __future__ import annotations

import click

from relay import __version__
from relay.commands.audit import audit, tail
from relay.commands.check_explain_send import check, explain, schema, send
from relay.commands.console import console
from relay.commands.deliveries_deploys import record_group
from relay.commands.demo import demonstrate
from relay.commands.drain import drain
from relay.commands.exits import exits
from relay.commands.ledger import ledger
from relay.commands.targets import targets
from relay.commands.tokens import token
from relay.commands.top import top
from relay.commands.up_serve_worker import serve, up, worker


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="deploy-relay")
def main() -> None:
    """Receive signed git webhooks and call the right deploy hooks, once, with proof.

    \b
    To look around:      deploy-relay demo
    To set it up:        write relay.yaml, then  deploy-relay check
    To try a webhook:    deploy-relay explain payload.json
    To run it all:       deploy-relay up
    To run it in parts:  deploy-relay serve   and   deploy-relay worker
    To watch it:         deploy-relay top
    To list and replay:  deploy-relay deliveries list   and   deploy-relay deploys list

    Settings are environment variables RELAY_*. relay.yaml has sources, targets and routes.
    """


for _command in (
    *(up, serve, worker, console, demonstrate),
    *(check, explain, send, schema),
    *(targets, top, drain, token, audit, tail, ledger),
):
    main.add_command(_command)

for _group in (record_group("delivery"), record_group("deploy")):
    for _command in _group.commands.values():
        if _command.callback is not None:
            _command.callback = exits(_command.callback)
    main.add_command(_group)


if __name__ == "__main__":
    main()
