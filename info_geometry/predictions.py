"""Trajectories on disk: the one thing that passes from learning to geometry.

    python info_geometry/predictions.py import preds.npy predictions/mine_all --labels labels.npy
    python info_geometry/predictions.py info preds.npy
    python info_geometry/predictions.py check predictions/mine_all

`<folder>/<dataset>_<task>/preds_<seed>.h5` holds the dataset `data`, (T, N, C): for each of T checkpoints and
N samples a probability over C classes, in float16, compressed with LZ4 or not. This is the layout of the
trajectories published with "A picture of the space of typical learnable tasks" (arXiv 2210.17011). Files
written here also hold, for each checkpoint, `epoch`, `step`, `accuracy`, `cross_entropy` and `id` (the hash
of its weights), and in the attribute `record` (JSON) what made them; foreign files need none of that.
"""

import argparse
import hashlib
import itertools
import math
import os
import re
import warnings
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers LZ4: without it files open but cannot be read
import numpy as np

from info_geometry.script import (
    REPOSITORY,
    InputError,
    check_unchanged,
    from_json,
    run,
    shown,
    state_of,
    unknown,
    versions,
)

PREDICTIONS = REPOSITORY / "predictions"
FORMATS = ("png", "pdf", "svg")
PIECE_BYTES = 1 << 29  # the largest piece of a compressed file that is read, which HDF5 does as a whole


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
        with Reading(self.path) as file:
            data = dataset(file, "data", path)
            if data.ndim != 3 or 0 in data.shape or data.dtype.kind != "f":
                raise InputError(
                    f"{shown(path)}: 'data' is {data.dtype} of shape {data.shape}; expected floats of shape "
                    "(checkpoints, samples, classes)"
                )
            self.shape, self.dtype = data.shape, data.dtype
            self.record = _record(file, path)
            beside = {name: item for name in file if isinstance(item := here(file, name), h5py.Dataset)}
            self.columns = {
                name: dataset(file, name, path)[:]
                for name, item in beside.items()
                if item.shape == self.shape[:1] and item.dtype.kind in "fiu"
            }
            self._state = state_of(file.id.get_vfd_handle())
            self.epochs = self.columns.get("epoch", np.arange(len(self))).astype(float)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, key):
        with Reading(self.path, self._state) as file:
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


class Reading:
    """An HDF5 file opened for reading; whatever a damaged one leads to becomes an InputError that names it.

    Where its `state` is given, so does a file that has become another, or grows, before it is closed again.
    """

    def __init__(self, path, state=None):
        self.path, self.state = Path(path), state

    def __enter__(self):
        try:
            self.file = h5py.File(self.path, "r")
        except Exception as error:
            raise self._fault(error) from error
        self._check_state()
        return self.file

    def __exit__(self, kind, error, traceback):
        try:
            if kind is None:
                self._check_state()
        finally:
            self.file.close()
        if isinstance(error, Exception) and not isinstance(error, InputError):
            raise self._fault(error) from error

    def _check_state(self):
        if self.state:
            check_unchanged(self.path, self.state, state_of(self.file.id.get_vfd_handle()))

    def _fault(self, error):
        if not self.path.exists():
            return InputError(f"{shown(self.path)}: no such file")
        if isinstance(error, BlockingIOError):
            return InputError(f"{shown(self.path)}: another process is writing it; wait until it is whole")
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return InputError(f"{shown(self.path)}: not a readable HDF5 file, perhaps cut short ({reason})")


def here(file, name):
    """What an HDF5 file holds under a name; None for a link to somewhere else."""
    return file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None


