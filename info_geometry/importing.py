"""Predictions in files by others: arrays of whatever format and order, brought to prediction files block by block.

A source is a file of two axes (one model), three (a run) or four (runs of several seeds), or a folder of such files in
natural order: each with two axes is a checkpoint, each with more a seed. Nothing is unpickled, and nothing is in memory
as a whole.
"""

import contextlib
import csv
import functools
import hashlib
import itertools
import math
import os
import pickle
import re
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from scipy.special import logsumexp, softmax
from tqdm import tqdm

from info_geometry import ranks
from info_geometry.predictions import Reading, dataset, digest, labels_path
from info_geometry.samples import ROW_SUM_TOLERANCE, slices
from info_geometry.script import InputError, check_unchanged, natural, replacing, shown, state_of, versions
from info_geometry.writer import Writer

KINDS = ("probabilities", "log-probabilities", "logits")
SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".pt", ".pth", ".csv", ".tsv", ".txt")
BLOCK_VALUES = 1 << 22  # turned into probabilities at a time
LINE_BYTES = 1 << 26  # the longest line of a text
AXES = "STNLC"
NAMES = dict(zip(AXES, ("seeds", "checkpoints", "samples", "positions", "classes"), strict=True))
LOOK_AT = 64  # rows of a checkpoint, to tell what they are
# An array's axes are said by letters of AXES in its order, without C where it has the probability of the second of two
# classes. With positions, such as those of tokens in a text, N L of them are the samples.


class Array:
    """An array of a file, read only where it is sliced. Attributes: `path`, `shape`, `dtype` (a string), `where`."""

    def __init__(self, path, values, key=""):
        self.path, self.values, self.key, self.state = path, values, key, state_of(path)
        self.shape, self.dtype = tuple(values.shape), str(values.dtype).removeprefix("torch.")

    def block(self, axes, place, samples):
        """Rows (B, C), or (B, 1) without classes, in float64, of a checkpoint: `place` {"S": seed, "T": checkpoint}."""
        rows = "L" if "L" in axes else "N"
        with _faults_of(self.path):
            parts = [self._values(axes, {"C": slice(None), **place, **part}) for part in self._parts(axes, samples)]
            parts = [part.T for part in parts] if axes.find("C") < axes.index(rows) else parts
            found = np.concatenate(parts, dtype=np.float64)
            check_unchanged(self.path, self.state, state_of(self.path))
        return found if "C" in axes else found[:, None]

    def _parts(self, axes, samples):
        """Where samples are: slices along N or, with positions, along L for each of N."""
        if "L" not in axes:
            return [{"N": samples}]
        length = self.size(axes, "L")
        whole = range(samples.start // length, -(-samples.stop // length))
        ends = ((n, samples.start - n * length, samples.stop - n * length) for n in whole)
        return [{"N": n, "L": slice(max(0, first), min(length, stop))} for n, first, stop in ends]

    def _values(self, axes, index):
        found = self.values[tuple(index[axis] for axis in axes)]
        return found if isinstance(found, np.ndarray) else found.double().numpy()  # a tensor, whose type numpy may lack

    def size(self, axes, axis):
        return self.shape[axes.index(axis)] if axis in axes else 1

    def where(self, axes, place, sample=None):
        n, position = (":", ":") if sample is None else divmod(sample, self.size(axes, "L"))
        index = {"N": n, "L": position, "C": ":", **place}
        return f"{shown(self.path)}: {self.key}[{', '.join(str(index[axis]) for axis in axes)}]"


@contextlib.contextmanager
def opened(path, key=None, scratch=None):
    """The `Array` in a file; texts and archives are unpacked into the folder `scratch` (default: the system's).

    Raises InputError, which names the file, for what holds no array of numbers, or less of it than it says.
    """
    path = Path(path)
    reader = {".npz": _npz, ".h5": _h5, ".hdf5": _h5, ".pt": _pt, ".pth": _pt, ".npy": _npy}.get(path.suffix.lower())
    if not path.is_file():
        raise InputError(f"{shown(path)}: no such file")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{shown(path)}: unknown format; known are {', '.join(SUFFIXES)}, and folders of these")
    with contextlib.ExitStack() as stack:
        with _faults_of(path):
            found = (reader or _text)(path, key, stack, scratch)
            array = Array(path, *found)
            if not re.fullmatch(r"b?float\d+|u?int\d+|bool", array.dtype) or not 1 <= len(array.shape) <= len(AXES):
                raise InputError(
                    f"{shown(path)}: holds {array.dtype} of shape {array.shape}, not one to five axes of numbers"
                )
            if 0 in array.shape:
                raise InputError(f"{shown(path)}: is empty, of shape {array.shape}")
        yield array


@contextlib.contextmanager
def _faults_of(path):
    """Whatever the bytes of a file lead to becomes an InputError that names it."""
    try:
        with warnings.catch_warnings(action="ignore"):  # what they say, the error does
            yield
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{shown(path)}: not a readable {path.suffix.lower()[1:]} file ({reason[:300]})") from error


def _npy(path, key, stack, scratch):
    return (np.lib.format.open_memmap(path, mode="r"),)


def _npz(path, key, stack, scratch):
    archive = stack.enter_context(zipfile.ZipFile(path))
    names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    key = _one(path, names, key)
    with archive.open(names[key]) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of npy")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise InputError(f"{shown(path)}: {key} holds Python objects, which are not unpickled")
        if math.prod(shape) * dtype.itemsize != names[key].file_size - file.tell():
            raise InputError(f"{shown(path)}: {key} is said to be {dtype} of shape {shape}, but is not")
        unpacked = _scratch(stack, scratch, names[key].file_size, path)
        shutil.copyfileobj(file, unpacked, 1 << 20)
    return _mapped(unpacked, dtype, shape, "F" if fortran else "C"), key


def _h5(path, key, stack, scratch):
    file = stack.enter_context(Reading(path))
    names = {name: None for name in file if isinstance(file.get(name), h5py.Dataset)}
    key = key or ("data" if "data" in file else None)
    return dataset(file, _one(path, names, key), path), key or next(iter(names))


def _pt(path, key, stack, scratch):
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{shown(path)}: holds more than tensors, or others than there are, which could run code when it is loaded"
        ) from error
    if isinstance(content, dict):
        content = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
        key = _one(path, content, key)
        content = content[key]
    if not isinstance(content, torch.Tensor) or content.layout != torch.strided:
        raise InputError(f"{shown(path)}: holds no dense tensor, but {type(content).__name__}")
    if content.numel() * content.element_size() > content.untyped_storage().nbytes():
        raise InputError(f"{shown(path)}: is said to be of shape {tuple(content.shape)}, but not all of that is there")
    return content.detach(), key or ""


