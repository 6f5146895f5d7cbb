"""A process that writes the audit until it is done or killed: ``python -m tests.relay.writer``."""

from __future__ import annotations

import sys
from pathlib import Path

from relay.audit_file import AuditFile, Policy


def main() -> None:
    path, name, lines, max_bytes = sys.argv[1:]
    file = AuditFile(Path(path), Policy(int(max_bytes), 0, "never", b"key"))
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    for number in range(int(lines)):
        file.add(b'{"event":"test.line","by":"%b","number":%d}' % (name.encode(), number))
        if number % 3 == 0:
            file.flush()
    file.flush()


if __name__ == "__main__":
    main()