def dataset(file, name, path):
    """The dataset called `name` of an HDF5 file, all of which is in the file, in pieces that memory holds.

    Raises InputError where there is none, where it or its values are in another file, and where the file has less than
    it says.
    """
    if name in file and here(file, name) is None:
        raise InputError(f"{shown(path)}: {name!r} is a link to somewhere else, which is not followed")
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        held = sorted(file)[:8]
        raise InputError(f"{shown(path)}: has no dataset {name!r}; it holds {', '.join(held) or 'nothing'}")
    if found.is_virtual or found.external:
        raise InputError(
            f"{shown(path)}: {name!r} has its values in another file, which is not read; copy them into it"
        )
    if found.chunks and math.prod(found.chunks) * found.dtype.itemsize > PIECE_BYTES:
        raise InputError(
            f"{shown(path)}: {name!r} is stored in pieces of shape {found.chunks}, each of which has to be read as a "
            "whole; h5repack -l CHUNK=... stores it in smaller ones"
        )
    if found.chunks:
        wanted = math.prod(-(-n // size) for n, size in zip(found.shape, found.chunks, strict=True))
        lacking = found.id.get_num_chunks() < wanted
    else:
        lacking = found.id.get_storage_size() < math.prod(found.shape) * found.dtype.itemsize
    if lacking:
        raise InputError(f"{shown(path)}: {name!r} is said to be of shape {found.shape}, but not all of that is there")
    return found


def _record(file, path):
    text = file.attrs.get("record", "{}")
    try:
        record = from_json(text)
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
    for t in trajectories:
        if waiting := len(list(t.path.with_name(f".{t.path.stem}.parts").glob("[0-9]*.npz"))):
            warnings.warn(
                f"{shown(t.path)}: lacks {waiting} checkpoints that lie beside it, of a run that goes on or was killed",
                stacklevel=2,
            )
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
            ("probe_sha256", "was recorded of other samples than {}"),
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


def labels_path(folder):
    """Where the labels of a prediction folder <dataset>_<task> are: labels/<dataset>_val_labels.npy beside it."""
    return folder.parent / "labels" / f"{folder.name.partition('_')[0]}_val_labels.npy"


def labels_beside(trajectories):
    """The path where `read_labels` looks: `labels_path` the first folder, or, where this is one of several rules'
    folders, beside these."""
    folder = trajectories[0].path.parent
    paths = [labels_path(folder), labels_path(folder.parent.with_name(folder.name))]
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
        labels = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # whatever the bytes of a file that is no array may lead to
        raise InputError(f"{shown(path)}: not a readable .npy array ({error})") from error
    if labels.dtype.kind not in "iu" or labels.shape != (n_samples,):
        raise InputError(f"{shown(path)}: holds {labels.dtype} {labels.shape}; expected {n_samples} whole numbers")
    outside = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if outside.size:
        n = outside[0]
        raise InputError(f"{shown(path)}: label {labels[n]} at [{n}] is outside 0 to {n_classes - 1}")
    for t in trajectories:
        if t.record.get("labels_sha256", digest(labels)) != digest(labels):
            raise InputError(f"{shown(path)}: not the labels that {shown(t.path)} was made with")
    return labels.astype(np.int64)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    importing = commands.add_parser("import", help="bring arrays of any format to the one of this repository")
    info = commands.add_parser("info", help="say what a file, or a folder of files, holds")
    check = commands.add_parser("check", help="say whether runs can be compared")
    for command in (importing, info):
        command.add_argument("source", type=Path, help=".npy, .npz, .h5, .pt, .csv or .txt, or a folder of such files")
        command.add_argument("--key", help="of several arrays in a file, the one to take")
        command.add_argument(
            "--axes",
            help="a letter for each axis, such as TNC: S(eeds), T (checkpoints), N (samples), L (positions in each, "
            "such as tokens, each of which is a sample then), C(lasses)",
        )
        command.add_argument("--kind", help="probabilities, log-probabilities or logits (default: told by the values)")
        command.add_argument("--binary", action="store_true", help="one number a sample, for the second of two classes")
        command.add_argument("--labels", type=Path, help="true classes, one for each sample")
    importing.add_argument("folder", type=Path, help="<dataset>_<task>, in which to store")
    importing.add_argument("--seed", type=int, default=0, help="of the run, or of the first of several (default: 0)")
    importing.add_argument("--dtype", choices=["float16", "float32"], help="to store (default: float16 if it is that)")
    importing.add_argument("--overwrite", action="store_true", help="replace what is there")
    check.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="<dataset>_<task>")
    check.add_argument("--force", action="store_true", help="compare even what was imprinted by different rules")
    args = parser.parse_args()
    lines = _check(args) if args.command == "check" else _import_or_info(args)
    print(*list(lines), sep="\n")


def _check(args):
    from info_geometry import inspection

    return inspection.check(args.folders, args.force)


def _import_or_info(args):
    from info_geometry import importing, inspection

    if args.kind not in (None, *importing.KINDS):
        raise unknown("kind of values", args.kind, importing.KINDS)
    with importing.Source(args.source, args.key, args.axes, args.kind, args.binary) as source:
        labels = importing.labels_in(args.labels, source) if args.labels else None
        if args.command == "info":
            yield from inspection.info(source, labels)
            return
        if args.seed < 0:
            raise InputError(f"--seed {args.seed}: seeds are whole numbers from 0")
        paths = importing.import_runs(source, args.folder, args.seed, labels, args.dtype, args.overwrite)
        yield str(source)
        yield from map(shown, paths)


if __name__ == "__main__":
    run(main, resumes=True)
