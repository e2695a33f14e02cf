"""A Python program in a fork of this process, as alone as if it had been started by itself.

What this process has imported the program finds imported, as far as its own environment has it:
it does not wait for TensorFlow. Linux only; it imports nothing of this package.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib.util
import io
import json
import os
import signal
import site
import socket
import sys
import tempfile
import threading
import time
import traceback
import types
from importlib.machinery import PathFinder
from pathlib import Path

import sandbox as hiding

MESSAGE_BYTES = 2**17
PR_SET_PDEATHSIG = 1
HANDLED = (signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1, signal.SIGINT)
STANDARD = [p for p in sys.path if p.startswith(sys.base_prefix) and "-packages" not in p]
BUFFERED = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
NAME = "local_cloud_forks"  # by which a program finds `start` here, if it may use it


class Fork:
    """A child, with the manners of `subprocess.Popen`."""

    stdin = None

    def __init__(self, pid: int, stdout=None, stderr=None):
        self.pid, self.stdout, self.stderr, self.returncode = pid, stdout, stderr, None

    def poll(self) -> int | None:
        return self._ended(os.WNOHANG)

    def wait(self) -> int:
        return self._ended(0)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _ended(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def fork(program: dict, env: dict, cwd: str) -> Fork:
    """Start a program as a child that ends with this process; its output comes through pipes.

    Args:
        program: `command`, `python FILE …` or `python -m MODULE …`; `sandbox`, what sandbox.py is
            told, or None; `ahead`, whether it may use `start`.
    """
    out, err = os.pipe(), os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)  # until the child has its own manners
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        become(**program, env=env, cwd=cwd, streams=(nothing, out[1], err[1]))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    os.close(out[1])
    os.close(err[1])
    return Fork(pid, open(out[0], "rb"), open(err[0], "rb"))


def start(command: list[str], env: dict, cwd: str) -> Fork | None:
    """Start the first Python program of this one, in a session of its own.

    Returns:
        None: the one that waited for it has its program already, or the system refuses.
    """
    global _waiting
    if _waiting is None:
        return None
    (pid, asked), _waiting = _waiting, None
    with asked:
        try:
            asked.send(json.dumps({"command": command, "env": env, "cwd": cwd}).encode())
        except OSError:
            return None
    return Fork(pid)


_waiting: tuple[int, socket.socket] | None = None


def become(
    command: list[str], env: dict, cwd: str, streams: tuple[int, ...] = (),
    sandbox: str | None = None, ahead: bool = False,
) -> None:  # fmt: skip
    """From here on this process, a fork, is the program; it never returns."""
    code = 1
    try:
        enter(command, env, cwd, streams)
        if sandbox:
            hiding.enter(sandbox)
        if ahead:
            _wait_ahead()
        _settle(command)
        _run(command)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    except BaseException as error:
        inner = error.__traceback__
        while inner and inner.tb_frame.f_code.co_filename == __file__:
            inner = inner.tb_next
        traceback.print_exception(error.with_traceback(inner or error.__traceback__))
    finally:
        end(code)


def enter(command: list[str], env: dict, cwd: str, streams: tuple[int, ...]) -> None:
    """Give up what came from the process before: files, signals, variables, name."""
    for place, descriptor in enumerate(streams):
        os.dup2(descriptor, place)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number in HANDLED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    _show(command)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    tempfile.tempdir = None
    os.chdir(cwd)
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = _written(1, "strict", through=unbuffered)
    sys.stderr = sys.__stderr__ = _written(2, "backslashreplace", through=True)


def end(code: int) -> None:
    """As Python ends, but without the seconds that it takes to free what TensorFlow has made."""
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
    finally:
        for thing in gc.get_objects():
            if type(thing) in BUFFERED:
                with contextlib.suppress(OSError, ValueError):  # closed; a reader that has left
                    thing.flush()
        os._exit(code & 0xFF)


def _written(descriptor: int, errors: str, *, through: bool) -> io.TextIOWrapper:
    raw = io.FileIO(descriptor, "w", closefd=False)
    binary = raw if through else io.BufferedWriter(raw)
    return io.TextIOWrapper(binary, errors=errors, write_through=through)


def _wait_ahead() -> None:
    """A child that waits to become the first program which this one starts (`start`)."""
    global _waiting
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        theirs.close()
        _waiting, sys.modules[NAME] = (pid, ours), sys.modules[__name__]
        return
    ours.close()
    os.setsid()
    message = theirs.recv(MESSAGE_BYTES)
    if not message:
        os._exit(0)
    become(**json.loads(message))


def _settle(command: list[str]) -> None:
    """The program's own interpreter: its path, and of what is imported what that path has."""
    python, first = command[0], command[1]
    sys.executable, prefix = python, os.path.dirname(os.path.dirname(python))
    sys.prefix = sys.exec_prefix = prefix
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    start = os.getcwd() if first == "-m" else os.path.dirname(os.path.realpath(first))
    sys.path[:] = [start, *given, *STANDARD]
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site.addsitedir(f"{prefix}/lib/{version}/site-packages")
    for name in [name for name in sys.modules if "." not in name]:
        _forget(name, None)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # or all forks draw the same numbers
    backend, drawing = os.environ.get("MPLBACKEND"), sys.modules.get("matplotlib")
    if backend and drawing:
        drawing.rcParams["backend"] = backend


def _forget(name: str, path: list[str] | None) -> None:
    """Drop a module that an import would not find; of a namespace, those of its modules."""
    spec = getattr(sys.modules[name], "__spec__", None)
    if spec is None or name in (NAME, "__main__") or name in sys.stdlib_module_names:
        return
    inner = f"{name}."
    if spec.origin is None and spec.submodule_search_locations is None:
        return  # made by another module, not found on a path
    if PathFinder.find_spec(name, path) is None:
        for gone in [name, *(other for other in sys.modules if other.startswith(inner))]:
            del sys.modules[gone]
    elif spec.origin is None:
        places = list(sys.modules[name].__path__)
        for other in [other for other in sys.modules if other.startswith(inner)]:
            if other in sys.modules and "." not in other.removeprefix(inner):
                _forget(other, places)


def _run(command: list[str]) -> None:
    """`python FILE …` or `python -m MODULE …`, in this process."""
    python, *words = command
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__builtins__ = sys.modules["builtins"]
    if words[0] == "-m":
        name, sys.argv = words[1], words[1:]
        spec = importlib.util.find_spec(name)
        if spec and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
        if spec is None:
            raise SystemExit(f"{python}: No module named {name}")
        main.__spec__, main.__loader__ = spec, spec.loader
        main.__package__, main.__file__ = spec.parent, spec.origin
        sys.argv[0], code = spec.origin, spec.loader.get_code(spec.name)
    else:
        sys.argv = words
        try:
            source = Path(words[0]).read_bytes()
        except OSError as error:
            print(f"{python}: can't open file {words[0]!r}: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        main.__file__, code = words[0], compile(source, words[0], "exec")
    exec(code, vars(main))  # noqa: S102 - the program itself


def _show(command: list[str]) -> None:
    """What `ps` shows: the command that would have been started, in the place of our own."""
    with open("/proc/self/stat") as file:
        begin, last = map(int, file.read().rpartition(")")[2].split()[45:47])
    words = b"\0".join(map(os.fsencode, command))[: last - begin - 1]
    ctypes.memmove(begin, words.ljust(last - begin, b"\0"), last - begin)
