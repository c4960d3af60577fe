"""Writing prediction files (see `info_geometry.predictions`), checkpoint by checkpoint."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

from info_geometry.predictions import Reading, Trajectory
from info_geometry.samples import READ_BYTES, slices
from info_geometry.script import InputError, arrays_in, differing, from_json, replacing, shown

CHUNK_VALUES = 1 << 15  # of float16: 64 KiB, one checkpoint and some samples


class Writer:
    """Writes a trajectory checkpoint by checkpoint; what is written survives a kill.

    Each checkpoint is a file of its own beside the target until `finish` joins them, after those that the target held
    before, under the final name. `ids` names all checkpoints, such as by a hash of their weights, and `samples` all
    samples; `missing` lists the checkpoints that are yet to be written, in any order and by any process, after one
    process has called `begin`. Where they are not known beforehand, `ids` are those that are there, and `append` adds
    to them. `record` says what makes the predictions. A target or parts of other checkpoints, or made otherwise, raise
    InputError, unless `overwrite`, which starts anew.
    """

    def __init__(self, path, record, ids=None, overwrite=False, samples=None):
        self.path, self.record = Path(path), json.loads(json.dumps(record))
        # bytes of one length, which are compressed as strings of many lengths are not
        self.samples = np.array([id.encode() for id in samples or []])
        self.parts = self.path.with_name(f".{self.path.stem}.parts")
        joined = self._found(self._joined, overwrite) or []
        self.growing = ids is None
        self.ids = [*joined, *self._following(len(joined))] if self.growing else list(ids)
        self.n_joined = len(joined) if self._found(lambda: self._check_ids(joined), overwrite) else 0
        self.there = self._found(self._there, overwrite) or []
        self.missing = [i for i in range(self.n_joined, len(self.ids)) if i not in self.there]

    def _found(self, find, overwrite):
        try:
            return find()
        except InputError:
            if not overwrite:
                raise
            return None

    def _joined(self):
        """The ids of the checkpoints that the target holds."""
        if not self.path.exists():
            return []
        self._check(Trajectory(self.path).record, self.path)
        with Reading(self.path) as file:
            return file["id"].asstr()[:].tolist()

    def _check_ids(self, joined):
        for index, id in enumerate(joined):
            self._check_id(index, id, self.path)
        return True

    def _following(self, index):
        """The ids of checkpoints from a number on, as far as they are files of their own."""
        while (known := self._known(self._part(index))) and not differing(known[1], self.record):
            yield known[0]
            index += 1

    def _there(self):
        """The checkpoints that are files of their own."""
        there = []
        for part in sorted(self.parts.glob("[0-9]*.npz")):
            index = int(part.stem)
            if known := self._known(part):  # a damaged one is made again
                self._check(known[1], part)
                if self.growing and index >= len(self.ids):  # beyond a damaged one
                    continue
                self._check_id(index, known[0], part)
                there.append(index)
        return there

    def _known(self, part):
        """Id and record of a checkpoint's own file; None if it is damaged, such as by a power cut, or not there."""
        try:
            with zipfile.ZipFile(part) as file:
                if file.testzip() is not None:
                    return None
            with arrays_in(part) as arrays:
                return str(arrays["id"]), from_json(str(arrays["record"]))
        except Exception:  # whatever its bytes may lead to
            return None

    def _check(self, record, path):
        if differ := differing(record, self.record):
            raise InputError(f"{shown(path)}: made with other settings ({differ}); --overwrite makes it anew")

    def _check_id(self, index, id, path):
        if self.ids[index : index + 1] != [id]:
            raise InputError(
                f"{shown(path)}: made from other checkpoints than there are now; --overwrite makes it anew"
            )

    def _part(self, index):
        return self.parts / f"{index:05d}.npz"

    def begin(self):
        """Make way for what is to be written."""
        for part in self.parts.glob("[0-9]*.npz"):
            # damaged, not of these checkpoints, or joined already
            if int(part.stem) not in self.there or int(part.stem) < self.n_joined:
                part.unlink()

    def anew(self):
        """Begin from nothing; what the target holds stays until the first `finish`."""
        self.ids, self.n_joined, self.there = [], 0, []
        self.begin()

    def write(self, index, predictions, **scalars):
        """Store predictions (N, C) of checkpoint `index` as they are, with numbers such as epoch=, accuracy=.

        Of an array that is not in memory, blocks of samples are read.
        """
        self._write(index, self.ids[index], predictions, scalars)

    def _write(self, index, id, predictions, scalars):
        known = scalars | {"id": id, "record": json.dumps(self.record)}
        header = {"descr": predictions.dtype.str, "fortran_order": False, "shape": predictions.shape}
        with replacing(self._part(index)) as partial, zipfile.ZipFile(partial, "w") as part:
            for name, value in known.items():
                with part.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)
            with part.open("data.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_2_0(file, header)
                for samples in _blocks(*predictions.shape, predictions.dtype):
                    file.write(np.ascontiguousarray(predictions[samples]).data)

    def append(self, id, predictions, **scalars):
        """Store the checkpoint `id` after those that there are; see `write`."""
        self._write(len(self.ids), id, predictions, scalars)
        self.ids.append(id)

    def discard(self):
        """Leave nothing but what was joined."""
        shutil.rmtree(self.parts, ignore_errors=True)

    def cut(self, length):
        """Forget the checkpoints but for the first `length`."""
        for index in reversed(range(max(length, self.n_joined), len(self.ids))):
            self._part(index).unlink()
        del self.ids[length:]
        if length < self.n_joined:
            if length:
                with replacing(self.path) as partial:
                    _reserve(partial, self.path.stat().st_size)
                    with h5py.File(partial, "w", locking=False) as file:
                        self._join(file)
            else:
                self.path.unlink()
            self.n_joined = length

    def finish(self):
        """Join what is new to the file under the final name; without anything new, do nothing."""
        if self.n_joined < len(self.ids):
            with replacing(self.path) as partial:
                _reserve(partial, self._largest_size())
                # `replacing` has the lock
                with h5py.File(partial, "w", locking=False) as file:
                    self._join(file)
        self.n_joined, self.missing = len(self.ids), []
        self.discard()

    def _largest_size(self):
        """Bytes that suffice for the joined file, were nothing to be compressed."""
        part = self._part(len(self.ids) - 1).stat().st_size
        return int(1.02 * part * len(self.ids)) + self.samples.nbytes + (1 << 20)

    def _join(self, file):
        if self.n_joined:
            with h5py.File(self.path) as old:
                for name in old:
                    old.copy(name, file)
                    if name != "samples":
                        file[name].resize(len(self.ids), axis=0)
        elif len(self.samples):
            file.create_dataset("samples", data=self.samples, **hdf5plugin.LZ4())
        for index in range(self.n_joined, len(self.ids)):
            with arrays_in(self._part(index)) as part:
                for name in sorted(set(part.files) - {"record", "data"}):
                    if name not in file:
                        _create(file, name, part[name].shape, part[name].dtype, len(self.ids))
                    file[name][index] = part[name] if name != "id" else str(part[name])
            self._join_data(file, index)
        file.attrs["record"] = json.dumps(self.record, sort_keys=True)

    def _join_data(self, file, index):
        with zipfile.ZipFile(self._part(index)) as part, part.open("data.npy") as stored:
            np.lib.format.read_magic(stored)
            shape, _, dtype = np.lib.format.read_array_header_2_0(stored)
            if "data" not in file:
                _create(file, "data", shape, dtype, len(self.ids))
            data = file["data"]
            for samples in _blocks(*shape, dtype):
                n = samples.stop - samples.start
                block = np.frombuffer(stored.read(n * shape[1] * dtype.itemsize), dtype)
                data[index, samples] = block.reshape(n, shape[1])


def _chunk_samples(n_classes):
    """Samples in one chunk of a prediction file: small enough that a block of samples over all checkpoints
    reads little else, large enough that a checkpoint is written in few pieces."""
    return max(1, CHUNK_VALUES // n_classes)


def _blocks(n_samples, n_classes, dtype):
    """Slices of samples that fill whole chunks, and no more memory than is read at a time."""
    chunk = _chunk_samples(n_classes)
    return slices(n_samples, max(1, READ_BYTES // (chunk * n_classes * dtype.itemsize)) * chunk)


def _create(file, name, shape, dtype, length):
    dtype = h5py.string_dtype() if dtype.kind == "U" else dtype
    chunks, filters = (64,), {}
    if shape:
        n_samples, n_classes = shape
        chunks = (1, min(n_samples, _chunk_samples(n_classes)), n_classes)
        filters = dict(hdf5plugin.LZ4())
    # a number that a checkpoint lacks is none
    filters["fillvalue"] = np.nan if dtype.kind == "f" else None
    file.create_dataset(name, (length, *shape), dtype, maxshape=(None, *shape), chunks=chunks, **filters)


def _reserve(path, size):
    """Fail now if there is no room: HDF5 cannot close a file that it cannot write, and takes the process down."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
