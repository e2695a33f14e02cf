"""Hide this machine's files from a program: `python -I -S sandbox.py SPEC.json COMMAND …`.

In namespaces of its own the program sees the system's folders, what SPEC names (`read`, `write`:
paths; `as`: path inside → folder; `env`: variables that hold there) and nothing else. Where the
system allows no such namespaces it runs as it is; `--probe` tells by its exit code. Standard
library only.
"""

import contextlib
import ctypes
import json
import os
import sys
from pathlib import Path

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/dev", "/proc", "/sys")
NEWUSER, NEWNS = 0x10000000, 0x20000
BIND, RECURSIVE, PRIVATE, REMOUNT, READ_ONLY = 0x1000, 0x4000, 0x40000, 0x20, 0x1
KEPT = 0x2 | 0x4 | 0x8 | 0x400 | 0x800  # nosuid, nodev, noexec, noatime, nodiratime


def main(words: list[str]) -> None:
    if words[0] == "--probe":
        _enter()
        return
    enter(words[0])
    command = words[1:]
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"exec: {command[0]!r}: {error.strerror}", file=sys.stderr)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


def enter(path: str) -> None:
    """From here on this process, which has one thread, sees what the spec at `path` names."""
    spec, folder = json.loads(Path(path).read_text()), os.getcwd()
    with contextlib.suppress(PermissionError):
        _enter()
        os.environ |= spec["env"]
        _hide(spec)
        os.chdir(folder)


def _enter() -> None:
    """User and mount namespaces of our own, as the user we are."""
    user, group = os.getuid(), os.getgid()
    _call("unshare", NEWUSER | NEWNS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount("none", "/", RECURSIVE | PRIVATE)


def _hide(spec: dict) -> None:
    root = spec["root"]
    os.makedirs(root, exist_ok=True)
    _call("mount", b"none", root.encode(), b"tmpfs", 0, b"mode=755")
    for path in SYSTEM:
        if os.path.islink(path):  # /bin, where it is part of /usr
            os.symlink(os.readlink(path), root + path)
        elif os.path.isdir(path):
            _show(path, root + path)
    for inside, path in spec["as"].items():
        _show(path, root + inside)
    for path in spec["read"]:
        _show(path, root + path, read_only=True)
    for path in spec["write"]:
        _show(path, root + path)
    os.chroot(root)


def _show(path: str, place: str, *, read_only: bool = False) -> None:
    if not os.path.exists(path):
        return
    if os.path.isdir(path):
        os.makedirs(place, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        Path(place).touch()
    _mount(path, place, BIND | RECURSIVE)
    if read_only:
        _mount("none", place, BIND | REMOUNT | READ_ONLY | os.statvfs(place).f_flag & KEPT)


def _mount(source: str, place: str, flags: int) -> None:
    _call("mount", source.encode(), place.encode(), None, flags, None)


def _call(name: str, *arguments) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*map(_c, arguments)):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _c(value):
    return ctypes.c_ulong(value) if isinstance(value, int) else value


if __name__ == "__main__":
    main(sys.argv[1:])
