"""The argument parser, argparse types, and argument groups that several scripts share."""

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from vimoclip.cli.exit_codes import ends_with_first_process

T = TypeVar("T")

WINDOW_SECONDS, STRIDE_SECONDS = 6.0, 1.0  # of predict.py
# recorded settings -> flags of extract_flows.py, and from resize on of extract_embeddings.py
_FLAGS = {
    "method": "--model",
    "preset": "--dis-preset",
    "checkpoint": "--ckpt-path",
    "iters": "--iters",
    "precision": "--precision",
    "size": "--size",
    "normalization": "--flow-normalization",
    "flow_max": "--flow-max",
    "resize": "--resize",
    "stride": "--stride",
    "fps": "--fps",
    "max_frames": "--max-frames",
    "deinterlace": "--deinterlace",
}


class Parser(argparse.ArgumentParser):
    """ArgumentParser with one-line errors and without abbreviations; accepts `--a_b` for `--a-b`."""

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("formatter_class", _HelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        args = [self._hyphenated(a) for a in (sys.argv[1:] if args is None else args)]
        return super().parse_known_args(args, namespace)

    def _hyphenated(self, arg: str) -> str:
        if not arg.startswith("--"):
            return arg
        flag, equals, value = arg.partition("=")
        hyphenated = flag.replace("_", "-")
        return hyphenated + equals + value if hyphenated in self._option_string_actions else arg

    def error(self, message: str) -> NoReturn:
        is_reported = ends_with_first_process()
        self.exit(2, None if is_reported else f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Append the default, unless it is None, False or empty."""
        if action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


def none_or(convert: Callable[[str], T]) -> Callable[[str], T | None]:
    """Return an argparse type that also accepts the word `None`."""

    def parse(text: str) -> T | None:
        return None if text.lower() == "none" else convert(text)

    parse.__name__ = getattr(convert, "__name__", "value")
    return parse


def auto_or(convert: Callable[[str], T]) -> Callable[[str], T | str]:
    """Return an argparse type that also accepts the word `auto`."""

    def parse(text: str) -> T | str:
        return text if text == "auto" else convert(text)

    parse.__name__ = f"auto or {getattr(convert, '__name__', 'value')}"
    return parse


def _bounded_number(
    convert: Callable[[str], Any], minimum: float, description: str, exclusive: bool = False
) -> Callable[[str], Any]:
    """Return an argparse type for finite numbers above `minimum` (`exclusive`), or from `minimum` on."""

    def parse(text: str) -> Any:
        value = convert(text)
        if not (value > minimum if exclusive else value >= minimum) or value == float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not {description}")
        return value

    parse.__name__ = description
    return parse


def seed(text: str) -> int:
    """Parse a seed that torch and numpy accept."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to 2^32 - 1")
    return value


positive_int = _bounded_number(int, 1, "a whole number above 0")
non_negative_int = _bounded_number(int, 0, "a whole number, 0 or more")
positive_float = _bounded_number(float, 0, "a number above 0", exclusive=True)
non_negative_float = _bounded_number(float, 0, "a number, 0 or more")


def fraction(text: str) -> float:
    """Parse a number above 0 and below 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def fraction_or_one(text: str) -> float:
    """Parse a number above 0 and at most 1."""
    return 1.0 if float(text) == 1 else fraction(text)


def regex(text: str) -> re.Pattern[str]:
    """Parse a regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression ({error})") from None


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data set")
    group.add_argument(
        "--dataset-dir",
        type=Path,
        default=Path("dataset"),
        help="folder of annotations/, videos/, embeddings/ and flows/",
    )
    group.add_argument(
        "--dataset-name",
        default="ak",
        help="prefix of annotation and embedding files, the same in all scripts; any name will do",
    )


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("frame sampling (the same for extract_embeddings.py and extract_flows.py)")
    group.add_argument("--stride", type=positive_int, default=1, help="keep every n-th frame")
    group.add_argument(
        "--fps", type=none_or(positive_float), default=None, help="keep at most this many frames per second"
    )
    group.add_argument(
        "--max-frames",
        type=none_or(positive_int),
        default=None,
        help="keep only the first frames of a video, at most this many of the sampled ones",
    )
    add_deinterlace_argument(group)


def add_deinterlace_argument(parser: argparse._ActionsContainer, default: str | None = "off") -> None:
    parser.add_argument(
        "--deinterlace",
        choices=["off", "auto"],
        default=default,
        help="auto: frames that are flagged as interlaced, as of old camcorders, are deinterlaced by FFmpeg's bwdif"
        + ("" if default else "; default: off"),
    )


def add_clip_arguments(parser: argparse.ArgumentParser, default_model: str | None = "ViT-B/32") -> None:
    group = parser.add_argument_group("CLIP model")
    group.add_argument(
        "--clip-model-name",
        default=default_model,
        help="name of the CLIP model: OpenAI's (ViT-B/32, with QuickGELU activations), open_clip's (ViT-B-32), "
        "hf-hub:<repository>, or local-dir:<folder> in open_clip's format or of export_model.py"
        + ("" if default_model else "; default: the model of the RGB embeddings, or of --tfam"),
    )
    group.add_argument(
        "--clip-pretrained",
        default="openai" if default_model else None,
        help="pretrained weights: a name in open_clip (like openai), or a file (.safetensors, a PyTorch state dict, "
        "OpenAI's .pt)" + ("" if default_model else "; default: those of the RGB embeddings, or of --tfam"),
    )


def add_window_arguments(parser: Any, default: str | None = None) -> None:
    """Add --window and --stride-seconds; `default`: says where a value comes from if the flag is omitted."""
    for flag, value, content in (
        ("--window", WINDOW_SECONDS, "length of a window, in seconds"),
        ("--stride-seconds", STRIDE_SECONDS, "stride of the windows, in seconds"),
    ):
        help_text = f"{content}; default: {default}, or {value:g}" if default else content
        parser.add_argument(flag, type=positive_float, default=None if default else value, help=help_text)


def _removed_backend(text: str) -> str:
    """Warn about torch, the only backend; refuse every other one."""
    if text != "torch":
        raise argparse.ArgumentTypeError(f"{text} is not supported, the encoder runs in torch only; omit the flag")
    print("warning: --backend torch has no effect and may be omitted")
    return text


def add_embedding_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("embedding")
    add_frame_batch_argument(group)
    group.add_argument(
        "--backend",
        type=_removed_backend,
        default=argparse.SUPPRESS,
        help="accepted for old commands, without effect; only torch",
    )
    group.add_argument(
        "--embedding-dtype",
        choices=["float32", "float16"],
        default="float32",
        help="dtype of the embeddings in the file",
    )


def add_frame_batch_argument(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--frame-batch-size",
        type=auto_or(positive_int),
        default="auto",
        help="frames per encoder batch; fewer are used if a CUDA GPU has too little memory; auto: 256 on a CUDA GPU, "
        "64 on Apple's and on a CPU in bf16 with AMX, else 16",
    )


def add_pair_batch_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pair-batch-size",
        type=auto_or(positive_int),
        default="auto",
        help="pairs of frames per batch of optical flow; fewer are used if a GPU has too little memory; auto: 32 on a "
        "GPU, 8 on a CPU",
    )


