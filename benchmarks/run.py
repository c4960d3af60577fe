"""Distances, progress and embedding beside the published algorithms, in one run; writes the table in README.md.

    make benchmark

Ratios are of times measured side by side; each time is the best of several. What takes long in the published
algorithm is measured on a part of the samples or checkpoints, over which its time is proportional.
"""

import platform
import time
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from tqdm import tqdm

from info_geometry.bhattacharyya import pairwise
from info_geometry.divergences import FLOOR
from info_geometry.geodesic import progress
from info_geometry.inpca import InPCA
from info_geometry.script import replacing, versions

# (samples, classes, models), and the samples measured
SIZES = [((10000, 10, 500), 2000), ((10000, 10, 1000), 1000), ((5000, 100, 222), 1000), ((2000, 1000, 200), 1000)]


def published_distances(P, batch):
    """All affinities of a batch of samples at once, and one logarithm for each (github.com/grasp-lyrl)."""
    total = 0.0
    for n in range(0, P.shape[1], batch):
        roots = np.sqrt(P[:, n : n + batch].astype(np.float32)).transpose(1, 0, 2)
        total += -np.log(np.clip(roots @ roots.transpose(0, 2, 1), FLOOR, None)).sum(0)
    return total / P.shape[1]


def tidy_distances(P, batch=20):
    """The same with what any careful author would do: small batches, and everything in place."""
    total = np.zeros((len(P), len(P)))
    for n in range(0, P.shape[1], batch):
        roots = np.sqrt(P[:, n : n + batch]).transpose(1, 0, 2)
        affinity = roots @ roots.transpose(0, 2, 1)
        np.log(np.maximum(affinity, FLOOR, out=affinity), out=affinity)
        total -= affinity.sum(0)
    return total / P.shape[1]


def matrix_products(P, batch=20):
    """The matrix products alone, in float32: what a distance cannot be faster than, but for symmetry."""
    roots = np.ascontiguousarray(np.sqrt(P).transpose(1, 0, 2))

    def products():
        for n in range(0, len(roots), batch):
            roots[n : n + batch] @ roots[n : n + batch].transpose(0, 2, 1)

    return products


def published_progress(p, labels):
    """Bounded minimisation over whole arrays (N, C) of one checkpoint, with both end points built in float64."""
    start, end = np.full(p.shape, p.shape[1] ** -0.5), np.eye(p.shape[1])[labels]
    r = np.sqrt(p.astype(np.float32))

    def distance(t):
        g = np.arccos(np.clip((start * end).sum(-1, keepdims=True), 0, 1))
        apart = g[:, 0] > 1e-6
        point = start.copy()
        point[apart] = np.sin((1 - t) * g[apart]) * start[apart] + np.sin(t * g[apart]) * end[apart]
        point[apart] /= np.sin(g[apart])
        return -np.log(np.clip((point.astype(np.float32) * r).sum(-1), 1e-9, None)).mean()

    return minimize_scalar(distance, bounds=(0, 1), method="bounded").x


def best(function, times=3):
    """The best time of several calls, and what the last one returned."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def random_models(n_models, n_samples, n_classes):
    P = np.random.default_rng(0).random((n_models, n_samples, n_classes), dtype=np.float32) ** 3
    return P / P.sum(-1, keepdims=True)


def runs(n_runs, n_checkpoints, n_samples, n_classes):
    """Trajectories from near ignorance towards truth, as a stack of models, and the labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(n_classes, size=n_samples)
    paths = []
    for _ in range(n_runs):
        drift = rng.uniform(1, 3) * rng.normal(size=(n_samples, n_classes))
        logits = rng.uniform(3, 9) * np.eye(n_classes)[labels] + drift
        p = np.exp(np.linspace(0.02, 1, n_checkpoints)[:, None, None] * logits)
        paths.append((p / p.sum(-1, keepdims=True)).astype(np.float32))
    return np.concatenate(paths), labels


def distance_rows(bar):
    for (n_samples, n_classes, n_models), measured in SIZES:
        P = random_models(n_models, measured, n_classes)
        scale = n_samples / measured
        ours, D = best(lambda P=P: pairwise(P))
        by_500, E = best(lambda P=P: published_distances(P, 500), times=1)
        by_1000, _ = best(lambda P=P: published_distances(P, 1000), times=1)
        tidy, _ = best(lambda P=P: tidy_distances(P))
        products, _ = best(matrix_products(P))
        error = np.abs(D - E)[~np.eye(n_models, dtype=bool)].max()
        bar.update()
        ratios = [f"{ratio:.1f}" for ratio in (by_500 / ours, by_1000 / ours, tidy / ours, ours / products)]
        yield row((n_samples, n_classes, n_models), f"{scale * ours:.2f}", *ratios, f"{error:.0e}")


def progress_row():
    P, labels = runs(1, 60, 5000, 100)
    ours, found = best(lambda: progress(P, labels))
    some = range(5, 60, 11)
    published, expected = best(lambda: [published_progress(P[t], labels) for t in some], times=1)
    published *= len(P) / len(some)
    error = np.abs(found[some] - expected).max()
    return row("progress of (60, 5000, 100)", f"{ours:.2f}", f"{published / ours:.0f}", f"{error:.0e}")


def embedding_row():
    D = pairwise(runs(80, 50, 60, 10)[0])
    ours, inpca = best(lambda: InPCA(3).fit(D))
    full, everything = best(lambda: InPCA(None).fit(D), times=1)
    error = np.abs(inpca.embedding_ - everything.embedding_[:, :3]).max()
    return row("InPCA of 4000 models, three coordinates", f"{ours:.2f}", f"{full / ours:.0f}", f"{error:.0e}")


def row(*cells):
    return f"| {' | '.join(map(str, cells))} |"


def processor():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line for line in lines if line.startswith("model name")]
    return f"{names[0].partition(': ')[2]}, {len(names)} cores" if names else platform.processor()


def main():
    bar = tqdm(total=len(SIZES) + 2, desc="benchmark", disable=None)
    distances = list(distance_rows(bar))
    others = [progress_row(), embedding_row()]
    used = ", ".join(f"{name} {version}" for name, version in versions("numpy", "scipy").items())
    text = f"""# Benchmarks

`make benchmark` measured this and wrote it here, on {processor()}; {used}.

All distances between models, as (samples, classes, models): seconds of `pairwise`, which computes in float64; how many
times faster it is than the published algorithm at its batches of 500 and of 1000 samples (float32, one logarithm a pair
and sample) and than a tidy in-place version of that; how many times the time of the float32 matrix products alone it
takes; and the largest difference from the published algorithm, which is that one's error.

| size | seconds | times batch 500 | times batch 1000 | times tidy | over products | difference |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(distances)}

Progress beside the published bounded minimisation, and the embedding beside the full eigendecomposition: seconds, how
many times faster, and the largest difference (the minimisation's own, for progress).

| what | seconds | times faster | difference |
| --- | ---: | ---: | ---: |
{chr(10).join(others)}
"""
    path = Path(__file__).with_name("README.md")
    with replacing(path) as partial:
        partial.write_text(text)
    bar.close()
    print(text)


if __name__ == "__main__":
    main()
