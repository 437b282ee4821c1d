"""Throughput of each stage, compared with a plain implementation and with the hardware's limit: docs/performance.md."""
