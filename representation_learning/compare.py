"""Compare trajectories of several methods with those of one, such as supervised learning.

    python representation_learning/compare.py predictions/digits_{all,simclr-all,fixmatch4-all,protonets-all,maml-all}

The first folder is the reference. For each of the others: how far it gets, the length of its trajectories over the
reference's, their distance at equal progress, beside that between seeds of the reference, the distance of where they
end, and progress per length and per image seen. Writes `embedding/<dataset>_methods.csv` and `.json` beside the
folders, and the figure `methods.png`. Ramesh et al., "A picture of the space of typical learnable tasks" (arXiv
2210.17011), find that contrastive and semi-supervised learning take ways like that of supervised learning, and that
episodic learning takes others, 10 to 40 times as long, to similar networks.
"""

import argparse
from typing import NamedTuple

import numpy as np

from info_geometry.bhattacharyya import cross
from info_geometry.bootstrap import mean_and_error
from info_geometry.predictions import Models, add_arguments, chosen, labels_beside, made_from, read_labels
from info_geometry.script import InputError, run, shown
from info_geometry.tables import write_csv, write_json
from info_geometry.trajectory import common_range, compare, measure

POINTS = 50


class Beside(NamedTuple):
    """A method beside the reference, on the range of progress where all runs of the two are defined.

    `grid` (S,); `distances` (S,), the mean over pairs of a run of the one and a run of the other; `seeds` (S,), that
    over pairs of runs of the reference, or None where it has one seed.
    """

    grid: np.ndarray
    distances: np.ndarray
    seeds: np.ndarray | None

    @property
    def distance(self):
        """Mean over the range, and that over the mean between seeds."""
        mean = float(self.distances.mean())
        return mean, None if self.seeds is None else mean / float(self.seeds.mean())

    @property
    def alongside(self):
        """The part of the range in which it is no farther from the reference than twice what its seeds are apart."""
        return None if self.seeds is None else float(np.mean(self.distances <= 2 * self.seeds))


def beside(reference, others, progress):
    """`Beside` of two methods, given as lists of runs (T, N, C), with `progress` {run: (T,)}."""
    runs = [*reference, *others]
    start, end = common_range([progress[t] for t in runs], [shown(t.path) for t in runs])
    # nearer to the start all are alike, and ratios of distances are of rounding
    grid = np.linspace(start, end, POINTS + 1)[1:]
    # each run for itself, so that distances to the others and among the reference's are of the same kind
    names = [("reference" if t in reference else "others", t.seed) for t in runs]
    each = dict(zip(names, ([t] for t in runs), strict=True))
    found = compare(each, {name: [progress[t] for t in each[name]] for name in names}, grid).distances
    across = [d for (a, b), d in found.items() if a[0] != b[0]]
    within = [d for (a, b), d in found.items() if a[0] == b[0] == "reference"]
    return Beside(grid, np.mean(across, axis=0), np.mean(within, axis=0) if within else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    args = parser.parse_args()
    trajectories, results, figures = chosen(args)
    labels = read_labels(args.labels or labels_beside(trajectories), trajectories)
    ways = {}
    for t in trajectories:
        ways.setdefault(t.task, []).append(t)
    if len(ways) < 2:
        raise InputError("there is nothing to compare: name two folders or more, the reference first")
    measured = {t: measure(t, labels) for t in trajectories}
    report(ways, measured, results, figures, args)


def report(ways, measured, results, figures, args):
    """Print, store and draw the comparison."""
    from info_geometry import plot

    reference = next(iter(ways))
    progress = {t: measured[t].progress for t in measured}
    rows, found, ends = [], {}, {}
    lengths = {way: mean_and_error([measured[t].length for t in runs]) for way, runs in ways.items()}
    for way, runs in ways.items():
        row = {"method": way, "seeds": len(runs)}
        row["progress"] = float(np.mean([progress[t].max() for t in runs]))
        row["accuracy"] = float(np.mean([measured[t].accuracy[-1] for t in runs]))
        row["length"], row["length_error"] = lengths[way]
        row["length_ratio"] = lengths[way][0] / lengths[reference][0]
        row["per_length"] = row["progress"] / row["length"]
        row["per_1000_images"] = per_images(runs, progress)
        if way != reference:
            found[way] = beside(ways[reference], runs, progress)
            row["distance"], row["distance_over_seeds"] = found[way].distance
            row["alongside"] = found[way].alongside
            row["ends"] = ends[way] = end_distance(ways[reference], runs)
        rows.append(row)
    prefix = results / f"{next(iter(measured)).dataset}_methods"
    columns = list(rows[-1])
    print_table(rows, reference)
    write_csv(f"{prefix}.csv", columns, [[row.get(column) for column in columns] for row in rows])
    write_json(f"{prefix}.json", {"reference": reference, "methods": rows, "record": made_from(list(measured))})
    print(*map(shown, plot.methods(figures / "methods", reference, found, plot.looks(ways), args.format)), sep="\n")


def per_images(runs, progress):
    """Progress per thousand images seen, on the way to the largest; None where files do not say how many were."""
    if not all("images" in t.columns for t in runs):
        return None
    best = [progress[t].argmax() for t in runs]
    seen = [max(1, t.columns["images"][i]) for t, i in zip(runs, best, strict=True)]
    return float(np.mean([1000 * progress[t][i] / n for t, i, n in zip(runs, best, seen, strict=True)]))


def end_distance(reference, others):
    """Mean distance of the last checkpoints of two methods' runs."""
    last = [Models(runs, [(t, len(t) - 1) for t in runs]) for runs in (reference, others)]
    return float(cross(*last).mean())


def print_table(rows, reference):
    print(f"trajectories beside those of {reference}:")
    heads = (
        "progress",
        "accuracy",
        "length",
        "ratio",
        "distance",
        "over seeds",
        "alongside",
        "ends",
        "/length",
        "/1000 im",
    )
    print(f"{'method':<20}" + "".join(f"{head:>11}" for head in heads))
    keys = ("progress", "accuracy", "length", "length_ratio", "distance", "distance_over_seeds", "alongside", "ends")
    for row in rows:
        values = [row.get(key) for key in (*keys, "per_length", "per_1000_images")]
        print(f"{row['method']:<20}" + "".join(f"{'-':>11}" if not v and v != 0 else f"{v:>11.4f}" for v in values))
    print(
        "(progress: the largest; ratio: of lengths; distance: d_B at equal progress, mean over the common range;\n"
        " over seeds: over that between seeds of the reference; alongside: part of the range where it is at most\n"
        " twice that; ends: distance of last checkpoints)"
    )


if __name__ == "__main__":
    run(main)
