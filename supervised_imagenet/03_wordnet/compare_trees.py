"""Compare distances between ImageNet's tasks with those that WordNet has between their synsets.

    python info_geometry/trajectory.py predictions/imagenet_*
    python supervised_imagenet/03_wordnet/compare_trees.py predictions/imagenet_*

takes what `info_geometry/trajectory.py` and `info_geometry/inpca.py` wrote of the same folders, and writes
`embedding/<dataset>_wordnet.csv` and `.json`, and the figures `tree.png`, the picture beside WordNet's tree of the
tasks, and `tanglegram.png`. Ramesh et al., "A picture of the space of typical learnable tasks" (arXiv 2210.17011), show
by a picture that tasks lie as WordNet has them; here stand correlations, tests by permutation, and what a sceptic would
compare with. Tasks `random:<n>` are the random subsets of classes that stand for synsets of as many classes.
"""

import argparse
import math
import re
from typing import NamedTuple

import numpy as np

from info_geometry import predictions, trees
from info_geometry.bhattacharyya import pairwise
from info_geometry.bootstrap import jackknife
from info_geometry.picture import Picture
from info_geometry.samples import numbered, sample_blocks
from info_geometry.script import InputError, from_json, run, shown
from info_geometry.tables import number, write_csv, write_json
from info_geometry.trajectory import square
from supervised_imagenet import tasks, wordnet

FEWEST = 4  # tasks: of three, distances have too few orders for any test


class Distances(NamedTuple):
    """Distances (T, T) between tasks, and those without each seed."""

    matrix: np.ndarray
    without: dict  # {seed: (T, T)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    predictions.add_arguments(parser)
    parser.add_argument("--permutations", type=int, default=9999, help="for each test (default: 9999)")
    args = parser.parse_args()
    if args.permutations < 99:
        parser.error("--permutations must be 99 or more")
    trajectories, results, figures = predictions.chosen(args)
    labels = predictions.read_labels(args.labels or predictions.labels_beside(trajectories), trajectories)
    runs = {}
    for t in trajectories:
        runs.setdefault(t.task, []).append(t)
    synsets = {task: synset for task in runs if (synset := tasks.synset_of(task))}
    if len(synsets) < FEWEST:
        found = ", ".join(synsets) or "none"
        raise InputError(f"of the tasks, {found} are synsets of WordNet; a comparison takes {FEWEST} of them")
    dataset, names = trajectories[0].dataset, list(synsets)
    path = results / f"{dataset}_comparison.json"
    between = read_comparison(path, trajectories)
    picture = read_picture(results / f"{dataset}_inpca.npz", names)

    wanted = wordnet_distances(synsets)
    classes = classes_of(runs, synsets)
    rows = {"trajectories": measured(between, names, "integral", path)}
    baselines = {
        "number of classes": Distances(count_distances(classes), {}),
        "overlap of classes": Distances(overlap_distances(classes), {}),
    }
    if all(t.epochs[0] == 0 for t in runs[names[0]]):
        baselines["untrained network"] = untrained(runs, classes, labels)
    else:
        print(f"no untrained network: the first checkpoint of task {names[0]} is not of epoch 0")
    table = [("trajectories", None)] + [("trajectories", given) for given in baselines]
    rows["tree of trajectories"] = of_trees(rows["trajectories"])
    rows["last checkpoints"] = measured(between, names, "end_points", path)
    rows |= baselines
    random_names = random_twins(runs, classes)
    if random_names:
        rows["random subsets"] = measured(between, random_names, "integral", path)
    else:
        print(
            "no random subsets: they take a task random:<n> for each synset of n classes, compared by trajectory.py too"
        )
    table += [(name, None) for name in rows if name != "trajectories"]

    tests = []
    for name, given in table:
        tests += tested(name, rows[name], given and baselines[given], given, wanted, args.permutations)
    report(tests, list(wanted), len(names))
    record = predictions.made_from(trajectories, permutations=args.permutations, synsets=synsets)
    header = ("distances", "given", "wordnet", "correlation", "standard_error", "p_value")
    write_csv(results / f"{dataset}_wordnet.csv", header, [[test[key] for key in header] for test in tests])
    write_json(results / f"{dataset}_wordnet.json", {"tests": tests, "record": record})
    draw(picture, synsets, classes, wanted, rows["trajectories"].matrix, figures, args.format)


