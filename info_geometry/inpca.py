"""InPCA: an isometric embedding of models in Minkowski space, and the script that makes the picture.

    python info_geometry/inpca.py predictions/digits_*
    python info_geometry/inpca.py --dataset digits

writes `embedding/<dataset>_inpca.npz` beside the prediction folders, and the figures `inpca.html`, `inpca.png`
and `explained_stress.png`. The method is intensive principal component analysis (Quinn et al., "Visualizing
probabilistic models and data with intensive principal component analysis", PNAS 2019).
"""

import argparse
import contextlib
import json

import numpy as np

from info_geometry.bhattacharyya import cross, pairwise
from info_geometry.predictions import Models, add_arguments, chosen, made_from
from info_geometry.script import InputError, replacing, run, shown

FULL_BELOW = 1000  # models: up to there the full eigendecomposition takes a fraction of a second


class InPCA:
    """Intensive principal component analysis.

    D (M, M) holds squared distances, here d_B, whose square root is no Euclidean distance. With
    L = I - 11'/M, W = -L D L / 2 = sum_i lambda_i v_i v_i', |lambda| descending. Coordinate i of model m is
    sqrt|lambda_i| v_im, real where lambda_i > 0 and imaginary where lambda_i < 0. All coordinates together give
    back every distance: D_ab = sum_i sign(lambda_i) (x_ai - x_bi)^2. The entry of largest magnitude in each
    coordinate is positive, so that pictures repeat.

    With weights w, positive and summing to one, L = I - 1w', and diag(sqrt w) W diag(sqrt w) has the eigenpairs
    (lambda_i, u_i); coordinates are sqrt|lambda_i| u_im / sqrt(w_m). Whole numbers as weights give the coordinates of
    models repeated as many times; equal weights those of none, with eigenvalues divided by M.

    Parameters
    ----------
    n_components : number of coordinates kept, at most M; None keeps all

    Attributes
    ----------
    embedding_ : (M, k) coordinates of the fitted models
    eigenvalues_ : (k,), those of imaginary coordinates negative
    imaginary_ : (k,), whether a coordinate is imaginary
    explained_stress_ : (k,), of the first 1, 2, ... k coordinates, 1 - sqrt(1 - sum_{i<=k} lambda_i^2 / |W|^2) with
        the Frobenius norm |W|, whose square is the sum of all lambda_i^2
    """

    def __init__(self, n_components=3):
        self.n_components = n_components

    def fit(self, X, y=None, sample_weight=None):
        """Embed M models, given by their distances (M, M) or as predictions (M, N, C), with weights (M,) or none.

        Raises InputError (a ValueError) unless distances are finite, symmetric and zero from a model to itself, and
        weights positive.
        """
        X = X if hasattr(X, "shape") else np.asarray(X)
        self.models_ = X if len(X.shape) == 3 else None
        D = _distances(X) if self.models_ is None else pairwise(X)
        size = len(D) if self.n_components is None else min(self.n_components, len(D))
        # without weights eigenvalues are those of W, not of W / M
        self.weights_ = np.ones(len(D)) if sample_weight is None else _weights(sample_weight, len(D))
        shares = self.weights_ / self.weights_.sum()
        self.means_ = D @ shares
        self.mean_ = self.means_ @ shares
        root = np.sqrt(self.weights_)
        W = D - self.means_
        W -= self.means_[:, None] - self.mean_
        W *= -root / 2
        W *= root[:, None]
        values, vectors = _leading(W, size)
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(size)])
        self.eigenvalues_ = values
        # what rounding leaves of a zero eigenvalue is no coordinate
        self.nonzero_ = np.abs(values) > len(D) * np.finfo(float).eps * np.abs(values).max()
        self.imaginary_ = self.nonzero_ & (values < 0)
        self.embedding_ = vectors * np.sqrt(np.where(self.nonzero_, np.abs(values), 0)) / root[:, None]
        self.explained_stress_ = explained_stress(values, np.vdot(W, W))
        return self

    def fit_transform(self, X, y=None, sample_weight=None):
        """`fit`, and the coordinates (M, k)."""
        return self.fit(X, sample_weight=sample_weight).embedding_

    def transform(self, X):
        """Coordinates (K, k) of new models, given by their distances (K, M) to the fitted ones, or as
        predictions (K, N, C) where predictions were fitted. Fitted models land on their own coordinates.

        With d the distances of a new model and w the weights (1/M without), b = -(d - w'd - Dw + w'Dw) / 2 and
        x_k = sum_i sqrt(w_i) u_ik b_i / (sign(lambda_k) sqrt|lambda_k|).
        """
        X = X if hasattr(X, "shape") else np.asarray(X)
        if len(X.shape) == 3:
            if self.models_ is None:
                raise ValueError("fitted on distances: transform takes distances (K, M) to the fitted models")
            X = cross(X, self.models_)
        d = np.asarray(X, dtype=np.float64)
        if d.ndim != 2 or d.shape[1] != len(self.embedding_) or not np.isfinite(d).all():
            raise InputError(f"expected finite distances (K, {len(self.embedding_)}), got shape {d.shape}")
        shares = self.weights_ / self.weights_.sum()
        b = -(d - (d @ shares)[:, None] - self.means_ + self.mean_) / 2
        scale = np.divide(1, self.eigenvalues_, out=np.zeros(len(self.eigenvalues_)), where=self.nonzero_)
        return (b * self.weights_) @ self.embedding_ * scale


