"""RQ carries: the jobs that wake workers, and the sweep that makes them again.

What lies in Redis can be rebuilt from the ledger at any time.
"""
