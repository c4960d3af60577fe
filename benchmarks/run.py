"""Distances, progress and embedding beside the published algorithms, in one run; writes the tables in README.md.

    make benchmark

Ratios are of times measured side by side; each time is the best of several. What takes long in the published
algorithm is measured on a part of the samples or checkpoints, over which its time is proportional.
"""

import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from scipy.optimize import minimize_scalar
from tqdm import tqdm

from info_geometry import bhattacharyya, bootstrap, landmarks
from info_geometry.affinities import FEW_CLASSES, CompiledEngine, Engine, FewClassesEngine
from info_geometry.bhattacharyya import pairwise
from info_geometry.bootstrap import Groups, of_embedding
from info_geometry.divergences import DIVERGENCES, FLOOR
from info_geometry.geodesic import progress
from info_geometry.inpca import InPCA
from info_geometry.predictions import Trajectory
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


def off_diagonal(D):
    return D[~np.eye(len(D), dtype=bool)]


def distance_rows(bar):
    for (n_samples, n_classes, n_models), measured in SIZES:
        P = random_models(n_models, n_samples, n_classes)
        part = P[:, :measured]
        scale = n_samples / measured
        ours, _ = best(lambda P=P: pairwise(P, dtype=np.float32))
        published = [best(lambda part=part, b=batch: published_distances(part, b), times=2)[0] for batch in (500, 1000)]
        for batch in (500, 1000):
            arguments = (n_models, measured, n_classes, batch)
            published.append(alone("published_alone", *arguments, NUMPY_MADVISE_HUGEPAGE="0")[0])
        tidy = scale * best(lambda part=part: tidy_distances(part), times=2)[0]
        products = scale * best(matrix_products(part))[0]
        exact = pairwise(part, dtype=np.float64)
        error = np.abs(pairwise(part, dtype=np.float32) - exact).max()
        theirs = np.abs(off_diagonal(published_distances(part, 500) - exact)).max()
        bar.update()
        ratios = [f"{ratio:.1f}" for ratio in (*(scale * t / ours for t in published), tidy / ours, ours / products)]
        yield row((n_samples, n_classes, n_models), f"{ours:.2f}", *ratios, f"{error:.0e}", f"{theirs:.0e}")


def published_alone(n_models, n_samples, n_classes, batch):
    P = random_models(n_models, n_samples, n_classes)
    return best(lambda: published_distances(P, batch), times=2)[0]


def engine_rows():
    """What each engine is worth: times for the same distances."""
    for n_samples, n_classes, n_models in ((2000, 10, 500), (1000, 100, 500), (100, 1000, 500)):
        P = random_models(n_models, n_samples, n_classes)
        times = []
        for kind, dtype in ((Engine, np.float64), (CompiledEngine, np.float32), (FewClassesEngine, np.float32)):
            with using(kind):
                times.append(best(lambda P=P, dtype=dtype: pairwise(P, dtype=dtype))[0])
        yield row((n_samples, n_classes, n_models), *(f"{t:.2f}" for t in times))


@contextlib.contextmanager
def using(kind):
    """One engine, whatever the number of classes."""
    usual = bhattacharyya.engine_for
    bhattacharyya.engine_for = kind
    try:
        yield
    finally:
        bhattacharyya.engine_for = usual


def near_row():
    """Trajectories, in which many models are near each other: what computing these again takes, and the error left."""
    P = runs(10, 60, 2000, 10)[0]
    ours, found = best(lambda: pairwise(P, dtype=np.float32))
    exact = pairwise(P, dtype=np.float64)
    near = (exact < 1e-3) & (exact > 1e-8)
    error = np.abs(found[near] / exact[near] - 1).max()
    usual, bhattacharyya.NEAR = bhattacharyya.NEAR, 0
    without, _ = best(lambda: pairwise(P, dtype=np.float32))
    bhattacharyya.NEAR = usual
    share = near.sum() / off_diagonal(exact).size
    return row(
        "(2000, 10, 600), trajectories", f"{ours:.2f}", f"{ours / without:.1f}", f"{100 * share:.0f}%", f"{error:.0e}"
    )


def divergence_rows():
    P = random_models(500, 1000, 10)
    base = best(lambda: pairwise(P, dtype=np.float64))[0]
    for name in DIVERGENCES:
        seconds = best(lambda name=name: pairwise(P, divergence=name, dtype=np.float64))[0]
        yield row(name, f"{seconds:.2f}", f"{seconds / base:.1f}")


def gpu_rows():
    """The same on a GPU, where there is one, beside its matrix products alone."""
    import torch

    if not torch.cuda.is_available():
        return
    for (n_samples, n_classes, n_models), _ in SIZES:
        P = random_models(n_models, n_samples, n_classes)
        ours, _ = best(lambda P=P: pairwise(P, dtype=np.float32, device="cuda"))
        roots = torch.from_numpy(np.sqrt(P).transpose(1, 0, 2)).cuda().contiguous()

        def products(roots=roots):
            for n in range(0, len(roots), 100):
                roots[n : n + 100] @ roots[n : n + 100].mT
            torch.cuda.synchronize()

        floor, _ = best(products)
        yield row((n_samples, n_classes, n_models), f"{ours:.3f}", f"{ours / floor:.1f}")