def read_comparison(path, trajectories):
    """What trajectory.py wrote of pairs of tasks, {(task_a, task_b): {...}}.

    Raises InputError unless that is there, and was made of these trajectories.
    """
    try:
        content = from_json(path.read_text(encoding="utf-8"))
        inputs = content["record"]["inputs"]
        between = {(pair["task_a"], pair["task_b"]): pair for pair in content["between"]}
    except FileNotFoundError:
        raise InputError(
            f"{shown(path)}: no such file; info_geometry/trajectory.py makes it of the same folders"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{shown(path)}: not as info_geometry/trajectory.py writes it ({error!r})") from error
    for t in trajectories:
        if t.name in inputs and inputs[t.name] != t.record:
            raise InputError(f"{shown(path)}: was made of another {t.name}; info_geometry/trajectory.py makes it anew")
    return between


def read_picture(path, names):
    """The embedding of some tasks that inpca.py wrote."""
    picture = Picture.load(path)
    for name in names:
        if name not in picture.tasks:
            raise InputError(f"{shown(path)}: lacks task {name}; info_geometry/inpca.py makes it of the same folders")
    return picture.only(names)


def measured(between, names, key, path):
    """Distances between tasks as trajectory.py measured them."""
    try:
        values = {pair: float(found[key]) for pair, found in between.items() if set(pair) <= set(names)}
        each = {pair: between[pair][f"{key}_without"] for pair in values}
        seeds = sorted({seed for pair in each for seed in each[pair]}, key=int)
        without = {s: {pair: float(each[pair].get(s, np.nan)) for pair in values} for s in seeds}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{shown(path)}: not as info_geometry/trajectory.py writes it ({error!r})") from error
    matrix = off_diagonal(square(names, values))
    if not np.isfinite(matrix).all():
        missing = names[np.isfinite(matrix).sum(axis=1).argmin()]
        raise InputError(
            f"{shown(path)}: lacks task {missing}; info_geometry/trajectory.py makes it of the same folders"
        )
    return Distances(matrix, whole({seed: off_diagonal(square(names, without[seed])) for seed in seeds}))


def off_diagonal(matrix):
    """A matrix with zeros on its diagonal: between seeds there is another kind of distance."""
    return np.where(np.eye(len(matrix), dtype=bool), 0, matrix)


def whole(without):
    """Those seeds that can be left out of all distances: all, or none where tasks have different ones."""
    return {seed: matrix for seed, matrix in without.items() if np.isfinite(matrix).all()}


def wordnet_distances(synsets):
    """{name: (T, T)} by path length and by information content."""
    hierarchy = wordnet.load()
    kinds = {"path length": hierarchy.path_length, "information content": hierarchy.information_distance}
    return {name: table(synsets.values(), distance) for name, distance in kinds.items()}


def classes_of(runs, synsets):
    """{task: set of classes}: as the predictions' files say, or else all of the synset's."""
    members = wordnet.load().members
    return {task: set(runs[task][0].classes or members[synset]) for task, synset in synsets.items()}


def count_distances(classes):
    """|log n_a - log n_b| of numbers of classes."""
    return table(classes.values(), lambda a, b: abs(math.log(len(a) / len(b))))


def overlap_distances(classes):
    """Jaccard's distance of sets of classes: 1 less the part of all classes of both that both have."""
    return table(classes.values(), lambda a, b: 1 - len(a & b) / len(a | b))


def table(items, distance):
    items = list(items)
    return np.array([[distance(a, b) for b in items] for a in items], dtype=float)


def untrained(runs, classes, labels):
    """Distances that the first checkpoint sees between tasks: d_B between its mean predictions on their samples.

    Networks of one seed begin alike, whatever they are trained on: those of the first task are taken.
    """
    own = np.array([np.isin(labels, sorted(these)) for these in classes.values()], dtype=float)
    for task, which in zip(classes, own, strict=True):
        if not which.any():
            raise InputError(f"task {task}: none of the samples is of one of its classes")
    own /= own.sum(axis=1, keepdims=True)
    each = {}
    for t in runs[next(iter(classes))]:
        first = predictions.Models([t], [(t, 0)])
        blocks = numbered(sample_blocks(first))
        means = sum(own[:, n : n + r.shape[1]] @ r[0] ** 2 for n, (r,) in blocks)
        each[str(t.seed)] = pairwise(means[:, None, :])
    without = {s: np.mean([D for other, D in each.items() if other != s], axis=0) for s in each if len(each) > 1}
    return Distances(np.mean(list(each.values()), axis=0), without)


def of_trees(distances):
    """Distances within the trees made of distances: their cophenetic correlation with others is Mantel's of these."""
    return Distances(trees.cophenetic(distances.matrix), {s: trees.cophenetic(D) for s, D in distances.without.items()})


def random_twins(runs, classes):
    """For each task a random subset of as many classes, each used once, `all` for itself; None where one is missing."""
    numbers = {task: re.fullmatch(r"random-(\d+)(-\d+)?", task) for task in runs}
    free = {task: int(found[1]) for task, found in numbers.items() if found}
    twins = []
    for task, own in classes.items():
        twin = task if task == "all" else next((name for name, size in free.items() if size == len(own)), None)
        if twin is None:
            return None
        free.pop(twin, None)
        twins.append(twin)
    return twins


def tested(name, distances, given, given_name, wanted, n_permutations):
    """Mantel's test with each of WordNet's distances, given another matrix or none, and its spread over seeds."""
    lines = []
    for kind, W in wanted.items():
        found = trees.mantel(distances.matrix, W, given and given.matrix, n_permutations)
        each = []
        for seed, D in distances.without.items():
            if given:
                each.append(trees.partial_correlation(D, W, given.without.get(seed, given.matrix)))
            else:
                each.append(trees.correlation(D, W))
        error = jackknife(each)
        lines.append(
            {
                "distances": name,
                "given": given_name,
                "wordnet": kind,
                "correlation": number(found.correlation),
                "standard_error": None if error is None else number(error),
                "p_value": number(found.p_value),
                "n_permutations": found.n_permutations,
            }
        )
    return lines


def report(tests, kinds, n_tasks):
    """Print a line for each of the distances, with all of WordNet's."""
    print(f"Mantel's correlation with WordNet's distances between {n_tasks} tasks")
    print(f"{'':<34}" + "".join(f"{kind:>30}" for kind in kinds))
    for start in range(0, len(tests), len(kinds)):
        same = tests[start : start + len(kinds)]
        name = same[0]["distances"] if not same[0]["given"] else f"  given the {same[0]['given']}"
        cells = []
        for test in same:
            error = "" if test["standard_error"] is None else f" ±{test['standard_error']:.3f}"
            found = test["correlation"] is not None
            cells.append(f"{test['correlation']:.3f}{error}, p = {test['p_value']:.4f}" if found else "-")
        print(f"{name:<34}" + "".join(f"{cell:>30}" for cell in cells))
    print("(±: standard error over seeds; p: share of permutations of the tasks that correlate as much)")


def draw(picture, synsets, classes, wanted, D, figures, formats):
    """The picture beside WordNet's tree, and the trees of WordNet and of trajectories face to face."""
    from info_geometry import plot

    hierarchy, names = wordnet.load(), list(synsets)
    tree = {}
    for task, synset in synsets.items():
        above = [t for t in names if t != task and synsets[t] in hierarchy.ancestors(synset) - {synset}]
        tree[task] = min(above, key=lambda t: len(hierarchy.members[synsets[t]]), default=None), len(classes[task])
    drawn = plot.three_dimensions(figures / "tree", picture, formats, tree=tree)
    left, right = trees.untangled(trees.dendrogram(wanted["information content"]), trees.dendrogram(D))
    crossed = trees.crossings(left.order, right.order)
    titles = ("WordNet, information content", "trajectories")
    drawn += plot.tanglegram(figures / "tanglegram", plot.look_of(picture), left, right, titles, formats)
    print(
        f"trees of WordNet and of trajectories, turned to agree: "
        f"{crossed} of {math.comb(len(names), 2)} pairs of lines cross"
    )
    print(*map(shown, drawn), sep="\n")


if __name__ == "__main__":
    run(main)