def _one(path, names, key):
    """The name that is meant: `key`, or the only one."""
    if key is None and len(names) == 1:
        return next(iter(names))
    if not names:
        raise InputError(f"{shown(path)}: holds no arrays")
    if key not in names:
        raise InputError(
            f"{shown(path)}: holds {', '.join(list(names)[:8])}" + (f", not {key}" if key else "; --key names one")
        )
    return key


def _text(path, key, stack, scratch):
    """Numbers in lines, with or without a line of names, or of the numbers of classes, above."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = ((number, line) for number, line in enumerate(_lines(path, file), 1) if line.strip())
        first = next(lines, None)
        if first is None:
            raise InputError(f"{shown(path)}: is empty")
        delimiter = next((mark for mark in "\t;," if mark in first[1]), None)
        names = next(csv.reader([first[1]], delimiter=delimiter)) if delimiter else first[1].split()
        has_names = not all(map(_is_number, names)) or (len(names) > 2 and names == [str(n) for n in range(len(names))])
        nameless = names[0] == ""
        lines = lines if has_names else itertools.chain([first], lines)
        unpacked, n_rows, n_columns = _scratch(stack, scratch, 0, path), 0, None
        while read := list(itertools.islice(lines, max(1, BLOCK_VALUES // (4 * len(names))))):
            rows = _numbers(path, read, delimiter, n_columns)
            n_rows, n_columns = n_rows + len(rows), rows.shape[1]
            unpacked.write(rows.tobytes())
    if not n_rows:
        raise InputError(f"{shown(path)}: has a line of names, and no numbers")
    found = _mapped(unpacked, np.dtype(np.float64), (n_rows, n_columns))
    # the numbers of lines, which pandas puts before
    numbered = min(n_rows, n_columns) > 2 and np.array_equal(found[:, 0], np.arange(n_rows))
    return (found[:, int(numbered or nameless) :],)


def _lines(path, file):
    while line := file.readline(LINE_BYTES):
        if len(line) == LINE_BYTES:
            raise InputError(f"{shown(path)}: has a line of more than {LINE_BYTES >> 20} million letters")
        yield line


def _is_number(text):
    with contextlib.suppress(ValueError):
        float(text)
        return True
    return False


def _numbers(path, lines, delimiter, n_columns):
    """Numbers (B, columns) of lines [(number, text), ...]; raises InputError at the first that does not fit."""
    with contextlib.suppress(ValueError):
        found = np.loadtxt([line for _, line in lines], delimiter=delimiter, comments=None, quotechar='"', ndmin=2)
        if n_columns in (None, found.shape[1]):
            return found
    for number, line in lines:
        cells = line.strip().split(delimiter)
        n_columns = n_columns or len(cells)
        if len(cells) != n_columns:
            raise InputError(f"{shown(path)}: line {number} has {len(cells)} cells, not {n_columns}")
        for column, cell in enumerate(cells, 1):
            if not _is_number(cell):
                raise InputError(f"{shown(path)}: line {number}, cell {column}: {cell.strip()[:40]!r} is no number")
    raise InputError(f"{shown(path)}: lines {lines[0][0]} to {lines[-1][0]} are no table of numbers")


def _scratch(stack, folder, size, path):
    """A file without a name, which is gone when the stack is closed, or the process is killed."""
    folder = folder or tempfile.gettempdir()
    if shutil.disk_usage(folder).free < size:
        raise InputError(f"{shown(path)}: {size / 1e9:.1f} GB have to be unpacked, for which {folder} has no room")
    return stack.enter_context(tempfile.TemporaryFile(dir=folder))


def _mapped(file, dtype, shape, order="C"):
    file.flush()
    return np.memmap(file, dtype, "r", shape=shape, order=order)


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
        self.told = axes, kind, binary
        self.stack, self.array = contextlib.ExitStack(), None

    def __enter__(self):
        self.files, self.runs, self.shape = files_of(self.path), {}, None
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
            self.array = self.stack.enter_context(opened(path, self.key, self.scratch))
        return self.array

    def _add(self, array):
        told, _, binary = self.told
        axes = axes_of(array, told, binary)
        shape = array.size(axes, "N") * array.size(axes, "L"), 2 if binary else array.size(axes, "C")
        if self.runs and (shape, axes) != (self.shape, self.axes):
            read = f"{array.shape}, read as ({', '.join(axes)})"
            raise InputError(f"{shown(array.path)}: holds {read}, which does not go with {shown(self.files[0])}")
        self.shape, self.axes, self.dtype = shape, axes, array.dtype
        seeds, times = ([{axis: i} for i in range(array.size(axes, axis))] if axis in axes else [{}] for axis in "ST")
        if "S" not in axes and len(times) == 1:  # a file a checkpoint
            self.runs.setdefault(0, []).append(Checkpoint(array.path.name, array.path, times[0]))
            return
        for seed in seeds:
            run = [Checkpoint(str(t), array.path, seed | time) for t, time in enumerate(times)]
            self.runs[len(self.runs)] = run

    @functools.cached_property
    def kind(self):
        """As told, or by some rows of the first, the middle and the last checkpoint of the first run."""
        if self.told[1]:
            return self.told[1]
        kinds, run, (n_samples, _) = {}, self.runs[0], self.shape
        for checkpoint in (run[0], run[len(run) // 2], run[-1]):
            array = self.open(checkpoint.path)
            some = range(0, n_samples, max(1, n_samples // LOOK_AT))
            rows = np.concatenate([array.block(self.axes, checkpoint.place, slice(n, n + 1)) for n in some])
            kinds.setdefault(kind_of(rows, shown(array.path)), array.where(self.axes, checkpoint.place))
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
        axes = f"{len(self.files)} files of {axes}" if self.path.is_dir() else axes
        sizes = {
            "run": len(self.runs),
            "checkpoint": len(self.runs[0]),
            "sample": self.shape[0],
            "class": self.shape[1],
        }
        plural = {"class": "classes"}
        sizes = [f"{n} {name if n == 1 else plural.get(name, name + 's')}" for name, n in sizes.items()]
        return f"{axes}: {', '.join(sizes)}"

    def __str__(self):
        return f"{shown(self.path)}: {self.kind} in {self.dtype}, {self.described()}"


def files_of(path):
    """The files of a source, in natural order; raises InputError for a folder that holds others, or none."""
    if not path.is_dir():
        return [path]
    found = [p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")]
    found = sorted((p for p in found if p.suffix.lower() in SUFFIXES), key=natural)
    if not found:
        raise InputError(f"{shown(path)}: holds no files {', '.join(SUFFIXES)}")
    kinds = {p.suffix.lower() for p in found}
    if len(kinds) > 1:
        raise InputError(
            f"{shown(path)}: holds files of several formats, {', '.join(sorted(kinds))}; keep those of one"
        )
    return found


def axes_of(array, told, binary):
    """The letters of an array's axes, as told or by their number."""
    n = len(array.shape)
    last = "N" if binary and (n == 1 or array.shape[-1] != 1) else "NC"
    axes = told or {0: "", 1: "T", 2: "ST"}.get(n - len(last), "?") + last
    if not (set(axes) <= set(AXES) and len(set(axes)) == len(axes) == n and "N" in axes and ("C" in axes or binary)):
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
        if low < 0:
            return "logits"
    raise InputError(f"{name}: {told}, which may be logits, or not normalised; --kind says what they are")


