"""The model card of an exported model, README.md, and the licences beside it."""

import html
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import ModelCardData, metadata_load

from TFAM import card_results
from TFAM.initial_weights import embedding_commands
from TFAM.learning_curve import markdown_table
from TFAM.packing import Fusion
from TFAM.run_evaluation import RunEvaluation, evaluate_run
from TFAM.students import has_frozen_encoder
from vimoclip import model_folder
from vimoclip.clip.licences import EncoderLicence, find_licence, read_texts
from vimoclip.clip.pretrained import hub_repository
from vimoclip.errors import UserError, first_line
from vimoclip.flow import METHODS_WITHOUT_WEIGHTS
from vimoclip.flow.licences import describe_licence
from vimoclip.io import yaml_json
from vimoclip.io.text import read_text

CARD, CODE_LICENCE = "README.md", "LICENSE-ViMoCLIP.txt"
REPOSITORY = Path(__file__).resolve().parents[1]
LICENCE_KEYS = ("license", "license_name", "license_link")  # of the metadata, the author's choice
# what the author writes between these comments is kept when the model is exported again
AUTHOR_START, AUTHOR_END = "<!-- author: begin -->", "<!-- author: end -->"
AUTHOR_TEXT = """
**TODO by the author of the model**: complete these lines before you pass it on. What stands here, and the licence at
the top of this file, are kept if the model is exported again with `--overwrite`. All other lines are replaced.

- TODO: species; number of animals; wild or captive
- TODO: place and dates of the recordings (leave out the positions of endangered animals)
- TODO: cameras, view, size and frame rate of the videos; how clips were chosen, and who labelled them
- TODO: permits and ethical approval
- TODO: licence of the videos and labels, and where they can be obtained
- TODO: contact, and how to cite this model
"""


def file_texts(
    output: Path, run: Path, document: Mapping[str, Any], parts: Mapping[str, Any], encoder_name: str | None
) -> dict[str, str]:
    """Return the model card of a model folder and the licences of what it contains, by file name.

    `output`: the folder, whose card may have lines of its author; `document`, `parts`: content of config.json, and
    state dicts; `encoder_name`: the flag --clip-model-name. Raises UserError if the run, an existing card or a licence
    text is damaged."""
    inputs, card = document["fusion"]["config"]["inputs"], output / CARD
    dataset = str((inputs.get("rgb") or inputs.get("motion") or {}).get("dataset_name"))
    author = _read_author_choices(card)
    evaluation = evaluate_run(run, dataset)
    licence = find_licence(document["backbone"], encoder_name)
    if not licence.texts:
        licence = replace(licence, texts=_added_licence(output, document["backbone"]))
    texts = {CODE_LICENCE: read_text(REPOSITORY / "LICENSE")}
    has_backbone = bool({model_folder.ENCODER, model_folder.STUDENT} & set(parts))
    if has_backbone:
        texts |= licence.texts
    is_frozen = bool(document["student"]) and has_frozen_encoder(inputs["motion"])
    protocol = card_results.protocol_section(evaluation, is_frozen)
    name = output.resolve().name
    sections = [
        f"---\n{_metadata(document, author.metadata)}\n---",
        f"# {name}: actions of animals in video",
        _model_section(document, parts),
        _usage_section(name, document, parts),
        card_results.data_section(document, dataset, evaluation),
        protocol,
        card_results.results_section(document, evaluation, protocol),
        card_results.limits_section(document, dataset, evaluation),
        _licences_section(document, licence, has_backbone),
        f"## About the data and the author\n{AUTHOR_START}{author.text}{AUTHOR_END}",
        _provenance_section(document, evaluation),
        _citation_section(),
    ]
    return texts | {CARD: "\n\n".join(section.rstrip() for section in sections) + "\n"}


