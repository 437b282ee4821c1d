"""Golden comparison: two checkouts run one chain of small commands, and every output of both must be equal.

See `tests/golden/__main__.py` for the command. The inputs are written once, with the helpers of the tests of this
checkout, and both sides read the same files. Commands and comparison import nothing of the project."""
