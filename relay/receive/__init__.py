"""The receiver: a webhook is verified, committed to the ledger, and answered."""
