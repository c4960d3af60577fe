"""Where labels go: beside what they name, over nothing else."""

import numpy as np
from scipy.optimize import isotonic_regression

FARTHER = 6  # gaps
DIRECTIONS = np.stack([f(np.arange(16) * np.pi / 8) for f in (np.cos, np.sin)], axis=1)


def place(anchors, sizes, box, avoid=(), gap=4.0):
    """Places for labels near their anchors, of which no two overlap as long as there is room.

    Labels are placed one after the other: of all places within `box` that overlap no label placed before, nor any
    anchor, each takes the nearest one, or one that is some gaps farther and covers fewer of the points to avoid. Where
    there is no room, it takes the one that overlaps least.

    Args:
        anchors: (K, 2), in the units of all arguments, such as pixels
        sizes: (K, 2), widths and heights of the labels
        box: (4,), left, bottom, right, top
        avoid: (n, 2) points
        gap: between labels, and between a label and its anchor

    Returns:
        (K, 2), left and bottom of each label
    """
    anchors, sizes, box = np.asarray(anchors, float), np.asarray(sizes, float), np.asarray(box, float)
    avoid = np.asarray(avoid, dtype=float).reshape(-1, 2)
    placed = np.empty((0, 4))
    for anchor, size in zip(anchors, sizes, strict=True):
        corners = _candidates(anchor, size, box, gap)
        boxes = np.concatenate([corners, corners + size], axis=1)
        overlap = _overlap(boxes, placed, gap / 2).sum(axis=1)
        hidden = _covered(boxes, anchors, gap / 2)
        covered = _covered(boxes, avoid, gap / 4)
        distance = np.linalg.norm(anchor - np.clip(anchor, boxes[:, :2], boxes[:, 2:]), axis=1)
        # it may go some gaps away to cover nothing, and no farther, since a long way is hard to follow
        best = np.lexsort((distance + gap * np.minimum(covered, FARTHER), hidden, overlap))[0]
        placed = np.concatenate([placed, boxes[best : best + 1]])
    return placed[:, :2]


def _candidates(anchor, size, box, gap):
    """Places (n, 2) of a label within `box`: in rings around its anchor, and on a grid over all of the box."""
    room = np.maximum(box[2:] - size, box[:2])
    rings = gap * 1.5 ** np.arange(10)
    around = anchor + rings[:, None, None] * DIRECTIONS + (np.clip(1.5 * DIRECTIONS, -1, 1) - 1) * size / 2
    grid = np.stack(np.meshgrid(*(np.linspace(box[i], room[i], 40) for i in (0, 1))), axis=-1)
    corners = np.concatenate([around.reshape(-1, 2), grid.reshape(-1, 2)])
    return corners[((corners >= box[:2]) & (corners <= room)).all(axis=1)]


def _overlap(boxes, others, gap):
    """Areas (n, m) that boxes (n, 4) share with others (m, 4), which are `gap` larger on all sides."""
    low = np.maximum(boxes[:, None, :2], others[:, :2] - gap)
    high = np.minimum(boxes[:, None, 2:], others[:, 2:] + gap)
    return np.prod(np.maximum(high - low, 0), axis=-1)


def _covered(boxes, points, gap):
    """How many of the points (m, 2) lie in each of the boxes (n, 4), or within `gap` of it."""
    inside = (points >= boxes[:, None, :2] - gap) & (points <= boxes[:, None, 2:] + gap)
    return inside.all(axis=-1).sum(axis=1)


def stack(positions, gap, low, high):
    """Positions (K,) on a line moved as little as possible (in squares) to be `gap` apart, between `low` and `high`.

    Where there is no room for that, gaps are smaller.
    """
    positions = np.asarray(positions, dtype=float)
    if len(positions) > 1:
        gap = min(gap, (high - low) / (len(positions) - 1))
    order, steps = np.argsort(positions, kind="stable"), gap * np.arange(len(positions))
    found = np.empty(len(positions))
    shifted = isotonic_regression(positions[order] - steps).x
    found[order] = np.clip(shifted, low, max(low, high - gap * max(0, len(positions) - 1))) + steps
    return found