class Probabilities:
    """A checkpoint (N, C) of a source as probabilities, block of samples by block, rounded to `dtype`."""

    def __init__(self, source, checkpoint, dtype):
        self.source, self.checkpoint, self.shape, self.dtype = source, checkpoint, source.shape, np.dtype(dtype)

    def __getitem__(self, samples):
        array, axes, place = self.source.open(self.checkpoint.path), self.source.axes, self.checkpoint.place
        found = np.empty((samples.stop - samples.start, self.shape[1]), self.dtype)
        for part in slices(samples.stop, max(1, BLOCK_VALUES // self.shape[1]), samples.start):
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


def labels_in(path, n_samples, n_classes, key=None):
    """True classes (N,) in a file of whole numbers from 0 to C - 1, a text with one a line for instance."""
    with opened(path, key) as array, _faults_of(array.path):
        if math.prod(array.shape) != n_samples or len(array.shape) > 2:
            raise InputError(f"{shown(path)}: holds {array.shape} numbers, not a label for each of {n_samples} samples")
        values = np.asarray(array.values[:], dtype=np.float64).ravel()
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
    dtype = dtype or ("float16" if source.dtype == "float16" else "float32")
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
    paths = []
    for number, run in source.runs.items():
        paths.append(folder / f"preds_{seed + number}.h5")
        with ranks.alone(paths[-1]):
            writer = Writer(paths[-1], record | {"run": number}, [c.id for c in run], overwrite)
            writer.begin()
            with _discarded_on_error(writer):
                for index in tqdm(writer.missing, desc=paths[-1].name, unit="checkpoint", disable=None):
                    writer.write(index, source.checkpoint(run[index], dtype))
                writer.finish()
    if labels is not None:
        paths.append(store_labels(labels, labels_path(folder)))
    return paths


@contextlib.contextmanager
def _discarded_on_error(writer):
    """Leave nothing of a run whose source turns out to be bad."""
    try:
        yield
    except InputError:
        writer.discard()
        raise


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
        with opened(path) as array:
            if not np.array_equal(array.values, labels):
                raise InputError(f"{shown(path)}: holds other labels; remove it if these are right for all runs beside")


def store_labels(labels, path):
    """Write labels (N,) to a file, unless it has them; see `check_labels`."""
    check_labels(labels, path)
    if not path.exists():
        with replacing(path) as partial:
            np.save(partial, labels)
    return path
