"""Whether two sets of distances between the same tasks tell the same: trees made of them, and tests.

Distances (T, T) are symmetric; what their diagonals hold is not looked at.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.cluster import hierarchy

ROUNDING = 1e-12
EXACT_UP_TO = 7  # tasks: 5040 permutations; of more, some are drawn


class Dendrogram(NamedTuple):
    """A tree of T tasks, made by joining the nearest ones: average linkage (UPGMA)."""

    joined: np.ndarray  # (T - 1, 4), as scipy's linkage has it
    order: list  # tasks from top to bottom

    @property
    def height(self):
        return float(self.joined[:, 2].max(initial=1e-300))

    @property
    def lines(self):
        """Lines (x, y) of the drawing: x the distance at which parts are joined, y the place in the order."""
        place = {task: (0.0, float(i)) for i, task in enumerate(self.order)}
        for i, (a, b, height, _) in enumerate(self.joined):
            (x_a, y_a), (x_b, y_b) = place[int(a)], place[int(b)]
            yield [x_a, height, height, x_b], [y_a, y_a, y_b, y_b]
            place[len(self.order) + i] = height, (y_a + y_b) / 2


def condensed(distances):
    """Distances (T, T) of pairs i < j, (T (T - 1) / 2,)."""
    distances = np.asarray(distances, dtype=float)
    return distances[np.triu_indices(len(distances), 1)]


def dendrogram(distances):
    """The tree of distances (T, T), ordered so that neighbours are near (Bar-Joseph et al. 2001)."""
    pairs = condensed(distances)
    if len(pairs) < 2:
        return Dendrogram(
            hierarchy.linkage(pairs, "average") if len(pairs) else np.empty((0, 4)), list(range(len(distances)))
        )
    joined = hierarchy.linkage(pairs, "average", optimal_ordering=True)
    return Dendrogram(joined, hierarchy.leaves_list(joined).tolist())


def cophenetic(distances):
    """Distances (T, T) within the tree of distances (T, T): the heights at which two tasks are joined."""
    T = len(distances)
    found = np.zeros((T, T))
    found[np.triu_indices(T, 1)] = hierarchy.cophenet(hierarchy.linkage(condensed(distances), "average"))
    return found + found.T


def correlation(X, Y):
    """Pearson's correlation of distances X and Y (T, T) over pairs of tasks; not a number where one does not vary."""
    x, y = condensed(X), condensed(Y)
    centred = x - x.mean(), y - y.mean()
    # what rounding leaves of distances that are all the same does not vary
    if any(np.linalg.norm(c) <= ROUNDING * np.linalg.norm(v) for c, v in zip(centred, (x, y), strict=True)):
        return np.nan
    return float(centred[0] @ centred[1] / (np.linalg.norm(centred[0]) * np.linalg.norm(centred[1])))


def partial_correlation(X, Y, Z):
    """Correlation of X and Y given Z: of what is left when both are fitted linearly by Z, (T, T) all."""
    xy, xz, yz = correlation(X, Y), correlation(X, Z), correlation(Y, Z)
    rest = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / math.sqrt(rest) if rest > ROUNDING else np.nan


class Mantel(NamedTuple):
    """Not numbers where distances do not vary, or leave nothing to be correlated."""

    correlation: float
    p_value: float  # that permuted tasks correlate as much or more: one-sided
    n_permutations: int


def mantel(X, Y, given=None, n_permutations=9999, seed=0):
    """Mantel's test of distances X and Y (T, T), or the partial one given Z.

    The correlation over pairs of tasks, and in how many of the permutations of the tasks of X it is as large or larger:
    (1 + count) / (1 + permutations); for up to seven tasks of all T! permutations. Mantel, "The detection of disease
    clustering", Cancer Research 27 (1967); partial: Smouse, Long and Sokal, Systematic Zoology 35 (1986).
    """
    X, T = np.asarray(X, dtype=float), len(X)

    def statistic(order):
        permuted = X[np.ix_(order, order)]
        return correlation(permuted, Y) if given is None else partial_correlation(permuted, Y, given)

    found = statistic(np.arange(T))
    if not np.isfinite(found):
        return Mantel(np.nan, np.nan, 0)
    # rounding makes small differences between permutations that are the same
    least = found - 1e-12
    if T <= EXACT_UP_TO:
        values = [statistic(np.array(order)) for order in itertools.permutations(range(T))]
        return Mantel(found, float(np.mean(np.array(values) >= least)), len(values))
    rng = np.random.default_rng(seed)
    values = np.array([statistic(rng.permutation(T)) for _ in range(n_permutations)])
    return Mantel(found, float((1 + (values >= least).sum()) / (1 + n_permutations)), n_permutations)


def untangled(left, right):
    """Two Dendrograms of the same tasks with branches turned so that few of the lines between them cross."""
    best = crossings(left.order, right.order)
    while best:
        turned = [(side, node) for side in (0, 1) for node in range(len(left.joined))]
        options = []
        for side, node in turned:
            pair = [left, right]
            pair[side] = _turned(pair[side], node)
            options.append((crossings(pair[0].order, pair[1].order), pair))
        fewest, pair = min(options, key=lambda option: option[0])
        if fewest >= best:
            break
        best, (left, right) = fewest, pair
    return left, right


def crossings(order, other):
    """How many pairs of lines cross that join tasks in one order to themselves in another."""
    place = {task: i for i, task in enumerate(other)}
    places = [place[task] for task in order]
    return sum(a > b for a, b in itertools.combinations(places, 2))


def _turned(tree, node):
    """A Dendrogram with the two branches of a joint exchanged."""
    T = len(tree.order)

    def leaves(part):
        return {part} if part < T else leaves(int(tree.joined[part - T, 0])) | leaves(int(tree.joined[part - T, 1]))

    one, two = (leaves(int(part)) for part in tree.joined[node, :2])
    first = min(i for i, task in enumerate(tree.order) if task in one | two)
    order = [task for task in tree.order if task in one], [task for task in tree.order if task in two]
    if tree.order[first] in one:
        order = order[::-1]
    return tree._replace(order=tree.order[:first] + order[0] + order[1] + tree.order[first + len(one) + len(two) :])
