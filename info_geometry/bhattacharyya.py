"""The Bhattacharyya distance per sample between models, the squared distance of prediction space.

d_B(P, Q) = -(1/N) sum_n log sum_c sqrt(p_nc q_nc), in nats: equation (1) of Ramesh et al., "A picture of the
space of typical learnable tasks" (arXiv 2210.17011). Models are stacks of shape (M, N, C): arrays, or
`info_geometry.predictions.Trajectory` and `Models`, of which only blocks of samples are read at a time. Predictions
stored in float16 carry a noise of about 1e-8 in d_B. Other divergences take the same way: see
`info_geometry.divergences`.
"""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from info_geometry import ranks
from info_geometry.affinities import engine_for, precision
from info_geometry.divergences import FLOOR, named_with_floor
from info_geometry.samples import (
    n_threads,
    place_of,
    read_blocks,
    sample_blocks,
    samples_of,
    shape_of,
    slices,
    square_roots,
)
from info_geometry.script import InputError, available_memory

BHATTACHARYYA = "bhattacharyya"
NEAR = 1e-3  # where products were in float32, distances below it are computed again from differences
NEAR_BYTES = 1 << 24  # of float64 square roots, in cache
STRIP = 256  # rows of the result worked on at a time, which may lie on disk
RESOLUTION = 1e-15  # rounding makes as much of the distance between equal models, which is 0


class FloorWarning(UserWarning):
    """Says how many affinities were below the floor: models that share nothing on a sample."""


def pairwise(P, *, divergence=BHATTACHARYYA, floor=None, dtype=None, device="cpu", out=None, desc=None, **kept):
    """Distances between all models of one stack.

    Args:
        P: (M, N, C) probabilities
        divergence: a name in `info_geometry.divergences.DIVERGENCES`
        floor: affinities (of "kl": probabilities) below it count as the floor, 1e-6 (2^-25) by default; a FloorWarning
            says how many affinities did
        dtype: of products, float64 or float32; by default float64 for small problems (up to 2^32 products) and for
            other divergences than d_B, else float32
        device: where products are made, such as "cuda"
        out: (M, M) array that takes the result, such as a memory map, of float64 or float32, in which sums are then
            added up too; a new one by default
        desc: name of a progress bar; none is drawn without it
        kept: `unfinished` and `groups`, see `pair_sums`

    Returns:
        (M, M), symmetric, with zeros on the diagonal. With products in float64 exact to about 1e-15 absolute; in
        float32 to 1e-6, and to 1e-4 of themselves where they are below 1e-3, which are computed again, from differences
        in float64.

    Raises InputError (a ValueError) at the first row that is no probability, and where the result does not fit into
    memory.
    """
    distances = _distances(P, None, divergence, floor, dtype, device, out, desc, **kept)
    for rows in slices(len(distances), STRIP):
        for columns in slices(len(distances), STRIP, rows.start):
            tile = distances[rows, columns]
            if rows == columns:
                tile[...] = np.triu(tile, 1) + np.triu(tile, 1).T
            else:
                distances[columns, rows] = tile.T
    return distances


def cross(P, Q, *, divergence=BHATTACHARYYA, floor=None, dtype=None, device="cpu", out=None, desc=None):
    """Distances (M, K) between the models of two stacks P (M, N, C) and Q (K, N, C); see `pairwise`."""
    return _distances(P, Q, divergence, floor, dtype, device, out, desc)


def _distances(P, Q, divergence, floor, dtype, device, out, desc, **kept):
    """The upper triangle of distances within P, or all between P and Q."""
    divergence, floor = named_with_floor(divergence, floor)
    stacks = [P] if Q is None else [P, Q]
    n_samples, n_classes = samples_of(*stacks)
    shape = P.shape[0], stacks[-1].shape[0]
    n_pairs = shape[0] * shape[1] if Q is not None else shape[0] * (shape[0] - 1) // 2
    dtype = precision(n_pairs, n_samples, n_classes, divergence, floor, dtype)
    out = _result(out, shape)
    clipped = pair_sums(stacks, out, divergence, floor, dtype, device, desc, **kept)
    warn_of_floor(clipped, n_pairs * n_samples, floor)
    to_distances(out, n_samples)
    if dtype == np.float32:
        _correct_near(stacks, out, floor, desc)
    return out


def _result(out, shape):
    if out is None:
        size = 8 * shape[0] * shape[1]
        if size > (room := available_memory()):
            raise InputError(
                f"{shape[0]} x {shape[1]} distances take {size / 2**30:.1f} GiB, and {room / 2**30:.1f} GiB are free; "
                "embed landmarks and place the others out of sample (--landmarks), or give a memory map as `out`"
            )
        return np.zeros(shape)
    if out.shape != shape or out.dtype not in (np.float32, np.float64):
        raise ValueError(f"expected out of shape {shape} in float32 or float64, got {out.dtype} {out.shape}")
    out[...] = 0
    return out


