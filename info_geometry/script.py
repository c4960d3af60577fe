"""The edges of every script: bad input is one sentence, a file is whole or absent, a result says what made it."""

import contextlib
import difflib
import errno
import importlib.metadata
import json
import os
import platform
import re
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

REPOSITORY = Path(__file__).resolve().parents[1]


class InputError(ValueError):
    """Bad input, said in one sentence: the file, the place in it, and the way out."""


class WriteError(InputError):
    """A file that cannot be written, for want of room or of rights."""


def natural(path):
    """By which paths are sorted so that 9 comes before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", Path(path).name)]


def unknown(kind, name, known):
    """The InputError for a name that is not in `known`, with the nearest ones that are."""
    known = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known[:12])}"
    return InputError(f"unknown {kind} {name!r}; {hint}")


def run(main, resumes=False):
    """Run a script's main function and exit: status 2 and one sentence for bad input, 130 when stopped.

    `resumes` says that the same command goes on where it was stopped.
    """
    name = Path(sys.argv[0]).name
    warnings.formatwarning = lambda message, *_, **__: f"{name}: {message}\n"
    try:
        main()
    except BrokenPipeError:  # whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except InputError as error:
        sys.exit(_say(f"{name}: {error}", status=2))
    except KeyboardInterrupt:
        sys.exit(_say(f"{name}: stopped" + "; the same command goes on from here" * resumes, status=130))


def _say(sentence, status):
    print(sentence, file=sys.stderr)
    return status


@contextlib.contextmanager
def replacing(path):
    """Yield a path beside `path` to write to; it takes the final name only when the block ends well.

    A killed process leaves the old file or the new one, and of two at once one waits for the other. Raises InputError
    where nothing can be written.
    """
    path = Path(path)
    partial = _partial(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with held(partial):
            yield partial
            os.replace(partial, path)


@contextlib.contextmanager
def held(path, wait=True):
    """Hold the file `path`, made for this purpose, so that no other process can; it is gone afterwards.

    What a killed process held is free. Raises BlockingIOError where another has it, unless this is to `wait`.
    """
    file, process = _locked(path, wait), os.getpid()
    _HELD.add(file)
    try:
        yield
    finally:
        if os.getpid() == process:  # and not in a copy of it
            with contextlib.suppress(OSError):
                if _is(file, path):  # it may have been given another name
                    os.unlink(path)
            _HELD.discard(file)
            os.close(file)


_HELD = set()  # files open for a lock


def _let_go():
    """Copies of the process, such as those that load images, hold nothing, or locks would outlive it by theirs."""
    for file in _HELD:
        os.close(file)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _locked(path, wait):
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(file)
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):  # file systems without locks
                os.close(file)
                raise
        if _is(file, path):
            return file
        os.close(file)  # whoever had it took it away meanwhile


def _is(file, path):
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), os.stat(path))
    return False


@contextlib.contextmanager
def writing(path):
    """Turn a failure to write into the WriteError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise WriteError(f"cannot write {path}: {reason}; make room or choose another folder") from error


def _partial(path):
    return path.with_name(f".{path.stem}.partial{path.suffix}")


def shown(path):
    """The path as a person at the prompt would write it."""
    with contextlib.suppress(ValueError):
        return str(Path(path).resolve().relative_to(Path.cwd()))
    return str(path)


def state_of(file):
    """What tells a file, a path or a descriptor, from another of its name, and from itself at another time."""
    stat = os.stat(file)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def check_unchanged(path, before, now):
    """Raise InputError where the state of a file (see `state_of`) is no longer what it was."""
    if now != before:
        raise InputError(f"{shown(path)}: was changed while it was read; start again when it is whole")


def versions(*packages):
    """What a result depends on beside its settings: {name: version} of Python, this project and `packages`."""
    found = {"python": platform.python_version()}
    for package in ("picture-of-tasks", *packages):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def from_json(text):
    """What a text in JSON says; raises ValueError for what is none, or is nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


@contextlib.contextmanager
def arrays_in(path):
    """The arrays of an .npz file that was written here, {name: array}; raises ValueError for a compressed one, which
    might be larger than memory."""
    with zipfile.ZipFile(path) as archive:
        if any(info.file_size > info.compress_size for info in archive.infolist()):
            raise ValueError("is compressed, and was not written here")
    with np.load(path, allow_pickle=False) as arrays:
        yield arrays


def differing(found, wanted):
    """One line naming the settings in which two records differ, but for the versions; empty if in none."""
    if not isinstance(found, dict):
        return f"{type(found).__name__} there"
    found, wanted = _flat(found), _flat(wanted)
    keys = [k for k in sorted(found.keys() | wanted.keys()) if found.get(k) != wanted.get(k)]
    keys = [k for k in keys if "versions" not in k.split(".")]
    return ", ".join(f"{k}: {found.get(k)!s:.60} there, {wanted.get(k)!s:.60} wanted" for k in keys[:4])


def differing_file(path, wanted):
    """What `differing` says of the record in a JSON file; that it is not readable, if so."""
    try:
        return differing(from_json(path.read_text()), wanted)
    except (OSError, ValueError) as error:
        return f"it is not readable: {error}"


def _flat(record):
    flat, waiting = {}, [("", record)]
    while waiting:
        prefix, part = waiting.pop()
        for key, value in part.items():
            if isinstance(value, dict):
                waiting.append((f"{prefix}{key}.", value))
            else:
                flat[f"{prefix}{key}"] = value
    return flat


def available_memory():
    """Bytes that can be had without swapping: of the machine, or of the container that holds the process."""
    free = []
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, ValueError, KeyError):
            limit, used = (Path("/sys/fs/cgroup", name) for name in (limit, used))
            known = dict(line.split() for line in (used.parent / "memory.stat").read_text().splitlines())
            # what is cached of files is given back when it is needed
            free.append(max(0, int(limit.read_text()) - int(used.read_text()) + int(known[cache])))
    if not free:  # macOS
        free.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(free)


class Unfinished:
    """What a long computation has so far, on disk: a stopped one goes on from there.

    `record` says what is computed, from which inputs: what another computation left is not taken up. `due` says when it
    is time to save, so seldom that saving takes a twentieth of the time.
    """

    def __init__(self, path, record):
        self.path, self.record = Path(path), json.dumps(record, sort_keys=True)
        self.next = time.monotonic() + 5

    def load(self):
        """The arrays of the last `save` of the same computation, {name: array}; none if there are none."""
        with contextlib.suppress(Exception), arrays_in(self.path) as found:  # anything may lie there
            if str(found["record"]) == self.record:
                return {name: found[name] for name in found.files}
        return {}

    def due(self):
        return time.monotonic() > self.next

    def save(self, **arrays):
        start = time.monotonic()
        with replacing(self.path) as partial:
            np.savez(partial, record=self.record, **arrays)
        self.next = time.monotonic() + max(5, 20 * (time.monotonic() - start))

    def remove(self):
        for path in (self.path, _partial(self.path)):  # which a kill may have left
            with contextlib.suppress(OSError):
                path.unlink()
