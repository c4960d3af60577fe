"""Trajectories on disk: the one thing that passes from learning to geometry.

`<folder>/<dataset>_<task>/preds_<seed>.h5` holds the dataset `data`, (T, N, C): for each of T checkpoints and
N samples a probability over C classes, in float16, compressed with LZ4 or not. This is the layout of the
trajectories published with "A picture of the space of typical learnable tasks" (arXiv 2210.17011). Files
written here also hold, for each checkpoint, `epoch`, `step`, `accuracy`, `cross_entropy` and `id` (the hash
of its weights), and in the attribute `record` (JSON) what made them; foreign files need none of that.
"""

import hashlib
import itertools
import json
import os
import re
import shutil
from pathlib import Path

import h5py
import hdf5plugin  # registers LZ4: without it files open but cannot be read
import numpy as np

from info_geometry.script import REPOSITORY, InputError, replacing, shown, unknown, versions

PREDICTIONS = REPOSITORY / "predictions"
FORMATS = ("png", "pdf", "svg")
CHUNK_VALUES = 1 << 15  # of float16: 64 KiB, one checkpoint and some samples


class Trajectory:
    """One run's predictions, (T, N, C), read from disk only where they are sliced.

    Attributes: `path`, `dataset`, `task`, `seed`, `shape`, `dtype`, `record` (what made the file, {} if it does not
    say), `columns` (numbers of each checkpoint that the file holds, {name: (T,)}) and `epochs` (T,), the numbers of
    the checkpoints where the file has no epochs.
    Raises InputError if the file cannot be read or holds no trajectory.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.dataset, _, self.task = self.path.parent.name.partition("_")
        seed = re.fullmatch(r"preds_(\d+)\.h5", self.path.name)
        if not seed:
            raise InputError(f"{shown(path)}: the name must be preds_<seed>.h5 with a whole number as seed")
        self.seed = int(seed[1])
        with _Reading(self.path) as file:
            data = file.get("data")
            if not isinstance(data, h5py.Dataset):
                raise InputError(f"{shown(path)}: has no dataset 'data'; it holds {sorted(file) or 'nothing'}")
            if data.ndim != 3 or 0 in data.shape or data.dtype.kind != "f":
                raise InputError(
                    f"{shown(path)}: 'data' is {data.dtype} of shape {data.shape}; expected floats of shape "
                    "(checkpoints, samples, classes)"
                )
            self.shape, self.dtype = data.shape, data.dtype
            self.record = _record(file, path)
            beside = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
            self.columns = {
                name: item[:]
                for name, item in beside.items()
                if item.shape == self.shape[:1] and item.dtype.kind in "fiu"
            }
            self.epochs = self.columns.get("epoch", np.arange(len(self))).astype(float)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, key):
        with _Reading(self.path) as file:
            return file["data"][key]

    @property
    def classes(self):
        """The classes that the network was trained on, ascending; None where the file does not say."""
        labels = self._training.get("labels")
        valid = isinstance(labels, list) and all(type(c) is int and 0 <= c < self.shape[2] for c in labels)
        return sorted(labels) if valid and labels else None

    @property
    def shuffled(self):
        """Whether it was trained on labels that mean nothing, as far as the file says."""
        return self._training.get("shuffled") is True

    @property
    def _training(self):
        training = self.record.get("training")
        return training if isinstance(training, dict) else {}

    def where(self, checkpoint, sample):
        """The place of one row, for messages."""
        return f"{shown(self.path)}: data[{checkpoint}, {sample}]"

    @property
    def name(self):
        """Folder and file, wherever these are."""
        return f"{self.path.parent.name}/{self.path.name}"


class _Reading:
    """An HDF5 file opened for reading; whatever a damaged one leads to becomes an InputError that names it."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        try:
            self.file = h5py.File(self.path, "r")
        except Exception as error:
            raise self._fault(error) from error
        return self.file

    def __exit__(self, kind, error, traceback):
        self.file.close()
        if isinstance(error, Exception) and not isinstance(error, InputError):
            raise self._fault(error) from error

    def _fault(self, error):
        if not self.path.exists():
            return InputError(f"{shown(self.path)}: no such file")
        return InputError(f"{shown(self.path)}: not a readable HDF5 file, perhaps cut short ({error})")


def _record(file, path):
    text = file.attrs.get("record", "{}")
    try:
        record = json.loads(text)
    except (TypeError, ValueError):
        record = None
    if not isinstance(record, dict):
        raise InputError(f"{shown(path)}: its attribute 'record' is not a JSON object")
    return record


