"""Sums over samples of what all pairs of models have in common: the engine under the distances.

Samples come by blocks. A divergence makes features of predictions; for a few samples at a time those of a tile of pairs
are multiplied, and reduced to one sum a pair, while they are in cache; sums are added up in float64. Memory is the
result, a block, and a tile a thread. Results do not depend on how many threads share the work, and on how many
processes by no more than the rounding of sums in float64.

`Engine` works in PyTorch on the processor, and `GraphicsEngine` the same on a GPU. `CompiledEngine`, for d_B in float32
on the processor, has compiled loops for all but the matrix product, and `FewClassesEngine` for that too.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from info_geometry.samples import ROW_SUM_TOLERANCE, in_order, slices, square_roots

SMALL = 1 << 32  # products: up to there all is done in float64, in a second or two
LEAST_FLOOR = 1e-9  # the product of several affinities of less is no normal number in float32
FEW_CLASSES = 48  # up to there the compiled loop is faster than matrix products
BLOCK_BYTES = 1 << 23  # features of a block
PRODUCT_BYTES = 1 << 20  # products of a tile
HEIGHT, WIDTH = 64, 512  # models on the sides of a tile, at most
GPU = 8  # times as long are the sides of a tile on a GPU, and bytes as many times squared


def precision(n_pairs, n_samples, n_classes, divergence, floor, wanted=None):
    """The type of products: float64 where these are few, or where the divergence needs it, else float32.

    Raises ValueError where another type is wanted, or float32 and it would not do.
    """
    single = divergence.single and floor >= LEAST_FLOOR
    if wanted is None:
        return np.dtype(np.float32 if single and n_pairs * n_samples * n_classes > SMALL else np.float64)
    wanted = np.dtype(wanted)
    if wanted not in (np.float32, np.float64) or (wanted == np.float32 and not single):
        raise ValueError(
            f"dtype must be float64, or for d_B with a floor from {LEAST_FLOOR:g} on float32, not {wanted}"
        )
    return wanted


def engine_for(divergence, floor, dtype, n_classes, device="cpu"):
    """The engine that adds up a divergence, with products in float64 or float32, on a device as PyTorch calls it."""
    kind = Engine
    if device != "cpu":
        kind = GraphicsEngine
    elif dtype == np.float32:
        kind = FewClassesEngine if n_classes <= FEW_CLASSES else CompiledEngine
    return kind(divergence, floor, dtype, n_classes, device)


class Engine:
    """Adds up a divergence over samples, for all pairs of models of one stack or of two.

    A context manager, which holds the threads.
    """

    height, width = HEIGHT, WIDTH
    block_bytes, product_bytes = BLOCK_BYTES, PRODUCT_BYTES

    def __init__(self, divergence, floor, dtype, n_classes, device="cpu"):
        self.divergence, self.floor, self.dtype, self.n_classes = divergence, floor, np.dtype(dtype), n_classes
        self.device = device

    def __enter__(self):
        import torch

        self.torch, self.type = torch, getattr(torch, self.dtype.name)
        self.together = self.divergence.together(self.floor, self.dtype.itemsize)
        self.n_threads = torch.get_num_threads()
        # products on one thread each: many small ones gain nothing from sharing
        self.pool = ThreadPoolExecutor(self.n_threads, initializer=torch.set_num_threads, initargs=(1,))
        return self

    def __exit__(self, *error):
        self.pool.shutdown(cancel_futures=True)
        self.torch.set_num_threads(self.n_threads)

    def each(self, function, items):
        """The results of a function for each of the items, in their order, by all threads."""
        return in_order(self.pool, function, items)

    def block_size(self, n_models):
        """Samples in a block of that many models."""
        samples = self.block_bytes // (self.dtype.itemsize * self.n_classes * n_models)
        return max(1, samples // self.together) * self.together

    def held(self, array):
        """What to add to in place of an array."""
        return array

    def give_back(self, held, arrays):
        """Bring what was added up to the arrays: two dicts with the same keys."""

    def add(self, total, blocks, places, runs=None):
        """Add to `total` (M, K) the sums over a block of samples, of predictions as they are stored.

        `blocks` are (M, B, C) and (K, B, C), or one, of which only pairs in the upper triangle count, and nothing is to
        be relied on below. `places` name the place of a row, for the InputError where it is no probability. `runs`, a
        list of (slice, sum), adds those samples to sums of their own too. Returns how many affinities were below the
        floor.
        """
        features = [self._features(self._roots(*of)) for of in zip(blocks, places, strict=True)]
        left, right = features[0][0], features[-1][1]
        return self._add_features(total, left, right, len(blocks) == 1, runs or [(slice(0, len(left)), None)])

    def add_roots(self, total, r, s):
        """The same, between unit vectors (M, B, C) and (K, B, C)."""
        r, s = (self.torch.from_numpy(np.ascontiguousarray(x.swapaxes(0, 1))) for x in (r, s))
        return self._add_features(total, self._features(r)[0], self._features(s)[1], False, [(slice(0, len(r)), None)])

    def _roots(self, block, place):
        """Unit vectors (B, M, C) of predictions (M, B, C)."""
        roots, sound = self._unit_vectors(self.torch.from_numpy(block))
        if not sound:
            square_roots(block, place)
        return roots

    def _unit_vectors(self, p):
        p = p.swapaxes(0, 1).to(self.type, memory_format=self.torch.contiguous_format, copy=True)
        total = p.sum(-1, keepdim=True, dtype=self.torch.float64)
        sound = ((total - 1).abs() <= ROW_SUM_TOLERANCE).all() & (p.amin() >= 0)
        return p.mul_((1 / total).to(self.type)).sqrt_(), sound

    def _features(self, roots):
        return self.divergence.features(roots, self.floor)

    def _tiles(self, n_rows, n_columns, upper):
        """(rows, columns), slices of about equal lengths, that cover all pairs or those in the upper triangle."""
        for rows in _strips(n_rows, self.height):
            for columns in _strips(n_columns, self.width, rows.start if upper else 0):
                yield rows, columns

    def _add_features(self, total, left, right, upper, runs):
        def add(tile):
            rows, columns = tile
            clipped = 0
            for samples, also in runs:
                on_diagonal = upper and rows.start == columns.start  # the others are all above it
                found, below = self._tile(left[samples, rows], right[samples, columns], on_diagonal)
                clipped += below
                total[tile] += found
                if also is not None:
                    also[tile] += found
            return clipped

        return sum(self.each(add, self._tiles(*total.shape, upper)))

    def _tile(self, left, right, upper):
        found, clipped = self._sum(left, right, upper)
        return found.numpy(), int(clipped)

    def _sum(self, left, right, upper):
        """Sums (T, U) over samples, in float64, and how many affinities were below the floor."""
        n_samples, n_rows, _ = left.shape
        found, clipped = 0, 0
        for samples in self._parts(n_samples, n_rows * right.shape[1]):
            more, below = self.divergence.reduced(left[samples] @ right[samples].mT, self.floor, upper)
            found, clipped = found + more, clipped + below
        return found, clipped

    def _parts(self, n_samples, n_values):
        """Slices of samples, of which so many values each stay in cache."""
        step = max(1, self.product_bytes // (self.dtype.itemsize * n_values) // self.together) * self.together
        return slices(n_samples, step)


class GraphicsEngine(Engine):
    """The engine on a GPU: larger tiles, a block is copied while the one before is worked on, and nothing waits."""

    height, width = GPU * HEIGHT, GPU * WIDTH
    block_bytes, product_bytes = GPU**2 * BLOCK_BYTES, GPU**2 * PRODUCT_BYTES

    def __enter__(self):
        super().__enter__()
        self.copying = self.torch.cuda.Stream(self.device) if self.device != "cpu" else None
        self.unsure = []
        return self

    def each(self, function, items):
        return map(function, items)

    def held(self, array):
        return self.torch.tensor(array, device=self.device)

    def give_back(self, held, arrays):
        self._make_sure(0)
        for name, array in arrays.items():
            array[...] = held[name].cpu().numpy()

    def _roots(self, block, place):
        roots, sound = self._unit_vectors(self._copied(block))
        self.unsure.append((sound, block, place))
        self._make_sure(2)  # what was copied before the last has been worked on: to ask for more would be to wait
        return roots

    def _make_sure(self, n_left):
        while len(self.unsure) > n_left:
            sound, block, place = self.unsure.pop(0)
            if not sound:
                square_roots(block, place)

    def _copied(self, block):
        p = self.torch.from_numpy(block)
        if self.copying is None:
            return p
        cuda = self.torch.cuda
        with cuda.stream(self.copying):
            p = p.contiguous().pin_memory().to(self.device, non_blocking=True)
        cuda.current_stream(self.device).wait_stream(self.copying)
        p.record_stream(cuda.current_stream(self.device))
        return p

    def _tile(self, left, right, upper):
        return self._sum(left, right, upper)


class CompiledEngine(Engine):
    """The engine of d_B in float32 on the processor.

    A thread takes a tile of pairs and a piece of the samples for its own, and makes unit vectors of few samples at a
    time, which where possible are in its cache when they are multiplied. What that repeats for many models, it
    saves in waiting.
    """

    height = width = 512
    block_bytes = 1 << 27
    product_bytes = 1 << 22  # here of unit vectors: so many are worth more than what does not fit into the nearer cache
    block_samples = 1024
    tasks = 16  # of a block, at least: enough for some threads, and the same for all

    def __enter__(self):
        from info_geometry import compiled

        self.compiled = compiled
        super().__enter__()
        self.together = compiled.TOGETHER
        return self

    def block_size(self, n_models):
        return min(self.block_samples, super().block_size(n_models))

    def add(self, total, blocks, places, runs=None):
        upper, n_samples = len(blocks) == 1, blocks[0].shape[1]
        tiles = list(self._tiles(*total.shape, upper))
        n_pieces = -(-self.tasks // len(tiles))
        size = -(-n_samples // n_pieces // self.together) * self.together
        pieces = [
            (piece, also)
            for run, also in runs or [(slice(0, n_samples), None)]
            for piece in slices(run.stop, size, run.start)
        ]
        tasks = list(itertools.product(tiles, pieces))

        def found(task):
            (rows, columns), (samples, _) = task
            of = [(blocks[0], places[0], rows), (blocks[-1], places[-1], columns)]
            return self._piece(of, samples, upper and rows == columns)

        clipped = 0
        for (tile, (_, also)), (sums, below) in zip(tasks, self.each(found, tasks), strict=True):
            clipped += below
            total[tile] += sums
            if also is not None:
                also[tile] += sums
        return clipped

    def _tiles(self, n_rows, n_columns, upper):
        rows, columns = _strips(n_rows, self.height), _strips(n_columns, self.width)
        return ((r, c) for r in rows for c in columns if not upper or r.start <= c.start)

    def _piece(self, of, samples, on_diagonal):
        n_rows, n_columns = shape = [models.stop - models.start for _, _, models in of]
        product, exponent = self._ones(n_rows, n_columns)
        clipped = 0
        for part in self._parts(samples.stop - samples.start, (n_rows + n_columns) * self.n_classes):
            part = slice(samples.start + part.start, samples.start + part.stop)
            left = self._roots_of(*of[0], part)
            right = left if on_diagonal else self._roots_of(*of[1], part)
            clipped += self._multiply(left, right, shape, on_diagonal, product, exponent)
        product, exponent = product[:n_rows, :n_columns], exponent[:n_rows, :n_columns]
        return -np.log(product, dtype=np.float64) - exponent * np.log(2), clipped

    def _roots_of(self, block, place, models, samples):
        p = self.torch.from_numpy(block[models, samples]).to(self.type).contiguous().numpy()
        roots, sound = self._compiled_roots(p)
        if not sound:
            square_roots(block[models, samples], lambda m, n: place(m + models.start, n + samples.start))
        return roots

    def _compiled_roots(self, p):
        n_models, n_samples, n_classes = p.shape
        roots = np.empty((n_samples, n_models, n_classes), np.float32)
        return roots, self.compiled.unit_vectors(p, roots)

    def _ones(self, n_rows, n_columns):
        return np.ones((n_rows, n_columns), np.float32), np.zeros((n_rows, n_columns), np.int32)

    def _multiply(self, left, right, shape, upper, product, exponent):
        left, right = self.torch.from_numpy(left), self.torch.from_numpy(right)
        clipped = 0
        for rows in _strips(left.shape[1], HEIGHT):
            columns = slice(rows.start if upper else 0, right.shape[1])
            affinities = (left[:, rows] @ right[:, columns].mT).numpy()
            into = rows, columns
            clipped += self.compiled.multiply(affinities, self.floor, upper, product[into], exponent[into])
        return clipped


class FewClassesEngine(CompiledEngine):
    """The same where there are few classes: affinities go from registers into their product."""

    product_bytes = PRODUCT_BYTES

    def _compiled_roots(self, p):
        n_models, n_samples, n_classes = p.shape
        # classes to an even number, models to whole tiles
        roots = np.zeros((n_samples, n_classes + n_classes % 2, self._filled(n_models)), np.float32)
        return roots, self.compiled.unit_vectors_by_class(p, roots)

    def _ones(self, n_rows, n_columns):
        return super()._ones(self._filled(n_rows), self._filled(n_columns))

    def _filled(self, n_models):
        return -(-n_models // self.compiled.SIDE) * self.compiled.SIDE

    def _multiply(self, left, right, shape, upper, product, exponent):
        return self.compiled.multiply_few(left, right, *shape, self.floor, upper, product, exponent)


def _strips(stop, step, start=0):
    """Slices of about equal lengths, at most `step`, from start to stop."""
    return slices(stop, -(-(stop - start) // -(-(stop - start) // step)), start)
