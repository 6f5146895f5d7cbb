"""The ledger: the SQL database that decides. What is not in it did not happen.

``ledger.py`` is what other rooms use: it commits work and reads. ``sqlite.py`` is the one file that
knows the database; the SQL itself is in ``queries/`` and ``migrations/``.
"""