def explained_stress(kept, total):
    """Cumulative explained stress (k,) of eigenvalues (k,), where the squares of all eigenvalues sum to `total`."""
    rest = total - np.cumsum(kept**2)
    return 1 - np.sqrt(np.maximum(rest, 0) / total) if total > 0 else np.ones(len(kept))


def _leading(W, size):
    """The `size` eigenpairs of largest magnitude of a symmetric matrix (M, M), descending: (k,), (M, k)."""
    found = None
    if len(W) >= FULL_BELOW and size <= len(W) // 10:
        from scipy.sparse.linalg import ArpackError, eigsh

        # a vector of its own, since the default draws from a random state; not of ones, which W takes to 0
        start = np.random.default_rng(0).normal(size=len(W))
        with contextlib.suppress(ArpackError):  # such as for equal models, where W is 0
            found = eigsh(W, size, which="LM", v0=start, tol=1e-12)
    values, vectors = found or np.linalg.eigh(W)
    order = np.argsort(-np.abs(values), kind="stable")[:size]
    return values[order], vectors[:, order]


def _weights(weights, n_models):
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n_models,) or not np.isfinite(w).all() or w.min() <= 0:
        raise InputError(f"expected {n_models} positive weights, got {w.dtype} {w.shape}")
    return w / w.sum()


def _distances(X):
    D = np.asarray(X, dtype=np.float64)
    if D.ndim != 2 or D.shape[0] != D.shape[1] or D.size == 0:
        raise InputError(f"expected distances (M, M) or predictions (M, N, C), got shape {D.shape}")
    if not np.isfinite(D.sum()):
        i, j = np.argwhere(~np.isfinite(D))[0]
        raise InputError(f"the distance [{i}, {j}] is not finite")
    symmetric = np.array_equal(D, D.T)
    largest_fault = max(np.abs(np.diag(D)).max(), 0 if symmetric else np.abs(D - D.T).max())
    if largest_fault > 1e-6 * np.abs(D).max():
        raise InputError("distances must be symmetric, and zero on the diagonal")
    return D if symmetric else (D + D.T) / 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--components", type=int, default=50, help="coordinates kept; figures show three (default: 50)")
    add_arguments(parser)
    args = parser.parse_args()
    if args.components < 1:
        parser.error("--components must be 1 or more")
    trajectories, results, figures = chosen(args)

    from info_geometry import plot

    models = Models(trajectories)
    distances = pairwise(models, desc="distances")
    print(f"{len(models)} models of {len(trajectories)} runs, {models.shape[1]} samples")
    inpca = InPCA(args.components).fit(distances)
    for k in (1, 2, 3, 5, 10, 50):
        if k <= len(inpca.eigenvalues_):
            kind = "imaginary" if inpca.imaginary_[k - 1] else "real"
            stress = inpca.explained_stress_[k - 1]
            print(f"explained stress of {k:2} coordinates: {100 * stress:6.2f}%   (number {k} is {kind})")
    dataset = trajectories[0].dataset
    path = results / f"{dataset}_inpca.npz"
    columns = {
        "task": np.array([t.task for t, _ in models.owner]),
        "seed": np.array([t.seed for t, _ in models.owner]),
        "checkpoint": np.array([i for _, i in models.owner]),
    }
    with replacing(path) as partial:
        np.savez(
            partial,
            distances=distances,
            eigenvalues=inpca.eigenvalues_,
            embedding=inpca.embedding_,
            explained_stress=inpca.explained_stress_,
            record=json.dumps(made_from(trajectories, components=args.components)),
            **columns,
        )
    print(shown(path))
    for figure in plot.inpca_figures(figures, dataset, inpca, trajectories):
        print(shown(figure))


if __name__ == "__main__":
    run(main)
