"""The edges of every script: bad input is one sentence, a file is whole or absent, a result says what made it."""

import contextlib
import difflib
import importlib.metadata
import json
import os
import platform
import sys
import time
import warnings
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]


class InputError(ValueError):
    """Bad input, said in one sentence: the file, the place in it, and the way out."""


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

    A killed process leaves the old file or the new one. Raises InputError where nothing can be written.
    """
    path = Path(path)
    partial = _partial(path)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def writing(path):
    """Turn a failure to write into the InputError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise InputError(f"cannot write {path}: {reason}; make room or choose another folder") from error


def _partial(path):
    return path.with_name(f".{path.stem}.partial{path.suffix}")


def shown(path):
    """The path as a person at the prompt would write it."""
    with contextlib.suppress(ValueError):
        return str(Path(path).resolve().relative_to(Path.cwd()))
    return str(path)


def versions(*packages):
    """What a result depends on beside its settings: {name: version} of Python, this project and `packages`."""
    found = {"python": platform.python_version()}
    for package in ("picture-of-tasks", *packages):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


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
        with contextlib.suppress(Exception), np.load(self.path, allow_pickle=False) as found:  # anything may lie there
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
