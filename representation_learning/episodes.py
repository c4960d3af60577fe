"""Episodes: small problems of a few classes and a few images each, drawn from a task."""

from typing import NamedTuple

import numpy as np

from info_geometry.script import InputError


class Episode(NamedTuple):
    """Places of images, and which of the episode's classes each shows: `support` (N K,), `query` (N Q,)."""

    support: np.ndarray
    support_class: np.ndarray
    query: np.ndarray
    query_class: np.ndarray


def check(targets, ways, shots, queries, classes):
    """Raise InputError unless a task with targets (n,) has `ways` classes of `shots` + `queries` images; `classes` are
    what the task's classes are called."""
    if ways < 2 or shots < 1 or queries < 1:
        raise InputError(
            f"--ways {ways} --shots {shots} --queries {queries}: needs two ways, a shot and a query, or more"
        )
    if len(classes) < ways:
        raise InputError(f"--ways {ways}: the task has {len(classes)} classes")
    counts = np.bincount(targets, minlength=len(classes))
    least = counts.argmin()
    if counts[least] < shots + queries:
        raise InputError(
            f"--shots {shots} --queries {queries}: class {classes[least]} has {counts[least]} images, which is too few"
        )


def draw(targets, ways, shots, queries, seed):
    """An episode of `ways` classes, drawn at random from targets (n,), with `shots` images each to learn from and
    `queries` others to be told apart; no image is in both."""
    rng = np.random.default_rng(seed)
    found = []
    for c in rng.choice(targets.max() + 1, ways, replace=False):
        found.append(rng.choice(np.flatnonzero(targets == c), shots + queries, replace=False))
    found = np.stack(found)
    names = np.repeat(np.arange(ways)[:, None], shots + queries, axis=1)
    return Episode(
        found[:, :shots].ravel(), names[:, :shots].ravel(), found[:, shots:].ravel(), names[:, shots:].ravel()
    )
