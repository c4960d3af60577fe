"""Tasks: which classes of a dataset a network is trained on.

A task is a JSON file `tasks/<dataset>/<task>.json` with the key `labels`, a list of class indices: class
`labels[i]` becomes output i of the network. ImageNet's may have the key `synset` instead: all classes below that synset
of WordNet, which `wordnet:<word or synset>` names without a file. Three kinds of task need no file: `all`; `randomlab`,
in which the labels of the training images are shuffled among the images, once a seed; and `random:<n>`, n classes drawn
at random, which `random:<n>:1`, `random:<n>:2`, ... draw anew (seeds of a task have the same classes).
"""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from info_geometry.script import InputError, from_json, shown, unknown
from supervised_imagenet import wordnet

FOLDER = Path(__file__).resolve().parent / "tasks"
WORDNET, RANDOM = "wordnet:", "random:"


@dataclass(frozen=True)
class Task:
    name: str
    labels: tuple[int, ...]  # classes of the dataset, in the order of the network's outputs
    shuffled: bool = False
    n_lacking: int = 0  # classes of the task that a subset of ImageNet does not have

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


def names(family):
    """The tasks of a dataset that need no path: those that stand in `tasks/<family>/`, and two that all have."""
    return sorted({"all", "randomlab"} | {path.stem for path in (FOLDER / family).glob("*.json")})


def check_name(name, family):
    """Raise InputError for a task that is neither a file nor known, before the dataset is loaded."""
    if name.endswith(".json"):
        if not Path(name).is_file():
            raise InputError(f"{shown(name)}: no such task file")
    elif family == "imagenet" and name.startswith(WORDNET):
        wordnet.load().find(name.removeprefix(WORDNET))
    elif name.startswith(RANDOM):
        _drawn(name)
    elif name not in names(family):
        raise unknown(f"task of {family}", name, names(family))


def run_name(name):
    """What the runs of a task are called, whether it is given as a name, a file or a synset."""
    if name.startswith(WORDNET):
        return wordnet.load().name_of(wordnet.load().find(name.removeprefix(WORDNET)))
    if name.startswith(RANDOM):
        return name.replace(":", "-")
    return Path(name).stem if name.endswith(".json") else name


def synset_of(name):
    """The synset of ImageNet's task whose runs are called `name`; None for a task that is not one of WordNet's."""
    hierarchy = wordnet.load()
    if name == "all":
        return hierarchy.above_all()
    if name in names("imagenet"):
        name = str(_read(FOLDER / "imagenet" / f"{name}.json").get("synset")) if name != "randomlab" else "None"
    try:
        return hierarchy.find(name)
    except InputError:
        return None


def find(name, family, class_names):
    """The task called `name`, or in the file `name` if that ends with .json, of a dataset with these classes.

    `family` is the dataset, or `imagenet` for a dataset of some of ImageNet's classes, called by their synsets: then a
    task keeps those of its classes that are there. Raises InputError for an unknown name, a file that holds no task, a
    class that the dataset lacks, or fewer than two classes.
    """
    check_name(name, family)
    if name in ("all", "randomlab"):
        return Task(name, tuple(range(len(class_names))), shuffled=name == "randomlab")
    if name.startswith(RANDOM):
        return Task(run_name(name), _random_labels(name, len(class_names)))
    if name.startswith(WORDNET):
        hierarchy = wordnet.load()
        synset = hierarchy.find(name.removeprefix(WORDNET))
        return _of_imagenet(run_name(name), hierarchy.members[synset], class_names)
    path = Path(name) if name.endswith(".json") else FOLDER / family / f"{name}.json"
    if family != "imagenet":
        return Task(path.stem, _labels(path, _read(path), family, len(class_names)))
    return _of_imagenet(path.stem, _imagenet_labels(path), class_names)


def _drawn(name):
    """The number of classes and of the draw that `random:<n>` or `random:<n>:<draw>` asks for."""
    found = re.fullmatch(RANDOM + r"(\d{1,6})(?::(\d{1,6}))?", name)
    if not found or int(found[1]) < 2:
        raise InputError(f"task {name!r}: expected random:<n> or random:<n>:<draw>, with two classes or more")
    return int(found[1]), int(found[2] or 0)


def _random_labels(name, n_classes):
    size, draw = _drawn(name)
    if size > n_classes:
        raise InputError(f"task {name}: the dataset has only {n_classes} classes")
    drawn = np.random.default_rng([size, draw]).choice(n_classes, size, replace=False)
    return tuple(map(int, np.sort(drawn)))


def listed(family, class_names):
    """Lines that say which tasks there are, with the number of their classes; ImageNet's also from WordNet."""
    lines = []
    for name in names(family):
        with contextlib.suppress(InputError):  # of which a subset has too few classes
            lines.append(f"{name:32} {len(find(name, family, class_names).labels)}")
    if family == "imagenet":
        hierarchy, here = wordnet.load(), set(class_names)
        counts = {s: sum(hierarchy.classes[c] in here for c in m) for s, m in hierarchy.members.items()}
        wide = sorted((s for s in counts if counts[s] > 1), key=lambda s: (-counts[s], s))
        lines += [f"{WORDNET + s:32} {counts[s]:<6} {', '.join(hierarchy.words[s][:3])}" for s in wide]
    return lines


def _of_imagenet(name, indices, class_names):
    place = {synset: label for label, synset in enumerate(class_names)}
    synsets = [wordnet.load().classes[index] for index in indices]
    labels = tuple(place[synset] for synset in synsets if synset in place)
    if len(labels) < 2:
        raise InputError(f"task {name}: the dataset has {len(labels)} of its {len(synsets)} classes; it takes two")
    return Task(name, labels, n_lacking=len(synsets) - len(labels))


def _imagenet_labels(path):
    hierarchy, content = wordnet.load(), _read(path)
    if "synset" not in content:
        return _labels(path, content, "imagenet", len(hierarchy.classes))
    try:
        return hierarchy.members[hierarchy.find(str(content["synset"]))]
    except InputError as error:
        raise InputError(f"{shown(path)}: {error}") from None


def _read(path):
    try:
        content = from_json(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(path)}: not a readable JSON file ({error})") from error
    return content if isinstance(content, dict) else {}


def _labels(path, content, family, n_classes):
    labels = content.get("labels")
    if not isinstance(labels, list) or not all(type(c) is int for c in labels) or len(set(labels)) < 2:
        raise InputError(f"{shown(path)}: its key 'labels' must list the indices of two classes or more")
    for place, label in enumerate(labels):
        if not 0 <= label < n_classes:
            raise InputError(
                f"{shown(path)}: labels[{place}] is class {label}, which {family} lacks: "
                f"its classes are 0 to {n_classes - 1}"
            )
        if label in labels[:place]:
            raise InputError(f"{shown(path)}: labels[{place}] repeats class {label}")
    return tuple(labels)