def pair_sums(stacks, total, divergence, floor, dtype, device="cpu", desc=None, unfinished=None, groups=None):
    """Add to `total` (M, K) a divergence, summed over samples, between all models of two stacks, or to the upper
    triangle of (M, M) within one; returns how many affinities were below the floor.

    The processes that torchrun started share the samples. `unfinished`, an `info_geometry.script.Unfinished`, keeps
    what has been added up, so that a stopped job goes on from there. `groups`, an `info_geometry.bootstrap.Groups`,
    get their sums too.
    """
    n_samples, n_classes = samples_of(*stacks)
    sums = {"total": total} | ({"groups": groups.sums} if groups else {})
    with engine_for(divergence, floor, dtype, n_classes, device) as engine:
        size = engine.block_size(sum(stack.shape[0] for stack in stacks))
        first, stop = ranks.share(n_samples, size)
        clipped = 0
        if unfinished and (found := unfinished.load()):
            first, clipped = int(found["samples"]), int(found["clipped"])
            for name in sums:
                sums[name][...] = found[name]
        held = {name: engine.held(array) for name, array in sums.items()}

        def keep(samples):
            engine.give_back(held, sums)
            unfinished.save(samples=samples, clipped=int(clipped), **sums)

        for n, blocks in read_blocks(*stacks, size=size, first=first, stop=stop, desc=desc):
            if unfinished and unfinished.due():
                keep(n)
            order, runs = slice(None), None
            if groups:
                order, runs = _runs(groups.numbers[n : n + size], held["groups"])
                blocks = [block[:, order] for block in blocks]
            places = [place_of(stack, n, order) for stack in stacks]
            clipped += engine.add(held["total"], blocks, places, runs)
        engine.give_back(held, sums)
        if unfinished and unfinished.due():
            keep(stop)
    counted = np.array([int(clipped)], dtype=np.float64)
    for array in (*sums.values(), counted):
        ranks.add_up(array)
    return int(counted[0])


def _runs(numbers, sums):
    """An order of samples in which those of one number follow each other, and for each number (slice, sum)."""
    order = np.argsort(numbers, kind="stable")
    present, starts = np.unique(numbers[order], return_index=True)
    stops = [*starts[1:], len(numbers)]
    return order, [(slice(a, b), sums[k]) for k, a, b in zip(present, starts, stops, strict=True)]


def _correct_near(stacks, distances, floor, desc):
    """Compute distances below NEAR again, from differences in float64."""
    from info_geometry.compiled import near_distances

    rows, columns = _near(distances, len(stacks) == 1)
    if not len(rows):
        return
    n_samples, n_classes = samples_of(*stacks)
    # only models that are near another; within one stack the pairs are between the same models
    wanted = [np.union1d(rows, columns)] if len(stacks) == 1 else [np.unique(rows), np.unique(columns)]
    left, right = np.searchsorted(wanted[0], rows), np.searchsorted(wanted[-1], columns)
    size = max(16, NEAR_BYTES // (8 * n_classes * sum(map(len, wanted))) // 16 * 16)
    first, stop = ranks.share(n_samples, size)
    found = np.zeros(len(rows))
    parts = slices(len(rows), -(-len(rows) // (8 * n_threads())))
    with ThreadPoolExecutor(n_threads()) as pool:
        desc = desc and f"{desc}, near models"
        for _, blocks in read_blocks(*stacks, size=size, first=first, stop=stop, desc=desc):
            # (M, C, B), so that samples, which are many, are added side by side
            roots = [square_roots(block[models]).swapaxes(1, 2) for block, models in zip(blocks, wanted, strict=True)]
            roots = [np.ascontiguousarray(r) for r in roots]

            def add(part, roots=roots):
                near_distances(roots[0], roots[-1], left[part], right[part], floor, found[part])

            for _ in pool.map(add, parts):
                pass
    ranks.add_up(found)
    distances[rows, columns] = found / n_samples


def _near(distances, upper):
    """Rows and columns of distances below NEAR, in the upper triangle or in all."""
    found = []
    for strip in slices(len(distances), STRIP):
        near = distances[strip] < NEAR
        rows, columns = np.nonzero(np.triu(near, strip.start + 1) if upper else near)
        found.append((rows + strip.start, columns))
    return (np.concatenate(of).astype(np.int32) for of in zip(*found, strict=True))


def aligned(P, Q, *, divergence=BHATTACHARYYA, floor=None):
    """Distances (M,) of P[i] to Q[i], both (M, N, C): exact in relative terms too, however near they are."""
    if shape_of(P) != shape_of(Q):
        raise ValueError(f"expected two stacks of one shape, got {P.shape} and {Q.shape}")
    return _along_samples(sample_blocks(P, Q), P.shape[0], P.shape[1], divergence, floor)


def steps(P, *, divergence=BHATTACHARYYA, floor=None):
    """Distances (T - 1,) between consecutive checkpoints of a trajectory (T, N, C), as exact as `aligned`."""
    n_models, n_samples, _ = shape_of(P)
    pairs = ((roots[:-1], roots[1:]) for (roots,) in sample_blocks(P))
    return _along_samples(pairs, n_models - 1, n_samples, divergence, floor)


def _along_samples(pairs, n_models, n_samples, divergence, floor):
    divergence, floor = named_with_floor(divergence, floor)
    total, clipped = np.zeros(n_models), 0
    for roots_p, roots_q in pairs:
        distances, below = divergence.of_roots(roots_p, roots_q, floor)
        total += distances.sum(axis=-1)
        clipped += below
    warn_of_floor(clipped, n_models * n_samples, floor)
    return total / n_samples


def warn_of_floor(clipped, n_affinities, floor=FLOOR):
    """A FloorWarning, if any affinities were below the floor."""
    if clipped and ranks.rank() == 0:
        text = f"{clipped} of {n_affinities} affinities were below the floor of {floor:g} and count as that"
        warnings.warn(text, FloorWarning, stacklevel=4)


def to_distances(total, n_samples):
    """Distances per sample, in place of their sums over samples; those that rounding alone makes are 0."""
    for rows in slices(len(total), STRIP):
        total[rows] /= n_samples
        total[rows][total[rows] < RESOLUTION] = 0
