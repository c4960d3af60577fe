"""Predictions in files by others: arrays of whatever format and order, brought to prediction files block by block.

A source is a file of two axes (one model), three (a run) or four (runs of several seeds), or a folder of such files in
natural order: each with two axes is a checkpoint, each with more a seed. Nothing is unpickled, and nothing is in memory
as a whole.
"""

import contextlib
import functools
import hashlib
import math
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, softmax
from tqdm import tqdm

from info_geometry import formats, ranks
from info_geometry.predictions import digest, labels_path
from info_geometry.samples import ROW_SUM_TOLERANCE, slices
from info_geometry.script import InputError, WriteError, check_unchanged, natural, replacing, shown, versions
from info_geometry.writer import Writer

KINDS = ("probabilities", "log-probabilities", "logits")
NAMES = dict(zip(formats.AXES, ("seeds", "checkpoints", "samples", "positions", "classes"), strict=True))
LOOK_AT = 64  # rows of a checkpoint, to tell what they are


class Checkpoint(NamedTuple):
    """One checkpoint of a source: its name, and where it is in which file."""

    id: str
    path: Path
    place: dict


class Source:
    """A file, or a folder of them: the runs that it holds, {number: [Checkpoint, ...]}, of N samples and C classes.

    `axes` and `kind` are told (see `Layout`), or found from the number of axes and from values; `binary` says that
    there is no axis of classes, or one of length one. To be used as a context, which keeps the file open that was read
    last. Raises InputError for files that do not fit each other.
    """

    def __init__(self, path, key=None, axes=None, kind=None, binary=False, scratch=None):
        self.path, self.key, self.scratch = Path(path), key, scratch
        self.told, self.binary = (axes, kind), binary
        self.stack, self.array = contextlib.ExitStack(), None

    def __enter__(self):
        self.files, self.runs, self.states, self.dtypes = files_of(self.path), {}, {}, set()
        with contextlib.ExitStack() as on_error:
            on_error.callback(self.stack.close)
            for path in self.files:
                self._add(self.open(path))
            on_error.pop_all()
        return self

    def __exit__(self, *error):
        self.stack.close()

    def open(self, path):
        """The `Array` in one of the files, until another is opened."""
        if not self.array or self.array.path != path:
            self.array = None
            self.stack.close()
            self.array = self.stack.enter_context(formats.opened(path, self.key, self.scratch))
            check_unchanged(path, self.states.setdefault(path, self.array.state), self.array.state)
        return self.array

    def _add(self, array):
        axes = axes_of(array, self.told[0], self.binary)
        shape = array.size(axes, "N") * array.size(axes, "L"), 2 if self.binary else array.size(axes, "C")
        if self.runs and (shape, axes) != (self.shape, self.axes):
            read = f"{array.shape}, read as ({', '.join(axes)})"
            raise InputError(f"{shown(array.path)}: holds {read}, which does not go with {shown(self.files[0])}")
        self.shape, self.axes = shape, axes
        self.samples = tuple(array.size(axes, axis) for axis in axes if axis in "NL")  # as the array has them
        self.dtypes.add(array.dtype)
        seeds, times = ([{axis: i} for i in range(array.size(axes, axis))] if axis in axes else [{}] for axis in "ST")
        if "S" not in axes and len(times) == 1:  # a file a checkpoint
            self.runs.setdefault(0, []).append(Checkpoint(array.path.name, array.path, times[0]))
            return
        for seed in seeds:
            run = [Checkpoint(str(t), array.path, seed | time) for t, time in enumerate(times)]
            self.runs[len(self.runs)] = run

    @functools.cached_property
    def kind(self):
        """As told, or by some rows of the first, the middle and the last checkpoint of each run."""
        if self.told[1]:
            return self.told[1]
        looked_at = {}
        for checkpoint in (run[t] for run in self.runs.values() for t in sorted({0, len(run) // 2, len(run) - 1})):
            array, n_samples = self.open(checkpoint.path), self.shape[0]
            some = range(0, n_samples, max(1, n_samples // LOOK_AT))
            rows = np.concatenate([array.block(self.axes, checkpoint.place, slice(n, n + 1)) for n in some])
            looked_at[array.where(self.axes, checkpoint.place)] = rows
        # a last layer of zeros, as some networks begin with, tells nothing
        telling = {where: rows for where, rows in looked_at.items() if rows.any()} or looked_at
        kinds = {}
        for where, rows in telling.items():
            kinds.setdefault(kind_of(rows, where), where)
        if len(kinds) > 1:
            told = ", but ".join(f"{where} looks like {kind}" for kind, where in kinds.items())
            raise InputError(f"{told}; --kind says which they are")
        return next(iter(kinds))

    def checkpoint(self, found, dtype):
        """The `Probabilities` of a checkpoint."""
        return Probabilities(self, found, dtype)

    def described(self):
        """What is where, in words."""
        axes = ", ".join(NAMES[axis] for axis in self.axes)
        if self.path.is_dir():
            axes = f"{len(self.files)} files, {self.files[0].name} to {self.files[-1].name}, of {axes}"
        sizes = {
            "run": len(self.runs),
            "checkpoint": len(self.runs[0]),
            "sample": self.shape[0],
            "class": self.shape[1],
        }
        plural = {"class": "classes"}
        sizes = [f"{n} {name if n == 1 else plural.get(name, name + 's')}" for name, n in sizes.items()]
        return f"{' and '.join(sorted(self.dtypes))}, {axes}: {', '.join(sizes)}"

    def __str__(self):
        return f"{shown(self.path)}: {self.kind} in {self.described()}"


def files_of(path):
    """The files of a source, in natural order; raises InputError for a folder that holds others, or none."""
    if not path.is_dir():
        return [path]
    found = [p for p in path.glob("[!.]*") if p.is_file() and p.suffix.lower() in formats.SUFFIXES]
    if within := [p for p in path.glob("[!.]*/[!.]*") if p.suffix.lower() in formats.SUFFIXES]:
        raise InputError(
            f"{shown(min(within))}: lies in a folder within {shown(path)}, of which only the files are read; import it "
            "by itself, with the --seed of its run"
        )
    if not found:
        raise InputError(f"{shown(path)}: holds no files {', '.join(formats.SUFFIXES)}")
    kinds = {p.suffix.lower() for p in found}
    if len(kinds) > 1:
        raise InputError(
            f"{shown(path)}: holds files of several formats, {', '.join(sorted(kinds))}; keep those of one"
        )
    found = sorted(sorted(found), key=natural)
    if len({re.sub(r"\d+", "0", p.name) for p in found}) > 1 or found != sorted(found, key=_decimal):
        raise InputError(
            f"{shown(path)}: names such as {found[0].name} and {found[-1].name} do not tell the files' order; give "
            "them names that differ in whole numbers only, such as step0010"
        )
    return found


def _decimal(path):
    """By which paths are sorted so that 0.5 comes after 0.25, and 5e2 before 1e3."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", path.name)
    return [float(part) if n % 2 else part for n, part in enumerate(parts)]


def axes_of(array, told, binary):
    """The letters of an array's axes, as told or by their number."""
    n = len(array.shape)
    last = "N" if binary and (n == 1 or array.shape[-1] != 1) else "NC"
    axes = told or {0: "", 1: "T", 2: "ST"}.get(n - len(last), "?") + last
    if not (
        set(axes) <= set(formats.AXES) and len(set(axes)) == len(axes) == n and "N" in axes and ("C" in axes or binary)
    ):
        if told:
            raise InputError(
                f"{shown(array.path)}: holds {array.shape}, not the axes {told}; --axes has a letter for each, "
                "S(eeds), T (checkpoints), N (samples), L (positions in each) and, but for --binary, C(lasses)"
            )
        raise InputError(
            f"{shown(array.path)}: holds {array.shape}, which is neither (samples, classes) nor has checkpoints and "
            "seeds before; --axes tells others, and --binary that none is of classes"
        )
    n_classes = array.size(axes, "C")
    if "C" in axes and binary and n_classes != 1:
        raise InputError(f"{shown(array.path)}: has {n_classes} classes, whereas --binary has one number a sample")
    if n_classes == 1 and not binary:
        raise InputError(
            f"{shown(array.path)}: has one class, which is always right; --binary says that it is the second of two"
        )
    return axes


def kind_of(rows, name):
    """What rows (B, C), or (B, 1) of the second of two classes, are; raises InputError where they may be several."""
    rows = rows[~(np.isnan(rows) | np.isposinf(rows)).any(axis=1)]
    if not len(rows):
        raise InputError(f"{name}: none of the rows looked at is finite")
    low, high = rows.min(), rows.max()
    if rows.shape[1] == 1:
        told = f"its values are {low:.3g} to {high:.3g}"
        if low >= 0 and high <= 1:
            return "probabilities"
        if low < 0 < high:
            return "logits"
    else:
        sums = rows.sum(axis=1)
        told = f"its rows sum to {sums.min():.3g} to {sums.max():.3g}"
        if low >= 0 and np.abs(sums - 1).max() <= ROW_SUM_TOLERANCE:
            return "probabilities"
        if high <= ROW_SUM_TOLERANCE and np.abs(logsumexp(rows, axis=1)).max() <= ROW_SUM_TOLERANCE:
            return "log-probabilities"
        if low < 0 and (low < -ROW_SUM_TOLERANCE or np.abs(sums - 1).max() > ROW_SUM_TOLERANCE):
            _check_columns(rows, name)
            return "logits"
        told = f"{told}, its values from {low:.3g}"
    raise InputError(f"{name}: {told}, which may be logits, or not normalised; --kind says what they are")


def _check_columns(rows, name):
    """Raise InputError where one column of rows (B, C) looks like labels among outputs."""
    whole = formats.whole(rows).all(axis=0)
    labels = whole & (rows != rows[0]).any(axis=0)
    if labels.any() and not whole.all() and len(rows) >= 10:
        raise InputError(
            f"{name}: column {labels.argmax() + 1} holds whole numbers, like labels, while others do not; take it out, "
            "or say --kind logits, if it is a class"
        )


class Probabilities:
    """A checkpoint (N, C) of a source as probabilities, block of samples by block, rounded to `dtype`."""

    def __init__(self, source, checkpoint, dtype):
        self.source, self.checkpoint, self.shape, self.dtype = source, checkpoint, source.shape, np.dtype(dtype)

    def __getitem__(self, samples):
        array, axes, place = self.source.open(self.checkpoint.path), self.source.axes, self.checkpoint.place
        found = np.empty((samples.stop - samples.start, self.shape[1]), self.dtype)
        for part in slices(samples.stop, max(1, formats.BLOCK_VALUES // self.shape[1]), samples.start):
            rows = array.block(axes, place, part)
            p = probabilities(rows, self.source.kind, lambda n, first=part.start: array.where(axes, place, first + n))
            found[part.start - samples.start : part.stop - samples.start] = p
        return found


def probabilities(rows, kind, where):
    """Probabilities (B, C) of rows of some kind; raises InputError at the first row that has none, at `where(row)`."""
    alone = rows.shape[1] == 1
    if kind == "logits":
        rows = np.concatenate([np.zeros_like(rows), rows], axis=1) if alone else rows
        bad = np.isnan(rows) | np.isposinf(rows)
        _refuse(bad.any(axis=1), rows, where, "holds a value that is not finite")
        _refuse(np.isneginf(rows).all(axis=1), rows, where, "has no class with any probability")
        return softmax(rows, axis=1)
    if kind == "log-probabilities":
        _refuse(np.isnan(rows).any(axis=1), rows, where, "holds a value that is not finite")
        _refuse(
            (rows > ROW_SUM_TOLERANCE).any(axis=1), rows, where, "holds a value above 0, which is no log-probability"
        )
        rows = np.exp(rows)
    _refuse(~np.isfinite(rows).all(axis=1), rows, where, "holds a value that is not finite")
    _refuse((rows < 0).any(axis=1), rows, where, "holds a negative value")
    if alone:
        _refuse(rows[:, 0] > 1, rows, where, "holds a value above 1")
        return np.concatenate([1 - rows, rows], axis=1)
    total = rows.sum(axis=1)
    bad = np.abs(total - 1) > ROW_SUM_TOLERANCE
    _refuse(bad, rows, where, f"sums to {total[bad.argmax()]:.6g}" if bad.any() else "")
    return rows


def _refuse(bad, rows, where, fault):
    if bad.any():
        raise InputError(f"{where(int(bad.argmax()))} {fault}")


def labels_in(path, source):
    """True classes (N,) of a source's samples, in a file of whole numbers from 0 to C - 1: a text with one a line for
    instance, or, of samples with positions, an array of these two axes in the source's order."""
    n_samples, n_classes = source.shape
    with formats.opened(path, usual="labels") as array, formats.faults_of(array.path):
        if math.prod(array.shape) != n_samples or not (max(array.shape) == n_samples or array.shape == source.samples):
            name = "; the first may be a name" if max(array.shape) == n_samples + 1 else ""
            raise InputError(
                f"{shown(path)}: holds {array.shape} numbers, not a label for each of {n_samples} samples{name}"
            )
        values = np.asarray(array.values[...], dtype=np.float64)
        positions_first = 0 <= source.axes.find("L") < source.axes.index("N")
        values = (values.T if positions_first and array.shape == source.samples else values).ravel()
    bad = np.flatnonzero(~((values >= 0) & (values < n_classes) & (values == np.floor(values))))
    if bad.size:
        raise InputError(f"{shown(path)}: [{bad[0]}] is {values[bad[0]]:g}, no whole number from 0 to {n_classes - 1}")
    return values.astype(np.int64)


def import_runs(source, folder, seed=0, labels=None, dtype=None, overwrite=False):
    """Write the runs of a `Source` to `folder`/preds_<seed>.h5 and on, and labels (N,), if there are any, to where they
    are looked for; returns the paths. A killed import goes on where it was.

    `dtype` is float16 or float32, by default the source's own if that is float16. Raises InputError at the first row
    that is no probability, and where something else is there that is not to be overwritten.
    """
    folder = check_folder(folder)
    dtype = dtype or ("float16" if source.dtypes == {"float16"} else "float32")
    record = {
        "imported": {
            "from": source.path.name,
            "sha256": _digest(source.files),
            "axes": source.axes,
            "kind": source.kind,
        },
        "dtype": dtype,
        "versions": versions("numpy", "h5py", "torch"),
    }
    if labels is not None:
        record["labels_sha256"] = digest(labels)
        check_labels(labels, labels_path(folder))
    paths = {number: folder / f"preds_{seed + number}.h5" for number in source.runs}
    for path in paths.values():
        if path.exists() and any(map(path.samefile, source.files)):
            raise InputError(f"{shown(path)}: is itself part of what is imported; choose another folder")
    with contextlib.ExitStack() as stack:
        writers = {}
        for number, run in source.runs.items():
            stack.enter_context(ranks.alone(paths[number]))
            ids = [checkpoint.id for checkpoint in run]
            writers[number] = Writer(paths[number], record | {"run": number}, ids, overwrite)
        try:
            for number, writer in writers.items():
                writer.begin()
                for index in tqdm(writer.missing, desc=writer.path.name, unit="checkpoint", disable=None):
                    writer.write(index, source.checkpoint(source.runs[number][index], dtype))
        except WriteError:  # there may be room later
            raise
        except InputError:
            for writer in writers.values():
                writer.discard()
            raise
        for writer in writers.values():
            writer.finish()
    return [*paths.values(), *([] if labels is None else [store_labels(labels, labels_path(folder))])]


def check_folder(folder):
    """The absolute path of a folder of predictions; raises InputError for a name that is not <dataset>_<task>."""
    folder = Path(os.path.abspath(folder))
    if not re.fullmatch(r"[^_]+_.+", folder.name):
        raise InputError(f"{shown(folder)}: the folder's name must be <dataset>_<task>, such as mine_all")
    return folder


def _digest(files):
    """SHA-256 of the names and contents of files."""
    found = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            found.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()


def check_labels(labels, path):
    """Raise InputError where a file has other labels than these (N,)."""
    if path.exists():
        with formats.opened(path) as array:
            if not np.array_equal(array.values, labels):
                raise InputError(f"{shown(path)}: holds other labels; remove it if these are right for all runs beside")


def store_labels(labels, path):
    """Write labels (N,) to a file, unless it has them; see `check_labels`."""
    check_labels(labels, path)
    if not path.exists():
        with replacing(path) as partial:
            np.save(partial, labels)
    return path
