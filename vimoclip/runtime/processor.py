"""The CPU: its vendor and its instructions, from which the kernels and the fastest precision follow.

Kernels follow from the vendor and the instructions and not from a measurement, so that a machine always computes the
same bytes. Files record `describe()` for reference; nodes of a cluster may differ, so it is never compared."""

import functools
import os
import platform
from collections.abc import Mapping
from pathlib import Path

AMD, INTEL = "AMD", "Intel"
VENDORS = {"AuthenticAMD": AMD, "HygonGenuine": AMD, "GenuineIntel": INTEL}
# as Linux names them; each makes products of matrices faster than the one before
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


@functools.cache
def _cpuinfo() -> Mapping[str, str]:
    """Return what Linux reports about the first processor, by name; empty on other systems."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


@functools.cache
def vendor() -> str:
    """Return AMD or Intel, else the name of the architecture, like arm64."""
    # Windows has no /proc/cpuinfo, but names the vendor in this variable; macOS has neither, and its x86 is Intel's
    windows_name = os.environ.get("PROCESSOR_IDENTIFIER", "").rpartition(",")[2].strip()
    known = VENDORS.get(_cpuinfo().get("vendor_id", windows_name))
    is_intel_mac = platform.system() == "Darwin" and platform.machine() == "x86_64"
    return known or (INTEL if is_intel_mac else platform.machine())


@functools.cache
def features() -> tuple[str, ...]:
    """Return those of FEATURES that the processor has; on other systems than Linux none are known."""
    flags = set(_cpuinfo().get("flags", "").split())
    return tuple(feature for feature in FEATURES if feature in flags)


def multiplies_float32_by_onednn() -> bool:
    """Return whether oneDNN, which must be available, multiplies float32 matrices faster than PyTorch's default.

    The default on x86 is MKL. On AMD processors oneDNN reaches 470 GFLOP/s and MKL 210 (2 cores, AVX-512, 1,200 rows of
    512 by 2,048, forward and backward). On Intel processors MKL is as fast or faster."""
    return vendor() == AMD


def fast_precision() -> str:
    """Return the fastest precision of an encoder: bf16 with AMX, int8 with VNNI, else fp32."""
    if "amx_bf16" in features():
        return "bf16"
    return "int8" if "avx512_vnni" in features() else "fp32"


def describe() -> str:
    """Return vendor, instructions, and the library that multiplies float32 matrices."""
    library = "oneDNN" if multiplies_float32_by_onednn() else "PyTorch's default"
    return " ".join((vendor(), *features())) + f"; float32 products by {library}"
