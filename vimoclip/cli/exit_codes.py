"""How a stage ends: its report, exit codes, one-line errors, signals."""

import errno
import io
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from vimoclip.errors import UserError


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

    def add(self, other: "Report") -> None:
        """What became of the videos of another process, or of all."""
        for about in fields(self):
            mine, theirs = getattr(self, about.name), getattr(other, about.name)
            setattr(self, about.name, {**mine, **theirs} if isinstance(mine, dict) else mine + theirs)

    def clear(self) -> None:
        """Begin again with nothing."""
        self.__dict__.update(vars(Report()))

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
        for path in dict.fromkeys((*self.outputs, *filter(Path.exists, self.manifests))):
            print(f"wrote {path}", flush=True)


class Terminated(KeyboardInterrupt):
    """SIGTERM, taken as Ctrl-C is."""


_GRACE = 5.0  # s that a run has to end by itself after a signal
_go_on: list[Callable[[], str]] = []  # how to go on, where it is not by the same command
_afresh: list[bool] = []  # not empty where all old output is gone
# what can be done about it, by what the operating system says
_CURES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room, and the same command goes on")
_CURES |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "name a place where you may write")


def go_on_with(command: Callable[[], str]) -> None:
    """Say how a run that is stopped goes on, where it is not by the same command."""
    _go_on[:] = [command]


def begun_afresh() -> None:
    """Say that nothing of the old output is left: from here on the command goes on without --overwrite."""
    _afresh.append(True)


def same_command() -> str:
    """The command line of this process, as it goes on with what there is; see `begun_afresh`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    script = ["-m", spec.name] if spec and spec.name != "__main__" else [sys.argv[0]]
    torchrun = ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "1")]
    python = ["python"] if int(os.environ.get("WORLD_SIZE", 1)) == 1 else torchrun
    return shlex.join([*python, *script, *(arg for arg in sys.argv[1:] if arg != "--overwrite" or not _afresh)])


def run(main: Callable[[], Any]) -> NoReturn:
    """Call a stage and turn what happens into an exit code: 0, 1 where some videos failed, 2 for a wrong call.

    Ctrl-C and SIGTERM: 130 and 143, within seconds, whatever the process is at."""
    _catch_signals()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that its encoding doesn't have must not end a run
        sys.stdout.reconfigure(errors="backslashreplace")
    code, said = 0, ""
    try:
        result = main()
        code = 1 if isinstance(result, Report) and result.failed else 0
    except UserError as error:
        code, said = error.exit_code, f"error: {error}"
    except KeyboardInterrupt as stop:
        code, said = (143 if isinstance(stop, Terminated) else 130), _stopped()
    except RuntimeError as error:
        if str(error).startswith("DataLoader worker"):
            what = "a worker that reads data was killed, which is what happens where memory is short"
            code, said = 1, f"error: {what}; with fewer --num-workers: {_how_to_go_on()}"
        elif int(os.environ.get("WORLD_SIZE", 1)) > 1 and "onnection" in str(error):
            code, said = 1, "error: another process of this job has ended; its reason is among the lines here"
        else:
            raise
    except OSError as error:
        if error.errno is None:
            raise
        cure = _CURES.get(error.errno, "the same command goes on")
        code, said = 1, f"error: {error.filename or 'a file'}: {error.strerror}; {cure}; what was finished is whole"
    if said and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        said = f"process {os.environ.get('RANK')} of {os.environ['WORLD_SIZE']}: {said.strip()}"
    if said:  # behind the handlers: until there the error keeps alive what waits to be closed
        print(said, file=sys.stderr, flush=True)
    sys.exit(code)


def _stopped() -> str:
    return f"\nstopped; what was finished is whole; go on with: {_how_to_go_on()}"


def _how_to_go_on() -> str:
    return _go_on[0]() if _go_on else same_command()


def _catch_signals() -> None:
    """SIGTERM interrupts as Ctrl-C does; where code in C keeps Python from hearing of it, a thread ends the process.

    Nothing is lost by that: whatever a run has finished is on disk, under its name."""

    def terminated(number: int, frame: Any) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, terminated)
    if os.name != "posix":  # elsewhere the descriptor would have to be a socket
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))

    def watch() -> None:
        while number := os.read(reading, 1)[0]:
            if number == signal.SIGTERM or (number == signal.SIGINT and signal.getsignal(number) != signal.SIG_IGN):
                time.sleep(_GRACE)
                print(_stopped(), file=sys.stderr, flush=True)
                os._exit(128 + number)

    threading.Thread(target=watch, daemon=True).start()
