"""The Bhattacharyya distance per sample between models, the squared distance of prediction space.

d_B(P, Q) = -(1/N) sum_n log sum_c sqrt(p_nc q_nc), in nats: equation (1) of Ramesh et al., "A picture of the
space of typical learnable tasks" (arXiv 2210.17011). Models are stacks of shape (M, N, C): arrays, or
`info_geometry.predictions.Trajectory` and `Models`, of which only blocks of samples are read at a time.
Computed in float64. Predictions stored in float16 carry a noise of about 1e-8 in d_B.
"""

import warnings

import numpy as np

from info_geometry.predictions import sample_blocks, shape_of

FLOOR = 1e-6  # affinities are clipped from below, so that disjoint supports stay at a finite distance
RESOLUTION = 1e-15  # rounding makes as much of the distance between equal models, which is 0
TILE = 128  # models on a side: the affinities of a tile for PRODUCT samples stay in cache
PRODUCT = 16  # affinities multiplied before one logarithm is taken; 1e-6 to the 16th is far from underflow


class FloorWarning(UserWarning):
    """Says how many affinities were below the floor: models that share nothing on a sample."""


def pairwise(P, *, floor=FLOOR, desc=None):
    """Distances between all models of one stack.

    Parameters
    ----------
    P : (M, N, C) probabilities
    floor : affinities below it count as the floor; a FloorWarning says how many did
    desc : name of a progress bar; none is drawn without it

    Returns
    -------
    (M, M) float64, symmetric, with zeros on the diagonal; exact to about 1e-15 absolute

    Raises InputError (a ValueError) at the first row that is no probability.
    """
    n_models, n_samples, _ = shape_of(P)
    total, clipped = np.zeros((n_models, n_models)), 0
    for (roots,) in sample_blocks(P, desc=desc):
        roots = np.ascontiguousarray(roots.swapaxes(0, 1))
        for i in range(0, n_models, TILE):
            for j in range(i, n_models, TILE):
                clipped += _subtract_logs(total[i : i + TILE, j : j + TILE], roots, roots, i, j, floor)
    warn_of_floor(clipped, n_models * (n_models - 1) // 2 * n_samples, floor)
    upper = np.triu(per_sample(total, n_samples), k=1)
    return upper + upper.T


def cross(P, Q, *, floor=FLOOR, desc=None):
    """Distances (M, K) between the models of two stacks P (M, N, C) and Q (K, N, C); see `pairwise`."""
    n_samples = shape_of(P)[1]
    total, clipped = np.zeros((P.shape[0], shape_of(Q)[0])), 0
    for roots_p, roots_q in sample_blocks(P, Q, desc=desc):
        clipped += add_cross(total, roots_p, roots_q, floor)
    warn_of_floor(clipped, total.size * n_samples, floor)
    return per_sample(total, n_samples)


def add_cross(total, roots_p, roots_q, floor=FLOOR):
    """Add to `total` (M, K) the distances between unit vectors (M, B, C) and (K, B, C), summed over samples; returns
    the number of affinities below the floor."""
    clipped = 0
    roots_p, roots_q = (np.ascontiguousarray(r.swapaxes(0, 1)) for r in (roots_p, roots_q))
    for i in range(0, total.shape[0], TILE):
        for j in range(0, total.shape[1], TILE):
            clipped += _subtract_logs(total[i : i + TILE, j : j + TILE], roots_p, roots_q, i, j, floor)
    return clipped


def aligned(P, Q, *, floor=FLOOR):
    """Distances (M,) of P[i] to Q[i], both (M, N, C): exact in relative terms too, however near they are."""
    if shape_of(P) != shape_of(Q):
        raise ValueError(f"expected two stacks of one shape, got {P.shape} and {Q.shape}")
    return _along_samples(sample_blocks(P, Q), P.shape[0], P.shape[1], floor)


def steps(P, *, floor=FLOOR):
    """Distances (T - 1,) between consecutive checkpoints of a trajectory (T, N, C), as exact as `aligned`."""
    n_models, n_samples, _ = shape_of(P)
    pairs = ((roots[:-1], roots[1:]) for (roots,) in sample_blocks(P))
    return _along_samples(pairs, n_models - 1, n_samples, floor)


def _along_samples(pairs, n_models, n_samples, floor):
    total, clipped = np.zeros(n_models), 0
    for roots_p, roots_q in pairs:
        distances, below = distances_of_roots(roots_p, roots_q, floor)
        total += distances.sum(axis=-1)
        clipped += below
    warn_of_floor(clipped, n_models * n_samples, floor)
    return total / n_samples


def distances_of_roots(r, s, floor=FLOOR):
    """Distance on each sample's sphere, (..., N), between unit vectors r and s (..., N, C), and the number of
    affinities below the floor.

    The affinity is 1 - h with h = |r - s|^2 / 2, which keeps the digits of near models; far from each other,
    where 1 - h would lose those of the affinity, it is computed itself.
    """
    h = np.square(r - s).sum(axis=-1) / 2
    affinity = np.einsum("...c,...c->...", r, s)
    distances = np.where(h <= 0.5, -np.log1p(-np.minimum(h, 0.5)), -np.log(np.maximum(affinity, floor)))
    return distances, np.count_nonzero(affinity < floor)


def warn_of_floor(clipped, n_affinities, floor=FLOOR):
    """A FloorWarning, if any affinities were below the floor."""
    if clipped:
        text = f"{clipped} of {n_affinities} affinities were below the floor of {floor:g} and count as that"
        warnings.warn(text, FloorWarning, stacklevel=3)


def _subtract_logs(total, roots_p, roots_q, i, j, floor):
    """Subtract from `total`, a tile of models from i and j on, the sum over samples of the log affinities."""
    clipped = 0
    rows, columns = slice(i, i + TILE), slice(j, j + TILE)
    count = min(PRODUCT, max(1, int(-300 / np.log10(floor)))) if floor > 0 else 1
    for n in range(0, len(roots_p), count):
        affinity = roots_p[n : n + count, rows] @ roots_q[n : n + count, columns].swapaxes(1, 2)
        below = affinity < floor
        if below.any():
            clipped += np.count_nonzero(np.triu(below, k=1) if roots_p is roots_q and i == j else below)
            np.maximum(affinity, floor, out=affinity)
        total -= np.log(affinity.prod(axis=0))
    return clipped


def per_sample(total, n_samples):
    """Distances, from their sums over samples; those that rounding alone makes are 0."""
    distances = total / n_samples
    distances[distances < RESOLUTION] = 0
    return distances
