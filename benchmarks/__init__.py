"""What each stage does in a second, beside the plain way and beside what the machine could: docs/performance.md."""