class Models:
    """The checkpoints of several trajectories as one stack (M, N, C), sliced by sample: `models[:, a:b]`.

    Attributes: `trajectories`, `shape`, `dtype`, and `owner`, for each model its trajectory and checkpoint.
    """

    def __init__(self, trajectories, owner=None):
        self.trajectories = list(trajectories)
        self.owner = owner or [(t, i) for t in self.trajectories for i in range(len(t))]
        self.shape = (len(self.owner), *self.trajectories[0].shape[1:])
        self.dtype = np.result_type(*(t.dtype for t in self.trajectories))

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, key):
        _, samples = key
        found = np.empty((len(self), len(range(self.shape[1])[samples]), self.shape[2]), self.dtype)
        model = 0
        for trajectory, owned in itertools.groupby(self.owner, key=lambda owner: owner[0]):
            checkpoints = [i for _, i in owned]
            first, stop = checkpoints[0], checkpoints[-1] + 1
            whole = len(checkpoints) == stop - first  # which is quicker to read
            found[model : model + len(checkpoints)] = trajectory[slice(first, stop) if whole else checkpoints, samples]
            model += len(checkpoints)
        return found

    def take(self, models):
        """The stack of some models, given in ascending order."""
        return Models(self.trajectories, [self.owner[m] for m in models])

    def where(self, model, sample):
        trajectory, checkpoint = self.owner[model]
        return trajectory.where(checkpoint, sample)


def add_arguments(parser):
    """The options of scripts that read predictions: which, and where results and figures go."""
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="<dataset>_<task>")
    parser.add_argument("--dataset", help="without folders: all of this dataset in the repository's predictions/")
    parser.add_argument("--force", action="store_true", help="compare even what was imprinted by different rules")
    parser.add_argument("--labels", type=Path, help="(default: labels/<dataset>_val_labels.npy beside the folders)")
    parser.add_argument("--results", type=Path, help="(default: embedding/ beside the folders)")
    parser.add_argument(
        "--plots",
        type=Path,
        help="(default: plots/<dataset>/, of the repository for its own predictions, else beside the results)",
    )
    add_format(parser)


def add_format(parser):
    """The option of scripts that draw figures."""
    parser.add_argument("--format", nargs="+", choices=FORMATS, default=["png"], help="of figures (default: png)")


def chosen(args):
    """What the options choose (see `add_arguments`): trajectories, folder of results and folder of figures."""
    if args.folders and args.dataset is not None:
        raise InputError("name folders, or a dataset with --dataset, not both")
    trajectories = read(args.folders or folders_of(args.dataset), args.force)
    parent = trajectories[0].path.parent.parent
    results = args.results or parent / "embedding"
    plots = (REPOSITORY if parent.resolve() == PREDICTIONS.resolve() else results.parent) / "plots"
    return trajectories, results, args.plots or plots / trajectories[0].dataset


def made_from(trajectories, **settings):
    """What a result file says of its making: inputs and what made these, settings, versions."""
    inputs = {t.name: t.record for t in trajectories}
    return {"inputs": inputs, "settings": settings, "versions": versions("numpy", "scipy", "h5py")}


def folders_of(dataset=None, root=PREDICTIONS):
    """The prediction folders `<dataset>_<task>` below `root`, sorted; all datasets' where `dataset` is None."""
    folders = sorted(folder for folder in Path(root).glob("*_*") if any(folder.glob("preds_*.h5")))
    if not folders:
        raise InputError(f"{shown(root)}: holds no folders <dataset>_<task> with files preds_<seed>.h5")
    known = {folder.name.partition("_")[0] for folder in folders}
    if dataset is not None and dataset not in known:
        raise unknown(f"dataset in {shown(root)}:", dataset, sorted(known))
    return [folder for folder in folders if dataset in (None, folder.name.partition("_")[0])]


def read(folders, force=False):
    """The trajectories in prediction folders, in the order of `folders`, then by seed.

    Raises InputError if a folder is missing or empty, if datasets are mixed, if two runs have one name, or if number
    of samples, number of classes, samples, labels or, unless `force`, rules of imprinting differ.
    """
    trajectories = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"{shown(folder)}: no such folder of predictions")
        # absolute, but with the names that were given: a link may be called <dataset>_<task>
        files = list(Path(os.path.abspath(folder)).glob("preds_*.h5"))
        if not files:
            raise InputError(f"{shown(folder)}: holds no files preds_<seed>.h5")
        trajectories += sorted(map(Trajectory, files), key=lambda t: t.seed)
    _check_comparable(trajectories, force)
    return trajectories


