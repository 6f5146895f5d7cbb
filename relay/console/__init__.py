"""The console: pages and a JSON API for people, in a process of its own."""
