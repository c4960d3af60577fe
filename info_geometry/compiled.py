"""Loops that arrays cannot say in one pass, compiled: the work of the engine in float32, and near models.

Predictions become unit vectors, and affinities a running product whose mantissa and exponent are split every few
samples, so that one logarithm is taken a pair and block. With few classes a matrix product writes more than it
computes: there a tile of affinities goes from registers into the product. `make benchmark` measures what this is
worth.
"""

import numpy as np
from numba import njit

from info_geometry.samples import ROW_SUM_TOLERANCE

SIDE = 64  # models on a side of a tile
HEIGHT = 4  # rows at a time: their affinities to all columns of the tile stay in registers and first-level cache
TOGETHER = 4  # affinities multiplied before the product is split: not below 1e-9, they stay normal numbers

# all but "arcp" and "afn": every product is rounded as written, only the order of additions is free
FAST = {"contract", "nnan", "ninf", "nsz", "reassoc"}


# for what may hold NaN
SOUND = {"contract", "nsz", "reassoc"}


@njit(nogil=True, cache=True, fastmath=SOUND)
def unit_vectors(p, out):
    """Square roots (B, M, C) of probabilities (M, B, C), both float32, normalised in float64; returns whether all
    sum to one within ROW_SUM_TOLERANCE and none is negative."""
    n_models, n_samples, n_classes = p.shape
    sound = True
    for n in range(n_samples):
        for m in range(n_models):
            scale, fine = _scale(p, m, n)
            sound &= fine
            for c in range(n_classes):
                out[n, m, c] = np.sqrt(p[m, n, c] * scale)
    return sound


@njit(nogil=True, cache=True, fastmath=SOUND)
def unit_vectors_by_class(p, out):
    """As `unit_vectors`, but (B, C, M) or more classes and models, of which those beyond p's stay as they are."""
    n_models, n_samples, n_classes = p.shape
    sound = True
    for n in range(n_samples):
        for m in range(n_models):
            scale, fine = _scale(p, m, n)
            sound &= fine
            for c in range(n_classes):
                out[n, c, m] = p[m, n, c] * scale
        for c in range(n_classes):
            for m in range(n_models):
                out[n, c, m] = np.sqrt(out[n, c, m])
    return sound


@njit(nogil=True, cache=True, fastmath=SOUND)
def _scale(p, m, n):
    total, least = 0.0, np.float32(0)
    for c in range(p.shape[2]):
        total += p[m, n, c]
        least = min(least, p[m, n, c])
    return np.float32(1 / total), (abs(total - 1) <= ROW_SUM_TOLERANCE) and (least >= 0)


@njit(nogil=True, cache=True, fastmath=FAST)
def multiply(affinities, floor, upper, product, exponent):
    """Multiply affinities (B, T, U) into `product` (T, U), float32, whose powers of two go to `exponent`, int32.

    Returns the number of affinities below the floor, in the upper triangle or in all.
    """
    n_samples, n_rows, n_columns = affinities.shape
    floor = np.float32(floor)
    clipped = 0
    for row in range(n_rows):
        below = np.int32(0)
        for n in range(n_samples):
            for k in range(row + 1 if upper else 0, n_columns):
                below += affinities[n, row, k] < floor
                product[row, k] *= max(affinities[n, row, k], floor)
            if n % TOGETHER == TOGETHER - 1 or n == n_samples - 1:
                _split(product, exponent, row, n_columns)
        clipped += below
    return clipped