def _added_licence(output: Path, backbone: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the licence texts that the author has added to an earlier export with the same backbone."""
    if not model_folder.is_model_folder(output):
        return {}
    earlier = yaml_json.read_json(output / model_folder.CONFIG_FILE).get("backbone")
    is_same = isinstance(earlier, dict) and all(
        earlier.get(key) == backbone[key] for key in ("clip_model", "clip_pretrained", "weights_sha256")
    )
    return read_texts(output) if is_same else {}


class _AuthorChoices(NamedTuple):
    """What the author of a model has written into its card: `metadata` (the licence) and `text`."""

    metadata: dict[str, Any]
    text: str


def _read_author_choices(card: Path) -> _AuthorChoices:
    """Return the author's lines of an existing card, or those to complete. Raises UserError for a damaged card."""
    if not card.is_file():
        return _AuthorChoices({}, AUTHOR_TEXT)
    try:
        metadata = metadata_load(card) or {}
    except (ValueError, yaml.YAMLError) as error:
        hint = "correct the lines between the first two ---, or move the file"
        raise UserError(f"its metadata is damaged ({first_line(error)})", hint, path=card) from None
    found = re.search(f"{re.escape(AUTHOR_START)}(.*){re.escape(AUTHOR_END)}", read_text(card), re.DOTALL)
    if not found:
        problem = f"has not both of the lines {AUTHOR_START} and {AUTHOR_END}, between which its author's text is kept"
        raise UserError(problem, "add them around your text, or move the file", path=card)
    return _AuthorChoices({key: metadata[key] for key in LICENCE_KEYS if key in metadata}, found.group(1))


def _metadata(document: Mapping[str, Any], licence: Mapping[str, Any]) -> str:
    """Return the card's metadata for the Hugging Face Hub, as YAML. `licence`: the author's choice, if there is one."""
    backbone = document["backbone"]
    tags = ["vimoclip", "biology", "animal-behavior", "action-recognition"]
    return ModelCardData(
        library_name="vimoclip",
        pipeline_tag="video-classification",
        base_model=hub_repository(backbone["clip_model"], backbone["clip_pretrained"]),
        tags=[*tags, *(["optical-flow"] if document["flow"] else [])],
        **(dict(licence) or {"license": "other", "license_name": "not-chosen-yet"}),
    ).to_yaml()


def _model_section(document: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    """Return what the model does, and how."""
    fusion, backbone = Fusion(document["fusion"]["config"]["model"]["fusion"]), _backbone_name(document)
    streams = []
    if fusion.uses_rgb:
        streams.append(f"**what single frames show**: a CLIP image encoder, {backbone}, embeds each sampled frame")
    if document["student"]:
        is_frozen = has_frozen_encoder(document["fusion"]["config"]["inputs"]["motion"])
        training = "with unchanged weights" if is_frozen else "that was trained on colour images of optical flow"
        streams.append(
            f"**motion**: MoCLIP, a copy of {backbone} {training}, embeds colour images of the optical flow between "
            "neighbouring frames"
        )
    classifier = "TFAM, a Transformer"
    if fusion.is_probe:
        is_linear = fusion.is_linear_probe
        classifier = (
            "a logistic regression on the means" if is_linear else "one attention query and a linear classifier"
        )
    contents = ", ".join(
        f"{part} ({sum(tensor.numel() for tensor in state.values()):,} parameters)" for part, state in parts.items()
    )
    inputs = "\n".join(f"- {stream}." for stream in streams)
    if fusion.uses_motion and not document["student"]:
        inputs += "\n\n**This is a control**: it was trained on zeros instead of motion."
    count = len(document["classes"])
    actions = "one action" if count == 1 else f"{count} actions"
    several = "Several may occur at once. Each action gets a score from 0 to 1." if count > 1 else "Scores are 0 to 1."
    return (
        f"This model scores {actions} of animals in video. {several} It was made with ViMoCLIP, a program for the "
        f"recognition of animal behaviour, and uses\n\n{inputs}\n\nThe actions are scored by {classifier} "
        f"(`{fusion.value}`) from these embeddings. `model.safetensors` contains {contents}; `config.json` has all "
        "settings.\n\n"
        f"Actions: {html.escape(', '.join(document['classes']), quote=False)}."
    )


def _backbone_names(document: Mapping[str, Any]) -> list[str]:
    """Return name and weights of the backbone; the name alone if it stands for both."""
    return [name for name in (document["backbone"]["clip_model"], document["backbone"]["clip_pretrained"]) if name]


def _backbone_name(document: Mapping[str, Any]) -> str:
    return " ".join(f"`{name}`" for name in _backbone_names(document))


def _usage_section(name: str, document: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    """Return the commands that use the model. `name`: of its folder."""
    fusion, window, flow = Fusion(document["fusion"]["config"]["model"]["fusion"]), document["window"], document["flow"]
    folder = shlex.quote(name)
    text = [
        f"Install ViMoCLIP {document['versions']['export']['vimoclip']} or newer (its README says how), and give these "
        "commands in its folder. The first one takes this folder, the second one downloads a model from the Hugging "
        "Face Hub:",
        f"```bash\npython predict.py my_video.mp4 --model {folder} -o predictions/\n"
        "python predict.py my_video.mp4 --model hf-hub:OWNER/NAME -o predictions/\n```",
        f"Each score is that of a window of {window['seconds']:g} s, and a window starts every "
        f"{window['stride_seconds']:g} s; `--window` and `--stride-seconds` change that. The result is a page with the "
        "video and a timeline, tables, and a BORIS project in which predictions are corrected.",
    ]
    if fusion.uses_rgb and model_folder.ENCODER not in parts:
        text.append(
            f"The image encoder is not in this folder: `predict.py` loads or downloads {_backbone_name(document)} by "
            "its name. If it is in a folder on your machine, give `--clip-model-name local-dir:FOLDER`."
        )
    if flow and flow["method"] not in METHODS_WITHOUT_WEIGHTS:
        text.append(
            f"`predict.py` has ptlflow download the weights of the flow network `{flow['method']}`. On a machine "
            "without network, give their file by `--ckpt-path`."
        )
    if not fusion.is_linear_probe:
        text.append(
            "To train it further on your own clips, also with other actions, extract their embeddings with the same "
            "settings:"
        )
        encoder = shlex.quote(f"local-dir:{name}") if model_folder.ENCODER in parts else None
        steps = embedding_commands(document["fusion"]["config"]["inputs"], encoder, folder)
        commands = [*steps["rgb"], *(steps["motion"] if document["student"] else [])]
        motion = document["fusion"]["config"]["data"]["motion"]
        settings = f" --set data.motion={motion}" if motion != "real" else ""
        commands.append(f"-m TFAM.train_and_eval --config {fusion.value} --init {folder}{settings}")
        text.append("```bash\n" + "\n".join(f"python {command}" for command in commands) + "\n```")
    return "## How to use it\n" + "\n\n".join(text)


def _licences_section(document: Mapping[str, Any], licence: EncoderLicence, has_backbone: bool) -> str:
    """Return the licences of weights, code, backbone and flow."""
    files = ", ".join(f"`{file}`" for file in licence.texts)
    backbone = f"**Backbone** {_backbone_name(document)}: "
    backbone += f"{licence.name} ({licence.source})" if licence.name else "this program does not know its licence"
    if licence.restriction:
        backbone += f", **{licence.restriction}**"
    if not has_backbone:
        backbone += ". Its weights are not in this folder."
    else:
        backbone += ". Its weights, or those of the student that began as a copy of it, are in this folder"
        missing = f"**TODO by the author: find the text, and add it as `{model_folder.BACKBONE_LICENCE}.txt`.**"
        backbone += f"; text: {files}." if files else f", but the text of its licence is not. {missing}"
    lines = [
        "**Weights of this model**: its author chooses their licence, by `license` at the top of this file. While that "
        "is `other` with the name `not-chosen-yet`, nobody else has permission to use them. It must agree with the "
        "licences below and with that of the videos.",
        f"**Code** that reads this folder: MIT (`{CODE_LICENCE}`). This is not the licence of the weights.",
        backbone,
    ]
    if flow := document["flow"]:
        lines.append(f"**Optical flow**: {describe_licence(flow['method'], flow['checkpoint'])}")
    return "## Licences\n" + "\n".join(f"- {line}" for line in lines)


def _provenance_section(document: Mapping[str, Any], evaluation: RunEvaluation) -> str:
    """Return run, settings, versions and hashes."""
    fusion, metrics, versions = document["fusion"], evaluation.metrics, document["versions"]
    motion = fusion["config"]["inputs"].get("motion") or {}
    hashes = {
        "fusion": fusion["weights_sha256"],
        "image encoder of the student": motion.get("weights_sha256") if document["student"] else None,
        "image encoder": document["backbone"]["weights_sha256"],
        **{f"data, {key}": value for key, value in (metrics.get("inputs_sha256") or {}).items()},
    }
    settings = ", ".join(f"`{key}={value}`" for key, value in (metrics.get("settings") or {}).items())
    rows = [
        ["run", f"`{metrics.get('config')}`, seed {metrics['seed']}"],
        ["settings that are not the defaults", settings or "none"],
        ["precision", str(metrics.get("precision"))],
        ["exported", date.today().isoformat()],
        *([f"versions of the {when}", ", ".join(f"{k} {v}" for k, v in versions[when].items())] for when in versions),
        *([f"SHA-256, {what}", f"`{value}`"] for what, value in hashes.items() if value),
    ]
    return f"## Provenance\n{markdown_table(['', ''], rows)}"


def _citation_section() -> str:
    """Return the citation of the method, from the README of this project."""
    found = re.search(r"```bibtex\n.*?```", read_text(REPOSITORY / "README.md"), re.DOTALL)
    return f"## Citation\nOf the method; that of this model is its author's.\n\n{found.group() if found else ''}"
