"""The dialects: one file for each kind of git server, one line here for each file."""

from __future__ import annotations

from collections.abc import Mapping

from relay.providers.dialect import Dialect
from relay.providers.forgejo import Forgejo
from relay.providers.gitea import Gitea
from relay.providers.github import GitHub
from relay.providers.gitlab import GitLab
from relay.providers.gogs import Gogs

DIALECTS: Mapping[str, type[Dialect]] = {
    dialect.name: dialect for dialect in (GitHub, GitLab, Gitea, Forgejo, Gogs)
}
