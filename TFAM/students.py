"""What motion embeddings record about the student that computed them, and whether it saw more than the run may use."""

from collections.abc import Mapping
from typing import Any

from TFAM.config import Config
from TFAM.data import selection_digest
from vimoclip.annotations.split_protocol import HELD_OUT, PUBLISHED
from vimoclip.store import EmbeddingReader
from vimoclip.training import run_folder


def student_protocol(config: Config, train: EmbeddingReader, motion: EmbeddingReader | None) -> dict[str, Any]:
    """Return the keys of metrics.json about the student of the motion embeddings, None if unknown or irrelevant.

    `student_protocol`: published if it records none; `student_selection_agrees`: whether a held-out student had this
    run's model-selection split, None also for a frozen encoder, which depends on no labels; `student_shots`: None also
    for all training clips; `student_has_more_labels`."""
    student = motion.attributes.get("student") if motion else None
    protocol = agrees = shots = None
    if motion is not None and isinstance(student, dict):
        protocol, shots = student.get("protocol", PUBLISHED), student.get("shots")
        is_held_out = protocol == HELD_OUT == config["data"]["protocol"]
        if is_held_out and student.get("selection") is not None and not has_frozen_encoder(motion.attributes):
            agrees = student["selection"] == selection_digest(train, config["data"])
    more = student_has_more_labels(config["data"], motion)
    return {
        "student_protocol": protocol,
        "student_selection_agrees": agrees,
        "student_shots": shots,
        "student_has_more_labels": more,
    }


def student_has_more_labels(data: Mapping[str, Any], motion: EmbeddingReader | None) -> bool:
    """Return whether the motion that a few-shot run reads depends on labels of clips that the run is not trained on.

    True if that is unknown. `data`: section of the config."""
    if not data["shots"] or motion is None or data["motion"] == "none":
        return False
    student = motion.attributes.get("student")
    if not isinstance(student, dict):
        return True
    if has_frozen_encoder(motion.attributes):
        return False
    shots, is_held_out = student.get("shots"), student.get("protocol") == HELD_OUT
    return shots is None or shots > data["shots"] or is_held_out != (data["protocol"] == HELD_OUT)


def has_frozen_encoder(motion: Mapping[str, Any]) -> bool:
    """Return whether the encoder of the motion still has its teacher's weights, so that no labels changed it.

    `motion`: root attributes of the embeddings, with a student's config."""
    encoder = motion.get("weights_sha256")
    return bool(encoder) and encoder == motion["student"].get("clip", {}).get("weights_sha256")


def describe_student(motion: EmbeddingReader | None) -> dict[str, Any]:
    """Return `student_seed` and `student_sha256` of metrics.json, a hash of all that a student records except its seed.

    None for runs without motion, and for students that do not record a seed."""
    student = motion.attributes.get("student") if motion else None
    if not isinstance(student, dict) or "seed" not in student:
        return {"student_seed": None, "student_sha256": None}
    without_seed = {key: value for key, value in sorted(student.items()) if key != "seed"}
    return {"student_seed": student["seed"], "student_sha256": run_folder.digest(without_seed)}


def warn_about_student(config: Config, train: EmbeddingReader, motion: EmbeddingReader | None) -> None:
    """Print a warning if a run reads motion of a student that may have seen labels that the run must not use.

    These are those of the model-selection split under held_out, and of clips beyond the shots of a few-shot run."""
    if motion is None or config["data"]["motion"] == "none":
        return
    protocol, agrees, student_shots, has_more_labels = student_protocol(config, train, motion).values()
    if has_more_labels:
        shots = config["data"]["shots"]
        known = f"has {student_shots} shots" if student_shots else "may have the labels of all training clips"
        print(
            f"warning: {motion.path}: its student {known}, but the run has {shots}, so the run uses more labels than "
            f"those of its clips; run train.py --shots {shots} (or --freeze-encoder) and inference.py"
        )
    if config["data"]["protocol"] != HELD_OUT:
        return
    if protocol != HELD_OUT:
        problem = f"the protocol of its student is {protocol or 'unknown'}, so its epoch may have been selected on the "
        problem += "evaluation split, and it may have been trained on the model-selection split"
    elif agrees is False:
        problem = "its student had another model-selection split, so it may have been trained on that of this run"
    else:
        return
    print(f"warning: {motion.path}: {problem}; run train.py --protocol {HELD_OUT} and inference.py")
