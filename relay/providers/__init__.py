"""The providers: one file for each kind of git server, one line here for each file."""

from __future__ import annotations

from collections.abc import Mapping

from relay.providers.forgejo import Forgejo
from relay.providers.gitea import Gitea
from relay.providers.github import GitHub
from relay.providers.gitlab import GitLab
from relay.providers.gogs import Gogs
from relay.providers.provider import Provider

PROVIDERS: Mapping[str, type[Provider]] = {
    provider.name: provider for provider in (GitHub, GitLab, Gitea, Forgejo, Gogs)
}
