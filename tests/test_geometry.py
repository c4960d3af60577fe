"""Distances, geodesics, progress, trajectories and embedding, against formulas written from the definitions."""

import itertools
from functools import cache

import numpy as np
import pytest
from conftest import labels_of, models, trajectory
from scipy.optimize import brentq
from sklearn.manifold import ClassicalMDS

from info_geometry import affinities, geodesic, inpca, samples
from info_geometry.bhattacharyya import FloorWarning, aligned, cross, pairwise, steps
from info_geometry.bootstrap import errors_of, jackknife
from info_geometry.geodesic import interpolate, progress, progress_between
from info_geometry.inpca import InPCA
from info_geometry.script import InputError
from info_geometry.trajectory import (
    accuracy,
    common_range,
    compare,
    frechet,
    mean_and_error,
    mean_of_roots,
    nearest_point,
    new_maxima,
    reindex,
    riemann_length,
    separations,
    straightness,
)


def definition(p, q, floor=1e-6):
    """d_B of two models (N, C), a sample at a time."""
    total = 0.0
    for row_p, row_q in zip(np.float64(p), np.float64(q), strict=True):
        affinity = sum(np.sqrt(a * b) for a, b in zip(row_p / row_p.sum(), row_q / row_q.sum(), strict=True))
        total -= np.log(max(affinity, floor))
    return total / len(p)


