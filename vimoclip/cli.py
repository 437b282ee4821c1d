"""What the scripts' command lines share: groups of flags, one-line errors, exit codes, progress.

Light on purpose: nothing here imports torch, so that `--help` answers at once."""

import argparse
import errno
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from vimoclip import UserError

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, no abbreviations, and `--a_b` accepted wherever `--a-b` is."""

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
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Defaults are shown, but not those that say nothing."""
        if action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


def none_or(kind: Callable[[str], T]) -> Callable[[str], T | None]:
    """An argparse type for which the word `None` means off."""

    def parse(text: str) -> T | None:
        return None if text.lower() == "none" else kind(text)

    parse.__name__ = getattr(kind, "__name__", "value")
    return parse


def _number(kind: Callable[[str], Any], low: float, what: str, open_end: bool = False) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not (value > low if open_end else value >= low) or value == float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    parse.__name__ = what
    return parse


def seed(text: str) -> int:
    """An argparse type: what every random generator here takes as a seed."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to 2^32 - 1")
    return value


positive_int = _number(int, 1, "a whole number above 0")
count = _number(int, 0, "a whole number, 0 or more")
positive_float = _number(float, 0, "a number above 0", open_end=True)
non_negative_float = _number(float, 0, "a number, 0 or more")


def add_dataset(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data set")
    group.add_argument(
        "--dataset-dir", type=Path, default=Path("dataset"), help="holds annotations/ videos/ embeddings/ flows/"
    )
    group.add_argument("--dataset-name", default="ak", help="what file names of this data set start with")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("frames kept (give extract_embeddings.py and extract_flows.py the same)")
    group.add_argument("--stride", type=positive_int, default=1, help="keep every n-th frame")
    group.add_argument("--fps", type=none_or(positive_float), default=None, help="keep at most so many frames a second")
    group.add_argument("--max-frames", type=none_or(positive_int), default=None, help="stop after so many kept frames")


def add_clip(parser: argparse.ArgumentParser, name: str | None = "ViT-B/32") -> None:
    group = parser.add_argument_group("CLIP image encoder")
    group.add_argument(
        "--clip-model-name",
        default=name,
        help="OpenAI's spelling (ViT-B/32: QuickGELU), open_clip's (ViT-B-32), hf-hub:<repository> or "
        "local-dir:<folder> in open_clip's format" + ("" if name else "; default: what the embeddings were made with"),
    )
    group.add_argument(
        "--clip-pretrained",
        default="openai" if name else None,
        help="one of open_clip's tags, or a file: safetensors, a plain state dict, or OpenAI's own .pt",
    )


def add_embedding(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("embedding")
    group.add_argument("--frame-batch-size", type=positive_int, default=16, help="of the encoder, in frames")
    group.add_argument("--embedding-dtype", choices=["float32", "float16"], default="float32", help="in the file")


def add_compute(parser: argparse.ArgumentParser, workers: int = 2) -> None:
    group = parser.add_argument_group("computing")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    group.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16", "fp16"],
        default="auto",
        help="auto: bf16 on a GPU that has it, else fp32",
    )
    group.add_argument("--num-workers", type=count, default=workers, help="that read and prepare frames ahead")
    group.add_argument("--seed", type=seed, default=49, help="of everything random")


def add_run_control(parser: argparse.ArgumentParser, limit: str = "only the first N videos") -> None:
    group = parser.add_argument_group("this run")
    group.add_argument("--limit", type=none_or(positive_int), default=None, metavar="N", help=limit)
    group.add_argument("--overwrite", action="store_true", help="start afresh where there is output already")
    group.add_argument("--dry-run", action="store_true", help="check the inputs, say what there is to do, and stop")


def add_outcomes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("videos that are not as they should be")
    group.add_argument("--retry-failed", action="store_true", help="try those again that failed in an earlier run")
    group.add_argument("--strict", action="store_true", help="a video of which frames can't be decoded has failed")


@dataclass
class Report:
    """What a stage wrote and what became of each video, of this run and of those before it.

    `partial`, `skipped`, `failed` map a video to the reason; `changed`: done, but the source is another one since."""

    outputs: list[Path] = field(default_factory=list)
    manifests: list[Path] = field(default_factory=list)
    done: int = 0
    already: int = 0
    partial: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    not_retried: int = 0

    def print(self) -> None:
        kinds = {"partial": self.partial, "skipped": self.skipped, "failed": self.failed}
        counts = [f"{len(reasons)} {kind}" for kind, reasons in kinds.items()]
        print(f"{self.done} done, {self.already} done already, {', '.join(counts)}", flush=True)
        for kind, reasons in kinds.items():
            for video, reason in reasons.items():
                print(f"  {kind}: {video}: {reason}")
        for video in self.changed:
            print(f"  changed: {video}: is another file than the one that was done; --overwrite does all anew")
        if self.not_retried:
            print(f"{self.not_retried} failed before and were not tried again; --retry-failed does")
        for path in (*self.outputs, *self.manifests):
            print(f"wrote {path}", flush=True)


class Terminated(KeyboardInterrupt):
    """SIGTERM, taken as Ctrl-C is."""


_GRACE = 5.0  # s that a run has to end by itself after a signal
_go_on: list[Callable[[], str]] = []  # how to go on, where it is not by the same command
# what can be done about it, by what the operating system says
_CURES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room, and the same command goes on")
_CURES |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "name a place where you may write")


def go_on_with(command: Callable[[], str]) -> None:
    """Say how a run that is stopped goes on, where it is not by the same command."""
    _go_on[:] = [command]


def same_command() -> str:
    """The command line of this process, as it goes on with what there is: without --overwrite."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    script = ["-m", spec.name] if spec and spec.name != "__main__" else [sys.argv[0]]
    return shlex.join(["python", *script, *(arg for arg in sys.argv[1:] if arg != "--overwrite")])


