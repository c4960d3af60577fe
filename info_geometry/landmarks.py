"""Pictures of more models than have distances to each other: some are embedded, the others placed out of sample.

M models and m landmarks take M m distances instead of M^2 / 2, and m^2 numbers in memory instead of M^2.
"""

import numpy as np
from tqdm import tqdm

from info_geometry.bhattacharyya import BHATTACHARYYA, cross, pairwise
from info_geometry.samples import read_blocks, slices

SEEN_SAMPLES = 256  # by which farthest landmarks are chosen
SEEN_MODELS = 4  # times as many as are chosen
AT_A_TIME = 8192  # models placed
KEPT_BYTES = 1 << 30  # of landmarks in memory, as they are stored; larger ones are read again for each part


def along(lengths, count):
    """About `count` landmarks of stacked trajectories with so many checkpoints each, evenly along each of them.

    In proportion to checkpoints, which are dense where training moves fastest; first and last are always among them.
    Returns the landmarks (k,), sorted, and their weights (k,): the checkpoints nearest to each.
    """
    chosen, weights, first = [], [], 0
    for length in lengths:
        n = min(length, max(2, round(count * length / sum(lengths))))
        here = np.unique(np.linspace(0, length - 1, n).round().astype(int))
        chosen.append(first + here)
        weights.append(np.diff(np.r_[0, (here[1:] + here[:-1]) // 2 + 1, length]))
        first += length
    return np.concatenate(chosen), np.concatenate(weights)


def farthest_first(distances, count):
    """Landmarks (count,) of M models, given their distances (M, M): the first model, and then again and again the
    one that is farthest from those chosen (Gonzalez, "Clustering to minimize the maximum intercluster distance",
    1985).

    Returns them, sorted, with the number of models nearest to each, their weights in an embedding that stands for all.
    """
    chosen, nearest = [0], distances[0].copy()
    while len(chosen) < min(count, len(distances)):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, distances[chosen[-1]])
    chosen = np.unique(chosen)
    return chosen, np.bincount(distances[:, chosen].argmin(axis=1), minlength=len(chosen))


def choose_landmarks(models, count, how, divergence=BHATTACHARYYA):
    """Landmarks of `info_geometry.predictions.Models` (k,), and their weights (k,).

    "along" trajectories, or "farthest" first, of some more along trajectories, by some of the samples.
    """
    lengths = [len(t) for t in models.trajectories]
    if how == "along":
        return along(lengths, count)
    pool, _ = along(lengths, SEEN_MODELS * count)
    found, weights = farthest_first(pairwise(_seen(models.take(pool)), divergence=divergence), count)
    return pool[found], weights


def _seen(models):
    """Predictions of SEEN_SAMPLES samples at random: those that follow each other may be of one class."""
    n_samples = models.shape[1]
    seen = np.random.default_rng(0).permutation(n_samples) < SEEN_SAMPLES
    blocks = read_blocks(models, size=SEEN_SAMPLES)
    return np.concatenate([block[:, seen[n : n + SEEN_SAMPLES]] for n, (block,) in blocks], axis=1)


def place(inpca, models, landmarks, desc=None, **how):
    """Coordinates (M, k) of all of `info_geometry.predictions.Models`, given an embedding of the landmarks among them.

    `how` goes to `info_geometry.bhattacharyya.cross`. Distances are kept of some thousands of models at a time.
    """
    if landmarks.dtype.itemsize * np.prod(landmarks.shape, dtype=float) < KEPT_BYTES:
        landmarks = landmarks[:, :]
    placed = np.empty((len(models), inpca.embedding_.shape[1]))
    parts = slices(len(models), AT_A_TIME)
    for part in tqdm(parts, desc=desc and "placing models", unit="part", disable=None if desc else True):
        placed[part] = inpca.transform(cross(models.take(range(part.start, part.stop)), landmarks, **how))
    return placed
