"""Progress, comparison and length of trajectories, as functions and as a script.

    python info_geometry/trajectory.py predictions/digits_*
    python info_geometry/trajectory.py --dataset digits

writes, in `embedding/` beside the prediction folders, `<dataset>_progress.csv`, `_lengths.csv` and `.json`,
`_transfer.csv`, `_diversity.json`, `_comparison.csv` and `.json` and `_distances.csv`, and the figures `progress.png`,
`lengths.png`, `transfer.png`, `trajectories_compare.png` and `distances.png`. The formulas follow Ramesh et al.,
"A picture of the space of typical learnable tasks" (arXiv 2210.17011), section 2; all of them act on square roots of
probabilities.
"""

import argparse
import contextlib
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from info_geometry import geodesic, transfer
from info_geometry.affinities import engine_for
from info_geometry.bhattacharyya import steps, to_distances, warn_of_floor
from info_geometry.bootstrap import Groups, errors_of, interval, mean_and_error, resamples
from info_geometry.divergences import DIVERGENCES, FLOAT16_ZERO, FLOOR
from info_geometry.predictions import FORMATS, Models, add_arguments, chosen, labels_beside, made_from, read_labels
from info_geometry.samples import map_samples, numbered, sample_blocks
from info_geometry.script import InputError, run, shown
from info_geometry.tables import number, print_matrix, write_csv, write_json

MEANS = ("arithmetic", "chordal", "geometric")
D_B = DIVERGENCES["bhattacharyya"]


def new_maxima(progress):
    """The checkpoints (k,) that set a new maximum of progress (T,): all, where it never goes backwards."""
    before = np.maximum.accumulate(np.concatenate([[-np.inf], progress[:-1]]))
    return np.flatnonzero(progress > before)


def reindex(P, progress, grid):
    """The trajectory at given values of progress, which takes the place of time.

    Checkpoints that set no new maximum of progress are passed over; between two that do, at progress s_j and
    s_k, the model at s is (s - s_j) / (s_k - s_j) of the way along their geodesic.

    Args:
        P: (T, N, C) probabilities
        progress: (T,)
        grid: (S,) values of progress, from the first checkpoint's to the largest

    Returns:
        (S, N, C) float64 probabilities

    Raises InputError (a ValueError) for values at which the trajectory is not defined.
    """
    progress, grid = np.asarray(progress, dtype=float), np.atleast_1d(np.asarray(grid, dtype=float))
    if progress.shape != (P.shape[0],):
        raise InputError(f"expected the progress of {P.shape[0]} checkpoints, got shape {progress.shape}")
    return np.concatenate([_reindexed(r, progress, grid) ** 2 for (r,) in sample_blocks(P)], axis=1)


def _reindexed(roots, progress, grid):
    """Unit vectors (S, N, C) of the trajectory with unit vectors (T, N, C) at progress `grid` (S,)."""
    kept = new_maxima(progress)
    s = progress[kept]
    if grid.min() < s[0] or grid.max() > s[-1]:
        raise InputError(
            f"the trajectory is defined at progress from {s[0]:.6g} to {s[-1]:.6g}, "
            f"not from {grid.min():.6g} to {grid.max():.6g}"
        )
    right = np.searchsorted(s, grid).clip(min=min(1, len(s) - 1))
    left = np.maximum(right - 1, 0)
    fraction = (grid - s[left]) / np.where(right > left, s[right] - s[left], 1)
    return geodesic.along(roots[kept[left]], roots[kept[right]], fraction[:, None])


def riemann_length(P):
    """Length of a trajectory (T, N, C): 2 sum_t sqrt(d_B(P_t, P_{t+1})), the paper's convention.

    The Fisher-Rao length of the sample-averaged metric is sqrt(2) times that, since d_B = ds^2 / 8.
    """
    return 2 * np.sqrt(steps(P)).sum()


def straightness(P):
    """The geodesic between the first and the last checkpoint, as a part of the trajectory (T, N, C) in length.

    sqrt(2 mean_n theta_n^2) / `riemann_length`, theta_n the angle on sample n's sphere: both in the same units, so
    that it is at most 1. Not a number for a trajectory that does not move.
    """
    ends = np.concatenate([geodesic.angles(r[0], r[-1]) for (r,) in sample_blocks(P)])
    return _part_of(riemann_length(P), ends)


