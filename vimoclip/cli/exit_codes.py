"""Exit codes, one-line errors, signal handling."""

import errno
import io
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from vimoclip.cli.run_report import RunReport
from vimoclip.errors import UserError, first_line, is_out_of_memory


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C."""


_GRACE_SECONDS = 5.0  # after a signal, before a thread ends the process
_FIRST_PROCESS_SECONDS = 10.0  # in which torchrun ends this process, if another one has failed and prints the error
_resume_command: list[Callable[[], str]] = []  # set if the same command would not resume the run
_overwritten: list[bool] = []  # not empty once all old output is deleted
_SAME_COMMAND = "the same command resumes the run"
_HINTS = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), f"make room, and {_SAME_COMMAND}")
_HINTS |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "name a folder with write permission")


def set_resume_command(command: Callable[[], str]) -> None:
    """Replace `rerun_command` as the command that is printed for a stopped run."""
    _resume_command[:] = [command]


def mark_overwritten() -> None:
    """Record that the old output is deleted, so that `rerun_command` leaves out --overwrite."""
    _overwritten.append(True)


def rerun_command() -> str:
    """Return the command line of this process, without --overwrite after `mark_overwritten`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    script = ["-m", spec.name] if spec and spec.name != "__main__" else [sys.argv[0]]
    torchrun = ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "1")]
    python = ["python"] if int(os.environ.get("WORLD_SIZE", 1)) == 1 else torchrun
    return shlex.join([*python, *script, *(arg for arg in sys.argv[1:] if arg != "--overwrite" or not _overwritten)])


def run(main: Callable[[], Any]) -> NoReturn:
    """Call a script's main function and exit: 0, 1 if some videos failed, 2 for a wrong call.

    Ctrl-C and SIGTERM exit with 130 and 143 within seconds, also while C code runs."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that can't be encoded must not end a run
        sys.stdout.reconfigure(errors="backslashreplace")
    code, message = 0, ""
    try:
        _install_signal_handlers()  # torchrun may end the process from here on
        result = main()
        code = 1 if isinstance(result, RunReport) and result.failed else 0
    except UserError as error:
        code, message = error.exit_code, "" if _is_reported_elsewhere(error) else f"error: {error}"
    except KeyboardInterrupt as interrupt:
        is_terminated = isinstance(interrupt, Terminated)  # by torchrun, if another process has failed
        code, message = (143 if is_terminated else 130), "" if is_terminated and _local_rank() else _stopped_message()
    except RuntimeError as error:
        if str(error).startswith("DataLoader worker"):
            problem = "a data loading worker was killed, usually because memory is short"
            code, message = 1, f"error: {problem}; resume with fewer --num-workers: {_format_resume_command()}"
        elif is_out_of_memory(error):
            hint = "use smaller batches (--batch-size, --micro-batch-size, --frame-batch-size, training.batch_size)"
            problem = f"there is too little free memory ({first_line(error)[:200]})"
            code, message = 1, f"error: {problem}; {hint}: {_format_resume_command()}"
        elif int(os.environ.get("WORLD_SIZE", 1)) > 1 and "onnection" in str(error):
            code, message = 1, "error: another process of this run has failed; see its error"
        else:
            raise
    except OSError as error:
        if error.errno is None:
            raise
        hint = _HINTS.get(error.errno, _SAME_COMMAND)
        code, message = 1, f"error: {error.filename or 'a file'}: {error.strerror}; {hint}; finished output is complete"
    if message and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        message = f"process {os.environ.get('RANK')} of {os.environ['WORLD_SIZE']}: {message.strip()}"
    if message:  # after the except blocks, in which the traceback keeps files open
        print(message, file=sys.stderr, flush=True)
    sys.exit(code)


def _is_reported_elsewhere(error: UserError) -> bool:
    """Return whether another process of torchrun prints the same error."""
    if error.is_duplicate is None:
        return ends_with_first_process()
    if error.is_duplicate:
        _is_stopped_within(_FIRST_PROCESS_SECONDS)  # torchrun ends this process when the one that prints has ended
    return error.is_duplicate


def ends_with_first_process() -> bool:
    """Wait for torchrun to end this process because the first one on this machine has failed; False if it doesn't.

    For errors before the processes join: usually all processes have the same error, and the first one prints it. If the
    first one does not fail, this process prints its own error."""
    return _local_rank() > 0 and _is_stopped_within(_FIRST_PROCESS_SECONDS)


def _is_stopped_within(seconds: float) -> bool:
    """Wait; return at once, with True, if the process is interrupted or terminated."""
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        return True
    return False


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", 0))


def _stopped_message() -> str:
    return f"\nstopped; finished output is complete; resume with: {_format_resume_command()}"


def _format_resume_command() -> str:
    return _resume_command[0]() if _resume_command else rerun_command()


def _register_fork_hooks() -> None:
    """Let SIGTERM end a forked child at once, and only the child.

    A new child has the pipe of the wakeup descriptor, through which its SIGTERM would end this process. So the signal
    waits until the child has given up the descriptor."""

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def start_child() -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=start_child)


def _install_signal_handlers() -> None:
    """Raise Terminated on SIGTERM. If C code delays Python's handlers, a thread ends the process.

    That loses nothing: finished output is already on disk under its name."""

    def terminate(number: int, frame: Any) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    if os.name != "posix":  # on Windows the wakeup descriptor must be a socket
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    _register_fork_hooks()

    def exit_after_grace_period() -> None:
        while number := os.read(reader, 1)[0]:
            if number == signal.SIGTERM or (number == signal.SIGINT and signal.getsignal(number) != signal.SIG_IGN):
                time.sleep(_GRACE_SECONDS)
                print(_stopped_message(), file=sys.stderr, flush=True)
                os._exit(128 + number)

    threading.Thread(target=exit_after_grace_period, daemon=True).start()
