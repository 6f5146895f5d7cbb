"""Measures deploy-relay on this machine; see benchmarks/README.md."""
