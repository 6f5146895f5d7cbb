"""From the socket to the queue: verify, understand, store and route webhooks."""

__version__ = "0.1.0"
