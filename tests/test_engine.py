"""The engine under the distances: precision, memory, divergences, landmarks, bootstrap, several processes."""

import subprocess
import sys

import h5py
import hdf5plugin
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, labels_of, models, trajectory, write_published
from scipy.integrate import quad

from info_geometry import affinities, bhattacharyya, bootstrap, landmarks
from info_geometry.affinities import GraphicsEngine
from info_geometry.bhattacharyya import FloorWarning, aligned, cross, pairwise
from info_geometry.divergences import DIVERGENCES
from info_geometry.geodesic import progress
from info_geometry.inpca import InPCA
from info_geometry.predictions import Models, read
from info_geometry.script import InputError, Unfinished
from info_geometry.trajectory import compare, intervals, measure, riemann_length, straightness

INPCA = "info_geometry/inpca.py"


def d_b(P, Q):
    """From the definition, in float64, with the floor."""
    p, q = (np.sqrt(x / x.sum(-1, keepdims=True)) for x in (np.float64(P), np.float64(Q)))
    return -np.log(np.maximum(np.einsum("mnc,knc->mkn", p, q), 1e-6)).mean(-1)


def shifted(P, angle, seed=1):
    """Models moved by an angle on each sample's sphere, so that d_B = -log cos(angle) from their places."""
    r = np.sqrt(P)
    tangent = np.random.default_rng(seed).normal(size=r.shape)
    tangent -= (tangent * r).sum(-1, keepdims=True) * r
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
    return (np.cos(angle) * r + np.sin(angle) * tangent) ** 2


# --- products in float32


