"""Versions of this project, its dependencies and the processor, for the files that a run writes."""

from importlib.metadata import PackageNotFoundError, version

from vimoclip import __version__
from vimoclip.runtime import processor


def package_versions() -> dict[str, str]:
    """Return the versions of vimoclip and of the installed packages that influence results, and the processor."""
    versions = {"vimoclip": __version__}
    packages = ("torch", "torchvision", "open_clip_torch", "av", "opencv-python", "ptlflow", "numpy", "scikit-learn")
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions | {"processor": processor.describe()}
