"""What is in a file of predictions, and whether runs can be compared: `predictions.py info` and `check`."""

import dataclasses
import hashlib

import numpy as np
from tqdm import tqdm

from info_geometry import formats
from info_geometry.importing import Source
from info_geometry.predictions import labels_beside, read, read_labels
from info_geometry.samples import ROW_SUM_TOLERANCE, slices
from info_geometry.script import InputError, shown


@dataclasses.dataclass
class Values:
    """What the rows of checkpoints hold, as far as they have been added.

    How many rows, values, zeros, values that are no numbers or infinite, those that are minus infinity, and rows with
    one value that is not zero; extremes of values and row sums; of each checkpoint a hash and, with labels, accuracy.
    """

    rows: int = 0
    values: int = 0
    zeros: int = 0
    bad: int = 0
    impossible: int = 0
    one_hot: int = 0
    low: float = np.inf
    high: float = -np.inf
    least_sum: float = np.inf
    largest_sum: float = -np.inf
    hashes: list = dataclasses.field(default_factory=list)
    accuracies: list = dataclasses.field(default_factory=list)

    def add(self, blocks, labels=None, even=None):
        """Add a checkpoint, blocks of rows (B, C), or (B, 1) for the second of two classes, which is as probable as the
        first at `even`; labels (N,) or none."""
        found, right, n = hashlib.sha256(), 0, 0
        for rows in blocks:
            found.update(np.ascontiguousarray(rows))
            finite = np.isfinite(rows)
            self.rows, self.values = self.rows + len(rows), self.values + rows.size
            self.zeros += int((rows == 0).sum())
            self.impossible += int(np.isneginf(rows).sum())
            self.bad += int((np.isnan(rows) | np.isposinf(rows)).sum())
            self.one_hot += int(((rows != 0).sum(axis=1) == 1).sum())
            if labels is not None:
                best = rows.argmax(axis=1) if rows.shape[1] > 1 else rows[:, 0] > even
                right, n = right + int((best == labels[n : n + len(rows)]).sum()), n + len(rows)
            if (whole := rows[finite.all(axis=1)]).size:
                sums = whole.sum(axis=1)
                self.low, self.high = min(self.low, whole.min()), max(self.high, whole.max())
                self.least_sum, self.largest_sum = min(self.least_sum, sums.min()), max(self.largest_sum, sums.max())
        self.hashes.append(found.hexdigest())
        if labels is not None:
            self.accuracies.append(right / n)


def values_of(source, labels=None, kind="probabilities"):
    """The `Values` of all checkpoints of a source, which holds values of some kind."""
    even = {"probabilities": 0.5, "log-probabilities": np.log(0.5), "logits": 0}[kind]
    n_samples, n_classes = source.shape
    parts, found = slices(n_samples, max(1, formats.BLOCK_VALUES // n_classes)), Values()
    for checkpoint in tqdm([c for run in source.runs.values() for c in run], unit="checkpoint", disable=None):
        array = source.open(checkpoint.path)
        found.add((array.block(source.axes, checkpoint.place, samples) for samples in parts), labels, even)
    return found


def info(source, labels=None):
    """Lines that say what a source holds, what it is taken for, and what may be wrong with it."""
    kind, problems = None, []
    try:
        kind = source.kind
    except InputError as error:
        problems.append(str(error))
    values = values_of(source, labels if kind or not source.binary else None, kind or "probabilities")
    yield str(source) if kind else f"{shown(source.path)}: {source.described()}"
    yield f"values      {values.low:.6g} to {values.high:.6g}, {values.zeros / values.values:.2%} of them zero"
    yield f"rows' sums  {values.least_sum:.6g} to {values.largest_sum:.6g}"
    if values.accuracies:
        yield f"accuracy    {values.accuracies[0]:.4f} at first, {values.accuracies[-1]:.4f} at last"
    problems += [sentence for _, sentence in problems_of(values, kind, source)]
    yield from (f"likely problem: {problem}" for problem in problems)
    if not problems:
        yield "no problem found"


def problems_of(values, kind, source):
    """What is strange in values of some kind: (whether they are no predictions, a sentence)."""
    if bad := values.bad + values.impossible * (kind == "probabilities"):
        yield True, f"{bad} values are not finite"
    if kind == "probabilities":
        if values.low < 0:
            yield True, f"there are negative values, down to {values.low:.6g}"
        if not source.binary and max(abs(values.least_sum - 1), abs(values.largest_sum - 1)) > ROW_SUM_TOLERANCE:
            yield True, f"rows sum to {values.least_sum:.6g} to {values.largest_sum:.6g}, which is no rounding"
        if not source.binary and values.one_hot > values.rows / 2:
            yield False, f"{values.one_hot / values.rows:.0%} of the rows are sure of one class: these may be decisions"
        elif values.zeros > values.values / 2:
            yield False, f"{values.zeros / values.values:.0%} of the values are zero: rounding may have made them so"
    again = len(values.hashes) - len(set(values.hashes))
    if again:
        yield False, f"{again} of {len(values.hashes)} checkpoints have the same values as others"
    chance = 1 / source.shape[1]
    spread = 3 * np.sqrt(chance * (1 - chance) / source.shape[0])
    if values.accuracies and values.accuracies[-1] < chance - spread:
        yield False, f"accuracy is at last below that of guesses, {chance:.4f}: labels may be in another order"


def check(folders, force=False):
    """Lines that say what runs there are in prediction folders, and that they can be compared; raises InputError where
    they cannot."""
    trajectories = read(folders, force)
    path = labels_beside(trajectories)
    labels = read_labels(path, trajectories) if path.exists() else None
    width = max(len(t.name) for t in trajectories)
    yield f"{'run':<{width}}  checkpoints  samples  classes  accuracy"
    strange = []
    for t in trajectories:
        with Source(t.path, key="data", kind="probabilities") as source:
            values = values_of(source, labels)
            for fatal, sentence in problems_of(values, "probabilities", source):
                if fatal:
                    raise InputError(f"{shown(t.path)}: cannot be compared, since {sentence}")
                strange.append(f"likely problem: {t.name}: {sentence}")
        accuracy = f"{values.accuracies[-1]:.4f}" if values.accuracies else "-"
        yield f"{t.name:<{width}}  {t.shape[0]:>11}  {t.shape[1]:>7}  {t.shape[2]:>7}  {accuracy:>8}"
    yield from strange
    said = all({"samples_sha256", "probe_sha256"} & t.record.keys() for t in trajectories)
    same = "the same samples, by their hashes" if said else "as many samples; files do not say which"
    yield f"can be compared, runs: {len(trajectories)}, tasks: {len({t.task for t in trajectories})}, {same}"
    if labels is None:
        yield f"without labels, which would be in {shown(path)}, there is no progress, only an embedding"
