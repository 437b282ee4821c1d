"""Python processes that start quickly: forks of a process that has imported PyTorch and other large packages.

`start` and `run` are like those of `subprocess`; `executable()` is a program that stands for `python` in shell scripts.
    python -m tests.preloaded serve FOLDER PID       fork a process for each connection until the process PID ends
    python tests/preloaded.py run SOCKET WORDS...    run `python WORDS...` as such a fork
The workers of pytest-xdist share one server."""

import array
import atexit
import contextlib
import gc
import importlib
import inspect
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES: tuple[str, ...] = (
    "torch",
    "torchvision",
    "open_clip",
    "ptlflow",
    "cv2",
    "av",
    "h5py",
    "sklearn.metrics",
    "openpyxl",
)
PACKAGES += ("torch.utils.tensorboard", "plotly.graph_objects", "jinja2", "iterstrat.ml_stratifiers")
PACKAGES += ("torchvision.transforms.v2", "sklearn.linear_model", "tensorboard.plugins.hparams.plugin_data_pb2")
PACKAGES += ("torch.distributed.launcher.api",)  # of torchrun
STAGE_MODULES = ("tests.stage_driver", "vimoclip.extraction.embeddings", "vimoclip.flow", "vimoclip.moclip")
START_SECONDS, RUN_SECONDS = 300, 600


class ProcessResult(NamedTuple):
    """Exit code of a process, or minus the signal that ended it, stdout and stderr."""

    returncode: int
    stdout: str
    stderr: str


class Process:
    """A process that runs `python WORDS...`, with the given stdin, stdout and stderr or with pipes."""

    def __init__(
        self,
        address: str,
        words: Sequence[str],
        folder: Path | str,
        environment: Mapping[str, str],
        streams: Sequence[int] = (),
    ):
        request = json.dumps({"words": list(words), "folder": str(folder), "environment": dict(environment)}).encode()
        self._outputs, ends = [], []
        if not streams:
            self._outputs, ends = [list(pair) for pair in zip(os.pipe(), os.pipe(), strict=True)]
            ends.insert(0, os.open(os.devnull, os.O_RDONLY))
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(address)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams or ends))]
        self._connection.sendmsg([len(request).to_bytes(4, "big")], rights)
        for end in ends:
            os.close(end)
        self._connection.sendall(request)
        self.pid = self._receive()

    def _receive(self) -> int:
        received = self._connection.recv(4)
        assert received, "the server has ended"
        return int.from_bytes(received, "big", signed=True)

    def has_ended(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(self._connection.recv(4, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        return False

    def wait(self, timeout: float | None = None) -> ProcessResult:
        """Return how it ended and what it printed. After `timeout` seconds, kill it and raise TimeoutError."""
        end = time.monotonic() + (timeout or float("inf"))
        chunks: dict[int, list[bytes]] = {output: [] for output in self._outputs}
        with self._connection, selectors.DefaultSelector() as selector:
            for output in chunks:
                selector.register(output, selectors.EVENT_READ)
            while selector.get_map():
                if timeout and time.monotonic() > end:
                    raise TimeoutError(str(chunks))
                for key, _ in selector.select(1):
                    chunks[key.fd].append(os.read(key.fd, 1 << 16))
                    if not chunks[key.fd][-1]:
                        selector.unregister(key.fd)
                        os.close(key.fd)
            code = self._receive()
        return ProcessResult(code, *(b"".join(parts).decode(errors="replace") for parts in chunks.values() or ((), ())))


def start(words: Sequence[str], folder: Path, stages: bool = False, **environment: str) -> Process:
    """Start `python WORDS...`; `stages`: with the STAGE_MODULES of this checkout imported too."""
    torchrun = {"PYTHON_EXEC": str(executable())}  # the program that torchrun starts
    address = str(_server() / ("stages" if stages else "socket"))
    return Process(address, words, folder, os.environ | torchrun | environment)


def run(words: Sequence[str], folder: Path, **environment: str) -> ProcessResult:
    """Run `python WORDS...` to its end."""
    return start(words, folder, False, **environment).wait(RUN_SECONDS)


def executable() -> Path:
    """Return a program named python that runs its arguments as `run` does."""
    return _server() / "bin" / "python"


@cache
def _server() -> Path:
    """Return the folder of the server's sockets, after starting it unless another worker of pytest-xdist has."""
    run_id = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    folder = Path(tempfile.gettempdir(), f"preloaded-{run_id}") if run_id else Path(tempfile.mkdtemp())
    with contextlib.suppress(FileExistsError):
        (folder / "bin").mkdir(parents=True)
        program = folder / "bin" / "python"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {__file__} run {folder}/socket "$@"\n')
        program.chmod(0o755)
        command = [sys.executable, "-m", "tests.preloaded", "serve", str(folder)]
        command.append(str(os.getppid() if run_id else os.getpid()))
        environment = os.environ | {"OMP_NUM_THREADS": "1"}  # the threads of OpenMP would not survive a fork
        with open(folder / "log", "wb") as log:
            subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
    end = time.monotonic() + START_SECONDS
    while not (folder / "stages").exists():
        assert time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.02)
    return folder


# --- the server


def serve(folder: str, pid: str) -> None:
    """Fork a process for each connection until the process `pid` ends. Returns in the forked processes only."""
    for module in PACKAGES:
        importlib.import_module(module)
    # torchrun often calls inspect.stack(), which searches all modules for a file that is not in this table: 2 s a run
    inspect.modulesbyfile |= dict.fromkeys(("<frozen runpy>", __file__), "runpy")
    inspect.stack()  # adds the other files
    listener = _listen(folder, "socket")
    if not os.fork():
        listener.close()
        for module in STAGE_MODULES:
            importlib.import_module(module)
        listener = _listen(folder, "stages")
    while True:
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                return _serve_one(connection)
            connection.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)


def _listen(folder: str, name: str) -> socket.socket:
    sys.stdout.flush()
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False  # of the imported packages: thousands, which each fork would run as it ends
    gc.collect()
    gc.freeze()  # a collection would touch, and so copy, all pages that are shared with the forks
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{folder}/{name}.new")
    listener.listen(64)
    listener.settimeout(2)
    os.rename(f"{folder}/{name}.new", f"{folder}/{name}")
    return listener


def _serve_one(connection: socket.socket) -> None:
    """Fork the process of a request, wait for it, send its exit code and end. Returns in the forked process only."""
    head, rights, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(12))
    streams = array.array("i", rights[0][2])
    request, length = b"", int.from_bytes(head, "big")
    while len(request) < length:
        request += connection.recv(length - len(request))
    pid = os.fork()
    if not pid:
        connection.close()
        return _prepare(streams, **json.loads(request))
    for stream in streams:
        os.close(stream)
    connection.sendall(pid.to_bytes(4, "big"))
    threading.Thread(target=_kill_if_closed, args=(connection, pid), daemon=True).start()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(status.to_bytes(4, "big", signed=True))
    os._exit(0)