# --- distances


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("block_bytes", [1, 20_000, 1 << 28])
def test_distances_equal_the_definition(monkeypatch, dtype, block_bytes):
    monkeypatch.setattr(samples, "READ_BYTES", block_bytes)
    monkeypatch.setattr(samples, "CACHE_BYTES", block_bytes // 3)
    monkeypatch.setattr(affinities.Engine, "block_bytes", block_bytes // 3)
    monkeypatch.setattr(affinities.Engine, "product_bytes", block_bytes // 50)
    monkeypatch.setattr(affinities.Engine, "height", 3)
    monkeypatch.setattr(affinities.Engine, "width", 2)
    P, Q = models(7).astype(dtype), models(5, seed=1).astype(dtype)
    # both sides in float64: only the order of additions differs
    np.testing.assert_allclose(pairwise(P), [[definition(p, q) for q in P] for p in P], rtol=0, atol=1e-13)
    np.testing.assert_allclose(cross(P, Q), [[definition(p, q) for q in Q] for p in P], rtol=0, atol=1e-13)
    np.testing.assert_allclose(aligned(P[:5], Q), [definition(p, q) for p, q in zip(P[:5], Q, strict=True)], atol=1e-13)


def test_distances_are_symmetric_and_zero_from_a_model_to_itself():
    P = models(150, 30).astype(np.float16)
    D = pairwise(P)
    assert (D == D.T).all()
    assert (np.diag(D) == 0).all()
    assert (D[~np.eye(150, dtype=bool)] > 0).all()
    twice = np.concatenate([P, P])
    assert (np.diag(pairwise(twice)[:150, 150:]) == 0).all()
    assert (np.diag(cross(P, P)) == 0).all()
    assert (aligned(P, P) == 0).all()


@pytest.mark.parametrize("shift", [1e-3, 1e-4, 1e-5, 2e-5, 3e-6])
def test_near_models_keep_their_digits(shift):
    # p moved along the sphere by an angle, so that d_B = -log cos(angle) with no subtraction
    P = models(1, 50, 4, concentration=3)
    r = np.sqrt(P)
    tangent = np.random.default_rng(1).normal(size=r.shape)
    tangent -= (tangent * r).sum(-1, keepdims=True) * r
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
    Q = (np.cos(shift) * r + np.sin(shift) * tangent) ** 2
    expected = -np.log1p(-2 * np.sin(shift / 2) ** 2)
    assert expected > 4e-12
    # rounding of p itself (2e-16 relative) limits what any formula can say: 1e-5 holds down to 1e-9
    tolerance = 1e-5 if expected >= 1e-9 else 1e-4
    np.testing.assert_allclose(aligned(P, Q), expected, rtol=tolerance)
    np.testing.assert_allclose(steps(np.concatenate([P, Q])), expected, rtol=tolerance)
    np.testing.assert_allclose(pairwise(np.concatenate([P, Q]))[0, 1], expected, rtol=tolerance, atol=1e-14)


def test_disjoint_supports_are_clipped_and_counted():
    P = np.eye(3)[[[0, 0], [1, 0], [2, 0]]]  # three models, two samples: on the first they share nothing
    with pytest.warns(FloorWarning, match="3 of 6 affinities were below the floor of 1e-06"):
        D = pairwise(P)
    np.testing.assert_allclose(D, -np.log(1e-6) / 2 * (1 - np.eye(3)))
    with pytest.warns(FloorWarning, match="2 of 6"):
        np.testing.assert_allclose(cross(P[:1], P), D[:1])
    with pytest.warns(FloorWarning, match="1 of 2"):
        np.testing.assert_allclose(aligned(P[:1], P[1:2]), D[0, 1])
    with pytest.warns(FloorWarning, match="2 of 4"):
        np.testing.assert_allclose(steps(P), D[0, 1])


@pytest.mark.filterwarnings("ignore::info_geometry.bhattacharyya.FloorWarning")
def test_no_product_of_affinities_underflows():
    P = np.eye(2)[np.stack([np.zeros(400, int), np.ones(400, int)])]
    np.testing.assert_allclose(pairwise(P)[0, 1], -np.log(1e-6))
    np.testing.assert_allclose(pairwise(P, floor=1e-300)[0, 1], -np.log(1e-300))


@pytest.mark.parametrize(
    ("value", "fault"), [(np.nan, "not finite"), (np.inf, "not finite"), (-0.1, "negative"), (0.9, "sums to")]
)
@pytest.mark.parametrize("function", [pairwise, steps, riemann_length, lambda P: progress(P, labels_of(40))])
def test_what_is_no_probability_is_refused_with_its_place(function, value, fault):
    P = models()
    P[3, 17] = [value, 0.5, 0.2, 0.1, 0.3]
    with pytest.raises(InputError, match=f"model 3, sample 17.*{fault}"):
        function(P)


@pytest.mark.parametrize("function", [pairwise, steps])
def test_a_single_model_given_as_two_axes_is_refused(function):
    with pytest.raises(ValueError, match="shape"):
        function(models()[0])


# --- geodesics and progress


def test_interpolation_runs_along_the_great_circle():
    P, Q = models(2)
    np.testing.assert_allclose(interpolate(P, Q, 0), P, atol=1e-15)
    np.testing.assert_allclose(interpolate(P, Q, 1), Q, atol=1e-15)
    whole = np.arccos(np.sqrt(P * Q).sum(-1))
    for t in (0.1, 0.5, 0.9):
        R = interpolate(P, Q, t)
        np.testing.assert_allclose(R.sum(-1), 1, atol=1e-14)
        np.testing.assert_allclose(np.arccos(np.sqrt(P * R).sum(-1)), t * whole, atol=1e-7)
        np.testing.assert_allclose(np.arccos(np.sqrt(R * Q).sum(-1)), (1 - t) * whole, atol=1e-7)


def test_interpolation_between_equal_and_between_near_models():
    P = models(1)[0]
    np.testing.assert_allclose(interpolate(P, P, 0.3), P, atol=1e-15)
    Q = P.copy()
    Q[:, 0] *= 1 + 1e-9
    middle = interpolate(P, Q / Q.sum(-1, keepdims=True), 0.5)
    assert np.isfinite(middle).all()
    np.testing.assert_allclose(middle, P, atol=1e-9)


def slope_by_definition(p, start, end):
    """f' at t, for f(t) = d_B(p, geodesic from start to end at t), from whole arrays (N, C)."""
    r, a, b = (np.sqrt(x) for x in (p, start, end))
    g = np.arccos((a * b).sum(-1, keepdims=True))

    def slope(t):
        point = (np.sin((1 - t) * g) * a + np.sin(t * g) * b) / np.sin(g)
        velocity = g * (np.cos(t * g) * b - np.cos((1 - t) * g) * a) / np.sin(g)
        return -np.mean((r * velocity).sum(-1) / (r * point).sum(-1))

    return slope


@pytest.mark.parametrize("block_bytes", [1, 1 << 28])
def test_progress_is_the_root_of_the_slope(monkeypatch, block_bytes):
    monkeypatch.setattr(samples, "READ_BYTES", block_bytes)
    monkeypatch.setattr(samples, "CACHE_BYTES", block_bytes // 3)
    labels = labels_of()
    P = np.concatenate([trajectory(12, end=6), trajectory(5, seed=3, noise=3, end=1), models(6, 60)])
    ignorance, truth = np.full((60, 5), 0.2), np.eye(5)[labels]
    expected = []
    for p in P:
        slope = slope_by_definition(p, ignorance, truth)
        at = slope(0) >= 0
        expected.append(0 if at else brentq(slope, 0, 1 - 1e-12, xtol=1e-14))
    found = progress(P, labels)
    assert np.min(expected) == 0
    assert np.max(expected) > 0.7
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(progress_between(P, ignorance, truth), expected, rtol=0, atol=1e-10)


def test_progress_of_the_ends_and_of_what_lies_between():
    labels = labels_of()
    ignorance, truth = np.full((60, 5), 0.2), np.eye(5)[labels]
    wrong = np.eye(5)[(labels + 1) % 5]
    between = [interpolate(ignorance, truth, t) for t in (0.25, 0.5, 0.999)]
    found = progress(np.stack([ignorance, truth, wrong, *between]), labels)
    np.testing.assert_allclose(found, [0, 1, 0, 0.25, 0.5, 0.999], atol=1e-9)


def test_progress_with_zeros_stays_below_truth():
    labels = labels_of()
    P = np.eye(5)[labels][None].copy()
    P[0, 7] = np.eye(5)[(labels[7] + 1) % 5]  # one sample entirely wrong, as float16 stores it
    slope = slope_by_definition(P[0], np.full((60, 5), 0.2), np.eye(5)[labels])
    np.testing.assert_allclose(progress(P, labels), brentq(slope, 0, 1 - 1e-12, xtol=1e-14), atol=1e-10)


def test_progress_between_equal_ends_is_none():
    P = models(3)
    assert (progress_between(P, P[0], P[0]) == 0).all()
    assert (progress(np.ones((2, 9, 1)), np.zeros(9, int)) == 0).all()  # one class: ignorance is truth


@pytest.mark.parametrize("labels", [np.zeros(3, int), np.full(40, 5), np.full(40, -1), np.zeros(40)])
def test_progress_refuses_labels_that_do_not_fit(labels):
    with pytest.raises(InputError, match="labels"):
        progress(models(), labels)


# --- trajectories


def test_checkpoints_that_set_no_maximum_are_passed_over():
    P = models(6)
    s = np.array([0.1, 0.3, 0.2, 0.3, 0.5, 0.4])
    assert new_maxima(s).tolist() == [0, 1, 4]
    R = reindex(P, s, [0.1, 0.2, 0.3, 0.35, 0.5])
    for at, expected in [(0, P[0]), (2, P[1]), (4, P[4])]:
        np.testing.assert_allclose(R[at], expected, atol=1e-14)
    np.testing.assert_allclose(R[1], interpolate(P[0], P[1], 0.5), atol=1e-14)
    np.testing.assert_allclose(R[3], interpolate(P[1], P[4], 0.25), atol=1e-14)


@pytest.mark.parametrize("at", [0.05, 0.55])
def test_reindexing_beyond_the_ends_is_refused(at):
    with pytest.raises(InputError, match=r"defined at progress from 0\.1 to 0\.5"):
        reindex(models(3), [0.1, 0.3, 0.5], [0.2, at])


def test_reindexing_a_single_checkpoint():
    P = models(1)
    np.testing.assert_allclose(reindex(P, [0.3], [0.3]), P, atol=1e-15)


def test_length_adds_up_steps():
    P = trajectory(8)
    expected = 2 * sum(np.sqrt(definition(p, q)) for p, q in itertools.pairwise(P))
    np.testing.assert_allclose(riemann_length(P), expected, rtol=1e-10)
    assert riemann_length(P[:1]) == 0


def test_length_of_a_geodesic_is_root_half_of_its_fisher_length():
    # of one sample: the angle is half of the Fisher-Rao distance, and the convention is that over root two
    start, end = np.full((1, 4), 0.25), np.eye(4)[[1]]
    P = np.stack([interpolate(start, end, t) for t in np.linspace(0, 1, 2001)])
    np.testing.assert_allclose(riemann_length(P), 2 * np.arccos(0.5) / np.sqrt(2), rtol=1e-6)


def test_straightness_of_a_geodesic_and_of_a_detour():
    start, end = np.full((1, 4), 0.25), np.eye(4)[[1]]
    P = np.stack([interpolate(start, end, t) for t in np.linspace(0, 1, 2001)])
    assert straightness(P) == pytest.approx(1, abs=1e-6)
    assert straightness(P) <= 1
    # half of the way and back: the ends coincide
    assert straightness(np.concatenate([P[:1000], P[:1000][::-1]])) == 0
    assert np.isnan(straightness(P[:1]))
    P = trajectory(8)
    angles = np.arccos(np.sqrt(P[0] * P[-1]).sum(-1))
    np.testing.assert_allclose(straightness(P), np.sqrt(2 * np.mean(angles**2)) / riemann_length(P), rtol=1e-9)


# The three square roots that published code forgets; each test fails without its square root.


NEAR, FAR = np.array([[0.9, 0.1]]), np.array([[0.5, 0.5]])
APART = -np.log(np.sqrt(0.45) + np.sqrt(0.05))  # their distance; without square roots it is -log(1/2)


def test_square_root_in_the_comparison_of_trajectories():
    tasks = {"a": [np.stack([NEAR, NEAR])], "b": [np.stack([FAR, FAR])]}
    found = compare(tasks, {"a": [np.array([0, 1.0])], "b": [np.array([0, 1.0])]}, np.array([0, 0.5, 1])).distances
    np.testing.assert_allclose(found["a", "b"], APART)


def test_square_root_in_the_length():
    np.testing.assert_allclose(riemann_length(np.stack([NEAR, FAR, NEAR])), 4 * np.sqrt(APART))
    assert riemann_length(np.stack([FAR, FAR])) == 0


def test_square_root_in_the_interpolation():
    # halfway between (1, 0) and (0, 1) along the sphere lies (1/2, 1/2); on a sphere of p itself the point that
    # is a fifth of the way would be another one
    P, Q = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    t = 0.2
    np.testing.assert_allclose(interpolate(P, Q, t), [[np.cos(t * np.pi / 2) ** 2, np.sin(t * np.pi / 2) ** 2]])
    angle = np.array([np.arctan2(np.sqrt(p[0, 1]), np.sqrt(p[0, 0])) for p in (NEAR, FAR)])
    between = angle[0] + t * (angle[1] - angle[0])
    np.testing.assert_allclose(interpolate(NEAR, FAR, t), [[np.cos(between) ** 2, np.sin(between) ** 2]])


@pytest.mark.parametrize("mean", ["arithmetic", "chordal", "geometric"])
def test_comparison_equals_the_definition(monkeypatch, mean):
    monkeypatch.setattr(samples, "CACHE_BYTES", 1)
    labels = labels_of()
    tasks = {
        "a": [trajectory(9, seed=0), trajectory(12, seed=1)],
        "b": [trajectory(9, seed=2, end=6), trajectory(7, seed=3, end=6), trajectory(9, seed=4, end=6)],
        "c": [trajectory(9, seed=5, end=3)],
    }
    at = {task: [progress(P, labels) for P in runs] for task, runs in tasks.items()}
    flat = [p for runs in at.values() for p in runs]
    start, end = common_range(flat, [str(i) for i in range(6)])
    assert start == max(p[0] for p in flat)
    assert end == min(p.max() for p in flat)
    grid = np.linspace(start, end, 6)
    found = compare(tasks, at, grid, mean).distances
    assert set(found) == {("a", "a"), ("a", "b"), ("a", "c"), ("b", "b"), ("b", "c")}
    R = {task: [reindex(P, p, grid) for P, p in zip(tasks[task], at[task], strict=True)] for task in tasks}

    def average(runs):
        if mean == "arithmetic":
            return np.mean(runs, axis=0)
        q = np.mean(np.sqrt(runs), axis=0) ** 2 if mean == "chordal" else np.exp(np.mean(np.log(runs), axis=0))
        return q / q.sum(-1, keepdims=True)

    for i in range(len(grid)):
        for a, b in (("a", "b"), ("a", "c"), ("b", "c")):
            expected = definition(average(R[a])[i], average(R[b])[i])
            np.testing.assert_allclose(found[a, b][i], expected, rtol=1e-9)
        for task in "ab":
            between = [definition(r[i], s[i]) for r, s in itertools.combinations(R[task], 2)]
            np.testing.assert_allclose(found[task, task][i], np.mean(between), rtol=1e-9)

    # without a seed: as if its runs were not there, for pairs that have the same seeds, two or more
    seeds = {"a": [0, 7], "b": [0, 1, 7], "c": [3]}
    without = compare(tasks, at, grid, mean, seeds=seeds).without
    assert {s: set(pairs) for s, pairs in without.items()} == {
        s: {("b", "b")} if s != 3 else set() for s in (0, 1, 3, 7)
    }
    seeds, pair = {"a": [4, 0], "b": [0, 4]}, {"a": tasks["a"], "b": tasks["b"][:2]}
    without = compare(pair, {t: at[t][:2] for t in "ab"}, grid, mean, seeds=seeds).without
    assert {s: set(pairs) for s, pairs in without.items()} == {0: {("a", "b")}, 4: {("a", "b")}}
    for left, a, b in ((0, 0, 1), (4, 1, 0)):  # the runs that are kept
        rest = {"a": [tasks["a"][a]], "b": [tasks["b"][b]]}, {"a": [at["a"][a]], "b": [at["b"][b]]}
        expected = compare(*rest, grid, mean).distances["a", "b"]
        np.testing.assert_allclose(without[left]["a", "b"], expected, rtol=1e-9)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(0).normal(size=(6, 3))
    without = [np.delete(x, i, axis=0).mean(axis=0) for i in range(6)]
    np.testing.assert_allclose(jackknife(without), x.std(axis=0, ddof=1) / np.sqrt(6), rtol=1e-12)
    assert jackknife(without[:1]) is None
    assert jackknife([]) is None
    errors = errors_of({0: {"p": 1.0, "q": 2.0}, 1: {"p": 4.0}})
    assert errors == {"p": 1.5}


def frechet_by_recursion(D):
    @cache
    def reach(i, j):
        ways = [reach(a, b) for a, b in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if a >= 0 and b >= 0]
        return max(D[i, j], min(ways)) if ways else D[i, j]

    return reach(D.shape[0] - 1, D.shape[1] - 1)


def test_frechet_and_nearest_point_distances():
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 6), (5, 1), (7, 9)):
        D = rng.random(shape)
        assert frechet(D) == frechet_by_recursion(D) == frechet(D.T)
        ways = [min(row) for row in D], [min(column) for column in D.T]
        assert nearest_point(D) == pytest.approx((np.mean(ways[0]) + np.mean(ways[1])) / 2)
    # two parallel lines, one of them with a peak
    points = np.array([[0, 0], [1, 0], [2, 3], [3, 0]]), np.array([[0, 1], [1, 1], [2, 1], [3, 1]])
    D = ((points[0][:, None] - points[1][None]) ** 2).sum(-1)
    assert (frechet(D), nearest_point(D)) == (4, (7 / 4 + 1) / 2 + 1 / 8)


def test_separations_equal_the_definition():
    labels = labels_of()
    tasks = {"a": [trajectory(9, seed=s) for s in range(3)], "b": [trajectory(9, seed=5, end=6)]}
    at = {task: [progress(P, labels) for P in runs] for task, runs in tasks.items()}
    grid = np.linspace(*common_range([p for runs in at.values() for p in runs], "0123"), 5)
    frechets, nearest = separations(tasks, at, grid)
    R = {task: [reindex(P, p, grid) for P, p in zip(tasks[task], at[task], strict=True)] for task in tasks}
    D = cross(np.mean(R["a"], axis=0), R["b"][0])
    assert set(frechets) == set(nearest) == {("a", "a"), ("a", "b")}
    assert frechets["a", "b"] == pytest.approx(frechet(D), rel=1e-9)
    assert nearest["a", "b"] == pytest.approx(nearest_point(D), rel=1e-9)
    seeds = [cross(r, s) for r, s in itertools.combinations(R["a"], 2)]
    assert frechets["a", "a"] == pytest.approx(np.mean([frechet(D) for D in seeds]), rel=1e-9)
    assert nearest["a", "a"] == pytest.approx(np.mean([nearest_point(D) for D in seeds]), rel=1e-9)


def test_means_of_one_model_and_of_zeros():
    roots = np.sqrt(models(1))
    for kind in ("arithmetic", "chordal", "geometric"):
        np.testing.assert_allclose(mean_of_roots(roots, kind), roots[0], atol=1e-3 if kind == "geometric" else 1e-15)
    apart = np.sqrt(np.eye(2))[:, None]
    for kind in ("arithmetic", "chordal", "geometric"):
        np.testing.assert_allclose(mean_of_roots(apart, kind) ** 2, [[0.5, 0.5]])


def test_an_empty_common_range_names_the_run():
    with pytest.raises(InputError, match=r"slow: its progress, at most 0\.2.*late begins"):
        common_range([np.array([0.1, 0.2]), np.array([0.3, 0.6])], ["slow", "late"])


def test_accuracy_and_standard_error():
    P = np.eye(5)[[labels_of(), (labels_of() + 1) % 5]]
    P[0, :15] = np.roll(P[0, :15], 1, axis=-1)
    np.testing.assert_allclose(accuracy(P, labels_of()), [0.75, 0])
    mean, error = mean_and_error([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert error == pytest.approx(np.sqrt(7 / 9))  # variance 7/3 with n - 1, over 3
    assert mean_and_error([2.0]) == (2.0, None)


# --- embedding


def signed_squares(x, eigenvalues):
    return np.einsum("abk,k->ab", (x[:, None] - x[None]) ** 2, np.sign(eigenvalues))


def test_all_coordinates_give_back_every_distance():
    D = pairwise(models(60, 30, 6, concentration=0.2))
    inpca = InPCA(None).fit(D)
    assert (inpca.eigenvalues_ < -1e-3).any(), "the case is to have imaginary coordinates"
    assert (inpca.imaginary_ == (inpca.eigenvalues_ < 0))[:50].all()
    assert (np.diff(np.abs(inpca.eigenvalues_)) <= 0).all()
    np.testing.assert_allclose(signed_squares(inpca.embedding_, inpca.eigenvalues_), D, atol=1e-9)
    np.testing.assert_allclose(InPCA(60).fit_transform(D), inpca.embedding_)


def test_eigenvalues_and_explained_stress_equal_the_definition():
    D = pairwise(models(25))
    L = np.eye(25) - np.ones((25, 25)) / 25
    values = np.linalg.eigvalsh(-0.5 * L @ D @ L)
    values = values[np.argsort(-np.abs(values))]
    inpca = InPCA(4).fit(D)
    np.testing.assert_allclose(inpca.eigenvalues_, values[:4], atol=1e-12)
    share = np.cumsum(values**2)[:4] / np.sum(values**2)
    np.testing.assert_allclose(inpca.explained_stress_, 1 - np.sqrt(1 - share), atol=1e-12)


def test_real_coordinates_are_those_of_classical_scaling():
    D = pairwise(models(30, 50, 4, concentration=2))
    inpca = InPCA(3).fit(D)
    assert (inpca.eigenvalues_ > 0).all()
    oracle = ClassicalMDS(n_components=3, metric="precomputed").fit_transform(np.sqrt(D))
    np.testing.assert_allclose(np.abs(inpca.embedding_), np.abs(oracle), atol=1e-9)


def test_signs_are_fixed():
    x = InPCA(5).fit_transform(pairwise(models(20)))
    assert (x[np.abs(x).argmax(axis=0), np.arange(5)] > 0).all()


def test_fitted_models_land_on_their_own_coordinates():
    P = models(40, 30, 6, concentration=0.2)
    D = pairwise(P)
    inpca = InPCA(None).fit(D)
    np.testing.assert_allclose(inpca.transform(D), inpca.embedding_, atol=1e-9)
    np.testing.assert_allclose(inpca.transform(D[3:4]), inpca.embedding_[3:4], atol=1e-9)
    by_predictions = InPCA(4).fit(P)
    np.testing.assert_allclose(by_predictions.embedding_, inpca.embedding_[:, :4], atol=1e-12)
    np.testing.assert_allclose(by_predictions.transform(P[5:9]), inpca.embedding_[5:9, :4], atol=1e-9)


def test_a_new_model_lands_where_its_distances_are():
    # points of a plane, given by their distances: a new point lands where the plane has it
    points = np.random.default_rng(0).normal(size=(12, 2))
    squared = ((points[:, None] - points[None]) ** 2).sum(-1)
    inpca = InPCA(2).fit(squared[:11, :11])
    new = inpca.transform(squared[11:, :11])
    np.testing.assert_allclose(((inpca.embedding_ - new) ** 2).sum(-1), squared[11, :11], atol=1e-10)


def test_equal_weights_are_none_and_whole_numbers_repeat_models():
    P = models(12, 30, 6, concentration=0.2)
    D = pairwise(P)
    plain, equal = InPCA(None).fit(D), InPCA(None).fit(D, sample_weight=np.full(12, 7.0))
    np.testing.assert_allclose(equal.eigenvalues_, plain.eigenvalues_ / 12, atol=1e-14)
    np.testing.assert_allclose(equal.embedding_, plain.embedding_, atol=1e-7)
    np.testing.assert_allclose(equal.explained_stress_, plain.explained_stress_, atol=1e-12)
    times = np.array([1, 3, 1, 2, 1, 1, 5, 1, 1, 1, 2, 1])
    weighted = InPCA(4).fit(D, sample_weight=times)
    repeated = InPCA(4).fit(np.repeat(np.repeat(D, times, axis=0), times, axis=1))
    first = np.r_[0, np.cumsum(times)[:-1]]
    np.testing.assert_allclose(weighted.embedding_, repeated.embedding_[first], atol=1e-9)
    np.testing.assert_allclose(weighted.explained_stress_, repeated.explained_stress_, atol=1e-12)
    new = cross(models(3, 30, 6, seed=5), P)
    np.testing.assert_allclose(weighted.transform(new), repeated.transform(np.repeat(new, times, axis=1)), atol=1e-9)


def test_weighted_coordinates_give_back_distances_and_fitted_models():
    D = pairwise(models(20, 30, 6, concentration=0.2))
    weights = np.random.default_rng(0).uniform(0.1, 3, 20)
    inpca = InPCA(None).fit(D, sample_weight=weights)
    np.testing.assert_allclose(signed_squares(inpca.embedding_, inpca.eigenvalues_), D, atol=1e-9)
    np.testing.assert_allclose(inpca.transform(D), inpca.embedding_, atol=1e-9)
    np.testing.assert_allclose(weights @ inpca.embedding_, 0, atol=1e-9)


@pytest.mark.parametrize("weights", [np.ones(6), np.zeros(7), -np.ones(7), np.full(7, np.nan)])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(InputError, match="7 positive weights"):
        InPCA().fit(pairwise(models()), sample_weight=weights)


def test_leading_eigenpairs_are_those_of_the_full_decomposition(monkeypatch):
    # models along 40 trajectories, as in a picture: eigenvalues of both signs that fall off quickly
    D = pairwise(np.concatenate([trajectory(10, 30, seed=s, noise=3) for s in range(40)]))
    monkeypatch.setattr(inpca, "FULL_BELOW", len(D) + 1)
    full = InPCA(8).fit(D)
    monkeypatch.setattr(inpca, "FULL_BELOW", 0)
    leading = InPCA(8).fit(D)
    assert not (leading.embedding_ == full.embedding_).all(), "the case is to take the other way"
    np.testing.assert_allclose(leading.eigenvalues_, full.eigenvalues_, rtol=1e-10)
    np.testing.assert_allclose(leading.embedding_, full.embedding_, atol=1e-8)
    np.testing.assert_allclose(leading.explained_stress_, full.explained_stress_, atol=1e-12)
    np.testing.assert_array_equal(leading.embedding_, InPCA(8).fit_transform(D))


def test_few_and_equal_models():
    one = InPCA(3).fit(np.zeros((1, 1)))
    assert one.embedding_.tolist() == [[0.0]]
    assert one.explained_stress_.tolist() == [1.0]
    equal = InPCA(3).fit(pairwise(np.repeat(models(1), 4, axis=0)))
    assert (equal.embedding_ == 0).all()
    many = InPCA(3).fit(np.zeros((1200, 1200)))
    assert (many.embedding_ == 0).all()
    two = InPCA(3).fit(np.array([[0, 0.5], [0.5, 0]]))
    np.testing.assert_allclose(two.eigenvalues_, [0.25, 0], atol=1e-15)
    assert np.isfinite(two.embedding_).all()
    assert not two.imaginary_.any(), "what rounding leaves of zero is no coordinate"
    assert InPCA(3).fit([[0, 0.5], [0.5, 0]]).embedding_.tolist() == two.embedding_.tolist()


@pytest.mark.parametrize(
    "D", [np.ones((2, 3)), np.full((2, 2), np.nan), np.array([[0, 1], [2, 0.0]]), np.ones((2, 2)), np.zeros((0, 0))]
)
def test_what_is_no_matrix_of_distances_is_refused(D):
    with pytest.raises(InputError):
        InPCA().fit(D)


def test_distances_to_other_models_are_refused():
    inpca = InPCA().fit(pairwise(models()))
    with pytest.raises(InputError, match=r"\(K, 7\)"):
        inpca.transform(np.zeros((2, 6)))


@pytest.mark.parametrize(
    ("name", "stress"),
    [
        ("imagenet_inpca", [0.48283, 0.64308, 0.71191]),
        ("fig_1a", [0.66513, 0.75194, 0.80027]),
        ("fig_wordnet", [0.63800, 0.74754, 0.78730]),
    ],
)
def test_explained_stress_of_published_eigenvalues(shared, name, stress):
    with np.load(shared / f"published_{name}.npz", allow_pickle=False) as published:
        values = published["eigen_values"]
    np.testing.assert_allclose(inpca.explained_stress(values[:3], np.sum(values**2)), stress, atol=5e-6)


def test_geodesic_angles_keep_small_ones():
    r = np.array([[1.0, 0.0]])
    s = np.array([[np.cos(1e-9), np.sin(1e-9)]])
    np.testing.assert_allclose(geodesic.angles(r, s), 1e-9, rtol=1e-9)


# --- degenerate predictions, whose values follow from the definitions on paper


def test_distances_of_corners_of_the_simplex():
    """With C = 4: d_B is -log of the sum of sqrt(p q), at least 1e-6."""
    uniform, truth, other = np.full(4, 0.25), np.eye(4)[2], np.eye(4)[0]
    rest = (1 - truth) / 3  # anti-truth: anything but the right class
    P = np.stack([uniform, truth, other, rest])[:, None]
    floor = -np.log(1e-6)
    expected = [
        [0, np.log(4) / 2, np.log(4) / 2, np.log(4 / 3) / 2],
        [np.log(4) / 2, 0, floor, floor],
        [np.log(4) / 2, floor, 0, np.log(3) / 2],
        [np.log(4 / 3) / 2, floor, np.log(3) / 2, 0],
    ]
    for dtype in (np.float16, np.float32, np.float64):
        with pytest.warns(FloorWarning, match="2 of 6 affinities were below the floor"):
            found = pairwise(P.astype(dtype))
        # thirds are rounded to 11 bits in float16
        np.testing.assert_allclose(found, expected, atol=1e-6 if dtype != np.float16 else 1e-4)


def test_progress_of_anti_truth_is_none():
    """Where the true class has no probability, the affinity with the geodesic falls from ignorance on."""
    truth = np.eye(4)[[2]]
    P = np.stack([np.full((1, 4), 0.25), truth, (1 - truth) / 3, np.eye(4)[[0]]])
    assert progress(P, np.array([2])).tolist() == [0, 1, 0, 0]


def test_subnormal_probabilities_are_distances_of_half_themselves():
    """-log sqrt(1 - e) = e / 2 + O(e^2)."""
    for e in (1e-310, 5e-324, 2.0**-24):  # the last is float16's smallest
        P = np.array([[[1 - e, e]], [[1, 0]]])
        np.testing.assert_allclose(pairwise(P, dtype=np.float64)[0, 1], e / 2, rtol=1e-7, atol=1e-16)
    half = np.array([[[1, 2.0**-24]], [[1, 0]]], dtype=np.float16)  # 1 - 2^-24 is 1 there: the row is normalised
    np.testing.assert_allclose(pairwise(half, dtype=np.float64)[0, 1], 2.0**-25, rtol=1e-6)


def test_one_class_is_a_single_point():
    P = np.ones((3, 5, 1))
    assert (pairwise(P) == 0).all()
    assert (progress(P, np.zeros(5, int)) == 0).all()
    assert (InPCA().fit(P).embedding_ == 0).all()
    assert riemann_length(P) == 0


def test_one_sample_and_two_models():
    """D = [[0, d], [d, 0]] has the eigenvalue d / 2, and coordinates half a root of d to either side."""
    P = np.array([[[0.5, 0.5]], [[1.0, 0.0]]])
    d = np.log(2) / 2
    inpca = InPCA(2).fit(P)
    np.testing.assert_allclose(inpca.eigenvalues_, [d / 2, 0], atol=1e-15)
    np.testing.assert_allclose(np.abs(inpca.embedding_), [[np.sqrt(d) / 2, 0]] * 2, atol=1e-8)
    np.testing.assert_allclose(inpca.explained_stress_, 1, atol=1e-7)  # a root of rounding
    np.testing.assert_allclose(riemann_length(P), 2 * np.sqrt(d), rtol=1e-12)


def test_equal_models_are_one_point():
    P = np.repeat(models(1), 4, axis=0)
    assert (pairwise(P) == 0).all()
    assert riemann_length(P) == 0
    inpca = InPCA(2).fit(P)
    assert (inpca.embedding_ == 0).all()
    assert inpca.explained_stress_.tolist() == [1, 1]
    np.testing.assert_array_equal(inpca.transform(P), inpca.embedding_)
