"""What the lists of deliveries and deploys are searched for, as a query string says it. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple, get_args
from urllib.parse import urlencode

from config.patterns import PatternSet
from relay.archive import Filter
from relay.console.words import PLURALS, branch
from relay.errors import Refused
from relay.reading import Record, epoch
from relay.statuses import Kind, Status

MOST_TEXT = 200
"""Characters of one field of the search."""