def progress_row():
    P, labels = runs(1, 60, 5000, 100)
    ours, found = best(lambda: progress(P, labels), times=5)
    some = range(5, 60, 11)
    published, expected = best(lambda: [published_progress(P[t], labels) for t in some], times=2)
    published *= len(P) / len(some)
    error = np.abs(found[some] - expected).max()
    return row("progress of (60, 5000, 100)", f"{ours:.2f}", f"{published / ours:.0f}", f"{error:.0e}")


def embedding_rows():
    for n_runs in (80, 200):
        D = pairwise(runs(n_runs, 50, 60, 10)[0])
        ours, inpca = best(lambda D=D: InPCA(3).fit(D))
        name = f"InPCA of {len(D)} models, three coordinates"
        if n_runs == 80:
            full, everything = best(lambda D=D: InPCA(None).fit(D), times=1)
            error = np.abs(inpca.embedding_ - everything.embedding_[:, :3]).max()
            yield row(name, f"{ours:.2f}", f"{full / ours:.0f}", f"{error:.0e}")
        else:
            yield row(name, f"{ours:.2f}", "-", "-")


def bootstrap_row():
    P = runs(20, 50, 1000, 10)[0]
    alone, _ = best(lambda: pairwise(P))
    groups = Groups(P.shape[1], len(P))
    within, D = best(lambda: pairwise(P, groups=groups), times=1)
    inpca = InPCA(3).fit(D)
    seconds, _ = best(lambda: of_embedding(inpca, groups, 200), times=1)
    return row("(1000, 10, 1000)", f"{alone:.2f}", f"{within:.2f}", f"{seconds:.1f}", f"{seconds / 200 / alone:.2f}")


class Mixtures:
    """Many runs as one stack (M, N, C) that is made where it is sliced: from one model to another, by mixture."""

    dtype = np.dtype(np.float16)

    def __init__(self, n_runs, n_checkpoints, n_samples, n_classes, which=None):
        self.made_of = n_runs, n_checkpoints, n_samples, n_classes
        self.which = np.arange(n_runs * n_checkpoints) if which is None else np.asarray(which)
        self.shape = len(self.which), n_samples, n_classes
        self.trajectories = [range(n_checkpoints)] * n_runs
        rng = np.random.default_rng(0)
        tasks = rng.dirichlet(np.full(n_classes, 0.1), (10, n_samples)).astype(np.float32)
        self.start = np.full((n_samples, n_classes), 1 / n_classes, np.float32)
        self.ends = [0.8 * tasks[k % 10] + 0.2 * tasks[rng.integers(10)] for k in range(n_runs)]

    def __len__(self):
        return self.shape[0]

    def take(self, models):
        return Mixtures(*self.made_of, self.which[models])

    def __getitem__(self, key):
        _, samples = key
        run, checkpoint = np.divmod(self.which, self.made_of[1])
        part = (np.sqrt(checkpoint / (self.made_of[1] - 1)) * 0.98).astype(np.float32)
        return np.stack(
            [
                ((1 - s) * self.start[samples] + s * self.ends[r][samples]).astype(np.float16)
                for r, s in zip(run, part, strict=True)
            ]
        )


def landmark_rows():
    """Landmarks beside the full embedding, where that can be had."""
    models = Mixtures(100, 50, 200, 10)
    full_seconds, full = best(lambda: InPCA(3).fit(pairwise(models[:, :])), times=1)
    for how in ("along", "farthest"):
        seconds, (found, _) = best(lambda how=how: by_landmarks(models, 1000, how), times=1)
        aligned = bootstrap.aligned(found, full.embedding_, full.imaginary_)
        error = np.linalg.norm(aligned - full.embedding_) / np.linalg.norm(full.embedding_)
        stress = np.abs(found.explained_stress_ - full.explained_stress_).max()
        yield row(how, f"{seconds:.1f}", f"{full_seconds / seconds:.1f}", f"{100 * error:.2f}%", f"{stress:.4f}")


def by_landmarks(models, count, how):
    which, weights = landmarks.choose_landmarks(models, count, how)
    some = models.take(which)
    inpca = InPCA(3).fit(pairwise(some), sample_weight=weights)
    inpca.embedding_ = landmarks.place(inpca, models, some)
    inpca.embedding_ -= inpca.embedding_.mean(axis=0)
    return inpca, which


def memory_rows():
    for n_samples in (2000, 50000):
        seconds, peak = alone("memory_of_distances", n_samples)
        yield row(f"distances from a file, ({n_samples}, 100, 200)", f"{seconds:.1f}", f"{peak:.2f}")
    seconds, peak = alone("memory_of_landmarks")
    yield row("150,000 models by 1000 landmarks, N = 1000, C = 10", f"{seconds:.0f}", f"{peak:.2f}")


