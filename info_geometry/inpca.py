"""InPCA: an isometric embedding of models in Minkowski space, and the script that makes the picture.

    python info_geometry/inpca.py predictions/digits_*
    python info_geometry/inpca.py --dataset digits
    python info_geometry/inpca.py predictions/digits_* --bootstrap 200
    python info_geometry/inpca.py predictions/imagenet_* --landmarks 2000
    torchrun --nproc-per-node=2 info_geometry/inpca.py predictions/imagenet_*

writes `embedding/<dataset>_inpca.npz` beside the prediction folders, and of it the page `inpca.html` and the figures
`inpca.png`, `inpca_2d.png`, `inpca_pairs.png` and `explained_stress.png`, which `info_geometry/plot.py` draws anew. The
method is intensive principal component analysis (Quinn et al., "Visualizing probabilistic models and data with
intensive principal component analysis", PNAS 2019). With labels, the file and the figures also have progress, accuracy
and the geodesic from ignorance to truth.
"""

import argparse
import collections.abc
import contextlib
import functools
import itertools
import json
import os
import warnings

import numpy as np
from tqdm import tqdm

from info_geometry import bootstrap, landmarks, ranks
from info_geometry.bhattacharyya import BHATTACHARYYA, FloorWarning, cross, pairwise
from info_geometry.divergences import DIVERGENCES, named
from info_geometry.geodesic import FromIgnoranceToTruth, checked_labels
from info_geometry.predictions import Models, add_arguments, chosen, labels_beside, made_from, read_labels
from info_geometry.samples import samples_of, slices
from info_geometry.script import InputError, Unfinished, replacing, run, shown, versions
from info_geometry.trajectory import measure