def _check_comparable(trajectories, force):
    datasets = {}
    for t in trajectories:
        datasets.setdefault(t.dataset, set()).add(t.path.parent.name)
    if len(datasets) > 1:
        found = "; ".join(f"{name}: {', '.join(sorted(folders))}" for name, folders in datasets.items())
        raise InputError(f"several datasets cannot share a picture; choose the folders of one of {found}")
    first, runs, known = trajectories[0], {}, {}
    for t in trajectories:
        twin = runs.setdefault((t.task, t.seed), t)
        if twin is not t:
            raise InputError(f"{shown(t.path)}: seed {t.seed} of task {t.task} is also in {shown(twin.path)}")
        if t.shape[1:] != first.shape[1:]:
            raise InputError(
                f"{shown(t.path)}: has {t.shape[1]} samples and {t.shape[2]} classes, but {shown(first.path)} "
                f"has {first.shape[1]} and {first.shape[2]}"
            )
        for key, fault in (
            ("samples_sha256", "predicts other samples than {}"),
            ("labels_sha256", "predicts other labels than {}"),
            ("imprinting", "was imprinted by another rule than {}; --force compares them all the same"),
            ("view", "was made from other views of the images than {}; --force compares them all the same"),
        ):
            if key not in t.record or (force and key in ("imprinting", "view")):
                continue
            value, other = known.setdefault(key, (t.record[key], t))
            if t.record[key] != value:
                raise InputError(f"{shown(t.path)}: {fault.format(shown(other.path))}")


def digest(values):
    """SHA-256 of integers (whatever their type) or of strings; equal only if values and order are."""
    values = np.asarray(values)
    data = "\n".join(values).encode() if values.dtype.kind == "U" else values.astype("<i8").tobytes()
    return hashlib.sha256(data).hexdigest()


def labels_beside(trajectories):
    """The path where `read_labels` looks: labels/<dataset>_val_labels.npy beside the prediction folders, or, where
    these are one of several rules' folders, beside that."""
    first = trajectories[0]
    paths = [root / "labels" / f"{first.dataset}_val_labels.npy" for root in first.path.parents[1:3]]
    return next(filter(Path.exists, paths), paths[0])


def read_labels(path, trajectories):
    """The true classes (N,) of the predicted samples, checked against the trajectories they belong to.

    Raises InputError if the file is no array of N whole numbers in [0, C), or not the labels that the
    prediction files were made with.
    """
    path = Path(path)
    _, n_samples, n_classes = trajectories[0].shape
    if not path.exists():
        raise InputError(f"{shown(path)}: no such file of labels; name one with --labels")
    try:
        labels = np.load(path, allow_pickle=False)
    except Exception as error:  # whatever the bytes of a file that is no array may lead to
        raise InputError(f"{shown(path)}: not a readable .npy array ({error})") from error
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.shape != (n_samples,):
        found = f"{labels.dtype} {labels.shape}" if isinstance(labels, np.ndarray) else "several arrays"
        raise InputError(f"{shown(path)}: holds {found}; expected {n_samples} whole numbers")
    outside = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if outside.size:
        n = outside[0]
        raise InputError(f"{shown(path)}: label {labels[n]} at [{n}] is outside 0 to {n_classes - 1}")
    for t in trajectories:
        if t.record.get("labels_sha256", digest(labels)) != digest(labels):
            raise InputError(f"{shown(path)}: not the labels that {shown(t.path)} was made with")
    return labels.astype(np.int64)