def memory_of_distances(n_samples):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "preds_0.h5"
        with h5py.File(path, "w") as file:
            data = file.create_dataset(
                "data", (200, n_samples, 100), np.float16, chunks=(1, 327, 100), **hdf5plugin.LZ4()
            )
            for t, p in enumerate(random_models(200, 1, 100)[:, 0]):
                data[t] = np.broadcast_to(p, (n_samples, 100))
        return best(lambda: pairwise(Trajectory(path), dtype=np.float32), times=1)[0]


def memory_of_landmarks():
    return best(lambda: by_landmarks(Mixtures(150, 1000, 1000, 10), 1000, "along"), times=1)[0]


def alone(function, *arguments, **environment):
    """Seconds that a function of this file says it took, and peak memory in GiB, in a process of its own."""
    code = (
        f"import runpy; seconds = runpy.run_path({__file__!r})[{function!r}](*{arguments!r})\n"
        # not ru_maxrss, which begins with that of the process that started this one
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(seconds, int(peak.split()[1]) / 2**20)"
    )
    command, environment = [sys.executable, "-c", code], os.environ | environment
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [float(number) for number in done.stdout.split()]


def row(*cells):
    return f"| {' | '.join(map(str, cells))} |"


def processor():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line for line in lines if line.startswith("model name")]
    return f"{names[0].partition(': ')[2]}, {len(names)} cores" if names else platform.processor()


def table(head, rows):
    cells = head.split(" | ")
    return "\n".join([row(*cells), row("---", *["---:"] * (len(cells) - 1)), *rows])


def main():
    # here, since parts of this file run elsewhere
    import images_from_disk
    import recording

    start = time.perf_counter()
    bar = tqdm(total=len(SIZES) + 9, desc="benchmark", disable=None)

    def done(rows):
        rows = list(rows)
        bar.update()
        return rows

    used = ", ".join(f"{name} {version}" for name, version in versions("numpy", "scipy", "numba", "torch").items())
    distances = list(distance_rows(bar))
    size = "(samples, classes, models)"
    compared = "batch 500 | batch 1000 | 500, small pages | 1000, small pages | tidy"
    gpu = done(gpu_rows())
    text = f"""# Benchmarks

`make benchmark` measured this and wrote it here, on {processor()}; {used}. Seconds are the best of several calls, and
ratios are of times measured in this run, side by side.

## Distances

All distances between models, products in float32: how many times faster `pairwise` is than the published algorithm at
its batches of 500 and of 1000 samples (one logarithm a pair and sample; measured on {SIZES[0][1]} or {SIZES[1][1]}
samples), and than that with memory in small pages: it makes temporaries of gigabytes, and numpy asks for large pages,
which a system may not have to give, so that its time varies by a factor of two or more. Then, how many times faster
than a tidy in-place version; how many times the time of the float32 matrix products alone it takes (all of them, not
only those of the upper triangle); and the largest errors against float64, ours and the published algorithm's.

{table(f"{size} | seconds | {compared} | over products | error | published error", distances)}

Trajectories, where models near each other are computed again from differences: how much longer it takes for that, the
share of pairs below 1e-3, and the largest relative error among those down to 1e-8.

{table(f"{size} | seconds | times without | near pairs | relative error", [near_row()])}

Seconds of the engines of `info_geometry/affinities.py`, each for all sizes: the one in float64, the compiled one around
matrix products, and the one for few classes, which is chosen up to {FEW_CLASSES} classes.

{table(f"{size} | Engine, float64 | CompiledEngine | FewClassesEngine", done(engine_rows()))}

Divergences in float64, (1000, 10, 500), and their times over that of d_B:

{table("divergence | seconds | over d_B", done(divergence_rows()))}
"""
    if gpu:
        import torch

        text += f"""
On {torch.cuda.get_device_name()}, copies to it included, and over its matrix products alone:

{table(f"{size} | seconds | over products", gpu)}
"""
    text += f"""
## Memory

Seconds and peak memory of a process of its own (Python with its libraries takes about 0.4 GiB).

{table("what | seconds | GiB", done(memory_rows()))}

## Progress and embedding

Beside the published bounded minimisation, and the full eigendecomposition: how many times faster, and the largest
difference (for progress the minimisation's own).

{table("what | seconds | times faster | difference", [*done([progress_row()]), *done(embedding_rows())])}

1000 landmarks of 5000 models, N = 200, C = 10, beside the full embedding: how many times faster, distances included,
the error of three coordinates of all models relative to their norm, and of explained stress.

{table("landmarks | seconds | times faster | coordinates | stress", done(landmark_rows()))}

Bootstrap of an embedding: seconds of distances, of distances with sums by group, and of 200 resamples; and the time of
one resample over that of distances.

{table(f"{size} | distances | with groups | 200 resamples | a resample", done([bootstrap_row()]))}

{done([recording.report()])[0]}
{images_from_disk.report()}"""
    bar.close()
    path = Path(__file__).with_name("README.md")
    with replacing(path) as partial:
        partial.write_text(text)
    print(text)
    print(f"measured in {(time.perf_counter() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