def add_compute_arguments(parser: argparse.ArgumentParser, int8: bool = False, several_seeds: bool = False) -> None:
    """`int8`: offer the precision int8, which only inference supports. `several_seeds`: --seed gives a list."""
    group = parser.add_argument_group("computing")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    group.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16", "fp16", *(["int8"] if int8 else [])],
        default="auto",
        help="number format of the computation; auto: bf16, or fp16, on a CUDA GPU that supports it, else fp32"
        + (
            "; bf16 is the fastest on a CPU with AMX, int8 (CPU only) on one with VNNI but without AMX; embeddings "
            "are nearly those of fp32 (cosine similarity 0.9999 and 0.9997)"
            if int8
            else ""
        ),
    )
    group.add_argument(
        "--num-workers",
        type=auto_or(non_negative_int),
        default="auto",
        help="number of threads or processes that load data in advance; auto: 2 on a CPU; with a GPU, all processors "
        "but two, divided by the processes on the machine; in training 16 at most",
    )
    if several_seeds:
        text = "seeds of all random numbers, one run each; default: that of the settings (training.seed)"
        group.add_argument("--seed", type=seed, nargs="+", action="extend", default=[], metavar="N", help=text)
    else:
        group.add_argument("--seed", type=seed, default=49, help="seed of all random numbers")


def add_run_arguments(parser: argparse.ArgumentParser, limit: str = "only the first N videos") -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--limit", type=none_or(positive_int), default=None, metavar="N", help=limit)
    group.add_argument("--overwrite", action="store_true", help="replace existing output")
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="check the inputs, print the remaining work and its estimated time and disk space, and stop",
    )


def extraction_flags(settings: Mapping[str, Any]) -> str:
    """Return the flags of extract_flows.py with which a flow video gets these settings, or of extract_embeddings.py.

    `settings`: of a flow video's comment, or of the root attributes of embeddings."""
    values = {**settings, **settings.get("sampling", {}), **settings.get("geometry", {})}
    return " ".join(
        f"{flag} {shlex.quote(str(values[key]))}" for key, flag in _FLAGS.items() if values.get(key) is not None
    )


def shard(text: str) -> tuple[int, int]:
    """Parse i/n: 2/8 is the second of eight shards."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count) <= 100_000):
        raise argparse.ArgumentTypeError(f"{text!r} is not i/n with i from 1 to n, like 2/8")
    return int(index), int(count)


def fold(text: str) -> tuple[int, int]:
    """Parse k/n: 2/5 is the second of five folds."""
    index, count = shard(text)
    if count < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is one fold, which leaves no clips to train on; use two or more")
    return index, count


def add_sharding_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several machines (see docs/performance.md; or use torchrun)")
    group = group.add_mutually_exclusive_group()
    group.add_argument(
        "--shard",
        type=shard,
        default=None,
        metavar="I/N",
        help="process only part I of N of the videos, I from 1 to N, as in a job array; the part that finishes last "
        "merges all",
    )
    group.add_argument("--merge", action="store_true", help="only merge the output of all shards")


def add_failure_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("videos with problems")
    group.add_argument("--retry-failed", action="store_true", help="try videos again that failed in an earlier run")
    group.add_argument(
        "--strict",
        action="store_true",
        help="count a video with undecodable frames as failed; default: use its other frames",
    )


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--save-every-minutes",
        type=non_negative_float,
        default=15.0,
        help="within an epoch, save last.pth every so many minutes; a stopped run resumes from it; 0: after each step "
        "but the last",
    )