class Writer:
    """Writes a trajectory checkpoint by checkpoint; what is written survives a kill.

    Each checkpoint is a file of its own beside the target until `finish` joins them, after those that the target held
    before, under the final name. `ids` names all checkpoints, such as by a hash of their weights, and `samples` all
    samples; `missing` lists the checkpoints that are yet to be written, in any order and by any process, after one
    process has called `begin`. `record` says what makes the predictions. A target or parts of other checkpoints, or
    made otherwise, raise InputError, unless `overwrite`, which starts anew.
    """

    def __init__(self, path, record, ids, overwrite=False, samples=None):
        self.path, self.record, self.ids = Path(path), json.loads(json.dumps(record)), list(ids)
        # bytes of one length, which are compressed as strings of many lengths are not
        self.samples = np.array([id.encode() for id in samples or []])
        self.parts = self.path.with_name(f".{self.path.stem}.parts")
        self.n_joined = self._found(self._joined, overwrite) or 0
        there = self._found(self._there, overwrite) or []
        self.missing = [i for i in range(self.n_joined, len(self.ids)) if i not in there]
        self.fresh = not there

    def _found(self, find, overwrite):
        try:
            return find()
        except InputError:
            if not overwrite:
                raise
            return None

    def _joined(self):
        """How many checkpoints the target holds."""
        if not self.path.exists():
            return 0
        self._check(Trajectory(self.path).record, self.path)
        with _Reading(self.path) as file:
            ids = file["id"].asstr()[:]
        for index, id in enumerate(ids):
            self._check_id(index, id, self.path)
        return len(ids)

    def _there(self):
        """The checkpoints that are files of their own."""
        there = []
        for part in sorted(self.parts.glob("[0-9]*.npz")):
            try:
                with np.load(part, allow_pickle=False) as arrays:
                    id, record = str(arrays["id"]), json.loads(str(arrays["record"]))
                    _ = arrays["data"]
            except Exception:  # damaged, such as by a power cut: it is made again
                continue
            self._check(record, part)
            self._check_id(int(part.stem), id, part)
            there.append(int(part.stem))
        return there

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
        if self.fresh:  # what may lie there is not of these checkpoints
            shutil.rmtree(self.parts, ignore_errors=True)

    def write(self, index, predictions, **scalars):
        """Store predictions (N, C) of checkpoint `index` as they are, with numbers such as epoch=, accuracy=."""
        known = {"id": np.array(self.ids[index]), "record": np.array(json.dumps(self.record))}
        with replacing(self._part(index)) as partial:
            np.savez(partial, data=predictions, **known, **scalars)

    def finish(self):
        """Join what is new to the file under the final name; without anything new, do nothing."""
        if self.n_joined < len(self.ids):
            with replacing(self.path) as partial:
                _reserve(partial, self._largest_size())
                with h5py.File(partial, "w") as file:
                    self._join(file)
        self.n_joined, self.missing = len(self.ids), []
        shutil.rmtree(self.parts, ignore_errors=True)

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
            with np.load(self._part(index), allow_pickle=False) as part:
                for name in sorted(set(part.files) - {"record"}):
                    if name not in file:
                        _create(file, name, part[name], len(self.ids))
                    file[name][index] = part[name] if name != "id" else str(part[name])
        file.attrs["record"] = json.dumps(self.record, sort_keys=True)


def _chunk_samples(n_classes):
    """Samples in one chunk of a prediction file: small enough that a block of samples over all checkpoints
    reads little else, large enough that a checkpoint is written in few pieces."""
    return max(1, CHUNK_VALUES // n_classes)


def _create(file, name, value, length):
    dtype = h5py.string_dtype() if value.dtype.kind == "U" else value.dtype
    chunks, filters = (64,), {}
    if value.ndim:
        n_samples, n_classes = value.shape
        chunks = (1, min(n_samples, _chunk_samples(n_classes)), n_classes)
        filters = hdf5plugin.LZ4()
    file.create_dataset(name, (length, *value.shape), dtype, maxshape=(None, *value.shape), chunks=chunks, **filters)


def _reserve(path, size):
    """Fail now if there is no room: HDF5 cannot close a file that it cannot write, and takes the process down."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)


def differing(found, wanted):
    """One line naming the settings in which two records differ, but for the versions; empty if in none."""
    if not isinstance(found, dict):
        return f"{type(found).__name__} there"
    found, wanted = _flat(found), _flat(wanted)
    keys = [k for k in sorted(found.keys() | wanted.keys()) if found.get(k) != wanted.get(k)]
    keys = [k for k in keys if "versions" not in k.split(".")]
    return ", ".join(f"{k}: {found.get(k)} there, {wanted.get(k)} wanted" for k in keys[:4])


def differing_file(path, wanted):
    """What `differing` says of the record in a JSON file; that it is not readable, if so."""
    try:
        return differing(json.loads(path.read_text()), wanted)
    except (OSError, ValueError) as error:
        return f"it is not readable: {error}"


def _flat(record, prefix=""):
    flat = {}
    for key, value in record.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
