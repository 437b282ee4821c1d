"""Start of a training from the weights of a trained model, for TFAM.train_and_eval --init."""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from TFAM import trained_fusion
from TFAM.config import Config, from_arguments
from TFAM.packing import Fusion
from TFAM.probes import build_model, model_settings
from vimoclip import cli, model_folder
from vimoclip.check.compatibility import ENCODER_ATTRIBUTES, FRAME_ATTRIBUTES, check_encoder, default_class_name
from vimoclip.errors import UserError
from vimoclip.io.checkpoint_loading import load_model, load_state, weights_sha256
from vimoclip.io.names import fold_name, list_some
from vimoclip.training import checkpoint

HASH_DIGITS = 12  # of the SHA-256 in training.init


class InitialWeights:
    """Weights of a trained model from which a run starts.

    `name`: a model folder, hf-hub:OWNER/NAME, a run folder of TFAM.train_and_eval, or a checkpoint. Raises UserError if
    it can't be read."""

    def __init__(self, name: str):
        self.trained = trained_fusion.load(model_folder.find_folder(name), calibrated=False)
        self.path, self.config = self.trained.path, self.trained.config
        self.model = load_model(lambda: build_model(self.config["model"]), self.trained.state_dict, self.path)
        self.weights_sha256 = weights_sha256(self.model)

    def configure(self, args: argparse.Namespace, paths: Sequence[Path]) -> Config:
        """Build the config of a command line whose section `model` is that of the weights, except for dropout.

        Raises UserError if the command line describes another model, or a linear probe."""
        model = model_settings(self.config["model"])
        config = from_arguments(args, paths, {"model": model})
        if Fusion(config["model"]["fusion"]).is_linear_probe:
            problem = "a linear probe is fitted, not trained by steps, so it can't start from weights"
            raise UserError(f"--init with model.fusion {config['model']['fusion']}: {problem}", "omit --init")
        expected, given = (
            {f"model.{key}": section[key] for key in model if not key.endswith("dropout")}
            for section in (model, config["model"])
        )
        hint = "give a --config of the same model, without --set model..."
        cli.check_settings_match(given, expected, "this command", str(self.path), hint)
        weights, init = f"sha256:{self.weights_sha256[:HASH_DIGITS]}", config["training"]["init"]
        if init not in (None, weights):
            raise UserError(f"training.init is {init}, but --init has {weights}", "give the model of training.init")
        config["training"]["init"] = weights
        return config

    def check_not_overwritten(self, folder: Path) -> None:
        """Raise UserError if the weights are in the run folder that --overwrite would remove."""
        path = self.path.resolve()
        if folder.resolve() in (path, *path.parents):
            problem = "--init is in the run that --overwrite removes"
            raise UserError(problem, "name another --config or --checkpoints-dir", path=folder)

    def require_embeddings(self, data: Mapping[str, Any]) -> None:
        """Raise UserError, with the commands that compute them, if embeddings are missing. `data`: of the config."""
        for stream, command in self._commands().items():
            path = Path(data["motion_h5" if stream == "motion" else "rgb_train_h5"])
            if not path.is_file():
                raise UserError("there is no such file", f"run {command}", path=path)

    def check_inputs(self, config: Mapping[str, Any]) -> None:
        """Raise UserError if the embeddings of a run are of another encoder or student than those of the weights.

        Prints a warning if they are of other frames. `config`: of the run's checkpoints."""
        commands = self._commands()
        own_width, width = ({"embed_dim": model["model"]["d_model"]} for model in (self.config, config))
        cli.check_settings_match(own_width, width, str(self.path), "the embeddings given", f"run {commands['rgb']}")
        for stream, command in commands.items():
            own, given = (saved["inputs"].get(stream) or {} for saved in (self.config, config))
            own_name, given_name, hint = f"the {stream} embeddings of {self.path}", "those given", f"run {command}"
            check_encoder(own, given, own_name, given_name, ENCODER_ATTRIBUTES, hint)
            if stream == "motion":  # students with a frozen encoder differ in their flow alone
                flow, given_flow = (_flow_settings(attributes) for attributes in (own, given))
                cli.check_settings_match(flow, given_flow, own_name, given_name, hint)
            try:
                check_encoder(own, given, own_name, given_name, FRAME_ATTRIBUTES, hint)
            except UserError as error:
                print(f"warning: {error.problem}, but scores depend on it; {hint}", flush=True)

    def describe(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return the value of `init` in metrics.json, for a run with these classes."""
        shared = self._shared_classes(class_names)
        return {
            "name": self.trained.name,
            "weights_sha256": self.weights_sha256,
            "shared_classes": [class_names[number] for number in shared],
            "new_classes": [name for number, name in enumerate(class_names) if number not in shared],
        }

    def copy_to(self, model: nn.Module, class_names: Sequence[str]) -> None:
        """Copy the weights into a new model, except for the rows of its last layer of classes that are new.

        Prints which classes these are."""
        shared = self._shared_classes(class_names)
        last = list(model.get_submodule("classifier").named_children())[-1][0]
        own, fresh = self.model.state_dict(), model.state_dict()
        for key in [key for key in own if key.startswith(f"classifier.{last}.")]:
            values = fresh[key].cpu().clone()
            values[list(shared)] = own[key][list(shared.values())]
            own[key] = values
        load_state(model, own, self.path)
        new = self.describe(class_names)["new_classes"]
        unused = [name for number, name in enumerate(self.trained.classes) if number not in shared.values()]
        print(f"initial weights: {self.path}, its last layer for {len(shared)} of {len(class_names)} classes")
        for label, names in (("new classes", new), ("classes of the model that the data does not have", unused)):
            if names:
                print(f"  {label}: {list_some(names, 10)}", flush=True)

    def _shared_classes(self, class_names: Sequence[str]) -> dict[int, int]:
        """Return the numbers of the classes that the weights have too, by their names -> their numbers there.

        Classes of files without names are not known to be the same."""
        ids = {
            fold_name(name): number
            for number, name in enumerate(self.trained.classes)
            if name != default_class_name(number)
        }
        pairs = ((number, ids.get(fold_name(name))) for number, name in enumerate(class_names))
        return {number: own for number, own in pairs if own is not None}

    def _commands(self) -> dict[str, str]:
        """Return the commands that compute embeddings for the weights; those of RGB have the labels too."""
        is_folder = model_folder.is_model_folder(self.path)
        has_encoder = is_folder and model_folder.ENCODER in model_folder.open_folder(self.path).parts
        commands = embedding_commands(
            self.config["inputs"],
            shlex.quote(f"local-dir:{self.path}") if has_encoder else None,
            shlex.quote(str(self.path)) if is_folder else "STUDENT",
        )
        if not Fusion(self.config["model"]["fusion"]).uses_motion or self.config["data"]["motion"] == "none":
            del commands["motion"]
        return {stream: " and ".join(steps) for stream, steps in commands.items()}


def embedding_commands(inputs: Mapping[str, Any], encoder: str | None, student: str) -> dict[str, list[str]]:
    """Return the commands that compute embeddings like the `inputs` of a config, by stream.

    `encoder`: value of --clip-model-name, None for the name that `inputs` record; `student`: of --checkpoint-dir."""
    rgb, motion = (inputs.get(stream) or {} for stream in ("rgb", "motion"))
    name = encoder or shlex.quote(str(rgb.get("clip_model")))
    if not encoder and rgb.get("clip_pretrained"):
        name = f"{name} --clip-pretrained {shlex.quote(rgb['clip_pretrained'])}"
    frames = {key: rgb[key] for key in ("resize", *FRAME_ATTRIBUTES) if key in rgb}
    flow_flags = cli.extraction_flags(motion.get("student", {}).get("flow", {}))
    return {
        "rgb": [f"extract_embeddings.py --clip-model-name {name} {cli.extraction_flags(frames)}".strip()],
        "motion": [f"extract_flows.py {flow_flags}".strip(), f"inference.py --checkpoint-dir {student}"],
    }


def resumed_init(config: Config, folder: Path, overwrite: bool) -> dict[str, Any] | None:
    """Return the value of `init` in metrics.json of a run that resumes without --init; None if it has none.

    Raises UserError if the run would have to start from weights that are not given."""
    if config["training"]["init"] is None:
        return None
    last = folder / "last.pth"
    if overwrite or not last.is_file():
        problem = f"training.init is {config['training']['init']}, but there is no --init"
        raise UserError(problem, "name the model of these weights with --init", path=folder)
    return checkpoint.load_checkpoint(last).get("init")


def _flow_settings(motion: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the flow that the student of motion embeddings was trained on, without its frames."""
    flow = motion.get("student", {}).get("flow", {})
    return {f"flow.{key}": value for key, value in flow.items() if key not in FRAME_ATTRIBUTES}
