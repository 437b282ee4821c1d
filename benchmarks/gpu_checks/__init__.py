"""The checks of `python -m benchmarks gpu`, one module per stage."""