def _part_of(length, angles):
    return np.sqrt(2 * np.mean(angles**2)) / length if length > 0 else np.nan


def mean_of_roots(roots, kind="arithmetic"):
    """Mean model of several, as unit vectors (K, ..., C) -> (..., C).

    arithmetic: of p; chordal: of sqrt(p); geometric: of log p, where p below 2^-25, which float16 stores as 0,
    counts as that.
    """
    if kind == "arithmetic":
        return np.sqrt(np.square(roots).mean(axis=0))
    if kind == "chordal":
        mean = roots.mean(axis=0)
    else:
        mean = np.exp(np.log(np.maximum(roots, np.sqrt(FLOAT16_ZERO))).mean(axis=0))
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)


def common_range(progress, names):
    """Where all runs are defined: from the largest first to the smallest maximal progress.

    `progress` lists (T,) arrays, `names` what runs are called. Raises InputError naming the runs where that is
    empty.
    """
    first, last = np.array([p[0] for p in progress]), np.array([p.max() for p in progress])
    late, early = first.argmax(), last.argmin()
    if first[late] >= last[early]:
        where, which = (names[late], "one of the two") if late != early else ("it", "it")
        raise InputError(
            f"{names[early]}: its progress, at most {last[early]:.6g}, does not pass {first[late]:.6g}, where {where} "
            f"begins: there is nothing to compare; leave {which} out, or train longer"
        )
    return first[late], last[early]


class Comparison(NamedTuple):
    """Distances between tasks' mean trajectories, and between the seeds of one task; see `compare`."""

    distances: dict  # {(task_a, task_b): (S,)}
    without: dict  # {seed: {(task_a, task_b): (S,)}}, that seed left out
    sums: dict  # {(task_a, task_b): (G, S)}, over the samples of groups


def compare(tasks, progress, grid, mean="arithmetic", desc=None, groups=None, seeds=None):
    """Distances between tasks' mean trajectories, and between the seeds of one task, at equal progress.

    Args:
        tasks: {task: list of trajectories (T, N, C), one a seed}
        progress: {task: list of (T,)}
        grid: (S,) values of progress at which all are defined
        mean: over seeds, see `mean_of_roots`
        groups: `info_geometry.bootstrap.Groups` of the samples, or none
        seeds: {task: list of the seeds of its runs}: compares also without each of these, for `jackknife`

    Returns:
        Comparison of d_B per sample; (task, task) is the mean over pairs of its seeds, and is left out for a task with
        one seed. A pair of tasks stands among those without a seed where both have the same seeds, two or more.
    """
    total, clipped = {}, 0
    for samples, key, r, s in _side_by_side(tasks, progress, grid, mean, desc, seeds):
        distances, below = D_B.of_roots(r, s, FLOOR)
        sums = groups.one_hot(samples).T @ distances.T if groups else distances.sum(axis=-1)
        total[key] = total.get(key, 0) + sums
        clipped += below
    n_samples = _n_samples(tasks)
    warn_of_floor(clipped, len(total) * len(grid) * n_samples)
    means = {key: (sums.sum(axis=0) if groups else sums) / n_samples for key, sums in total.items()}
    every = sorted(set().union(*seeds.values())) if seeds else []
    return Comparison(
        _mean_over_seeds(means, tasks),
        {seed: _mean_over_seeds(means, tasks, seeds, seed) for seed in every},
        _mean_over_seeds(total, tasks) if groups else {},
    )


def separations(tasks, progress, grid, mean="arithmetic", desc=None):
    """How far apart trajectories are at any progress, for the same tasks, pairs and means as `compare`.

    Returns the discrete Frechet distance and the nearest-point distance between trajectories at `grid` (S,), two
    dicts {(task_a, task_b): number}; see `frechet` and `nearest_point`.
    """
    total, clipped = {}, 0
    n_samples, n_classes = next(iter(tasks.values()))[0].shape[1:]
    with engine_for(D_B, FLOOR, np.float64, n_classes) as engine:
        for _, pair, r, s in _side_by_side(tasks, progress, grid, mean, desc):
            sums = total.setdefault(pair, np.zeros((len(grid), len(grid))))
            clipped += engine.add_roots(sums, r, s)
    warn_of_floor(clipped, len(total) * len(grid) ** 2 * n_samples)
    for value in total.values():
        to_distances(value, n_samples)
    return tuple(_mean_over_seeds({k: f(D) for k, D in total.items()}, tasks) for f in (frechet, nearest_point))


