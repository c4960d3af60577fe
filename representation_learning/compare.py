"""Compare trajectories of several methods with those of one, such as supervised learning.

    python representation_learning/compare.py predictions/digits_{all,simclr-all,fixmatch4-all,protonets-all,maml-all}

The first folder is the reference. For each of the others: how far it gets, the length of its trajectories over the
reference's, also of every fifth checkpoint alone, their distance at equal progress, beside that between seeds of the
reference, the distance of where they end, that from the first to the last checkpoint, progress per length, and the
images seen until half of the reference's progress. Writes `embedding/<dataset>_methods.csv` and `.json` beside the
folders, and the figure `methods.png`; where networks were fine-tuned from several checkpoints of a run,
`finetuning.png` draws what that changes.

Ramesh et al., "A picture of the space of typical learnable tasks" (arXiv 2210.17011), find that contrastive and
semi-supervised learning take ways like that of supervised learning, and that episodic learning takes others, 10 to 40
times as long, to similar networks.
"""

import argparse
import re
import textwrap
from typing import NamedTuple

import numpy as np

from info_geometry.bhattacharyya import cross
from info_geometry.bootstrap import mean_and_error
from info_geometry.predictions import Models, add_arguments, chosen, labels_beside, made_from, read_labels
from info_geometry.script import InputError, run, shown
from info_geometry.tables import write_csv, write_json
from info_geometry.trajectory import common_range, compare, measure, riemann_length

POINTS = 50
COARSE = 5  # the length of every so manieth checkpoint says how much of it is between these


class Beside(NamedTuple):
    """A method beside the reference, on the range of progress where all runs of the two are defined.

    `grid` (S,); `distances` (S,), the mean over pairs of a run of the one and a run of the other, of different seeds,
    since of the same both may begin with the same network; `seeds` (S,), that over pairs of runs of the reference, and
    `own` (S,) of the other, or None where it has one seed.
    """

    grid: np.ndarray
    distances: np.ndarray
    seeds: np.ndarray | None
    own: np.ndarray | None

    @property
    def distance(self):
        """Mean over the range, and that over the mean between seeds."""
        mean = float(self.distances.mean())
        return mean, None if self.seeds is None else mean / float(self.seeds.mean())

    @property
    def own_over_seeds(self):
        """How far the method's own runs are apart, over that of the reference."""
        return None if self.seeds is None or self.own is None else float(self.own.mean() / self.seeds.mean())

    @property
    def alongside(self):
        """The part of the range in which it is no farther from the reference than twice what its seeds are apart."""
        return None if self.seeds is None else float(np.mean(self.distances <= 2 * self.seeds))


def beside(reference, others, progress):
    """`Beside` of two methods, given as lists of runs (T, N, C), with `progress` {run: (T,)}; None where there is no
    progress that all of them have."""
    runs = [*reference, *others]
    try:
        start, end = common_range([progress[t] for t in runs], [shown(t.path) for t in runs])
    except InputError:
        return None
    # nearer to the start all are alike, and ratios of distances are of rounding
    grid = np.linspace(start, end, POINTS + 1)[1:]
    # each run for itself, so that distances to the others and among the reference's are of the same kind
    names = [("reference" if t in reference else "others", t.seed) for t in runs]
    each = dict(zip(names, ([t] for t in runs), strict=True))
    found = compare(each, {name: [progress[t] for t in each[name]] for name in names}, grid).distances
    pairs = {"across": [], "reference": [], "others": []}
    for (a, b), d in found.items():
        if a[0] == b[0]:
            pairs[a[0]].append(d)
        elif a[1] != b[1] or len(reference) == len(others) == 1:
            pairs["across"].append(d)
    across, seeds, own = (np.mean(d, axis=0) if d else None for d in pairs.values())
    return Beside(grid, across, seeds, own)


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
    rows, found = [], {}
    half = np.mean([progress[t][-1] for t in ways[reference]]) / 2
    lengths = {way: mean_and_error([measured[t].length for t in runs]) for way, runs in ways.items()}
    coarse = {way: np.mean([coarse_length(t) for t in runs]) for way, runs in ways.items()}
    for way, runs in ways.items():
        row = {"method": way, "seeds": len(runs)}
        row["progress"] = float(np.mean([progress[t][-1] for t in runs]))
        row["accuracy"] = float(np.mean([measured[t].accuracy[-1] for t in runs]))
        row["length"], row["length_error"] = lengths[way]
        row["length_ratio"] = lengths[way][0] / lengths[reference][0]
        row["coarse_length_ratio"] = coarse[way] / coarse[reference]
        row["moved"], row["moved_error"] = mean_and_error([distance_of(t, 0, len(t) - 1) for t in runs])
        row["progress_at_first"] = float(np.mean([progress[t][0] for t in runs]))
        row["per_length"] = row["progress"] / row["length"]
        row["thousands_of_images"] = images_until(runs, progress, half)
        if way != reference and (both := beside(ways[reference], runs, progress)):
            found[way] = both
            row["from"], row["to"] = map(float, both.grid[[0, -1]])
            row["distance"], row["distance_over_seeds"] = both.distance
            row["own_seeds"] = both.own_over_seeds
            row["alongside"] = both.alongside
        row["ends"] = end_distance(ways[reference], runs) if way != reference or len(runs) > 1 else None
        rows.append(row)
    prefix = results / f"{next(iter(measured)).dataset}_methods"
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print_table(rows, reference)
    write_csv(f"{prefix}.csv", columns, [[row.get(column) for column in columns] for row in rows])
    write_json(f"{prefix}.json", {"reference": reference, "methods": rows, "record": made_from(list(measured))})
    drawn = plot.methods(figures / "methods", reference, found, plot.looks(ways), args.format) if found else []
    if starts := starts_of(rows):
        drawn += plot.finetuning(figures / "finetuning", reference, starts, args.format)
    print(*map(shown, drawn), sep="\n")