ALONG_GEODESIC = np.linspace(0, 1, 51)  # where the geodesic from ignorance to truth is drawn through
FULL_BELOW = 300  # models: up to there the full eigendecomposition takes some milliseconds


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

    Args:
        n_components: number of coordinates kept, at most M; None keeps all

    Attributes:
        embedding_: (M, k) coordinates of the fitted models
        eigenvalues_: (k,), those of imaginary coordinates negative
        imaginary_: (k,), whether a coordinate is imaginary
        explained_stress_: (k,), of the first 1, 2, ... k coordinates, 1 - sqrt(1 - sum_{i<=k} lambda_i^2 / |W|^2) with
            the Frobenius norm |W|, whose square is the sum of all lambda_i^2
    """

    def __init__(self, n_components=3):
        self.n_components = n_components

    def fit(self, X, y=None, sample_weight=None):
        """Embed M models, given by their distances (M, M) or as predictions (M, N, C), with weights (M,) or none.

        Of predictions d_B is taken in float64: for many models `pairwise` is quicker, and as exact as figures need.

        Raises InputError (a ValueError) unless distances are finite, symmetric and zero from a model to itself, and
        weights positive.
        """
        X = X if hasattr(X, "shape") else np.asarray(X)
        self.models_ = X if len(X.shape) == 3 else None
        D = _distances(X) if self.models_ is None else pairwise(X, dtype=np.float64)
        size = len(D) if self.n_components is None else min(self.n_components, len(D))
        # without weights eigenvalues are those of W, not of W / M
        self.weights_ = np.ones(len(D)) if sample_weight is None else _weights(sample_weight, len(D))
        shares = self.weights_ / self.weights_.sum()
        self.means_ = _times(D, shares)
        self.mean_ = self.means_ @ shares
        values, vectors, squares = _leading(D, self.means_, self.mean_, self.weights_, size)
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(size)])
        self.eigenvalues_ = values
        # what rounding leaves of a zero eigenvalue is no coordinate
        self.nonzero_ = np.abs(values) > len(D) * np.finfo(float).eps * np.abs(values).max()
        self.imaginary_ = self.nonzero_ & (values < 0)
        self.embedding_ = vectors * np.sqrt(np.where(self.nonzero_, np.abs(values), 0))
        self.embedding_ /= np.sqrt(self.weights_)[:, None]
        self.explained_stress_ = explained_stress(values, squares)
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
            X = cross(X, self.models_, dtype=np.float64)
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


def _leading(D, means, mean, weights, size):
    """The `size` eigenpairs of largest magnitude, descending, of W = -diag(sqrt w) (D - means - means' + mean)
    diag(sqrt w) / 2, (k,) and (M, k), and the sum of the squares of all eigenvalues."""
    root = np.sqrt(weights)
    found = None
    if len(D) >= FULL_BELOW and size <= len(D) // 10:
        from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

        def product(x):  # with W, which is never built
            x = root * x.ravel()
            total = x.sum()
            return root * (_times(D, x) - means * total - means @ x + mean * total) / -2

        W = LinearOperator(D.shape, product, dtype=np.float64)
        # a vector of its own, since the default draws from a random state; not of ones, which W takes to 0
        start = np.random.default_rng(0).normal(size=len(D))
        with contextlib.suppress(ArpackError):  # such as for equal models, where W is 0
            found = eigsh(W, size, which="LM", v0=start, tol=1e-12)
    if found:
        shares = weights / weights.sum()
        squares = sum(shares[rows] @ (_block(D, rows) ** 2 @ shares) for rows in _rows(D))
        squares = weights.sum() ** 2 / 4 * max(0, squares - 2 * means**2 @ shares + mean**2)
    else:
        W = D - means
        W -= means[:, None] - mean
        W *= -root / 2
        W *= root[:, None]
        squares = np.vdot(W, W)
        found = np.linalg.eigh(W)
    values, vectors = found
    order = np.argsort(-np.abs(values), kind="stable")[:size]
    return values[order], vectors[:, order], squares


def _times(D, x):
    """D x in float64, for D that may be in float32, or on disk."""
    return D @ x if D.dtype == np.float64 else np.concatenate([_block(D, rows) @ x for rows in _rows(D)])


def _rows(D):
    return slices(len(D), max(1, (1 << 17) // len(D)))  # a megabyte, which stays in cache


def _block(D, rows):
    return np.asarray(D[rows], dtype=np.float64)


def _weights(weights, n_models):
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n_models,) or not np.isfinite(w).all() or w.min() <= 0:
        raise InputError(f"expected {n_models} positive weights, got {w.dtype} {w.shape}")
    return w / w.sum()


def _distances(X):
    """A matrix of distances, checked block by block, as it may be large; symmetrised where rounding made it not so."""
    D = X if X.dtype in (np.float32, np.float64) else np.asarray(X, dtype=np.float64)
    if D.ndim != 2 or D.shape[0] != D.shape[1] or D.size == 0:
        raise InputError(f"expected distances (M, M) or predictions (M, N, C), got shape {D.shape}")
    largest = fault = 0.0
    for rows, columns in itertools.combinations_with_replacement(slices(len(D), 256), 2):
        upper, lower = D[rows, columns], D[columns, rows].T
        if not np.array_equal(upper, lower):
            fault = np.max([fault, np.abs(upper - lower).max()])
        largest = np.max([largest, upper.max(), -upper.min()])
        if not np.isfinite(largest + fault):
            i, j = np.argwhere(~(np.isfinite(upper) & np.isfinite(lower)))[0]
            raise InputError(f"the distance between {rows.start + i} and {columns.start + j} is not finite")
    fault = max(fault, np.abs(np.diagonal(D)).max())
    if fault > 1e-6 * largest:
        raise InputError("distances must be symmetric, and zero on the diagonal")
    return D if fault == 0 else (D + D.T) / 2


def embed(runs, labels=None, name="mine", components=50, divergence=BHATTACHARYYA):
    """The `info_geometry.picture.Picture` of arrays, which `plot.inpca_figures` and `page.write` draw.

    Args:
        runs: {task: probabilities (T, N, C), or a list of such arrays, one a seed, or (seeds, T, N, C)}
        labels: true classes (N,), for progress, accuracy and the geodesic from ignorance to truth
        name: of the dataset, for titles

    Raises InputError (a ValueError) for arrays that do not fit each other, and at the first row that is no probability.
    """
    from info_geometry.picture import Picture

    known_by_name = _arrays_of(runs)
    owners = [(*name, i) for name, P in known_by_name.items() for i in range(len(P))]
    each = list(known_by_name.values())
    samples_of(*each)
    models, how = np.concatenate(each).view(Owned), {"divergence": divergence}
    models.where = lambda model, sample: "{}, seed {}: [{}, {}]".format(*owners[model], sample)
    inpca, known = InPCA(components).fit(pairwise(models, **how)), {}
    if labels is not None:
        labels = checked_labels(models, labels)
        known = measured(each, labels)
        if inpca.nonzero_.any():  # one model, or equal ones, have no space in which it could lie
            known["geodesic"] = inpca.transform(distances_of_geodesic(labels, models, how))
    task, seed, checkpoint = map(np.array, zip(*owners, strict=True))
    return Picture(
        name,
        inpca.embedding_,
        inpca.eigenvalues_,
        inpca.explained_stress_,
        task,
        seed,
        checkpoint,
        divergence=divergence,
        **known,
    )


class Owned(np.ndarray):
    """Models (M, N, C) that are known by their runs: `where` says the place of a row."""


def _arrays_of(runs):
    """{(task, seed): probabilities (T, N, C)} of what `embed` takes."""
    if not isinstance(runs, collections.abc.Mapping) or not runs:
        raise InputError("there are no runs to embed; expected {task: probabilities (T, N, C)}, such as {'mine': P}")
    found = {}
    for task, given in runs.items():
        seeds = given if isinstance(given, list | tuple) or len(np.shape(given)) == 4 else [given]
        if not len(seeds):
            raise InputError(f"{task}: has no runs")
        for seed, P in enumerate(seeds):
            # of a tensor numpy may lack the type
            P = P.detach().cpu().double().numpy() if hasattr(P, "detach") else np.asarray(P)
            if P.ndim != 3 or 0 in P.shape:
                raise InputError(f"{task}, seed {seed}: expected (checkpoints, samples, classes), got shape {P.shape}")
            found[str(task), seed] = P
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--components", type=int, default=50, help="coordinates kept; figures show three (default: 50)")
    parser.add_argument("--divergence", default=BHATTACHARYYA, help=f"{', '.join(DIVERGENCES)} (default: the first)")
    parser.add_argument("--landmarks", type=int, help="embed about so many models, and place the others out of sample")
    parser.add_argument("--choose", choices=("along", "farthest"), default="along", help="landmarks (default: along)")
    parser.add_argument("--bootstrap", type=int, help="resamples for 95%% intervals, such as 200")
    parser.add_argument("--device", default="cpu", help="where distances are computed, such as cuda (default: cpu)")
    add_arguments(parser)
    args = parser.parse_args()
    for name, least in (("components", 1), ("landmarks", 2), ("bootstrap", 20)):
        value = getattr(args, name)
        if value is not None and value < least:
            parser.error(f"--{name} must be {least} or more")
    if args.landmarks and args.bootstrap:
        parser.error("--bootstrap takes distances between all models, --landmarks does without")
    named(args.divergence)
    with ranks.joined(args.device) as device:
        trajectories, results, figures = chosen(args)
        labels = labels_of(trajectories, args.labels)
        first = ranks.rank() == 0
        models = Models(trajectories)
        how = {"divergence": args.divergence, "device": device, "desc": "distances" if first else None}
        if args.landmarks:
            inpca, arrays, fitted = embed_landmarks(models, args, how)
        else:
            inpca, arrays, fitted = embed_all(models, trajectories, results, args, how)
        to_truth = None if labels is None else distances_of_geodesic(labels, fitted, how)
    if first:
        if labels is not None:
            if inpca.nonzero_.any():  # one model, or equal ones, have no space in which it could lie
                arrays |= {"geodesic": inpca.transform(to_truth), "geodesic_progress": ALONG_GEODESIC}
            arrays |= measured(trajectories, labels)
        report(inpca, arrays, models, trajectories, results, figures, args)


def labels_of(trajectories, path):
    """The true classes (N,), from a file that is named, or that lies where they are expected; None without one."""
    if path is None and not labels_beside(trajectories).exists():
        return None
    return read_labels(path or labels_beside(trajectories), trajectories)


def distances_of_geodesic(labels, fitted, how):
    """Distances (K, M) of models along the geodesic from ignorance to truth to the fitted ones.

    Towards truth, affinities with predictions that give a true class no probability count as the floor.
    """
    geodesic = FromIgnoranceToTruth(labels, fitted.shape[2], ALONG_GEODESIC)
    with warnings.catch_warnings(category=FloorWarning, action="ignore"):
        return cross(geodesic, fitted, **how | {"desc": how.get("desc") and "geodesic to truth"})


def measured(trajectories, labels):
    """Progress and accuracy of all models, {name: (M,)}."""
    with warnings.catch_warnings(category=FloorWarning, action="ignore"):  # of steps, which are not looked at here
        runs = [measure(t, labels) for t in tqdm(trajectories, desc="progress", unit="run", disable=None)]
    return {name: np.concatenate([getattr(run, name) for run in runs]) for name in ("progress", "accuracy")}


def embed_landmarks(models, args, how):
    """The embedding of all models by way of landmarks, the arrays to store of it, and the models it was fitted to."""
    which, weights = landmarks.choose_landmarks(models, args.landmarks, args.choose, args.divergence)
    some = models.take(which)
    distances = pairwise(some, **how)
    inpca = InPCA(args.components).fit(distances, sample_weight=weights)
    arrays = {"landmarks": which, "landmark_distances": distances}
    return inpca, arrays | {"embedding": landmarks.place(inpca, models, some, **how)}, some


def embed_all(models, trajectories, results, args, how):
    """The embedding from distances between all models, None but in the first process, the arrays to store of it, and
    the models it was fitted to."""
    dataset = trajectories[0].dataset
    groups = bootstrap.Groups(models.shape[1], len(models), results) if args.bootstrap else None
    files = [(t.name, os.stat(t.path).st_size, os.stat(t.path).st_mtime_ns) for t in trajectories]
    unfinished = Unfinished(
        results / f"{dataset}_distances_{ranks.rank()}.unfinished.npz",
        [
            files,
            args.divergence,
            len(groups.sizes) if groups else 0,
            ranks.count(),
            args.device,
            versions("numba", "torch"),
        ],
    )
    distances = pairwise(models, **how, unfinished=unfinished, groups=groups)
    inpca, arrays = None, {"distances": distances}
    if ranks.rank() == 0:
        inpca = InPCA(args.components).fit(distances)
        arrays |= {"embedding": inpca.embedding_}
        if groups:
            bar = functools.partial(tqdm, desc="bootstrap", total=args.bootstrap, disable=None)
            intervals = bootstrap.of_embedding(inpca, groups, args.bootstrap, bar=bar)
            arrays |= {"explained_stress_interval": intervals[0], "embedding_interval": intervals[1]}
    unfinished.remove()
    if ranks.rank() == 0:  # those of more processes that were stopped
        for path in results.glob(f"{dataset}_distances_*.unfinished.npz"):
            path.unlink(missing_ok=True)
    return inpca, arrays, models


def report(inpca, arrays, models, trajectories, results, figures, args):
    """Print, store and draw an embedding."""
    from info_geometry import page, plot
    from info_geometry.picture import Picture

    dataset = trajectories[0].dataset
    suffix = "" if args.divergence == BHATTACHARYYA else f"_{args.divergence}"
    intervals = arrays.get("explained_stress_interval", ())
    print(f"{len(models)} models of {len(trajectories)} runs, {models.shape[1]} samples")
    for k in (1, 2, 3, 5, 10, 50):
        if k <= len(inpca.eigenvalues_):
            kind = "imaginary" if inpca.imaginary_[k - 1] else "real"
            stress = inpca.explained_stress_[k - 1]
            line = f"explained stress of {k:2} coordinates: {100 * stress:6.2f}%"
            if k <= len(intervals):
                line += " (95% interval {:.2f} to {:.2f})".format(*100 * intervals[k - 1])
            print(f"{line}   (number {k} is {kind})")
    if len(intervals):
        print("(intervals: bootstrap over samples; networks and prototypes are held fixed, see seeds for their spread)")
    path = results / f"{dataset}_inpca{suffix}.npz"
    has_epochs = all("epoch" in t.columns and np.isfinite(t.epochs).all() for t in trajectories)
    settings = {key: getattr(args, key) for key in ("components", "divergence", "landmarks", "choose", "bootstrap")}
    with replacing(path) as partial:
        np.savez(
            partial,
            **arrays,
            eigenvalues=inpca.eigenvalues_,
            explained_stress=inpca.explained_stress_,
            task=np.array([t.task for t, _ in models.owner]),
            seed=np.array([t.seed for t, _ in models.owner]),
            checkpoint=np.array([i for _, i in models.owner]),
            **({"epoch": np.concatenate([t.epochs for t in trajectories])} if has_epochs else {}),
            record=json.dumps(made_from(trajectories, **settings)),
        )
    print(shown(path))
    picture = Picture.load(path)
    print(shown(page.write(figures / f"inpca{suffix}.html", picture)))
    for figure in plot.inpca_figures(figures, picture, suffix, args.format):
        print(shown(figure))


if __name__ == "__main__":
    run(main)