def _side_by_side(tasks, progress, grid, mean, desc, seeds=None):
    """For each block of samples, all that is compared: (samples, (task_a, task_b, which), r, s), with a slice, and unit
    vectors (S, B, C) at equal progress. Of two tasks these are means over seeds, and `which` is the seed left out, or
    None; of a task with itself, they are of the two of its runs that `which` numbers."""
    runs = [run for task in tasks for run in tasks[task]]
    left_out = [None, *sorted(set().union(*seeds.values()))] if seeds else [None]
    beside = len(grid) * (len(left_out) * len(tasks) + 2 * max(map(len, tasks.values())))
    for n_before, blocks in numbered(sample_blocks(*runs, beside=beside, desc=desc)):
        samples = slice(n_before, n_before + blocks[0].shape[1])
        blocks = iter(blocks)
        means = {}
        for task in tasks:
            each = np.stack([_reindexed(next(blocks), p, grid) for p in progress[task]])
            for left in left_out:
                kept = [left is None or seeds[task][i] != left for i in range(len(each))]
                if any(kept):
                    means[task, left] = mean_of_roots(each[kept], mean)
            for i, j in itertools.combinations(range(len(each)), 2):
                yield samples, (task, task, (i, j)), each[i], each[j]
        for (a, b), left in itertools.product(itertools.combinations(tasks, 2), left_out):
            same = left is not None and left in seeds[a] and sorted(seeds[a]) == sorted(seeds[b])
            if left is None or (same and (a, left) in means):
                yield samples, (a, b, left), means[a, left], means[b, left]


def _n_samples(tasks):
    return next(iter(tasks.values()))[0].shape[1]


def _mean_over_seeds(values, tasks, seeds=None, left=None):
    """{(task_a, task_b, which): value}, see `_side_by_side`, to {(task_a, task_b): value} in the order of the tasks: of
    one task the mean over pairs of its runs. With a seed left out, of those that had it."""
    grouped = {pair: [] for pair in itertools.combinations_with_replacement(tasks, 2)}
    for (a, b, which), value in values.items():
        if a != b:
            used = which == left
        else:
            used = left is None or (left in seeds[a] and left not in [seeds[a][i] for i in which])
        if used:
            grouped[a, b].append(value)
    return {pair: np.mean(group, axis=0) for pair, group in grouped.items() if group}


def frechet(distances):
    """Discrete Frechet distance of two trajectories, given the distances (S, T) between their models.

    The smallest d such that both can be walked from end to end, never backwards, and never be farther apart than d
    (Eiter and Mannila, "Computing discrete Frechet distance", 1994). In the units of `distances`.
    """
    D = np.asarray(distances, dtype=np.float64)
    reach = np.empty_like(D)
    reach[0], reach[:, 0] = np.maximum.accumulate(D[0]), np.maximum.accumulate(D[:, 0])
    for i in range(1, D.shape[0]):
        for j in range(1, D.shape[1]):
            reach[i, j] = max(D[i, j], min(reach[i - 1, j], reach[i, j - 1], reach[i - 1, j - 1]))
    return float(reach[-1, -1])


def nearest_point(distances):
    """Mean distance of a trajectory's models to the nearest one of the other trajectory, given the distances (S, T)
    between them; the mean of both ways, so that it is symmetric."""
    D = np.asarray(distances, dtype=np.float64)
    return float(D.min(axis=0).mean() + D.min(axis=1).mean()) / 2


def accuracy(P, labels):
    """Fraction of samples whose most probable class is the true one, (T,), for P (T, N, C)."""
    right = np.zeros(P.shape[0])
    for n, (r,) in numbered(sample_blocks(P)):
        right += (r.argmax(axis=-1) == labels[n : n + r.shape[1]]).sum(axis=-1)
    return right / P.shape[1]


class Measured(NamedTuple):
    """What is measured of one run."""

    progress: np.ndarray  # (T,)
    accuracy: np.ndarray  # (T,)
    length: float
    straightness: float
    ends: np.ndarray  # (2, N), affinities of the last checkpoint with ignorance and with truth

    def progress_on(self, which, n_classes):
        """Progress of the last checkpoint on some of the samples, chosen by a mask (N,)."""
        return float(geodesic.progress_of(*self.ends[:, None, which], n_classes)[0])


