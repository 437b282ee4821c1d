"""Fit a probe: a simple classifier of the same embeddings, which a fusion has to beat.

    python -m TFAM.probe --config probe_rgb
    python -m TFAM.probe --config probe_attentive --seed 50
probe_rgb, probe_motion and probe_both are logistic regressions, one per class, on the mean embeddings of frames, of
flows, or both. Only the section data and training.seed change them: there are no epochs, and their regularisation is
chosen on the clips on which data.protocol selects the epoch of other models. probe_attentive, one learned query that
attends to all frames and flows, is trained with the settings of the section training.
Reads and writes the files of TFAM.train_and_eval, which takes the same flags and runs probes as well."""

from typing import Any

from TFAM import train_and_eval
from vimoclip import cli
from vimoclip.errors import UserError


def build_parser() -> cli.Parser:
    return train_and_eval.build_parser(__doc__)


def main(argv: list[str] | None = None) -> Any:
    """Return what TFAM.train_and_eval does. Raises UserError for a config that is no probe."""
    args = build_parser().parse_args(argv)
    if not (args.config or args.resume or args.evaluate):
        raise UserError("no --config", "give a probe, like --config probe_rgb")
    if args.config:
        from TFAM.config import from_arguments
        from TFAM.packing import Fusion

        fusion = Fusion(from_arguments(args, args.config)["model"]["fusion"])
        if not fusion.is_probe:
            raise UserError(f"--config {args.config[0]} has model.fusion {fusion}", "run TFAM.train_and_eval for it")
    return train_and_eval.run(args)


if __name__ == "__main__":
    cli.run(main)