def starts_of(rows):
    """What networks fine-tuned from checkpoints of a run came to, {run: [(number of the checkpoint, row), ...]}, for
    runs of which there are several."""
    starts = {}
    for row in rows:
        if found := re.fullmatch(r"finetune-(.+)-(\d+)-.+", row["method"]):
            starts.setdefault(found[1], []).append((int(found[2]), row))
    return {run: sorted(rows, key=lambda start: start[0]) for run, rows in starts.items() if len(rows) > 1}


def coarse_length(t):
    """Riemann length of every `COARSE`th checkpoint of a trajectory, the last one included."""
    return riemann_length(Models([t], [(t, i) for i in sorted({*range(0, len(t), COARSE), len(t) - 1})]))


def distance_of(t, one, other):
    """d_B between two checkpoints of a trajectory."""
    return float(cross(*(Models([t], [(t, i)]) for i in (one, other)))[0, 0])


def images_until(runs, progress, wanted):
    """Thousands of images seen until progress is at some place, the mean over runs; None where a run does not get
    there, or files do not say how many it has seen."""
    if not all("images" in t.columns and progress[t].max() >= wanted for t in runs):
        return None
    return float(np.mean([t.columns["images"][(progress[t] >= wanted).argmax()] / 1000 for t in runs]))


def end_distance(reference, others):
    """Mean distance of the last checkpoints of two methods' runs, of different seeds where there are several."""
    last = [Models(runs, [(t, len(t) - 1) for t in runs]) for runs in (reference, others)]
    other = np.array([[t.seed != u.seed for u in others] for t in reference])
    return float(cross(*last)[other if other.any() else ~other].mean())


LEGEND = """(progress, accuracy: of the last checkpoint; ratio: of lengths, also of every 5th checkpoint; from, to: the
progress that both have, - where there is none; distance: d_B at equal progress, mean over that; over seeds: over that
between seeds of the reference; own seeds: that of its own, over the same; alongside: part of the range where it is at
most twice that; ends: distance of last checkpoints, of the reference between its seeds; moved: from the first to the
last; 1000 im: images seen until half of the reference's last progress)"""
COLUMNS = {
    "progress": "progress",
    "accuracy": "accuracy",
    "length": "length",
    "length_ratio": "ratio",
    "coarse_length_ratio": "of 5th",
    "from": "from",
    "to": "to",
    "distance": "distance",
    "distance_over_seeds": "over seeds",
    "own_seeds": "own seeds",
    "alongside": "alongside",
    "ends": "ends",
    "moved": "moved",
    "per_length": "/length",
    "thousands_of_images": "1000 im",
}


def print_table(rows, reference):
    print(f"trajectories beside those of {reference}:")
    width = max(len(row["method"]) for row in rows)
    print(" " * width + "".join(f"{head:>11}" for head in COLUMNS.values()))
    for row in rows:
        values = [row.get(key) for key in COLUMNS]
        print(f"{row['method']:<{width}}" + "".join(f"{'-':>11}" if v is None else f"{v:>11.4f}" for v in values))
    print(textwrap.fill(LEGEND, 120))


if __name__ == "__main__":
    run(main)