def measure(P, labels):
    """Progress, accuracy, length and straightness of a trajectory (T, N, C) with true classes (N,), in one pass.

    They are what `geodesic.progress`, `accuracy`, `riemann_length` and `straightness` give.
    """
    labels = geodesic.checked_labels(P, labels)

    def of_block(n, r):
        true = labels[n : n + r.shape[1]]
        right = (r.argmax(axis=-1) == true).sum(axis=-1)
        distances, below = D_B.of_roots(r[:-1], r[1:], FLOOR)
        return geodesic.with_ends(r, true), right, distances.sum(axis=-1), below, geodesic.angles(r[0], r[-1])

    with_ends, right, moved, below, angles = zip(*map_samples(of_block, P), strict=True)
    n_checkpoints, n_samples, n_classes = P.shape
    warn_of_floor(sum(below), (n_checkpoints - 1) * n_samples)
    length = 2 * np.sqrt(np.sum(moved, axis=0) / n_samples).sum()
    with_ends = np.concatenate(with_ends, axis=-1)
    progress = geodesic.progress_of(*with_ends, n_classes)
    right, straight = np.sum(right, axis=0) / n_samples, _part_of(length, np.concatenate(angles))
    return Measured(progress, right, length, straight, with_ends[:, -1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--mean", choices=MEANS, default="arithmetic", help="over seeds at equal progress")
    parser.add_argument("--points", type=int, default=100, help="values of progress compared (default: 100)")
    parser.add_argument("--bootstrap", type=int, help="resamples for 95%% intervals, such as 200")
    args = parser.parse_args()
    if args.points < 2:
        parser.error("--points must be 2 or more")
    if args.bootstrap is not None and args.bootstrap < 20:
        parser.error("--bootstrap must be 20 or more")
    trajectories, results, figures = chosen(args)
    labels = read_labels(args.labels or labels_beside(trajectories), trajectories)

    from tqdm import tqdm

    tasks = {}
    for t in trajectories:
        tasks.setdefault(t.task, []).append(t)
    bar = tqdm(trajectories, desc="progress and length", unit="run", disable=None)
    measured = {t: measure(t, labels) for t in bar}
    record = made_from(trajectories, mean=args.mean, points=args.points, bootstrap=args.bootstrap)
    prefix = results / trajectories[0].dataset
    names = ("comparison.csv", "comparison.json", "distances.csv", "transfer.csv", "diversity.json")
    stale = [Path(f"{prefix}_{name}") for name in names]
    names = ("trajectories_compare", "distances", "transfer")
    stale += [figures / f"{name}.{kind}" for name in names for kind in FORMATS]
    for path in stale:
        with contextlib.suppress(OSError):  # a place that cannot be written is named when it is written to
            path.unlink()
    report_runs(tasks, measured, prefix, figures, record, args.format)
    transfer.report(tasks, measured, labels, prefix, figures, record, args.format)
    report_comparison(tasks, measured, prefix, figures, record, args)


def report_runs(tasks, measured, prefix, figures, record, formats):
    """Print, store and draw what is measured of each run; names of files begin with `prefix`."""
    from info_geometry import plot

    summary = {task: mean_and_error([measured[t].length for t in runs]) for task, runs in tasks.items()}
    print_summary(tasks, measured, summary)
    progress = [
        (t.task, t.seed, i, *row)
        for t, m in measured.items()
        for i, row in enumerate(zip(m.progress, m.accuracy, strict=True))
    ]
    lengths = {
        task: {
            "mean": summary[task][0],
            "standard_error": summary[task][1],
            "seeds": {str(t.seed): measured[t].length for t in runs},
            "straightness": {str(t.seed): number(measured[t].straightness) for t in runs},
        }
        for task, runs in tasks.items()
    }
    write_csv(f"{prefix}_progress.csv", ("task", "seed", "checkpoint", "progress", "accuracy"), progress)
    rows = [(task, *summary[task], len(runs)) for task, runs in tasks.items()]
    write_csv(f"{prefix}_lengths.csv", ("task", "mean", "standard_error", "seeds"), rows)
    write_json(f"{prefix}_lengths.json", {"lengths": lengths, "record": record})
    runs = {task: [(t.columns, measured[t].progress) for t in these] for task, these in tasks.items()}
    drawn = plot.progress(figures / "progress", runs, formats)
    each = {
        task: [[getattr(measured[t], name) for t in these] for name in ("length", "straightness")]
        for task, these in tasks.items()
    }
    drawn += plot.lengths(figures / "lengths", each, formats)
    print(*map(shown, drawn), sep="\n")


def report_comparison(tasks, measured, prefix, figures, record, args):
    """Print, store and draw the distances between trajectories; say what cannot be compared."""
    from info_geometry import plot

    moving = {task: [t for t in runs if len(t) > 1] for task, runs in tasks.items()}
    moving = {task: runs for task, runs in moving.items() if runs}
    compared = [t for runs in moving.values() for t in runs]
    for t in measured:
        if t not in compared:
            print(f"{shown(t.path)}: has one checkpoint, so it enters no comparison, and its length is 0")
    for task, runs in moving.items():
        if len(runs) == 1:
            print(f"task {task}: has one seed to compare, so there is no distance between its seeds")
    if len(compared) < 2:
        print("no comparison: that takes two runs of two checkpoints or more")
        return
    at = {task: [measured[t].progress for t in runs] for task, runs in moving.items()}
    seeds = {task: [t.seed for t in runs] for task, runs in moving.items()}
    start, end = common_range([measured[t].progress for t in compared], [shown(t.path) for t in compared])
    grid = np.linspace(start, end, args.points)
    groups = Groups(_n_samples(moving)) if args.bootstrap else None
    found = compare(moving, at, grid, args.mean, "distances at equal progress", groups, seeds)
    errors = errors_of(found.without)
    bands, spread = {}, {}
    for pair, error in errors.items():
        bands[pair] = np.maximum(found.distances[pair][:, None] + error[:, None] * [-1, 1], 0)
    if groups:
        bands, spread = intervals(found.sums, groups, grid, args.bootstrap)
    # the last checkpoints, as trajectories of one checkpoint that are all at the same progress
    last = {task: [Models([t], [(t, len(t) - 1)]) for t in runs] for task, runs in moving.items()}
    start_only = {task: [np.zeros(1) for _ in runs] for task, runs in moving.items()}
    ends = compare(last, start_only, np.zeros(1), args.mean, "distances of last checkpoints", seeds=seeds)
    frechets, nearest = separations(moving, at, grid, args.mean, desc="distances at any progress")

    integrals = Spread.of(found, lambda distances: float(np.trapezoid(distances, grid)))
    end_points = Spread.of(ends, lambda distances: float(distances[0]))
    print(f"distance between trajectories, integrated over progress from {start:.4f} to {end:.4f}, times 1000")
    print_matrix(list(moving), integrals.values, integrals.errors)
    print_intervals(spread, integrals.values)
    print("distance between last checkpoints, times 1000")
    print_matrix(list(moving), end_points.values, end_points.errors)
    print("discrete Frechet distance between trajectories over that range of progress, times 1000")
    print_matrix(list(moving), frechets)
    print("(on the diagonals: between seeds of the task; ±: standard error over seeds)")
    rows = [
        (a, b, s, found.distances[a, b][i], errors[a, b][i] if (a, b) in errors else None)
        for a, b in found.distances
        for i, s in enumerate(grid)
    ]
    between = [
        {
            "task_a": a,
            "task_b": b,
            **integrals.of_pair((a, b), "integral"),
            **end_points.of_pair((a, b), "end_points"),
            "frechet": float(frechets[a, b]),
            "nearest_point": float(nearest[a, b]),
        }
        | ({"integral_interval": spread[a, b].tolist()} if spread else {})
        for a, b in found.distances
    ]
    write_csv(f"{prefix}_comparison.csv", ("task_a", "task_b", "progress", "distance", "standard_error"), rows)
    write_json(f"{prefix}_comparison.json", {"range": [start, end], "between": between, "record": record})
    columns = ("trajectories", "trajectories_standard_error", "end_points", "end_points_standard_error")
    rows = [
        (*ordered, *(table.get(pair) for part in (integrals, end_points) for table in (part.values, part.errors)))
        for pair in found.distances
        for ordered in dict.fromkeys((pair, pair[::-1]))
    ]
    order = list(moving)
    rows.sort(key=lambda row: (order.index(row[0]), order.index(row[1])))
    write_csv(f"{prefix}_distances.csv", ("task_a", "task_b", *columns), rows)
    band = "95% interval\n(bootstrap)" if groups else "± standard error\nover seeds"
    drawn = plot.comparison(
        figures / "trajectories_compare", list(tasks), grid, found.distances, bands, args.format, band
    )
    if len(moving) > 1:
        matrices = {
            "integrated distance of trajectories": square(order, integrals.values),
            "distance of last checkpoints": square(order, end_points.values),
        }
        drawn += plot.distances(figures / "distances", order, matrices, plot.looks(tasks), args.format)
    print(*map(shown, drawn), sep="\n")


class Spread(NamedTuple):
    """A number for each pair of tasks, its standard error over seeds where there is one, and its values without each
    seed."""

    values: dict  # {(task_a, task_b): number}
    errors: dict
    without: dict  # {seed: {(task_a, task_b): number}}

    @classmethod
    def of(cls, found, statistic):
        """Of a statistic of the distances (S,) in a Comparison."""
        without = {s: {pair: statistic(d) for pair, d in pairs.items()} for s, pairs in found.without.items()}
        return cls({pair: statistic(d) for pair, d in found.distances.items()}, errors_of(without), without)

    def of_pair(self, pair, name):
        """What results say of a pair, {key: value}."""
        error = self.errors.get(pair)
        without = {str(seed): values[pair] for seed, values in self.without.items() if pair in values}
        return {name: self.values[pair], f"{name}_standard_error": error and float(error), f"{name}_without": without}


def square(tasks, values):
    """The symmetric matrix (T, T) of values for pairs of tasks; not a number where there is none."""
    pairs = itertools.product(tasks, tasks)
    found = [values.get((a, b), values.get((b, a), np.nan)) for a, b in pairs]
    return np.array(found).reshape(len(tasks), len(tasks))


def intervals(sums, groups, grid, times):
    """95% intervals, by bootstrap over samples, of distances at equal progress {pair: (S, 2)} and of their integrals
    {pair: (2,)}, from sums over groups of samples {pair: (G, S)}; all pairs see the same resamples."""
    values = np.stack(list(sums.values()), axis=1)
    means = np.array(list(resamples(values, groups.sizes, times)))
    bands, spread = interval(means), interval(np.trapezoid(means, grid))
    return dict(zip(sums, bands, strict=True)), dict(zip(sums, spread, strict=True))


def print_intervals(spread, integrals):
    """95% intervals of integrated distances, times 1000; nothing where there are none."""
    for (a, b), (low, high) in spread.items():
        name = f"{a}, {b}" if a != b else f"{a}, between seeds"
        print(f"  {name:<28}{1000 * integrals[a, b]:>10.4f}   95% interval {1000 * low:.4f} to {1000 * high:.4f}")
    if spread:
        print(
            "  (bootstrap over samples; networks, prototypes and progress are held fixed, see seeds for their spread)"
        )


def print_summary(tasks, measured, summary):
    """A line a task: how far its runs get, and by how long a way."""
    print(
        f"{'task':<14}{'seeds':>6}{'progress':>10}{'accuracy':>10}{'length':>9}{'std.err.':>10}"
        f"{'straight':>10}{'passed over':>13}"
    )
    for task, runs in tasks.items():
        ends = [(measured[t].progress[-1], measured[t].accuracy[-1], measured[t].straightness) for t in runs]
        last = np.mean(ends, axis=0)
        mean, error = summary[task]
        error = "-" if error is None else f"{error:.4f}"
        passed = sum(len(t) - len(new_maxima(measured[t].progress)) for t in runs)
        passed = f"{passed} of {sum(map(len, runs))}"
        print(
            f"{task:<14}{len(runs):>6}{last[0]:>10.4f}{last[1]:>10.4f}{mean:>9.4f}{error:>10}{last[2]:>10.4f}{passed:>13}"
        )
    print("(last checkpoint, means over seeds; straight: geodesic over length; passed over: no new progress)")
    if any(t.dtype == np.float16 for t in measured):
        print("(predictions in float16: a noise of about 1e-8 in each d_B, up to 2e-4 in the length of a step)")


if __name__ == "__main__":
    run(main)
