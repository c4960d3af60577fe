"""What a task contributes to others: progress on the classes of one task by networks trained on another.

All networks are imprinted on all classes, so that progress can be taken over the samples of some of these alone. Ramesh
et al., "A picture of the space of typical learnable tasks" (arXiv 2210.17011), find that networks trained on more
diverse tasks come nearer to the truth; `diversity` tests that by rank correlation with the number of classes.
"""

import itertools

import numpy as np

from info_geometry.bootstrap import mean_and_error
from info_geometry.script import shown
from info_geometry.tables import number, print_matrix, write_csv, write_json


def progress_on_tasks(tasks, measured, labels):
    """Progress of last checkpoints over the samples of each task's own classes.

    Args:
        tasks: {task: list of trajectories (T, N, C)}, of which the `classes` are read
        measured: {trajectory: info_geometry.trajectory.Measured}
        labels: (N,) true classes

    Returns:
        {(task_a, task_b): list of numbers, one a run of task a}; b goes over those tasks whose classes are known, are
        not shuffled, and occur among the labels
    """
    found = {}
    own = {task: np.isin(labels, runs[0].classes) for task, runs in tasks.items() if meaningful(runs)}
    for (a, runs), (b, which) in itertools.product(tasks.items(), own.items()):
        if which.any():
            found[a, b] = [measured[t].progress_on(which, t.shape[2]) for t in runs]
    return found


def meaningful(runs):
    """Whether the classes of a task are known, and its labels were not shuffled."""
    return runs[0].classes is not None and not runs[0].shuffled


def diversity(tasks, progress):
    """Spearman's rank correlation between a task's number of classes and its progress.

    `progress` maps tasks to lists of numbers, one a run. Tasks whose labels were shuffled are left out, and those whose
    classes are not known. Returns {"tasks", "spearman", "p_value", "seeds"}: of means over seeds, with the p value that
    permuted tasks correlate as much or more; and of each seed that all have. None with less than three tasks, or where
    all have as many classes or come equally far.
    """
    counts = {task: len(runs[0].classes) for task, runs in tasks.items() if meaningful(runs)}
    means = [np.mean(progress[task]) for task in counts]
    if len(counts) < 3 or len(set(counts.values())) < 2 or len(set(means)) < 2:
        return None
    sizes = list(counts.values())

    from scipy.stats import permutation_test, spearmanr

    def correlation(values):
        return spearmanr(values, sizes).statistic

    test = permutation_test(
        (means,), correlation, permutation_type="pairings", alternative="greater", n_resamples=9999, rng=0
    )
    of_runs = {task: {t.seed: p for t, p in zip(tasks[task], progress[task], strict=True)} for task in counts}
    common = sorted(set.intersection(*(set(of_seed) for of_seed in of_runs.values())))
    seeds = {str(seed): number(correlation([of_runs[task][seed] for task in counts])) for seed in common}
    return {"tasks": counts, "spearman": float(test.statistic), "p_value": float(test.pvalue), "seeds": seeds}


def report(tasks, measured, labels, prefix, figures, record, formats):
    """Print, store and draw progress on the classes of tasks, where files say which these are."""
    from info_geometry import plot

    found = progress_on_tasks(tasks, measured, labels)
    if not found:
        print("no task has classes that its files name and that mean something, so there is no progress on these alone")
        return
    columns = list(dict.fromkeys(b for _, b in found))
    summary = {pair: mean_and_error(values) for pair, values in found.items()}
    means = {pair: mean for pair, (mean, _) in summary.items()}
    errors = {pair: error for pair, (_, error) in summary.items() if error is not None}
    print("progress of networks trained on a task (row), on the classes of a task (column)")
    print_matrix(list(tasks), means, errors, scale=1, columns=columns)
    print("(last checkpoint, mean over seeds; ±: standard error)")
    overall = diversity(tasks, {task: [measured[t].progress[-1] for t in runs] for task, runs in tasks.items()})
    if overall:
        seeds = [value for value in overall["seeds"].values() if value is not None]
        spread = f" (by seed {min(seeds):.2f} to {max(seeds):.2f})" if seeds else ""
        print(
            f"more classes, more progress: rank correlation {overall['spearman']:.2f}{spread} over "
            f"{len(overall['tasks'])} tasks, p = {overall['p_value']:.3g}"
        )
    write_csv(
        f"{prefix}_transfer.csv",
        ("trained_on", "classes_of", "progress", "standard_error", "seeds"),
        [(*pair, *summary[pair], len(found[pair])) for pair in found],
    )
    write_json(f"{prefix}_diversity.json", {"diversity": overall, "record": record})
    values = np.array([[means[a, b] for b in columns] for a in tasks])
    print(*map(shown, plot.transfer(figures / "transfer", list(tasks), columns, values, formats)), sep="\n")
