"""Versions of this project and its dependencies, for the files that a run writes."""

from importlib.metadata import PackageNotFoundError, version

from vimoclip import __version__


def package_versions() -> dict[str, str]:
    """Return the versions of vimoclip and of the installed packages that influence results."""
    versions = {"vimoclip": __version__}
    for package in ("torch", "torchvision", "open_clip_torch", "av", "opencv-python", "ptlflow", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
