"""Golden comparison: two checkouts run one chain of small commands, and every output of both must be equal.

See `tests/golden/__main__.py` for the command. Nothing here imports the project or the helpers of its tests, so that
both may be renamed: the inputs are written with av, h5py, open_clip and openpyxl alone."""
