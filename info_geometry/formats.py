"""An array in a file of whatever format: read only where it is sliced, and never trusted.

Nothing is unpickled, no link is followed, and what a file says of itself is compared with what it holds.
"""

import contextlib
import csv
import itertools
import math
import pickle
import re
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np

from info_geometry.predictions import Reading, dataset, here
from info_geometry.script import InputError, check_unchanged, shown, state_of

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".pt", ".pth", ".csv", ".tsv", ".txt")
BLOCK_VALUES = 1 << 22  # read at a time
LINE_BYTES = 1 << 26  # the longest line of a text
AXES = "STNLC"  # seeds, checkpoints, samples, positions, classes
# An array's axes are said by letters of AXES in its order, without C where it has the probability of the second of two
# classes. With positions, such as those of tokens in a text, N L of them are the samples.


class Array:
    """An array of a file, read only where it is sliced. Attributes: `path`, `shape`, `dtype` (a string), `where`."""

    def __init__(self, path, values, key=""):
        self.path, self.values, self.key, self.state = path, values, key, state_of(path)
        self.shape = tuple(values.shape)
        self.dtype = getattr(values.dtype, "name", None) or str(values.dtype).removeprefix("torch.")

    def block(self, axes, place, samples):
        """Rows (B, C), or (B, 1) without classes, in float64, of a checkpoint: `place` {"S": seed, "T": checkpoint}."""
        length = self.size(axes, "L")
        # with positions: the rest of a text, whole texts, and the beginning of another
        ends = (
            min(samples.stop, -(-samples.start // length) * length),
            max(samples.start, samples.stop // length * length),
        )
        cuts = sorted({samples.start, *ends, samples.stop})
        with faults_of(self.path):
            self._check_unchanged()  # what is mapped, and is no longer there, would end the process
            parts = [self._rows(axes, place, length, *part) for part in itertools.pairwise(cuts)]
            found = np.concatenate(parts, dtype=np.float64)
            self._check_unchanged()
        return found

    def _rows(self, axes, place, length, start, stop):
        first, last = start // length, (stop - 1) // length
        within = slice(start - first * length, stop - first * length) if first == last else slice(None)
        index = {"N": slice(first, last + 1), "L": within, "C": slice(None), **place}
        found = self.values[tuple(index[axis] for axis in axes)]
        if not isinstance(found, np.ndarray):
            found = found.double().numpy()  # a tensor, whose type numpy may lack
        kept = [axis for axis in axes if axis not in place]
        found = found.transpose([kept.index(axis) for axis in "NLC" if axis in kept])
        return found.reshape(-1, found.shape[-1] if "C" in axes else 1)

    def _check_unchanged(self):
        check_unchanged(self.path, self.state, state_of(self.path))

    def size(self, axes, axis):
        return self.shape[axes.index(axis)] if axis in axes else 1

    def where(self, axes, place, sample=None):
        n, position = (":", ":") if sample is None else divmod(sample, self.size(axes, "L"))
        index = {"N": n, "L": position, "C": ":", **place}
        return f"{shown(self.path)}: {self.key}[{', '.join(str(index[axis]) for axis in axes)}]"


@contextlib.contextmanager
def opened(path, key=None, scratch=None, usual="data"):
    """The `Array` in a file, of several the one called `key`, or else `usual`; texts and archives are unpacked into the
    folder `scratch` (default: the system's).

    Raises InputError, which names the file, for what holds no array of numbers, or less of it than it says.
    """
    path = Path(path)
    reader = {".npz": _npz, ".h5": _h5, ".hdf5": _h5, ".pt": _pt, ".pth": _pt, ".npy": _npy}.get(path.suffix.lower())
    if not path.is_file():
        raise InputError(f"{shown(path)}: no such file")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{shown(path)}: unknown format; known are {', '.join(SUFFIXES)}, and folders of these")
    with contextlib.ExitStack() as stack:
        with faults_of(path):
            found = (reader or _text)(path, lambda names: _one(path, names, key, usual), stack, scratch)
            array = Array(path, *found)
            if not re.fullmatch(r"b?float\d+|u?int\d+|bool", array.dtype) or not 1 <= len(array.shape) <= len(AXES):
                raise InputError(
                    f"{shown(path)}: holds {array.dtype} of shape {array.shape}, not one to five axes of numbers"
                )
            if 0 in array.shape:
                raise InputError(f"{shown(path)}: is empty, of shape {array.shape}")
        yield array


@contextlib.contextmanager
def faults_of(path):
    """Whatever the bytes of a file lead to becomes an InputError that names it."""
    try:
        with warnings.catch_warnings(action="ignore"):  # what they say, the error does
            yield
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{shown(path)}: not a readable {path.suffix.lower()[1:]} file ({reason[:300]})") from error


def _npy(path, chosen, stack, scratch):
    return (np.lib.format.open_memmap(path, mode="r"),)


def _npz(path, chosen, stack, scratch):
    archive = stack.enter_context(zipfile.ZipFile(path))
    names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    key = chosen(names)
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


def _h5(path, chosen, stack, scratch):
    file = stack.enter_context(Reading(path))
    names = [name for name in file if here(file, name) is None]  # links, which are refused by name
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    key = chosen(names)
    return dataset(file, key, path), key


def _pt(path, chosen, stack, scratch):
    import torch

    try:
        key, content = "", torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{shown(path)}: holds more than tensors, or others than there are, which could run code when it is loaded"
        ) from error
    if isinstance(content, dict):
        content = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
        key = chosen(content)
        content = content[key]
    if not isinstance(content, torch.Tensor) or content.layout != torch.strided:
        raise InputError(f"{shown(path)}: holds no dense tensor, but {type(content).__name__}")
    if content.numel() * content.element_size() > content.untyped_storage().nbytes():
        raise InputError(f"{shown(path)}: is said to be of shape {tuple(content.shape)}, but not all of that is there")
    return content.detach(), key


def _one(path, names, key, usual):
    """The name that is meant: `key`, or the only one, or `usual`."""
    if key in names:
        return key
    if key is None and (len(names) == 1 or usual in names):
        return usual if usual in names else next(iter(names))
    held = f"holds {', '.join(list(names)[:8]) or 'no arrays'}"
    if key is not None:
        raise InputError(f"{shown(path)}: {held}, not {key}")
    raise InputError(
        f"{shown(path)}: {held}"
        + f", none of them called {usual}" * bool(names)
        + "; --key names one" * (usual == "data")
    )


def _text(path, chosen, stack, scratch):
    """Numbers in lines, with or without a line of names, or of the numbers of classes, above."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = ((number, line) for number, line in enumerate(_lines(path, file), 1) if line.strip())
        names, first = [], next(lines, None)
        while first and first[1].startswith("#"):  # a comment, or names as numpy writes them
            names, first = _cells(first[1][1:]), next(lines, None)
        if first is None:
            raise InputError(f"{shown(path)}: is empty")
        number, cells, delimiter = first[0], _cells(first[1]), _delimiter(first[1])
        has_names = _are_names(cells)
        table = _table(path, lines if has_names else itertools.chain([first], lines), delimiter, stack, scratch)
    n_columns = table.shape[1]
    numbers_of_classes = n_columns == 2 or (n_columns == 1 < len(table) and not whole(table[1:]).any())
    if cells == [str(n) for n in range(n_columns)] and numbers_of_classes:
        raise InputError(
            f"{shown(path)}: line {number} may be the numbers of classes, as pandas writes them, or a sample; take it "
            "out, or write 0.0 for 0"
        )
    names = cells if has_names else names if len(names) == n_columns else []
    return _without_index(path, table, names, number), ""


def _without_index(path, table, names, number):
    """The columns of a table but for the numbers of lines, which pandas and R put before."""
    n_rows, n_columns = table.shape
    counted = min(n_rows, n_columns) > 2 and table[0, 0] in (0, 1)
    counted = counted and np.array_equal(table[:, 0], table[0, 0] + np.arange(n_rows))
    nameless = names and (names[0] == "" or len(names) == n_columns - 1) and whole(table[:, 0]).all()
    if len(names) not in (0, n_columns) and not nameless:
        raise InputError(f"{shown(path)}: line {number} has {len(names)} names, for {n_columns} columns")
    return table[:, int(bool(counted or nameless)) :]


def _table(path, lines, delimiter, stack, scratch):
    """Numbers (lines, columns), in a file that is mapped."""
    unpacked, n_rows, n_columns = _scratch(stack, scratch, 0, path), 0, None
    for read in _batches(lines):
        rows = _numbers(path, read, delimiter, n_columns)
        n_rows, n_columns = n_rows + len(rows), rows.shape[1]
        unpacked.write(rows.tobytes())
    if not n_rows:
        raise InputError(f"{shown(path)}: has a line of names, and no numbers")
    return _mapped(unpacked, np.dtype(np.float64), (n_rows, n_columns))


def whole(values):
    """Which values are whole numbers."""
    return values == np.floor(values)


def _delimiter(line):
    return next((mark for mark in "\t;," if mark in line), None)


def _cells(line):
    delimiter = _delimiter(line)
    return next(csv.reader([line], delimiter=delimiter)) if delimiter else line.split()


def _are_names(cells):
    """Whether the cells of a line are names, or numbers, of classes."""
    numbers = [cell.strip() for cell in cells if _is_number(cell)]
    if len(numbers) == len(cells):
        return len(cells) > 2 and cells == [str(n) for n in range(len(cells))]
    return all(map(str.isdecimal, numbers))


def _batches(lines):
    """Lists of lines [(number, text), ...], none of them much larger than a block."""
    batch, letters = [], 0
    for line in lines:
        batch.append(line)
        letters += len(line[1])
        if letters >= BLOCK_VALUES:
            yield batch
            batch, letters = [], 0
    if batch:
        yield batch


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
