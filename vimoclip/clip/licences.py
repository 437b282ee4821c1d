"""Licences of pretrained image encoders as their authors state them, with the texts to pass on with their weights.

The table holds what was read on the authors' pages on 2026-11-30. An encoder that is not in it has no known licence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip.clip.pretrained import cached_snapshot, hub_repository, local_folder
from vimoclip.io.text import read_text
from vimoclip.model_folder import BACKBONE_LICENCE, HUB_PREFIX, is_model_folder

TEXTS = Path(__file__).parent / "licence_texts"
FILE_PATTERNS = ("LICEN[CS]E*", "COPYING*", "NOTICE*")  # of the texts beside an encoder's weights


class _KnownLicence(NamedTuple):
    """`repositories`: patterns of names on the Hugging Face Hub; `notice`: the authors' copyright line, "" if none."""

    repositories: tuple[str, ...]
    name: str
    source: str
    notice: str = ""
    restriction: str = ""


_NON_COMMERCIAL = "for non-commercial use only"
_KNOWN = (
    _KnownLicence(("timm/*.openai",), "MIT", "https://github.com/openai/CLIP", "Copyright (c) 2021 OpenAI"),
    _KnownLicence(("laion/CLIP-*", "laion/CoCa-*"), "MIT", "https://huggingface.co/laion"),
    _KnownLicence(("timm/*-SigLIP*",), "Apache-2.0", "https://huggingface.co/timm/ViT-B-16-SigLIP"),
    _KnownLicence(("timm/PE-Core-*",), "Apache-2.0", "https://github.com/facebookresearch/perception_models"),
    _KnownLicence(("timm/eva*_clip_*",), "MIT", "https://github.com/baaivision/EVA", "Copyright (c) 2022 BAAI-Vision"),
    _KnownLicence(("imageomics/bioclip*",), "MIT", "https://huggingface.co/imageomics/bioclip"),
    _KnownLicence(
        ("timm/*.metaclip_*",),
        "CC-BY-NC-4.0",
        "https://creativecommons.org/licenses/by-nc/4.0/",
        restriction=_NON_COMMERCIAL,
    ),
    _KnownLicence(
        ("apple/*", "timm/MobileCLIP*"),
        "apple-amlr",
        "https://huggingface.co/apple/DFN2B-CLIP-ViT-B-16/blob/main/LICENSE",
        restriction="for non-commercial research only, which includes models that are derived from it",
    ),
)


@dataclass(frozen=True)
class EncoderLicence:
    """The licence of an encoder's weights.

    `name`: SPDX identifier or the Hub's, None if it is not known; `source`: address where the authors state it;
    `restriction`: on the use, "" if there is none or it is not known; `texts`: file name to text; {} if not at hand."""

    name: str | None = None
    source: str = ""
    restriction: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)


def find_licence(config: Mapping[str, Any], name: str | None = None) -> EncoderLicence:
    """Return the licence of the encoder that has this `config`. Raises UserError for a text that can't be read.

    `name`: the one that it was loaded by, `local-dir:<folder>` with its path; default: the recorded one."""
    repository = hub_repository(config["clip_model"], config["clip_pretrained"])
    name = name or str(config["clip_model"])
    texts = read_texts(cached_snapshot(name) if name.startswith(HUB_PREFIX) else local_folder(name))
    for known in _KNOWN:
        if repository and any(fnmatch(repository, pattern) for pattern in known.repositories):
            return EncoderLicence(known.name, known.source, known.restriction, texts or _known_text(known, repository))
    return EncoderLicence(texts=texts)


def _known_text(known: _KnownLicence, repository: str) -> dict[str, str]:
    """Return the text of a licence that is kept here, headed by the weights that it is for."""
    path = TEXTS / f"{known.name}.txt"
    if not path.is_file():
        return {}
    notice = known.notice or "The authors give no copyright notice."
    head = f"Weights of the image encoder: {repository} on the Hugging Face Hub, {known.name} by {known.source}\n\n"
    return {f"{BACKBONE_LICENCE}.txt": f"{head}{notice}\n\n{read_text(path)}"}


def read_texts(folder: Path | None) -> dict[str, str]:
    """Return the licence texts in a folder of weights; of a model folder those of its backbone. Raises UserError."""
    if folder is None:
        return {}
    patterns = (f"{BACKBONE_LICENCE}*",) if is_model_folder(folder) else FILE_PATTERNS
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    names = [
        path.name if path.name.startswith(BACKBONE_LICENCE) else f"{BACKBONE_LICENCE}-{path.name}" for path in paths
    ]
    return {name: read_text(path) for name, path in zip(names, paths, strict=True)}