@pytest.mark.parametrize("n_classes", [1, 2, 3, 10, 33, 48, 49, 100])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_single_precision_is_exact_to_a_millionth(n_classes, dtype):
    P, Q = models(150, 45, n_classes).astype(dtype), models(67, 45, n_classes, seed=1).astype(dtype)
    found = pairwise(P, dtype=np.float32)
    assert (found == found.T).all()
    assert (np.diag(found) == 0).all()
    np.testing.assert_allclose(found, d_b(P, P), rtol=0, atol=1e-6)
    np.testing.assert_allclose(cross(P, Q, dtype=np.float32), d_b(P, Q), rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_classes", [10, 50])
@pytest.mark.parametrize("angle", [0.04, 1e-2, 1e-3, 1.5e-4])
def test_near_models_keep_their_digits_in_single_precision(n_classes, angle):
    P = models(70, 60, n_classes, concentration=3)
    both = np.concatenate([P, shifted(P, angle)])
    expected = -np.log1p(-2 * np.sin(angle / 2) ** 2)
    assert 1e-8 < expected < 1e-3
    # products in float32 are rounded by 1e-7 of one, differences by as much of themselves
    near = np.diag(pairwise(both, dtype=np.float32)[:70, 70:])
    np.testing.assert_allclose(near, expected, rtol=1e-6)
    np.testing.assert_allclose(np.diag(cross(both[:70], both[70:], dtype=np.float32)), expected, rtol=1e-6)
    np.testing.assert_allclose(cross(both, both, dtype=np.float32), pairwise(both, dtype=np.float32), rtol=1e-5)


def test_near_models_with_a_sample_far_apart():
    # h > 1/2 on one sample of a thousand, where 1 - h would lose the digits of the affinity
    P = models(3, 20000, 4, concentration=3)
    Q = P.copy()
    Q[:, 0], P[:, 0] = [1, 0, 0, 0], [1e-3, 0.999, 0, 0]
    found = np.diag(pairwise(np.concatenate([P, Q]), dtype=np.float32)[:3, 3:])
    np.testing.assert_allclose(found, -np.log(np.sqrt(1e-3)) / 20000, rtol=1e-9)


def test_equal_models_are_at_no_distance_in_single_precision():
    P = np.repeat(models(5, 40, 10), 30, axis=0)
    same = np.repeat(np.arange(5), 30)
    assert (pairwise(P, dtype=np.float32)[same[:, None] == same] == 0).all()


@pytest.mark.parametrize("n_classes", [3, 40])
def test_affinities_below_the_floor_are_counted_in_single_precision(n_classes):
    P = models(140, 30, n_classes, concentration=0.02).astype(np.float16)
    with pytest.warns(FloorWarning) as double:
        pairwise(P, dtype=np.float64)
    with pytest.warns(FloorWarning) as single:
        pairwise(P, dtype=np.float32)
    assert str(single[0].message) == str(double[0].message)
    with pytest.warns(FloorWarning) as double:
        cross(P, P[:70], dtype=np.float64)
    with pytest.warns(FloorWarning) as single:
        cross(P, P[:70], dtype=np.float32)
    assert str(single[0].message) == str(double[0].message)


@pytest.mark.filterwarnings("ignore::info_geometry.bhattacharyya.FloorWarning")
@pytest.mark.parametrize("n_classes", [2, 40])
def test_no_product_underflows_in_single_precision(n_classes):
    P = np.eye(n_classes)[np.stack([np.zeros(400, int), np.ones(400, int)])]
    for floor in (1e-6, 1e-9):
        found = pairwise(P, floor=floor, dtype=np.float32)
        np.testing.assert_allclose(found, -np.log(floor) * (1 - np.eye(2)), rtol=1e-6)


@pytest.mark.parametrize("n_classes", [10, 50])
@pytest.mark.parametrize("fault", [np.nan, -0.1, 0.9])
def test_what_is_no_probability_is_named_in_single_precision(n_classes, fault):
    P = models(140, 90, n_classes).astype(np.float32)
    P[130, 77, :2] = fault
    with pytest.raises(InputError, match="model 130, sample 77"):
        pairwise(P, dtype=np.float32)
    with pytest.raises(InputError, match="model 130, sample 77"):
        pairwise(P, dtype=np.float32, groups=bootstrap.Groups(90, 140))


@pytest.mark.parametrize("n_classes", [10, 50])
def test_blocks_and_threads_change_nothing(monkeypatch, n_classes):
    P = models(140, 300, n_classes)
    expected = d_b(P, P)
    threads = torch.get_num_threads()
    for dtype in (np.float64, np.float32):
        found = pairwise(P, dtype=dtype)
        torch.set_num_threads(1)
        np.testing.assert_array_equal(pairwise(P, dtype=dtype), found)
        torch.set_num_threads(threads)
    for kind in (affinities.Engine, affinities.CompiledEngine):
        monkeypatch.setattr(kind, "block_bytes", 100_000)
    monkeypatch.setattr(affinities.Engine, "product_bytes", 5_000)
    monkeypatch.setattr(affinities.CompiledEngine, "height", 70)
    monkeypatch.setattr(affinities.CompiledEngine, "width", 70)
    np.testing.assert_allclose(pairwise(P, dtype=np.float32), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(pairwise(P, dtype=np.float64), expected, rtol=0, atol=1e-13)


def test_precision_goes_with_size():
    d = DIVERGENCES["bhattacharyya"]
    assert affinities.precision(1000, 1000, 10, d, 1e-6) == np.float64
    assert affinities.precision(10**6, 1000, 10, d, 1e-6) == np.float32
    assert affinities.precision(10**6, 1000, 10, d, 1e-12) == np.float64
    assert affinities.precision(10**6, 1000, 10, DIVERGENCES["kl"], 1e-6) == np.float64
    P = models()
    for how in ({"dtype": np.float16}, {"divergence": "kl"}, {"floor": 1e-12}):
        with pytest.raises(ValueError, match="dtype must be float64"):
            pairwise(P, **{"dtype": np.float32, **how})


def test_many_fitted_predictions_land_on_their_own_coordinates(monkeypatch):
    monkeypatch.setattr(affinities, "SMALL", 0)
    P = models(150, 60, 10, concentration=0.2)
    inpca = InPCA(4).fit(P)
    np.testing.assert_allclose(inpca.transform(P[5:9]), inpca.embedding_[5:9], atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_steps_of_the_gpu_make_the_same(monkeypatch, dtype):
    # all of them but the copies, on the processor
    P, Q = models(80, 50, 7), models(30, 50, 7, seed=1)
    monkeypatch.setattr(bhattacharyya, "engine_for", lambda *of: GraphicsEngine(*of[:4]))
    groups = bootstrap.Groups(50, 80)
    found = pairwise(P, dtype=dtype, groups=groups)
    np.testing.assert_allclose(found, d_b(P, P), rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.triu(groups.sums.sum(axis=0), 1) / 50, np.triu(found, 1), rtol=1e-5)
    np.testing.assert_allclose(cross(P, Q, dtype=dtype), d_b(P, Q), rtol=0, atol=1e-6)
    P[70, 44] *= 0.9
    with pytest.raises(InputError, match="model 70, sample 44"):
        pairwise(P, dtype=dtype)


# --- where the result goes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_result_can_be_a_memory_map(tmp_path, dtype):
    P = models(90, 40, 6)
    out = np.memmap(tmp_path / "distances", dtype, "w+", shape=(90, 90))
    out[:] = 7
    assert pairwise(P, out=out) is out
    np.testing.assert_allclose(out, d_b(P, P), rtol=0, atol=1e-6)
    single, double = InPCA(3).fit(out), InPCA(3).fit(d_b(P, P))
    np.testing.assert_allclose(single.explained_stress_, double.explained_stress_, atol=1e-5)
    with pytest.raises(ValueError, match="out of shape"):
        pairwise(P, out=np.zeros((90, 89)))


@pytest.mark.parametrize("place", [(500, 500), (2, 500), (500, 2)])
def test_a_distance_that_is_not_finite_is_found(place):
    D = np.ones((600, 600)) - np.eye(600)
    D[place] = np.nan
    with pytest.raises(InputError, match=rf"{min(place)} and {max(place)} is not finite"):
        InPCA(3).fit(D)


def test_single_distances_are_embedded_without_a_copy_in_double(monkeypatch):
    D = pairwise(models(400, 30, 5))
    monkeypatch.setattr("info_geometry.inpca.FULL_BELOW", 0)
    found, expected = InPCA(3).fit(D.astype(np.float32)), InPCA(3).fit(D)
    np.testing.assert_allclose(found.eigenvalues_, expected.eigenvalues_, rtol=1e-5)
    np.testing.assert_allclose(found.explained_stress_, expected.explained_stress_, atol=1e-5)


def test_a_matrix_larger_than_memory_is_refused_beforehand(folders, refused, monkeypatch):
    monkeypatch.setattr(bhattacharyya, "available_memory", lambda: 5000)
    sentence = refused(INPCA, *folders)
    assert "36 x 36 distances take 0.0 GiB" in sentence
    assert "--landmarks" in sentence


def test_memory_does_not_grow_with_the_samples(tmp_path):
    peaks = []
    for n_samples in (4000, 40000):
        path = tmp_path / str(n_samples) / "toy_a" / "preds_0.h5"
        path.parent.mkdir(parents=True)
        with h5py.File(path, "w") as file:
            shape, chunks = (120, n_samples, 100), (1, 327, 100)
            data = file.create_dataset("data", shape, np.float16, chunks=chunks, **hdf5plugin.LZ4())
            for t, p in enumerate(models(1, 120, 100)[0]):
                data[t] = np.broadcast_to(p, (n_samples, 100))
        code = (
            "import sys; sys.path.insert(0, sys.argv[2])\n"
            "from info_geometry.predictions import Trajectory\n"
            "from info_geometry.bhattacharyya import pairwise\n"
            "import numpy as np\n"
            "pairwise(Trajectory(sys.argv[1]), dtype=np.float32)\n"
            # not ru_maxrss, which begins with that of the process that started this one
            "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
        )
        command = [sys.executable, "-c", code, path, REPOSITORY]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.1 * peaks[0], peaks


class Always(Unfinished):
    """Due for every block, and stopped at one of them."""

    blocks = stop = 0

    def due(self):
        self.blocks += 1
        if self.blocks == self.stop:
            raise KeyboardInterrupt
        return True


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_stopped_job_goes_on_from_the_blocks_done(monkeypatch, tmp_path, dtype):
    monkeypatch.setattr(affinities.Engine, "block_bytes", 40_000)
    monkeypatch.setattr(affinities.CompiledEngine, "block_bytes", 40_000)
    monkeypatch.setattr(Always, "stop", 6)
    P = models(50, 300, 4, concentration=0.05)
    groups = bootstrap.Groups(300, 50)
    with pytest.warns(FloorWarning) as warned:
        expected = pairwise(P, dtype=dtype, groups=groups)
    path = tmp_path / "x.npz"
    again = bootstrap.Groups(300, 50)
    with pytest.raises(KeyboardInterrupt):
        pairwise(P, dtype=dtype, groups=again, unfinished=Always(path, "same"))
    read = []
    monkeypatch.setattr(bhattacharyya, "read_blocks", counted(bhattacharyya.read_blocks, read))
    monkeypatch.setattr(Always, "stop", 10**6)
    unfinished, again = Always(path, "same"), bootstrap.Groups(300, 50)
    with pytest.warns(FloorWarning) as warned_again:
        found = pairwise(P, dtype=dtype, groups=again, unfinished=unfinished)
    assert read[0] > 0
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(again.sums, groups.sums)
    assert str(warned_again[0].message) == str(warned[0].message)
    assert not Unfinished(path, "other").load(), "what another job left is not taken up"
    unfinished.remove()
    assert not list(tmp_path.iterdir())


def counted(read_blocks, read):
    def counting(*stacks, **how):
        for n, blocks in read_blocks(*stacks, **how):
            read.append(n)
            yield n, blocks

    return counting


# --- divergences


def hellinger(p, q):
    return np.mean(
        [sum((np.sqrt(a) - np.sqrt(b)) ** 2 for a, b in zip(x, y, strict=True)) / 2 for x, y in zip(p, q, strict=True)]
    )


def kl(p, q):
    return np.mean(np.sum(p * np.log(p / q) + q * np.log(q / p), axis=-1))


def geodesic(p, q):
    return np.mean((2 * np.arccos(np.sqrt(p * q).sum(-1))) ** 2)


@pytest.mark.parametrize("definition", [hellinger, kl, geodesic])
def test_divergences_equal_their_definitions(definition):
    name = definition.__name__
    P, Q = models(90, 30, 5, concentration=3), models(9, 30, 5, seed=1, concentration=3)
    expected = [[definition(p, q) for q in Q] for p in P]
    np.testing.assert_allclose(cross(P, Q, divergence=name), expected, rtol=1e-10)
    np.testing.assert_allclose(aligned(P[:9], Q, divergence=name), np.diag(expected), rtol=1e-10)
    D = pairwise(P, divergence=name)
    others = [[definition(p, q) if i != j else 0 for j, q in enumerate(P[:9])] for i, p in enumerate(P)]
    np.testing.assert_allclose(D[:, :9], others, rtol=1e-10, atol=1e-14)
    assert (np.diag(D) == 0).all()
    assert (aligned(P, P, divergence=name) == 0).all()


@pytest.mark.parametrize(
    ("name", "times"), [("bhattacharyya", 1 / 2), ("hellinger", 1 / 2), ("kl", 4), ("geodesic", 4)]
)
def test_divergences_of_near_models_are_multiples_of_the_line_element(name, times):
    # the square of the angle is a quarter of ds^2
    P = models(1, 50, 4, concentration=30)
    for angle in (1e-3, 1e-5):
        found = aligned(P, shifted(P, angle), divergence=name)
        np.testing.assert_allclose(found, times * angle**2, rtol=5e-3)


def test_hellinger_has_real_coordinates_only():
    inpca = InPCA(None).fit(pairwise(models(60, 30, 6, concentration=0.2), divergence="hellinger"))
    assert not inpca.imaginary_.any()
    assert (InPCA(None).fit(pairwise(models(60, 30, 6, concentration=0.2))).imaginary_).any(), "where d_B has others"


def test_kl_has_its_finite_embedding():
    # one sample of three classes: no more than three coordinates of either kind, though there are forty models
    P = models(40, 1, 3, concentration=2)
    D = pairwise(P, divergence="kl")
    values = InPCA(None).fit(D).eigenvalues_
    large = np.abs(values) > 1e-9 * np.abs(values).max()
    assert (values[large] > 0).sum() <= 3
    assert (values[large] < 0).sum() <= 3
    x, y = (P[:, 0] + np.log(P[:, 0])) / 2, (P[:, 0] - np.log(P[:, 0])) / 2
    real, imaginary = (((z[:, None] - z) ** 2).sum(-1) for z in (x, y))
    np.testing.assert_allclose(real - imaginary, D, atol=1e-12)


def test_kl_has_a_floor_under_probabilities():
    P = np.eye(3)[[[0], [1]]]
    found = pairwise(P, divergence="kl")[0, 1]
    np.testing.assert_allclose(found, 2 * (1 - 2.0**-25) * 25 * np.log(2))
    np.testing.assert_allclose(pairwise(P, divergence="kl", floor=1e-3)[0, 1], 2 * 0.999 * np.log(1e3))


def test_divergences_go_through_the_script(folders, call, refused):
    status, out, err = call(INPCA, *folders, "--divergence", "hellinger")
    assert (status, err) == (0, "")
    with np.load(folders[0].parent / "embedding" / "toy_inpca_hellinger.npz", allow_pickle=False) as found:
        P = Models(read(folders))
        np.testing.assert_array_equal(found["distances"], pairwise(P, divergence="hellinger"))
    assert "explained_stress_hellinger.png" in out
    assert "did you mean hellinger?" in refused(INPCA, *folders, "--divergence", "helinger")
    for device in ("gpu", "meta", "cuda:x", "cuda:99"):
        assert f"no device {device} here" in refused(INPCA, *folders, "--device", device)
    assert "--components must be 1 or more" in refused(INPCA, *folders, "--components", 0)
    assert "--landmarks must be 2 or more" in refused(INPCA, *folders, "--landmarks", 0)
    assert "--bootstrap must be 20 or more" in refused(INPCA, *folders, "--bootstrap", 1)


@pytest.mark.parametrize(("name", "floor"), [("bhattacharyya", -1), ("bhattacharyya", np.nan), ("kl", 0), ("kl", 2)])
def test_floors_that_are_none_are_refused(name, floor):
    P = models()
    for distances in (pairwise, lambda P, **how: aligned(P, P, **how)):
        with pytest.raises(ValueError, match="floor"):
            distances(P, divergence=name, floor=floor)


# --- several processes


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=REPOSITORY)


def test_two_processes_make_what_one_makes(tmp_path, call):
    P = np.concatenate([trajectory(60, 1500, 10, seed=s) for s in range(3)]).reshape(3, 60, 1500, 10)
    for seed in range(3):
        write_published(tmp_path / "toy_a" / f"preds_{seed}.h5", P[seed])
    done = torchrun(INPCA, tmp_path / "toy_a", "--bootstrap", 20, "--results", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("explained stress of  3") == 1
    status, _, err = call(INPCA, tmp_path / "toy_a", "--bootstrap", 20, "--results", tmp_path / "one")
    assert status == 0, err
    with np.load(tmp_path / "one" / "toy_inpca.npz") as one, np.load(tmp_path / "two" / "toy_inpca.npz") as two:
        np.testing.assert_allclose(two["distances"], one["distances"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(two["explained_stress_interval"], one["explained_stress_interval"], atol=1e-6)
    (tmp_path / "one" / "toy_distances_1.unfinished.npz").write_text("of two processes that were stopped")
    assert call(INPCA, tmp_path / "toy_a", "--results", tmp_path / "one")[0] == 0
    for place in ("one", "two"):
        assert [p.name for p in (tmp_path / place).iterdir()] == ["toy_inpca.npz"]
    with h5py.File(tmp_path / "toy_a" / "preds_1.h5", "r+") as file:
        file["data"][7, 1499] = 0.5
    done = torchrun(INPCA, tmp_path / "toy_a", "--results", tmp_path / "bad")
    assert done.returncode
    assert "inpca.py: " in done.stderr
    assert "data[7, 1499] sums to 5" in done.stderr
    assert not (tmp_path / "bad").exists()


# --- landmarks


def many_runs(n_runs=40, n_checkpoints=25):
    return [trajectory(n_checkpoints, 60, 5, seed=s, noise=2, end=3 + s % 5) for s in range(n_runs)]


def test_landmarks_along_trajectories():
    chosen, weights = landmarks.along([9, 3, 1], 6)
    assert chosen.tolist() == [0, 3, 5, 8, 9, 11, 12] or chosen.tolist() == [0, 2, 5, 8, 9, 11, 12]
    assert weights.sum() == 13
    nearest = np.abs(np.arange(9)[:, None] - chosen[:4]).argmin(axis=1)
    np.testing.assert_array_equal(weights[:4], np.bincount(nearest))


def test_farthest_first_covers():
    x = np.r_[np.zeros(5), np.ones(3), np.full(4, 10.0)]
    D = (x[:, None] - x) ** 2
    chosen, weights = landmarks.farthest_first(D, 3)
    assert sorted(x[chosen]) == [0, 1, 10]
    assert weights[np.argsort(x[chosen])].tolist() == [5, 3, 4]


@pytest.mark.parametrize("how", ["along", "farthest"])
def test_landmarks_make_nearly_the_picture_of_all(tmp_path, call, monkeypatch, how):
    for seed, P in enumerate(many_runs()):
        write_published(tmp_path / "toy_a" / f"preds_{seed}.h5", P)
    monkeypatch.setattr(landmarks, "AT_A_TIME", 300)
    assert call(INPCA, tmp_path / "toy_a", "--results", tmp_path / "full")[0] == 0
    call_of_landmarks = INPCA, tmp_path / "toy_a", "--landmarks", 200, "--choose", how
    status, _, err = call(*call_of_landmarks, "--results", tmp_path / "some")
    assert status == 0, err
    with np.load(tmp_path / "full" / "toy_inpca.npz") as full, np.load(tmp_path / "some" / "toy_inpca.npz") as some:
        assert some["embedding"].shape == full["embedding"].shape == (1000, 50)
        assert 190 <= len(some["landmarks"]) <= 210
        assert some["landmark_distances"].shape == (len(some["landmarks"]),) * 2
        x, y = full["embedding"][:, :3], some["embedding"][:, :3]
        y = y - y.mean(axis=0)
        u, _, v = np.linalg.svd(y.T @ x)
        assert np.linalg.norm(y @ (u @ v) - x) < 0.02 * np.linalg.norm(x)
        np.testing.assert_allclose(some["explained_stress"][:3], full["explained_stress"][:3], atol=0.03)


# --- bootstrap


def test_groups_are_random_and_of_equal_size():
    groups = bootstrap.Groups(1003)
    assert sorted(set(groups.sizes)) == [20, 21]
    assert groups.sizes.sum() == 1003
    assert (np.diff(groups.numbers) != 0).mean() > 0.9, "contiguous groups would be classes"
    with pytest.raises(InputError, match="takes 20 of them or more, there are 7"):
        bootstrap.Groups(7)


def test_sums_of_groups_go_to_disk_where_memory_is_short(monkeypatch, tmp_path):
    P = models(30, 200, 4)
    expected = bootstrap.Groups(200, 30)
    pairwise(P, groups=expected)
    assert isinstance(bootstrap.Groups(200, 10**3).sums, np.ndarray)
    monkeypatch.setattr(bootstrap, "available_memory", lambda: 4 * 4 * 30**2 * 30)
    fewer = bootstrap.Groups(200, 30)
    assert fewer.sums.shape == (30, 30, 30)
    assert not isinstance(fewer.sums, np.memmap)
    monkeypatch.setattr(bootstrap, "available_memory", lambda: 0)
    on_disk = bootstrap.Groups(200, 30, tmp_path)
    assert isinstance(on_disk.sums, np.memmap)
    assert len(on_disk.sums) == bootstrap.LEAST_GROUPS
    pairwise(P, groups=on_disk)
    upper = np.triu_indices(30, 1)
    np.testing.assert_allclose(on_disk.sums.sum(0)[upper], expected.sums.sum(0)[upper], rtol=1e-5)
    assert not list(tmp_path.iterdir()), "the file is gone with the process"


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sums_of_groups_are_those_of_their_samples(dtype):
    P = models(140, 200, 4)
    groups = bootstrap.Groups(200, 140)
    D = pairwise(P, dtype=dtype, groups=groups)
    np.testing.assert_allclose(D, pairwise(P), atol=1e-6)
    for group in (0, 17, 49):
        here = groups.numbers == group
        expected = np.triu(d_b(P[:, here], P[:, here]) * here.sum(), 1)
        np.testing.assert_allclose(np.triu(groups.sums[group], 1), expected, rtol=1e-5, atol=1e-6)


def test_intervals_cover_a_known_distance_as_often_as_they_say():
    # p = (cos^2, sin^2) of an angle that is uniform on [0, 1], q = (1, 0): d_B of all samples is -E log cos
    truth = quad(lambda angle: -np.log(np.cos(angle)), 0, 1)[0]
    rng = np.random.default_rng(0)
    covered = []
    for repetition in range(300):
        angle = np.sort(rng.random(400))  # sorted, as validation sets are by class
        P = np.stack([np.stack([np.cos(angle), np.sin(angle)], -1) ** 2, np.eye(2)[np.zeros(400, int)]])
        groups = bootstrap.Groups(400, 2, seed=repetition)
        D = pairwise(P, groups=groups)
        means = [mean[0, 1] for mean in bootstrap.resamples(groups.sums, groups.sizes, 200, seed=repetition)]
        low, high = bootstrap.interval(means)
        assert low < D[0, 1] < high
        covered.append(low < truth < high)
    # 95% of 300, give or take three standard deviations of 1.3%, and less 1% for the groups
    assert 0.90 < np.mean(covered) < 0.985


def test_intervals_of_explained_stress_cover_that_of_many_samples():
    def sample(n_samples, seed):
        """Four runs of six checkpoints, all from one population of samples."""
        rng = np.random.default_rng(seed)
        noise, label = rng.normal(size=(4, n_samples, 10)), rng.normal(size=(n_samples, 10))
        t = np.linspace(0, 1, 6)[:, None, None]
        logits = 2 * t * label + t * noise[:, None] + t * rng.normal(size=(4, 6, n_samples, 10)) / 2
        p = np.exp(logits.reshape(24, n_samples, 10))
        return p / p.sum(-1, keepdims=True)

    truth = InPCA(10).fit(pairwise(sample(20_000, seed=99))).explained_stress_[:3]
    covered = []
    for seed in range(40):
        groups = bootstrap.Groups(500, 24)
        inpca = InPCA(10).fit(pairwise(sample(500, seed), groups=groups))
        low, high = bootstrap.of_embedding(inpca, groups, 60)[0][:3].T
        assert (low < inpca.explained_stress_[:3]).all()
        assert (inpca.explained_stress_[:3] < high).all()
        covered.append((low < truth) & (truth < high))
    # percentiles of the resamples themselves cover three coordinates in half of the cases
    assert np.mean(covered, axis=0).min() > 0.75
    assert np.mean(covered) > 0.82


def test_resamples_weigh_groups_by_their_samples():
    sums, sizes = np.array([[3.0], [4.0]]), np.array([3, 2])
    found = {round(float(mean[0]), 9) for mean in bootstrap.resamples(sums, sizes, 50)}
    assert found == {1.0, 2.0, 1.4}  # one group twice, the other twice, or both


def test_alignment_turns_real_and_imaginary_coordinates_apart():
    D = pairwise(models(60, 30, 6, concentration=0.2))
    inpca = InPCA(None).fit(D)
    first = np.r_[0, 1, np.flatnonzero(inpca.imaginary_)[:2]]
    target, imaginary = inpca.embedding_[:, first].copy(), inpca.imaginary_[first]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 2)))[0]
    turned = target.copy()
    turned[:, :2] = target[:, :2] @ turn
    turned[:, 2:] = target[:, 2:] @ turn.T
    np.testing.assert_allclose(bootstrap.aligned(inpca, turned, imaginary), turned, atol=1e-12)


def test_the_picture_with_intervals(folders, call):
    status, out, err = call(INPCA, *folders, "--bootstrap", 40)
    assert (status, err) == (0, "")
    assert "95% interval" in out
    with np.load(folders[0].parent / "embedding" / "toy_inpca.npz", allow_pickle=False) as found:
        stress, x = found["explained_stress_interval"], found["embedding_interval"]
        assert stress.shape == (10, 2)
        assert x.shape == (36, 3, 2)
        assert (x[..., 0] < x[..., 1]).all()
        inside = (x[..., 0] <= found["embedding"][:, :3]) & (found["embedding"][:, :3] <= x[..., 1])
        assert inside.mean() > 0.8
        np.testing.assert_allclose(found["distances"], pairwise(Models(read(folders))), atol=1e-14)


def test_intervals_of_fewer_coordinates_than_are_looked_at(folders, call):
    for components in (1, 2, 4):
        status, _, err = call(INPCA, *folders, "--bootstrap", 20, "--components", components)
        assert (status, err) == (0, "")
        with np.load(folders[0].parent / "embedding" / "toy_inpca.npz", allow_pickle=False) as found:
            assert found["explained_stress_interval"].shape == (components, 2)
            assert found["embedding_interval"].shape == (36, min(3, components), 2)


def test_distances_between_trajectories_with_intervals(folders, call):
    import json

    runs = read(folders)
    at = {"a": [progress(t, labels_of()) for t in runs[:2]], "b": [progress(t, labels_of()) for t in runs[2:]]}
    tasks = {"a": runs[:2], "b": runs[2:]}
    flat = at["a"] + at["b"]
    grid = np.linspace(max(p[0] for p in flat), min(p.max() for p in flat), 100)
    groups = bootstrap.Groups(60)
    distances, _, sums = compare(tasks, at, grid, groups=groups)
    for pair, expected in compare(tasks, at, grid).distances.items():
        np.testing.assert_allclose(distances[pair], expected, rtol=1e-12)
    # of one group alone
    here = groups.numbers == 3
    some = {task: [t[:, :][:, here] for t in these] for task, these in tasks.items()}
    for pair, expected in compare(some, at, grid).distances.items():
        np.testing.assert_allclose(sums[pair][3], expected * here.sum(), rtol=1e-9, atol=1e-14)
    bands, spread = intervals(sums, groups, grid, 60)
    assert (bands["a", "b"][:, 0] < distances["a", "b"]).all()
    assert (distances["a", "b"] < bands["a", "b"][:, 1]).all()
    status, out, err = call("info_geometry/trajectory.py", *folders, "--bootstrap", 60)
    assert (status, err) == (0, "")
    assert "a, between seeds" in out
    between = json.loads((folders[0].parent / "embedding" / "toy_comparison.json").read_text())["between"]
    found = {(row["task_a"], row["task_b"]): row["integral_interval"] for row in between}
    np.testing.assert_allclose(found["a", "b"], spread["a", "b"], rtol=1e-9)


# --- trajectories in one pass


def test_one_pass_measures_what_four_do(monkeypatch):
    P, labels = trajectory(9, 300, 5), labels_of(300)
    reads = []

    class Counted:
        shape, dtype = P.shape, P.dtype

        def __getitem__(self, key):
            reads.append(key)
            return P[key]

    found = measure(Counted(), labels)
    assert len(reads) == 1
    np.testing.assert_allclose(found.progress, progress(P, labels), atol=1e-12)
    assert found.length == pytest.approx(riemann_length(P), rel=1e-12)
    assert found.straightness == pytest.approx(straightness(P), rel=1e-12)
    np.testing.assert_array_equal(found.accuracy, (P.argmax(-1) == labels).mean(-1))