def _kill_if_closed(connection: socket.socket, pid: int) -> None:
    with contextlib.suppress(OSError):
        connection.recv(1)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _prepare(streams: Sequence[int], words: list[str], folder: str, environment: dict[str, str]) -> None:
    """Make this process what `python WORDS...` would be before it runs the first line."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    if any(name.startswith("HF_") for name in environment):
        importlib.reload(sys.modules["huggingface_hub.constants"])
    sys.argv = words


def _execute() -> int:
    """Run sys.argv as Python does (a script, `-m MODULE`, `-c CODE`, or `-`); return the exit code."""
    words = sys.argv
    if words[0] == "-u":  # from torchrun
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        words.pop(0)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    own = [path for path in sys.path if path and Path(path).resolve() != REPOSITORY]
    first = str(Path(words[0]).resolve().parent) if words[0][0] != "-" else os.getcwd() if words[0] == "-m" else ""
    sys.path[:] = [first, *paths, *own]
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] in ("-", "-c"):
            code = sys.stdin.read() if words[0] == "-" else words.pop(1)
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return int(bool(stop.code)) if isinstance(stop.code, str) else int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> None:
    """End without deleting all modules and objects, which would copy the pages that are shared with the server."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run_client(address: str, *words: str) -> None:
    """Run `python WORDS...` with the streams of this process, and end as it does."""
    torchrun = {"PYTHON_EXEC": str(Path(address).with_name("bin") / "python")}
    forwarded = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, forwarded)  # until there is a process to end
    process = Process(address, words, os.getcwd(), torchrun | dict(os.environ), (0, 1, 2))
    for number in forwarded:
        signal.signal(number, lambda number, frame: os.kill(process.pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, forwarded)
    code = process.wait().returncode
    if code < 0:
        with contextlib.suppress(OSError):  # of SIGKILL
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    (serve if sys.argv[1] == "serve" else _run_client)(*sys.argv[2:])
    _end(_execute())
