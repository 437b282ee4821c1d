"""Run folders and what is in them: checkpoints, seeds, metrics, TensorBoard; and the device that a run computes on."""

from importlib.metadata import PackageNotFoundError, version

from vimoclip import __version__


def versions() -> dict[str, str]:
    """What computed this: the project's own version and those of the packages that shape the numbers."""
    found = {"vimoclip": __version__}
    for package in ("torch", "torchvision", "open_clip_torch", "av", "opencv-python", "ptlflow", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
