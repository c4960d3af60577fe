"""Geodesics of prediction space, great circles on each sample's sphere, and progress along them.

See Ramesh et al., "A picture of the space of typical learnable tasks" (arXiv 2210.17011), section 2, and Mao et
al., "The training process of many deep networks explores the same low-dimensional manifold" (arXiv 2305.01604).
"""

import numpy as np

from info_geometry.samples import map_samples, numbered, sample_blocks, shape_of, square_roots
from info_geometry.script import InputError

TOLERANCE = 1e-13  # of progress, far below what is asked of it, 1e-10


def interpolate(P, Q, t):
    """The model at a fraction t of the way from P to Q along the geodesic.

    r(t) = [sin((1 - t) g) r_P + sin(t g) r_Q] / sin g for each sample, with r the square roots of probabilities
    and g the angle between r_P and r_Q.

    Args:
        P, Q: (..., N, C) probabilities
        t: number, or array that broadcasts with (..., N), such as (K, 1) for K models between two

    Returns:
        (..., N, C) float64 probabilities
    """
    r = along(square_roots(P), square_roots(Q), t)
    return r**2 / np.square(r).sum(axis=-1, keepdims=True)


def along(r_p, r_q, t):
    """Points on the great circles from unit vectors r_p to r_q (..., N, C), at fractions t of their angles."""
    g = angles(r_p, r_q)
    t, g = np.broadcast_arrays(t, g)
    sine = np.where(g > 0, np.sin(g), 1)
    start = np.where(g > 0, np.sin((1 - t) * g), 1 - t) / sine
    end = np.where(g > 0, np.sin(t * g), t) / sine
    return start[..., None] * r_p + end[..., None] * r_q


def angles(r_p, r_q):
    """Angles (..., N) between unit vectors (..., N, C): small ones too, which the arc cosine would lose."""
    return 2 * np.arcsin(np.minimum(np.linalg.norm(r_p - r_q, axis=-1) / 2, 1))


class FromIgnoranceToTruth:
    """The models at fractions t (K,) of the way from ignorance (uniform) to truth (one-hot `labels` (N,)), as a stack
    (K, N, C) of which only blocks of samples are ever built."""

    dtype = np.dtype(np.float64)

    def __init__(self, labels, n_classes, t):
        self.labels, t = np.asarray(labels), np.asarray(t, dtype=np.float64)
        self.shape = (len(t), len(self.labels), n_classes)
        ignorance, truth = np.full((1, n_classes), 1 / n_classes), np.eye(1, n_classes)
        # on every sample the probability of the true class, and of each of the others
        both = interpolate(ignorance, truth, t[:, None])[:, 0, :2] if n_classes > 1 else np.ones((len(t), 2))
        self.true, self.other = both.T

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, key):
        """The slice [:, samples]."""
        labels = self.labels[key[1]]
        block = np.empty((len(self), len(labels), self.shape[2]))
        block[...] = self.other[:, None, None]
        block[:, np.arange(len(labels)), labels] = self.true[:, None]
        return block


def progress(P, labels):
    """Progress of each model of P (T, N, C) from ignorance (uniform) to truth (one-hot `labels` (N,)).

    The fraction t in [0, 1] at which the geodesic from ignorance to truth is nearest to the model in d_B;
    (T,) float64, exact to 1e-10. Neither end point is built: two scalars a sample, read in one pass over the
    samples, say all. Raises InputError for labels that do not fit, or at a row that is no probability.
    """
    labels = checked_labels(P, labels)
    found = list(map_samples(lambda n, r: with_ends(r, labels[n : n + r.shape[1]]), P))
    return progress_of(*np.concatenate(found, axis=-1), P.shape[2])


def checked_labels(P, labels):
    """Labels (N,) of a stack (M, N, C) as an array; raises InputError for those that do not fit."""
    _, n_samples, n_classes = shape_of(P)
    labels = np.asarray(labels)
    if labels.shape != (n_samples,) or labels.dtype.kind not in "iu":
        raise InputError(f"expected {n_samples} whole numbers as labels, got {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise InputError(f"labels must be from 0 to {n_classes - 1}, got {labels.min()} to {labels.max()}")
    return labels


def with_ends(r, labels):
    """Affinities (2, T, N) of unit vectors (T, N, C) with ignorance and with truth: all that progress depends on."""
    return np.stack([r @ np.full(r.shape[-1], r.shape[-1] ** -0.5), r[:, np.arange(len(labels)), labels]])


def progress_of(with_ignorance, with_truth, n_classes):
    """Progress (T,), given the affinities (T, N) with ignorance and with truth."""
    return _nearest(with_ignorance, with_truth, np.arccos(n_classes**-0.5))


def progress_between(P, start, end):
    """Progress (T,) of models P (T, N, C) along the geodesic from one model to another, both (N, C).

    As `progress`, which is this from ignorance to truth. Samples whose support touches neither end point say
    nothing about the place along the way, and are left out.
    """
    a, b = np.empty((2, *shape_of(P)[:2]))
    g = np.empty(P.shape[1])
    for n, (r, r_start, r_end) in numbered(sample_blocks(P, start[None], end[None])):
        block = slice(n, n + r.shape[1])
        a[:, block] = np.einsum("tnc,nc->tn", r, r_start[0])
        b[:, block] = np.einsum("tnc,nc->tn", r, r_end[0])
        g[block] = angles(r_start[0], r_end[0])
    return _nearest(a, b, g)


def _nearest(a, b, g):
    """The t in [0, 1] that minimises f(t) = -mean_n log([a sin((1 - t) g) + b sin(t g)] / sin g), for each row.

    a, b : (T, N) affinities with the two ends; g : angle or angles (N,) between these. f is convex, being minus
    the log of sinusoids that are not negative: f'' = mean [g^2 + (u'/u)^2] with u the argument of the log.
    Newton steps, and bisection where they leave the bracket that the signs of f' have left.
    """
    informative = (g > 0) & ((a > 0) | (b > 0))

    where = True if informative.all() else informative

    def slope(t):
        """f' and f'' at t (T,)."""
        t = t[:, None]
        u = a * np.sin((1 - t) * g)
        u += b * np.sin(t * g)
        ratio = b * np.cos(t * g)
        ratio -= a * np.cos((1 - t) * g)
        ratio *= g * informative
        with np.errstate(divide="ignore", invalid="ignore"):
            np.divide(ratio, u, out=ratio, where=where)
        return -ratio.mean(axis=1), (g**2 * informative).mean(axis=1) + np.einsum("tn,tn->t", ratio, ratio) / a.shape[1]

    low, high = np.zeros(len(a)), np.ones(len(a))
    t = np.full(len(a), 0.5)
    t[slope(high)[0] <= 0] = 1
    t[slope(low)[0] >= 0] = 0
    inside = t == 0.5
    for _ in range(100):
        first, second = slope(t)
        low, high = np.where(first < 0, t, low), np.where(first > 0, t, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = t - first / second
        usable = ((newton > low) & (newton < high)) | (np.abs(newton - t) < TOLERANCE)
        following = np.where(usable, newton, (low + high) / 2)
        following = np.where(inside & (first != 0), following, t)
        if np.abs(following - t).max() < TOLERANCE:
            return following
        t = following
    return t
