"""Licences of methods of optical flow. Their weights are in no model folder: predict.py has ptlflow download them.

The table holds what the README of each model in ptlflow 0.4.2 and the LICENSE of its authors' repository say."""

from pathlib import Path

from vimoclip.flow.opencv import METHODS_WITHOUT_WEIGHTS

_RESEARCH = "**non-commercial**: its authors release the weights for academic and research purposes only"
_BSD = "BSD-3-Clause, that of its authors' repository, which names no other one for the weights"
# beginning of a method's name -> the licence of its weights
_LICENCES = {
    "raft": _BSD,
    "sea_raft": _BSD,
    "rapidflow": _RESEARCH,
    "rpknet": _RESEARCH,
    "dpflow": _RESEARCH,
    "flownet": _RESEARCH,
    "pwcnet": "**non-commercial**: CC-BY-NC-SA-4.0",
    "ms_raft_plus": "**non-commercial**: CC-BY-NC-SA-3.0",
}
_UNKNOWN = (
    "not known to this program, see the README of the model in ptlflow's repository (those that ptlflow's author has "
    "trained are **non-commercial**, CC-BY-NC-SA-4.0)"
)


def describe_licence(method: str, checkpoint: str | None) -> str:
    """Return sentences about the licences of a method and of its weights, and where the weights come from."""
    if method in METHODS_WITHOUT_WEIGHTS:
        return f"`{method}` of OpenCV (Apache-2.0), which needs no weights."
    is_file = bool(Path(checkpoint or "").suffix)
    family = next((name for name in _LICENCES if method.startswith(name)), "")
    licence = "not known, as they come from a file" if is_file else _LICENCES.get(family, _UNKNOWN)
    source = "give that file to `predict.py` by `--ckpt-path`"
    if not is_file:
        source = (
            "`predict.py` has ptlflow download them; on a machine without network, give their file by `--ckpt-path`"
        )
    return (
        f"`{method}` of ptlflow (Apache-2.0) with the weights `{checkpoint}`, which are not in this folder: {source}. "
        f"Licence of the weights: {licence}."
    )
