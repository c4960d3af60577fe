"""Tasks: which classes of a dataset a network is trained on.

A task is a JSON file `tasks/<dataset>/<task>.json` with the key `labels`, a list of class indices: class
`labels[i]` becomes output i of the network. Two tasks need no file: `all`, and `randomlab`, in which the
labels of the training images are shuffled among the images, once a seed.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from info_geometry.script import InputError, shown, unknown

FOLDER = Path(__file__).resolve().parent / "tasks"


@dataclass(frozen=True)
class Task:
    name: str
    labels: tuple[int, ...]  # classes of the dataset, in the order of the network's outputs
    shuffled: bool = False

    def select(self, labels, seed):
        """The samples of the task among `labels` (N,): their indices (n,) and the network's targets (n,)."""
        output = np.full(max(max(labels), max(self.labels)) + 1, -1)
        output[list(self.labels)] = np.arange(len(self.labels))
        targets = output[labels]
        indices = np.flatnonzero(targets >= 0)
        targets = targets[indices]
        if self.shuffled:
            targets = np.random.default_rng(seed).permutation(targets)
        return indices, targets


def names(dataset):
    """The tasks of a dataset that need no path."""
    return sorted({"all", "randomlab"} | {path.stem for path in (FOLDER / dataset).glob("*.json")})


def check_name(name, dataset):
    """Raise InputError for a task that is neither a file nor known, before the dataset is loaded."""
    if name.endswith(".json"):
        if not Path(name).is_file():
            raise InputError(f"{shown(name)}: no such task file")
    elif name not in names(dataset):
        raise unknown(f"task of {dataset}", name, names(dataset))


def find(name, dataset, class_names):
    """The task called `name`, or in the file `name` if that ends with .json, of a dataset with these classes.

    Raises InputError for an unknown name, a file that holds no task, or a class that the dataset lacks.
    """
    check_name(name, dataset)
    n_classes = len(class_names)
    if name.endswith(".json"):
        return _read(Path(name), dataset, n_classes)
    if name in ("all", "randomlab"):
        return Task(name, tuple(range(n_classes)), shuffled=name == "randomlab")
    return _read(FOLDER / dataset / f"{name}.json", dataset, n_classes)


def _read(path, dataset, n_classes):
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(path)}: not a readable JSON file ({error})") from error
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, list) or not all(type(c) is int for c in labels) or len(set(labels)) < 2:
        raise InputError(f"{shown(path)}: its key 'labels' must list the indices of two classes or more")
    for place, label in enumerate(labels):
        if not 0 <= label < n_classes:
            raise InputError(
                f"{shown(path)}: labels[{place}] is class {label}, which {dataset} lacks: "
                f"its classes are 0 to {n_classes - 1}"
            )
        if label in labels[:place]:
            raise InputError(f"{shown(path)}: labels[{place}] repeats class {label}")
    return Task(path.stem, tuple(labels))
