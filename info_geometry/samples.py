"""Stacks of models, block of samples by block of samples: how all of the geometry reads predictions.

A stack (M, N, C) is an array, or a `Trajectory` or `Models` of `info_geometry.predictions`, of which only what is
sliced is read from disk. Everything geometric happens on square roots: unit vectors, one sphere a sample.
"""

import collections
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from info_geometry.script import InputError

ROW_SUM_TOLERANCE = 1e-2  # rows of float16 or rounded probabilities stay well within; more is not rounding
READ_BYTES = 1 << 26  # read from disk at a time
CACHE_BYTES = 1 << 22  # float64 square roots of the samples worked on at a time
OWN_BYTES = 1 << 20  # the same, by one of several threads


def square_roots(P, where=None):
    """Points of the product of spheres: probabilities (..., N, C) to unit vectors sqrt(p), in float64.

    The rounding of stored probabilities is undone by normalisation, so that <r, r> = 1 to double precision.
    Raises InputError at the first row that is not finite, has a negative value, or sums to something further
    than 1e-2 from one; `where(*index)` says its place.
    """
    p = np.array(P, dtype=np.float64)  # a copy, worked on in place
    total = p @ np.ones(p.shape[-1])
    if not (np.abs(total - 1) <= ROW_SUM_TOLERANCE).all() or p.min() < 0:
        _refuse(p, total, where)
    p *= (1 / total)[..., None]
    return np.sqrt(p, out=p)


def _refuse(p, total, where):
    """Raise InputError at the first row that is no probability."""
    bad = ~(np.abs(total - 1) <= ROW_SUM_TOLERANCE) | (p.min(axis=-1) < 0)
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    place, row = where(*index) if where else f"row {list(index)}", p[index]
    if not np.isfinite(row).all():
        fault = "holds a value that is not finite"
    elif row.min() < 0:
        fault = f"holds a negative value, {row.min():.6g}"
    else:
        fault = f"sums to {row.sum():.6g}"
    raise InputError(f"{place} {fault}; each row must be a probability over the classes")


def shape_of(stack):
    """(M, N, C) of a stack of models; raises InputError (a ValueError) for what has other axes."""
    if len(stack.shape) != 3:
        raise InputError(f"expected an array (models, samples, classes), got shape {stack.shape}")
    return stack.shape


def samples_of(*stacks):
    """(N, C) of stacks; raises InputError (a ValueError) where they differ."""
    shapes = [shape_of(stack) for stack in stacks]
    for shape in shapes:
        if shape[1:] != shapes[0][1:] or 0 in shape:
            raise InputError(f"expected non-empty stacks over the same samples and classes, got shapes {shapes}")
    return shapes[0][1:]


def place_of(stack, first=0, order=slice(None)):
    """A function (model, sample) -> the place of that row, for messages; samples are counted from `first` on, in
    another order if one is given."""

    def place(model, sample):
        sample = first + (sample if isinstance(order, slice) else int(order[sample]))
        return stack.where(model, sample) if hasattr(stack, "where") else f"model {model}, sample {sample}:"

    return place


def read_blocks(*stacks, size, first=0, stop=None, desc=None):
    """Yield (n, blocks): from sample n on, one array (M, B, C) a stack as it is stored; B is `size`, less at the end.

    `first` and `stop` are the samples to begin and to end with. Files are read by many blocks at once. `desc` names a
    progress bar, which counts samples.
    """
    n_samples, n_classes = samples_of(*stacks)
    stop = n_samples if stop is None else stop
    bytes_a_sample = n_classes * sum(stack.shape[0] * stack.dtype.itemsize for stack in stacks)
    n_read = max(1, READ_BYTES // (bytes_a_sample * size)) * size
    with tqdm(total=stop, initial=first, desc=desc, unit="sample", disable=None if desc else True) as bar:
        for start in range(first, stop, n_read):
            read = [_plain(stack[:, start : min(start + n_read, stop)]) for stack in stacks]
            for n in range(0, read[0].shape[1], size):
                blocks = [block[:, n : n + size] for block in read]
                yield start + n, blocks
                bar.update(blocks[0].shape[1])


def _plain(block):
    """An array that PyTorch takes: of native floats, and writable (a memory map may not be), though it is not
    written."""
    native = block.dtype in (np.float16, np.float32, np.float64)
    strides = np.array(block.strides)
    if native and block.flags.writeable and (strides >= 0).all() and (strides % block.itemsize == 0).all():
        return block
    return np.array(block, dtype=block.dtype if native else np.float64)


def sample_blocks(*stacks, beside=0, desc=None):
    """Yield the square roots of stacks (M, N, C), all with the same N and C, block of samples by block.

    Each step yields a list with one (M, B, C) array a stack, in float64; B is such that these, and `beside` more models
    that the caller makes of them, stay in the processor's cache, if a single sample does.
    """
    for n, blocks in read_blocks(*stacks, size=_block_size(CACHE_BYTES, stacks, beside), desc=desc):
        yield [square_roots(block, place_of(stack, n)) for block, stack in zip(blocks, stacks, strict=True)]


def map_samples(function, stack):
    """Yield function(n, roots) of the square roots (M, B, C) of a stack from each sample n on, block by block: by
    threads, each with a block in its own cache."""

    def of_block(read):
        n, (block,) = read
        return function(n, square_roots(block, place_of(stack, n)))

    with ThreadPoolExecutor(n_threads()) as pool:
        yield from in_order(pool, of_block, read_blocks(stack, size=_block_size(OWN_BYTES, [stack])))


def in_order(pool, function, items):
    """Yield the results of a function for each of the items, in their order; no more than some are waiting."""
    waiting = collections.deque()
    for item in items:
        if len(waiting) == 4 * pool._max_workers:
            yield waiting.popleft().result()
        waiting.append(pool.submit(function, item))
    while waiting:
        yield waiting.popleft().result()


def _block_size(n_bytes, stacks, beside=0):
    n_models = beside + sum(stack.shape[0] for stack in stacks)
    return max(1, n_bytes // (8 * stacks[0].shape[2] * n_models))


def slices(stop, step, start=0):
    """Slices of `step` from start to stop, the last one shorter."""
    return [slice(n, min(n + step, stop)) for n in range(start, stop, step)]


def numbered(blocks):
    """Yield (n, blocks) of what `sample_blocks` yields, n the number of the first sample."""
    n = 0
    for block in blocks:
        yield n, block
        n += block[0].shape[1]


def n_threads():
    """Processors that this process may use, or OMP_NUM_THREADS, as for all numerical libraries."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return max(1, int(wanted)) if wanted.isdigit() else here