@njit(nogil=True, cache=True, fastmath=FAST)
def multiply_few(left, right, n_rows, n_columns, floor, upper, product, exponent):
    """As `multiply`, of the affinities between (B, C, T) and (B, C, U) unit vectors, of few classes.

    C is even; models are filled up with zeros to multiples of SIDE, as are `product` and `exponent`; `n_rows` and
    `n_columns` are there.
    """
    n_samples, n_classes, _ = left.shape
    # of a tile: what is not known to lie elsewhere than the arguments is read and written again and again
    own_product = np.empty((SIDE, SIDE), np.float32)
    own_exponent = np.empty((SIDE, SIDE), np.int32)
    affinity = np.empty((HEIGHT, SIDE), np.float32)
    a0, a1, a2, a3 = affinity[0], affinity[1], affinity[2], affinity[3]
    below = np.empty(SIDE, np.int32)
    floor = np.float32(floor)
    clipped = 0
    for i in range(0, n_rows, SIDE):
        for j in range(i if upper else 0, n_columns, SIDE):
            own_product[:] = product[i : i + SIDE, j : j + SIDE]
            own_exponent[:] = exponent[i : i + SIDE, j : j + SIDE]
            below[:] = 0
            for n in range(n_samples):
                for row in range(0, SIDE, HEIGHT):
                    for k in range(SIDE):
                        a0[k] = a1[k] = a2[k] = a3[k] = 0
                    for c in range(0, n_classes, 2):
                        p = left[n, c, i + row : i + row + HEIGHT]
                        q = left[n, c + 1, i + row : i + row + HEIGHT]
                        p0, p1, p2, p3 = p[0], p[1], p[2], p[3]
                        q0, q1, q2, q3 = q[0], q[1], q[2], q[3]
                        s, t = right[n, c, j : j + SIDE], right[n, c + 1, j : j + SIDE]
                        for k in range(SIDE):
                            u, v = s[k], t[k]
                            a0[k] += p0 * u + q0 * v
                            a1[k] += p1 * u + q1 * v
                            a2[k] += p2 * u + q2 * v
                            a3[k] += p3 * u + q3 * v
                    for k in range(SIDE):
                        below[k] += (a0[k] < floor) + (a1[k] < floor) + (a2[k] < floor) + (a3[k] < floor)
                        own_product[row, k] *= max(a0[k], floor)
                        own_product[row + 1, k] *= max(a1[k], floor)
                        own_product[row + 2, k] *= max(a2[k], floor)
                        own_product[row + 3, k] *= max(a3[k], floor)
                if n % TOGETHER == TOGETHER - 1 or n == n_samples - 1:
                    for row in range(SIDE):
                        _split(own_product, own_exponent, row, SIDE)
            product[i : i + SIDE, j : j + SIDE] = own_product
            exponent[i : i + SIDE, j : j + SIDE] = own_exponent
            filled = SIDE * SIDE - min(SIDE, n_rows - i) * min(SIDE, n_columns - j)
            found = below.sum() - n_samples * filled  # what fills up has nothing in common
            clipped += found // 2 if upper and i == j else found
    return clipped


@njit(nogil=True, cache=True, fastmath=FAST)
def _split(product, exponent, row, n_columns):
    bits = product[row].view(np.int32)
    for k in range(n_columns):
        exponent[row, k] += (bits[k] >> 23) - 127
        bits[k] = (bits[k] & 0x007FFFFF) | 0x3F800000


@njit(nogil=True, cache=True, fastmath=FAST)
def near_distances(left, right, rows, columns, floor, found):
    """Add to `found` (n,) the distances -sum log affinity of pairs, by differences, exact however small.

    left, right : (M, C, B) and (K, C, B) float64 unit vectors of B samples; rows, columns : (n,) the pairs.
    -log(1 - h) with h = |r - s|^2 / 2, of several samples in one logarithm: 1 - u is the product of 1 - h.
    """
    _, n_classes, n_samples = left.shape
    h = np.empty(n_samples)
    for pair in range(len(rows)):
        r, s = left[rows[pair]], right[columns[pair]]
        h[:] = 0
        for c in range(n_classes):
            for n in range(n_samples):
                h[n] += (r[c, n] - s[c, n]) ** 2
        u = total = 0.0
        for n in range(n_samples):
            half = h[n] / 2
            if half <= 0.5:
                u += half - u * half
            else:  # 1 - h would lose the digits of the affinity
                affinity = 0.0
                for c in range(n_classes):
                    affinity += r[c, n] * s[c, n]
                total -= np.log(max(affinity, floor))
            if n % 16 == 15:
                total -= np.log1p(-u)
                u = 0.0
        found[pair] += total - np.log1p(-u)
