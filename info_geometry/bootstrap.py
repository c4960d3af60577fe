"""How sure a picture is: bootstrap over samples, of sums that are there already.

Samples are assigned to groups at random (validation sets are sorted by class: contiguous groups would resample
classes), and what is added up over samples is kept by group. Groups are drawn with replacement, so that no affinity
is computed again. What comes out is the spread that other samples of the same kind would make. Held fixed are the
networks, their prototypes, and for trajectories their progress; seeds are another source of spread. Intervals of
means are of percentiles, those of an embedding basic ones (Davison and Hinkley, "Bootstrap methods and their
application", 1997, chapter 5): noise in distances goes to all coordinates, so that explained stress is not a mean,
and its intervals hold the value of ever more samples somewhat less often than they say, in 0.9 of cases.
"""

import math
import os
import tempfile
from pathlib import Path

import numpy as np

from info_geometry import ranks
from info_geometry.script import InputError, available_memory, shown

GROUPS = 50  # the interval of a mean comes out narrower by 1/100 than with a group a sample
LEAST_GROUPS = 20  # narrower by 1/40
LEVEL = 0.95
COORDINATES = 10  # looked at in each resample, to find those that the first of the picture correspond to


class Groups:
    """Samples assigned to groups at random, and sums over each group: of pairs of `n_models`, or none as yet.

    Attributes: `numbers` (N,), the groups of the samples; `sizes` (G,), how many each has; `sums` (G, M, M) in float32,
    where the result of a bootstrap has three digits. There are fewer groups where so many sums do not fit into a
    quarter of the free memory; with LEAST_GROUPS they go to a file in `folder`, which is gone when they are no
    longer needed.
    """

    def __init__(self, n_samples, n_models=0, folder=None, n_groups=GROUPS, seed=0):
        if n_samples < LEAST_GROUPS:
            raise InputError(f"a bootstrap over samples takes {LEAST_GROUPS} of them or more, there are {n_samples}")
        matrix = 4 * n_models**2
        fitting = ranks.least(available_memory() // (4 * ranks.count() * matrix)) if n_models else n_groups
        n_groups = min(n_groups, n_samples, max(fitting, LEAST_GROUPS))
        self.numbers = np.random.default_rng(seed).permutation(n_samples) % n_groups
        self.sizes = np.bincount(self.numbers, minlength=n_groups)
        shape = n_groups, n_models, n_models
        if fitting >= n_groups:
            self.sums = np.zeros(shape, np.float32)
        else:
            self.sums = _on_disk(folder, shape)

    def one_hot(self, samples):
        """(B, G): which group each of a slice of samples is in."""
        return np.eye(len(self.sizes))[self.numbers[samples]]


def _on_disk(folder, shape):
    """An array in a file that has no name, and whose room is reserved: without any, writing to it ends the process."""
    try:
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            size = 4 * math.prod(shape)
            file.truncate(size)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.float32, "r+", shape=shape)
    except OSError as error:
        place = shown(folder) if folder is not None else tempfile.gettempdir()
        raise InputError(
            f"cannot keep sums of the bootstrap in {place}: {os.strerror(error.errno)}; make room"
        ) from error


def resamples(sums, sizes, times, seed=0):
    """Yield `times` means over samples, from sums (G, ...) over groups of these sizes (G,), in float64."""
    rng = np.random.default_rng(seed)
    for _ in range(times):
        drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)))
        mean = np.zeros(sums.shape[1:])
        for count, group in zip(drawn, sums, strict=True):
            if count:
                mean += count * group
        yield mean / (drawn @ sizes)


def interval(values, estimate=None, level=LEVEL):
    """The central interval (..., 2) of resampled values (times, ...): of percentiles, or, with the estimate (...)
    from the samples themselves, the basic interval, 2 estimate - percentiles. Where noise moves an estimate one
    way, it moves resamples once more that way: the basic interval takes that back."""
    ends = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    if estimate is not None:
        ends = 2 * estimate - ends[::-1]
    return np.moveaxis(ends, 0, -1)


def of_embedding(inpca, groups, times, shown=3, seed=0, bar=iter):
    """Intervals of an InPCA's explained stress (k, 2), of its first coordinates, and of its first embedded coordinates.

    Args:
        inpca: fitted `info_geometry.inpca.InPCA`
        groups: `Groups`, with the sums of divergences in their upper triangles
        times: resamples
        shown: coordinates whose intervals are wanted
        bar: what the resamples pass through, such as a progress bar

    Returns:
        intervals of `explained_stress_` (k, 2) and of `embedding_` (M, shown, 2). A resample's coordinates are aligned
        with those of the picture by two rotations, one of the real and one of the imaginary ones, which leave all
        distances as they are.
    """
    from info_geometry.inpca import InPCA

    k = min(COORDINATES, len(inpca.embedding_))
    kept = min(k, len(inpca.explained_stress_))
    shown = min(shown, kept)
    stress, coordinates = [], []
    for mean in bar(resamples(groups.sums, groups.sizes, times, seed)):
        upper = np.triu(mean, 1)
        one = InPCA(k).fit(upper + upper.T)
        stress.append(one.explained_stress_[:kept])
        coordinates.append(aligned(one, inpca.embedding_[:, :shown], inpca.imaginary_[:shown]))
    stress = interval(stress, inpca.explained_stress_[:kept])
    return np.minimum(stress, 1), interval(coordinates, inpca.embedding_[:, :shown])


def aligned(inpca, target, imaginary):
    """The coordinates of a fitted InPCA that correspond to `target` (M, k), of which some are imaginary (k,): the first
    real and the first imaginary ones, rotated so as to come near (orthogonal Procrustes problem, Schoenemann 1966)."""
    found = np.zeros_like(target)
    for kind in (False, True):
        wanted = np.flatnonzero(imaginary == kind)
        there = np.flatnonzero(inpca.imaginary_ == kind)[: len(wanted)]
        x = np.zeros((len(target), len(wanted)))
        x[:, : len(there)] = inpca.embedding_[:, there]
        u, _, v = np.linalg.svd(x.T @ target[:, wanted])
        found[:, wanted] = x @ (u @ v)
    return found


def mean_and_error(values):
    """Mean, and standard error: the standard deviation with n - 1, over sqrt(n); None of a single value."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
    return np.mean(values), error


def jackknife(values):
    """Standard error of a statistic, from its values (n, ...) with each of n seeds left out; None for less than two.

    sqrt((n - 1) / n sum_k (v_k - mean)^2), which for a mean is the standard error of `mean_and_error` (Efron and
    Tibshirani, "An introduction to the bootstrap", 1993, equation 11.5).
    """
    values = np.asarray(list(values), dtype=float)
    n = len(values)
    return np.sqrt((n - 1) / n * np.square(values - values.mean(axis=0)).sum(axis=0)) if n > 1 else None


def errors_of(without):
    """Standard errors over seeds {key: value} of values, given those without each seed, {seed: {key: value}}."""
    keys = dict.fromkeys(key for values in without.values() for key in values)
    found = {key: jackknife(values[key] for values in without.values() if key in values) for key in keys}
    return {key: error for key, error in found.items() if error is not None}
