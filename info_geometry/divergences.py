"""What may stand for the squared distance between two models: four divergences, behind one interface.

Each is the mean over samples of a divergence between two distributions p and q over the classes, whose square roots
r and s are unit vectors with the affinity a = <r, s>. All are symmetric, and 0 between equal models, so InPCA
embeds any of them, and all coordinates together give back every value. What else holds differs:

- bhattacharyya: -log a, with a floor under a. Ramesh et al., "A picture of the space of typical learnable tasks" (arXiv
  2210.17011), equation (1). Its root is no Euclidean distance: coordinates may be imaginary.
- hellinger: 1 - a = |r - s|^2 / 2 (Hellinger 1909), at most 1. Its root is a Euclidean distance: all coordinates are
  real, and InPCA is principal component analysis of the square roots. What has nothing in common is equally far,
  however different: this is what the logarithm mends (Quinn et al., "Visualizing probabilistic models and data with
  intensive principal component analysis", PNAS 2019).
- kl: sum_c (p_c - q_c) (log p_c - log q_c), the symmetrised Kullback-Leibler divergence (Jeffreys 1946), with a floor
  under probabilities: a single zero would make it infinite, and what is predicted below the floor counts as the floor.
  An exact finite embedding is known: real coordinates (p_c + log p_c) / 2 and imaginary ones (p_c - log p_c) / 2 for
  each sample and class (the idea of Teoh et al., "Visualizing probabilistic models in Minkowski space with intensive
  symmetrized Kullback-Leibler embedding", Physical Review Research 2, 033221, 2020). InPCA finds these up to a
  transformation that keeps all divergences, so that at most NC coordinates are of either kind; it mostly shows the
  logarithms of small probabilities.
- geodesic: 4 arccos(a)^2, the squared Fisher-Rao distance (Rao 1945); its mean over samples is that of the product of
  spheres, over N. Its root is a distance, but on spheres, which are curved: coordinates may be imaginary.

Between near models, with ds the Fisher-Rao line element, bhattacharyya and hellinger are ds^2 / 8, kl and geodesic
ds^2.
"""

import numpy as np

from info_geometry.script import unknown

FLOOR = 1e-6  # affinities are clipped from below, so that disjoint supports stay at a finite distance
FLOAT16_ZERO = 2.0**-25  # probabilities below it are 0 in float16


class Divergence:
    """A divergence, as sums over samples of a function of products of features.

    `floor` is the default of what is clipped from below, `single` says whether products may be taken in float32. Roots
    are unit vectors; in `features` and `reduced` they, and all that comes of them, are tensors.
    """

    floor, single = 0.0, False

    def together(self, floor, n_bytes):
        """How many samples `reduced` takes together best, where numbers have `n_bytes`."""
        return 1

    def features(self, roots, floor):
        """What is multiplied: features (..., F) of models on the left and on the right, from roots (..., C)."""
        return roots, roots

    def reduced(self, products, floor, upper):
        """Sum over samples, (T, U) float64, of products (B, T, U) of features, which are overwritten; and how many
        affinities were below the floor, in the upper triangle or in all."""
        raise NotImplementedError

    def of_roots(self, r, s, floor):
        """Of each sample, (..., N), between unit vectors (..., N, C), and how many affinities were below the floor:
        exact in relative terms, however near models are."""
        raise NotImplementedError


class Bhattacharyya(Divergence):
    floor, single = FLOOR, True

    def together(self, floor, n_bytes):
        # one logarithm for several affinities, as many as cannot underflow
        digits = 37 if n_bytes == 4 else 300
        return min(16, max(1, int(-digits / np.log10(floor)))) if 0 < floor < 1 else 1

    def reduced(self, products, floor, upper):
        below = products < floor
        clipped = (below.triu(1) if upper else below).count_nonzero()
        products.clamp_(min=floor)
        count = self.together(floor, products.element_size())
        whole = len(products) // count * count
        several = products[:whole].unflatten(0, (-1, count)).prod(1).log_()
        return -_sum(several) - _sum(products[whole:].prod(0, keepdim=True).log_()), clipped

    def of_roots(self, r, s, floor):
        # the affinity is 1 - h, which keeps the digits of near models, but loses those of far ones
        h = half_squares(r, s)
        affinity = np.einsum("...c,...c->...", r, s)
        distances = np.where(h <= 0.5, -np.log1p(-np.minimum(h, 0.5)), -np.log(np.maximum(affinity, floor)))
        return distances, np.count_nonzero(affinity < floor)


class Hellinger(Divergence):
    def reduced(self, products, floor, upper):
        return len(products) - _sum(products), 0

    def of_roots(self, r, s, floor):
        return half_squares(r, s), 0


class Geodesic(Divergence):
    def reduced(self, products, floor, upper):
        return 4 * _sum(products.clamp_(max=1).acos_().square_()), 0

    def of_roots(self, r, s, floor):
        return 16 * np.arcsin(np.sqrt(np.minimum(half_squares(r, s) / 2, 1))) ** 2, 0


class KullbackLeibler(Divergence):
    floor = FLOAT16_ZERO

    def features(self, roots, floor):
        # (p - q)(log p - log q) = <(p, log p, p log p, 1), (-log q, -q, 1, q log q)>, sums over classes understood
        import torch

        p = roots.square().clamp_(min=floor)
        log = p.log()
        entropy = (p * log).sum(-1, keepdim=True)
        one = torch.ones_like(entropy)
        return torch.cat([p, log, entropy, one], -1), torch.cat([-log, -p, one, entropy], -1)

    def reduced(self, products, floor, upper):
        return _sum(products), 0

    def of_roots(self, r, s, floor):
        p, q = (np.maximum(np.square(x), floor) for x in (r, s))
        return ((p - q) * np.log(p / q)).sum(axis=-1), 0


def half_squares(r, s):
    """|r - s|^2 / 2 (..., N): one minus the affinity of unit vectors (..., N, C), small ones too."""
    return np.square(r - s).sum(axis=-1) / 2


def _sum(products):
    import torch

    return products.sum(0, dtype=torch.float64)


DIVERGENCES = {
    "bhattacharyya": Bhattacharyya(),
    "hellinger": Hellinger(),
    "kl": KullbackLeibler(),
    "geodesic": Geodesic(),
}


def named(name):
    """The divergence of that name; raises InputError with the nearest names for another."""
    if name not in DIVERGENCES:
        raise unknown("divergence", name, DIVERGENCES)
    return DIVERGENCES[name]


def named_with_floor(name, floor=None):
    """The divergence of that name, and its own floor where none is given; raises ValueError for one that is none."""
    divergence = named(name)
    floor = divergence.floor if floor is None else floor
    if not 0 <= floor < 1 or (floor == 0 and name == "kl"):
        raise ValueError(f"the floor must be at least 0 (for kl: above) and less than 1, got {floor}")
    return divergence, floor