def run(main: Callable[[], Any]) -> NoReturn:
    """Call a stage and turn what happens into an exit code: 0, 1 where some videos failed, 2 for a wrong call.

    Ctrl-C and SIGTERM: 130 and 143, within seconds, whatever the process is at."""
    _catch_signals()
    code, said = 0, ""
    try:
        result = main()
        code = 1 if isinstance(result, Report) and result.failed else 0
    except UserError as error:
        code, said = error.exit_code, f"error: {error}"
    except KeyboardInterrupt as stop:
        code, said = (143 if isinstance(stop, Terminated) else 130), _stopped()
    except OSError as error:
        if error.errno is None:
            raise
        cure = _CURES.get(error.errno, "the same command goes on")
        code, said = 1, f"error: {error.filename or 'a file'}: {error.strerror}; {cure}; what was finished is whole"
    if said:  # behind the handlers: until there the error keeps alive what waits to be closed
        print(said, file=sys.stderr, flush=True)
    sys.exit(code)


def _stopped() -> str:
    command = _go_on[0] if _go_on else same_command
    return f"\nstopped; what was finished is whole; go on with: {command()}"


def _catch_signals() -> None:
    """SIGTERM interrupts as Ctrl-C does; where code in C keeps Python from hearing of it, a thread ends the process.

    Nothing is lost by that: whatever a run has finished is on disk, under its name."""

    def terminated(number: int, frame: Any) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, terminated)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))

    def watch() -> None:
        while number := os.read(reading, 1)[0]:
            if number == signal.SIGTERM or (number == signal.SIGINT and signal.getsignal(number) != signal.SIG_IGN):
                time.sleep(_GRACE)
                print(_stopped(), file=sys.stderr, flush=True)
                os._exit(128 + number)

    threading.Thread(target=watch, daemon=True).start()


def need_folder(path: Path, cure: str) -> Path:
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder; {cure}")
    return path


def need_file(path: Path, cure: str) -> Path:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; {cure}")
    return path


def need_place(path: Path, flag: str) -> Path:
    """Raise UserError where no folder can come to be at `path`, because a file is there or on the way."""
    for place in (path, *path.parents):
        if place.is_dir():
            break
        if place.exists():
            raise UserError(f"{place}: is a file, not a folder; name a folder with {flag}")
    return path


def usable_workers(requested: int) -> int:
    """The requested number of workers, cut to the processors that this process may use."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if requested > processors:
        print(f"--num-workers {requested}: this machine has {processors} processors, so {processors} are used")
    return min(requested, processors)


def check_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], our_name: str, their_name: str, cure: str) -> None:
    """Raise UserError naming both where a setting that both sides know differs."""
    for key in sorted(ours.keys() & theirs.keys()):
        if ours[key] != theirs[key]:
            raise UserError(f"{key} is {ours[key]} in {our_name} but {theirs[key]} in {their_name}; {cure}")


def check_reachable(download: Mapping[str, str], seconds: float = 5.0) -> None:
    """Raise UserError where a file (`url`, `what`, `cure`) can't be had, instead of after a minute of retries."""
    url = download["url"]
    problem: list[str] = ["no answer"]

    def ask() -> None:
        import urllib.error
        import urllib.request

        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            problem.clear()
        except urllib.error.HTTPError as error:
            if error.code in (403, 405):  # there, but it doesn't answer HEAD
                problem.clear()
            else:
                problem[:] = [str(error)]
        except (OSError, ValueError) as error:
            problem[:] = [str(getattr(error, "reason", error))]

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if problem:
        raise UserError(
            f"{download['what']} can't be downloaded ({problem[0]}): get {url} on a machine with a network, "
            f"{download['cure']}"
        )


def progress(items: Iterable[T], total: int | None, unit: str, describe: str = "") -> Iterable[T]:
    """tqdm on a terminal; elsewhere a log line a minute."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        yield from tqdm(items, total=total, unit=unit, desc=describe, smoothing=0.05)
        return
    meter = Meter(total, unit, describe)
    for item in items:
        yield item
        meter.add(1)


class Meter:
    """Counts finished videos and frames; shows frames/s and the time left, by tqdm or as a line a minute."""

    def __init__(self, total: int | None, unit: str = "video", describe: str = "", every: float = 60.0):
        self.total, self.unit, self.describe, self.every = total, unit, describe, every
        self.items = self.frames = 0
        self.started = self.spoke = time.monotonic()
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, unit=unit, desc=describe, smoothing=0.05)

    def add(self, items: int = 0, frames: int = 0) -> None:
        self.items += items
        self.frames += frames
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(items)
            if frames:
                self.bar.set_postfix_str(f"{self.frames / max(now - self.started, 1e-9):.0f} frames/s", refresh=False)
        elif now - self.spoke >= self.every:
            self.spoke = now
            print(self.line(now), file=sys.stderr, flush=True)

    def line(self, now: float) -> str:
        seconds = max(now - self.started, 1e-9)
        text = f"{self.describe} {self.items}/{self.total if self.total is not None else '?'} {self.unit}s"
        if self.frames:
            text += f", {self.frames / seconds:.0f} frames/s"
        if self.items and self.total:
            text += f", {seconds / self.items * (self.total - self.items) / 60:.0f} min left"
        return text.strip()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
