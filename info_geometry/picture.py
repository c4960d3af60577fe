"""An embedding with all that is to be seen of it, as `inpca.py` stores it and `plot.py` and `page.py` draw it."""

import dataclasses
import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from info_geometry.script import InputError, arrays_in, shown, unknown

ANY = -1  # length of an axis
NUMBERS = ("one", "two", "three", "four", "five")


class Run(NamedTuple):
    """The models of one task and seed: their places in the arrays of a picture, in the order of checkpoints."""

    seed: int
    models: np.ndarray


@dataclasses.dataclass(frozen=True)
class Picture:
    """Coordinates of M models, and what is known of them; None where it is not.

    `embedding` (M, k) with `eigenvalues` and `explained_stress` (k,); `task`, `seed`, `checkpoint`, `epoch`, `progress`
    and `accuracy` (M,); `geodesic` (K, k) from ignorance to truth; `landmarks` (m,); and the intervals of
    `info_geometry.bootstrap.of_embedding`. `name` is the dataset, and the divergence if it is not d_B.
    Raises InputError where these do not fit each other.
    """

    name: str
    embedding: np.ndarray
    eigenvalues: np.ndarray
    explained_stress: np.ndarray
    task: np.ndarray
    seed: np.ndarray
    checkpoint: np.ndarray
    epoch: np.ndarray | None = None
    progress: np.ndarray | None = None
    accuracy: np.ndarray | None = None
    geodesic: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    embedding_interval: np.ndarray | None = None
    explained_stress_interval: np.ndarray | None = None
    divergence: str = "bhattacharyya"
    whole: tuple[str, ...] = ()  # all tasks of the picture that this is a part of, whose colours it keeps

    def __post_init__(self):
        if self.embedding.ndim != 2 or 0 in self.embedding.shape:
            raise InputError(f"the embedding has shape {self.embedding.shape}")
        M, k = self.embedding.shape
        for name, (kinds, shape) in {
            "embedding": ("f", (M, k)),
            "eigenvalues": ("f", (k,)),
            "explained_stress": ("f", (k,)),
            "task": ("U", (M,)),
            "seed": ("iu", (M,)),
            "checkpoint": ("iu", (M,)),
            "epoch": ("f", (M,)),
            "progress": ("f", (M,)),
            "accuracy": ("f", (M,)),
            "geodesic": ("f", (ANY, k)),
            "landmarks": ("iu", (ANY,)),
            "embedding_interval": ("f", (M, ANY, 2)),
            "explained_stress_interval": ("f", (ANY, 2)),
        }.items():
            value = getattr(self, name)
            if value is None:
                continue
            fits = value.ndim == len(shape) and all(n in (ANY, m) for m, n in zip(value.shape, shape, strict=True))
            if value.dtype.kind not in kinds or not fits or 0 in value.shape:
                raise InputError(f"{name} is {value.dtype} {value.shape}, beside an embedding {(M, k)}")
            if kinds == "f" and not np.isfinite(value).all():
                raise InputError(f"{name} holds a value that is not finite")

    @classmethod
    def load(cls, path):
        """The picture in a file `<dataset>_inpca.npz`; raises InputError for a file that holds none."""
        path = Path(path)
        names = [field.name for field in dataclasses.fields(cls) if "ndarray" in str(field.type)]
        dataset, _, divergence = path.stem.partition("_inpca")
        divergence = {"divergence": divergence[1:]} if divergence else {}
        fault = f"{shown(path)}: holds no embedding as info_geometry/inpca.py writes it"
        try:
            with arrays_in(path) as file:
                arrays = {name: file[name] for name in names if name in file}
            return cls(", ".join([dataset, *divergence.values()]), **arrays, **divergence)
        except FileNotFoundError:
            raise InputError(f"{shown(path)}: no such file; info_geometry/inpca.py makes it") from None
        except InputError as error:
            raise InputError(f"{fault} ({error})") from None
        except Exception as error:  # whatever the bytes of a file may lead to
            raise InputError(f"{fault} (it is not readable, or lacks arrays)") from error

    @property
    def imaginary(self):
        """(k,), of which coordinates squared differences count negatively.

        Where an eigenvalue is zero but for rounding, the coordinate is zero, and neither real nor imaginary.
        """
        return (self.eigenvalues < 0) & self.embedding.any(axis=0)

    @property
    def real(self):
        return (self.eigenvalues > 0) & self.embedding.any(axis=0)

    @property
    def every_task(self):
        """The tasks of the whole picture, where this is a part of one."""
        return self.whole or tuple(self.tasks)

    def only(self, tasks):
        """The picture of some of the tasks, in the order given; raises InputError for one that is not there."""
        known = self.tasks
        for task in tasks:
            if task not in known:
                raise unknown("task", task, known)
        models = np.concatenate([run.models for task in dict.fromkeys(tasks) for run in known[task]])
        names = ("embedding", "task", "seed", "checkpoint", "epoch", "progress", "accuracy", "embedding_interval")
        some = {name: value[models] for name in names if (value := getattr(self, name)) is not None}
        if self.landmarks is not None:
            some["landmarks"] = np.flatnonzero(np.isin(models, self.landmarks))
        return dataclasses.replace(self, **some, whole=self.every_task)

    @functools.cached_property
    def tasks(self):
        """{task: [Run, ...]}, in the order in which they are stored."""
        tasks = {}
        for task in dict.fromkeys(self.task.tolist()):
            models = np.flatnonzero(self.task == task)
            tasks[task] = [
                Run(int(s), models[self.seed[models] == s]) for s in dict.fromkeys(self.seed[models].tolist())
            ]
        return tasks

    def coordinates(self, axes):
        """Coordinates (M, len(axes)) of the models with these numbers, from 0 on; zeros where there are no such."""
        return self.columns(self.embedding, axes)

    def way_to_truth(self, axes):
        """The geodesic from ignorance to truth in some coordinates (K, len(axes)), as far as it stays near the models,
        and whether it does so to the end: where networks hardly set out, truth is too far to be seen beside them."""
        way, points = self.columns(self.geodesic, axes), self.coordinates(axes)
        low, high, size = points.min(axis=0), points.max(axis=0), np.ptp(points, axis=0).max()
        if ((way >= low - size) & (way <= high + size)).all():
            return way, True
        low, high = low - size / 5, high + size / 5
        first = max(1, np.flatnonzero(((way < low) | (way > high)).any(axis=1))[0])
        start, step = way[first - 1], way[first] - way[first - 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.nanmin(np.maximum((low - start) / step, (high - start) / step))
        return np.concatenate([way[:first], [start + np.clip(share, 0, 1) * step]]), False

    def columns(self, points, axes):
        """Coordinates of points (n, k) with these numbers; zeros where there are no such."""
        axes, known = np.array(axes), self.embedding.shape[1]
        return np.where(axes < known, points[:, np.minimum(axes, known - 1)], 0.0)

    def unit(self, power):
        """The unit of a distance to a power of 1, or 1/2 for coordinates, in brackets: that of logarithms, if any."""
        return "" if self.divergence in ("hellinger", "geodesic") else f" ({'nat' if power == 1 else '√nat'})"

    def axis(self, number):
        """What a coordinate is called, counted from 0."""
        unit = self.unit(0.5)
        if number < len(self.eigenvalues) and self.imaginary[number]:
            unit = unit.replace(")", ", imaginary)") or " (imaginary)"
        return f"InPCA {number + 1}{unit}"

    def title(self, dimensions):
        n, dimensions = len(self.embedding), min(dimensions, len(self.eigenvalues))
        title = f"{self.name}: {n} {'model' if n == 1 else 'models'}"
        if self.landmarks is not None:
            title += f", {len(self.landmarks)} of them landmarks"
        stress = 100 * self.explained_stress[dimensions - 1]
        kind = "dimension" if dimensions == 1 else "dimensions"
        return f"{title}, {stress:.1f}% of the stress in {NUMBERS[dimensions - 1]} {kind}"


def mean_of_runs(points, runs):
    """Mean (T, k) of points (M, k) over the seeds of a task, checkpoint by checkpoint, as far as all have some."""
    length = min(len(run.models) for run in runs)
    return np.mean([points[run.models[:length]] for run in runs], axis=0)
