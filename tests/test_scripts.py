"""The geometry scripts: what they write, and what they say of input that they cannot use."""

import csv
import json
import resource
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from conftest import REPOSITORY, h5_of, labels_of, models, trajectory, write_published

from info_geometry import trajectory as functions
from info_geometry.bhattacharyya import pairwise
from info_geometry.geodesic import progress
from info_geometry.inpca import InPCA

INPCA, TRAJECTORY = "info_geometry/inpca.py", "info_geometry/trajectory.py"
STORE = "supervised_imagenet/02_imprinting/store_predictions.py"
TRAIN = "supervised_imagenet/01_training/train.py"


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# --- what they write


def test_published_files_are_embedded_unchanged(folders, call):
    status, out, err = call(INPCA, *folders)
    assert (status, err) == (0, "")
    parent = folders[0].parent
    P = np.concatenate([h5py.File(f / f"preds_{s}.h5")["data"][:] for f in folders for s in (0, 1)])
    assert (P == 0).any(), "the case is to have zeros"
    with np.load(parent / "embedding" / "toy_inpca.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["distances"], pairwise(P))
        expected = InPCA(50).fit(found["distances"])
        np.testing.assert_array_equal(found["embedding"], expected.embedding_)
        np.testing.assert_array_equal(found["eigenvalues"], expected.eigenvalues_)
        np.testing.assert_array_equal(found["explained_stress"], expected.explained_stress_)
        assert found["task"].tolist() == ["a"] * 18 + ["b"] * 18
        assert found["seed"].tolist() == ([0] * 9 + [1] * 9) * 2
        assert found["checkpoint"].tolist() == list(range(9)) * 4
        record = json.loads(str(found["record"]))
        assert record["settings"]["components"] == 50
        assert set(record["inputs"]) == {f"toy_{t}/preds_{s}.h5" for t in "ab" for s in (0, 1)}
    assert f"{100 * expected.explained_stress_[2]:.2f}%" in out
    page = (parent / "plots" / "toy" / "inpca.html").read_text()
    assert "<script src=" not in page, "the page opens without a network"
    for name in ("inpca.png", "inpca_2d.png", "inpca_pairs.png", "explained_stress.png"):
        assert (parent / "plots" / "toy" / name).read_bytes().startswith(b"\x89PNG")


def test_published_files_are_measured_unchanged(folders, call):
    status, out, err = call(TRAJECTORY, *folders)
    assert (status, err) == (0, "")
    embedding = folders[0].parent / "embedding"
    runs = {t: [h5py.File(f / f"preds_{s}.h5")["data"][:] for s in (0, 1)] for t, f in zip("ab", folders, strict=True)}
    at = {t: [progress(P, labels_of()) for P in runs[t]] for t in runs}
    found = rows(embedding / "toy_progress.csv")
    assert list(found[0]) == ["task", "seed", "checkpoint", "progress", "accuracy"]
    assert [float(r["progress"]) for r in found] == [p for t in at for run in at[t] for p in run], "in full precision"
    assert [float(r["accuracy"]) for r in found[:9]] == functions.accuracy(runs["a"][0], labels_of()).tolist()
    lengths = {t: [functions.riemann_length(P) for P in runs[t]] for t in runs}
    for row in rows(embedding / "toy_lengths.csv"):
        values = lengths[row["task"]]
        assert float(row["mean"]) == np.mean(values)
        assert float(row["standard_error"]) == np.std(values, ddof=1) / np.sqrt(2)
        assert row["seeds"] == "2"
        assert f"{np.mean(values):.4f}" in out
    stored = json.loads((embedding / "toy_lengths.json").read_text())["lengths"]
    assert stored["b"]["seeds"] == {"0": lengths["b"][0], "1": lengths["b"][1]}
    comparison = rows(embedding / "toy_comparison.csv")
    assert [(r["task_a"], r["task_b"]) for r in comparison[::100]] == [("a", "a"), ("a", "b"), ("b", "b")]
    grid = np.array([float(r["progress"]) for r in comparison[:100]])
    flat = [p for t in at for p in at[t]]
    assert grid[0] == max(p[0] for p in flat)
    assert grid[-1] == min(p.max() for p in flat)
    seeds = {t: [0, 1] for t in runs}
    found = functions.compare(runs, at, grid, seeds=seeds)
    expected = functions.compare(runs, at, grid).distances
    for (a, b), values in expected.items():
        got = [float(r["distance"]) for r in comparison if (r["task_a"], r["task_b"]) == (a, b)]
        np.testing.assert_array_equal(got, values)
    spread = [float(r["standard_error"]) for r in comparison if (r["task_a"], r["task_b"]) == ("a", "b")]
    without = [found.without[s]["a", "b"] for s in (0, 1)]
    np.testing.assert_allclose(spread, np.abs(without[0] - without[1]) / 2, atol=1e-15)
    assert {r["standard_error"] for r in comparison if r["task_a"] == r["task_b"]} == {""}, "two seeds are one pair"
    summary = json.loads((embedding / "toy_comparison.json").read_text())
    assert summary["range"] == [grid[0], grid[-1]]
    between = next(i for i in summary["between"] if (i["task_a"], i["task_b"]) == ("a", "b"))
    assert between["integral"] == pytest.approx(np.trapezoid(expected["a", "b"], grid))
    integrals = [np.trapezoid(d, grid) for d in without]
    assert list(between["integral_without"].values()) == pytest.approx(integrals)
    assert between["integral_standard_error"] == pytest.approx(abs(integrals[0] - integrals[1]) / 2)
    means = [np.mean([P[-1] / P[-1].sum(-1, keepdims=True) for P in np.asarray(runs[t], float)], axis=0) for t in "ab"]
    assert between["end_points"] == pytest.approx(pairwise(np.stack(means))[0, 1], rel=1e-9)
    matrix = rows(embedding / "toy_distances.csv")
    assert [(r["task_a"], r["task_b"]) for r in matrix] == [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
    assert {float(r["trajectories"]) for r in matrix[1:3]} == {between["integral"]}
    assert {float(r["end_points_standard_error"]) for r in matrix[1:3]} == {between["end_points_standard_error"]}
    assert "no task has classes that its files name" in out
    frechets, nearest = functions.separations(runs, at, grid)
    assert between["frechet"] == frechets["a", "b"]
    assert between["nearest_point"] == nearest["a", "b"]
    rounding = 1 + 1e-9
    assert expected["a", "b"][[0, -1]].max() / rounding <= between["frechet"] <= expected["a", "b"].max() * rounding
    assert between["nearest_point"] <= expected["a", "b"].mean() * rounding
    for name in ("progress.png", "lengths.png", "trajectories_compare.png", "distances.png"):
        assert (folders[0].parent / "plots" / "toy" / name).exists()


def test_the_same_input_makes_the_same_bytes(folders, call):
    made = []
    for _ in range(2):
        assert call(INPCA, *folders)[0] == call(TRAJECTORY, *folders)[0] == 0
        parent = folders[0].parent
        made.append({p: p.read_bytes() for d in ("embedding", "plots") for p in (parent / d).rglob("*") if p.is_file()})
    assert len(made[0]) == 16
    assert made[0] == made[1]


def test_places_can_be_set_and_embedding_needs_no_labels(folders, call, tmp_path):
    (tmp_path / "labels" / "toy_val_labels.npy").rename(tmp_path / "elsewhere.npy")
    places = ["--results", tmp_path / "r", "--plots", tmp_path / "p"]
    assert call(INPCA, *folders, *places)[0] == 0
    assert call(TRAJECTORY, *folders, *places, "--labels", tmp_path / "elsewhere.npy")[0] == 0
    assert (tmp_path / "r" / "toy_inpca.npz").exists()
    assert (tmp_path / "p" / "trajectories_compare.png").exists()
    assert not (tmp_path / "embedding").exists()
    assert not (tmp_path / "plots").exists()


def test_one_of_everything_is_no_error(tmp_path, call):
    (tmp_path / "labels").mkdir()
    np.save(tmp_path / "labels" / "toy_val_labels.npy", labels_of())
    write_published(tmp_path / "toy_a" / "preds_0.h5", trajectory())
    write_published(tmp_path / "toy_b" / "preds_5.h5", trajectory(1, seed=3))
    a, b = tmp_path / "toy_a", tmp_path / "toy_b"
    for folder in (a, b):  # one task, one seed; and one checkpoint
        assert call(INPCA, folder)[0] == 0
        status, out, err = call(TRAJECTORY, folder)
        assert (status, err) == (0, "")
        assert "no comparison: that takes two runs" in out
        (row,) = rows(tmp_path / "embedding" / "toy_lengths.csv")
        assert row["standard_error"] == ""
        assert float(row["mean"]) == 0 if folder == b else float(row["mean"]) > 0
    write_published(tmp_path / "toy_a" / "preds_1.h5", trajectory(7, seed=1))
    status, out, err = call(TRAJECTORY, a, b)
    assert (status, err) == (0, "")
    assert "toy_b/preds_5.h5: has one checkpoint" in out
    pairs = {(r["task_a"], r["task_b"]) for r in rows(tmp_path / "embedding" / "toy_comparison.csv")}
    assert pairs == {("a", "a")}
    assert call(INPCA, a, b)[0] == 0


def test_more_tasks_than_colours_are_told_apart(tmp_path, call):
    for task in range(9):
        write_published(tmp_path / f"toy_$\\task {task}$" / "preds_0.h5", trajectory(4, seed=task))
    assert call(INPCA, *sorted(tmp_path.glob("toy_*")))[0] == 0


# --- what they say of bad input


def spoiled(value):
    P = trajectory()
    P[4, 11] = value
    return P


FAULTS = {
    "a text file": (lambda p: p.write_text("no HDF5"), "preds_1.h5: not a readable HDF5 file"),
    "a truncated file": (lambda p: p.write_bytes(p.read_bytes()[:3000]), "preds_1.h5: not a readable HDF5 file"),
    "an empty file": (lambda p: p.write_bytes(b""), "preds_1.h5: not a readable HDF5 file"),
    "no data": (lambda p: h5_of(p, trajectory(), "predictions"), "no dataset 'data'; it holds predictions"),
    "data that is a group": (lambda p: h5_of(p, trajectory(), "data/inside"), "no dataset 'data'"),
    "a wrong rank": (lambda p: h5_of(p, trajectory()[0]), "float64 of shape (60, 5)"),
    "whole numbers": (lambda p: h5_of(p, np.zeros((2, 60, 5), int)), "int64 of shape"),
    "no checkpoints": (lambda p: h5_of(p, np.zeros((0, 60, 5))), "shape (0, 60, 5)"),
    "not a number": (lambda p: h5_of(p, spoiled(np.nan)), "preds_1.h5: data[4, 11] holds a value that is not finite"),
    "a negative value": (lambda p: h5_of(p, spoiled([-0.1, 1.1, 0, 0, 0])), "data[4, 11] holds a negative value, -0.1"),
    "a sum of half": (lambda p: h5_of(p, spoiled([0.1] * 5)), "data[4, 11] sums to 0.5"),
    "other samples": (lambda p: h5_of(p, trajectory(n_samples=50)), "has 50 samples and 5 classes, but"),
    "other classes": (lambda p: h5_of(p, trajectory(n_classes=6)), "has 60 samples and 6 classes, but"),
    "a name without a seed": (lambda p: p.rename(p.with_name("preds_best.h5")), "preds_best.h5: the name must be"),
    "a seed twice": (lambda p: p.rename(p.with_name("preds_00.h5")), "seed 0 of task a is also in"),
}


@pytest.mark.parametrize("script", [INPCA, TRAJECTORY])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_prediction_file(folders, refused, script, fault):
    spoil, sentence = FAULTS[fault]
    spoil(folders[0] / "preds_1.h5")
    before = sorted(folders[0].parent.rglob("*"))
    assert sentence in refused(script, *folders)
    assert sorted(folders[0].parent.rglob("*")) == before, "nothing is written"


@pytest.mark.parametrize("script", [INPCA, TRAJECTORY])
def test_faults_of_folders(folders, refused, script, tmp_path):
    assert "toy_c: no such folder" in refused(script, folders[0], tmp_path / "toy_c")
    (tmp_path / "toy_c").mkdir()
    assert "toy_c: holds no files preds_<seed>.h5" in refused(script, tmp_path / "toy_c")
    write_published(tmp_path / "other_a" / "preds_0.h5", trajectory())
    sentence = refused(script, *folders, tmp_path / "other_a")
    assert "toy: toy_a, toy_b; other: other_a" in sentence
    assert "is also in" in refused(script, folders[0], folders[0])
    assert "not both" in refused(script, folders[0], "--dataset", "toy")
    for name in ("/never", ""):
        missing = refused(script, "--dataset", name)
        assert "holds no folders" in missing or "unknown dataset" in missing


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (None, "no such file of labels; name one with --labels"),
        (np.zeros(59, int), "holds int64 (59,); expected 60 whole numbers"),
        (np.zeros(60), "holds float64 (60,)"),
        (np.r_[np.zeros(59, int), 5], "label 5 at [59] is outside 0 to 4"),
        (np.r_[-1, np.zeros(59, int)], "label -1 at [0]"),
        ("text", "not a readable .npy array"),
        ("PK", "not a readable .npy array"),
        (np.array([{}] * 60, dtype=object), "not a readable .npy array"),
    ],
)
def test_faults_of_labels(folders, refused, labels, sentence):
    path = folders[0].parent / "labels" / "toy_val_labels.npy"
    if labels is None:
        path.unlink()
    elif isinstance(labels, str):
        path.write_text(labels)
    else:
        np.save(path, labels)
    assert sentence in refused(TRAJECTORY, *folders)


def test_nothing_to_compare_names_the_run_and_keeps_what_was_measured(folders, call, tmp_path):
    uniform = np.full((3, 60, 5), 0.2)
    write_published(tmp_path / "toy_still" / "preds_0.h5", uniform)
    status, _, err = call(TRAJECTORY, *folders, tmp_path / "toy_still")
    assert status == 2
    assert "toy_still/preds_0.h5: its progress, at most 0, does not pass" in err
    assert len(rows(tmp_path / "embedding" / "toy_lengths.csv")) == 3
    assert not (tmp_path / "embedding" / "toy_comparison.csv").exists()


def test_no_comparison_of_an_earlier_call_stays_beside_newer_results(folders, call, tmp_path):
    assert call(TRAJECTORY, *folders)[0] == 0
    (tmp_path / "toy_a" / "preds_1.h5").unlink()
    assert call(TRAJECTORY, folders[0])[0] == 0
    assert not [p.name for p in tmp_path.rglob("*compar*")]


def test_rules_of_imprinting_are_mixed_only_by_force(tmp_path, call, refused):
    for task, rule in (("a", "euclidean"), ("b", "cosine")):
        path = tmp_path / f"toy_{task}" / "preds_0.h5"
        write_published(path, trajectory())
        with h5py.File(path, "a") as file:
            file.attrs["record"] = json.dumps({"imprinting": {"rule": rule}})
    both = [tmp_path / "toy_a", tmp_path / "toy_b"]
    assert "was imprinted by another rule than" in refused(INPCA, *both)
    assert call(INPCA, *both, "--force")[0] == 0


def test_links_to_folders_keep_the_name_that_they_are_given(tmp_path, call):
    write_published(tmp_path / "store" / "run17" / "preds_0.h5", trajectory())
    (tmp_path / "toy_a").symlink_to(tmp_path / "store" / "run17")
    assert call(INPCA, tmp_path / "toy_a")[0] == 0
    assert (tmp_path / "embedding" / "toy_inpca.npz").exists()


@pytest.mark.parametrize("tasks", [1, 3, 4, 5, 7])
def test_a_panel_for_each_task_and_no_empty_one(monkeypatch, tasks):
    from matplotlib.figure import Figure

    from info_geometry import plot

    figures, names = [], [f"task{i}" for i in range(tasks)]
    distances = {(a, b): np.ones(3) for i, a in enumerate(names) for b in names[i:]}
    monkeypatch.setattr(plot, "save", lambda figure, *_: figures.append(figure))
    plot.comparison("f", names, np.arange(3), distances, {})
    (figure,) = figures
    assert isinstance(figure, Figure)
    drawn = [panel for panel in figure.axes if panel.axison]
    assert [panel.get_title() for panel in drawn] == [f"from {name}" for name in names]
    assert all(len(panel.lines) == tasks for panel in drawn)


@pytest.mark.parametrize("script", [INPCA, TRAJECTORY])
def test_no_room_leaves_nothing_half_written(folders, script):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))

    before = sorted(folders[0].parent.rglob("*.*"))
    command = [sys.executable, REPOSITORY / script, *folders]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(folders[0].parent.rglob("*.*")) == before


def test_no_room_for_checkpoints_and_predictions(call, tmp_path):
    places = ["--checkpoints", tmp_path / "c"]
    assert call(TRAIN, *places, "--epochs", 1)[0] == 0
    # room for a checkpoint's predictions, 17 kB, but not for all
    limits = {TRAIN: 5_000, STORE: 60_000}
    before = sorted(tmp_path.rglob("*.*"))
    for script, limit in limits.items():
        arguments = [*places, "--seed", "1"] if script == TRAIN else [*places, "--predictions", tmp_path / "p"]
        done = subprocess.run(
            [sys.executable, REPOSITORY / script, *arguments],
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2, done.stderr
        assert "File too large; make room" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    made = [p for p in tmp_path.rglob("*.*") if p not in before]
    assert not [p for p in made if p.suffix in (".pt", ".h5") or ".partial" in p.name]
    # with room again, it goes on from what is there
    assert call(STORE, *places, "--predictions", tmp_path / "p", "--seed", 0)[0] == 0
    assert (tmp_path / "p" / "digits_all" / "preds_0.h5").exists()


def test_a_place_that_is_no_folder(folders, call, tmp_path):
    (tmp_path / "file").write_text("")
    for script in (INPCA, TRAJECTORY):
        status, _, err = call(script, *folders, "--results", tmp_path / "file")
        assert status == 2
        assert "cannot write" in err
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--dataset", "digit"], "unknown dataset 'digit'; did you mean digits?"),
        (["--task", "evn"], "unknown task of digits 'evn'; did you mean even?"),
        (["--task", "mine.json"], "mine.json: no such task file"),
        (["--arch", "resnet1"], "unknown network 'resnet1'; did you mean resnet1"),
        (["--arch", "wrn-12-1"], "wrn-12-1: the depth must be"),
        (["--arch", "vit_tiny_patch16_224"], "takes no images of shape (1, 8, 8)"),
        (["--device", "cuda:7"], "--device cuda:7: not on this machine"),
        (["--epochs", "-1"], "--epochs -1: must be at least 0"),
        (["--lr", "nan"], "--lr nan: must be at least 1e-30"),
        (["--lr", "0"], "--lr 0.0: must be at least 1e-30"),
        (["--recipe", "tin"], "unknown recipe 'tin'; did you mean tiny?"),
        (["--first-size", "64"], "--first-size 64: the recipe digits has no such setting"),
        (["--recipe", "rn50_40_epochs"], "goes with images on disk"),
        (["--dataset", "imagenet", "--recipe", "tiny"], "goes with images in memory"),
        (["--parts", "30"], "--parts 30: leave less than two images"),
        (["--subset", "mine"], "--subset mine: goes with --dataset imagenet"),
        (["--size", "0"], "--size 0: goes with --dataset imagenet or imagefolder"),
        (["--skip-corrupt"], "--skip-corrupt: goes with --dataset imagenet or imagefolder"),
        (["--dataset", "imagenet", "--skip-corrupt"], "prepare_imagenet.py --skip-corrupt"),
        (["--dataset", "imagefolder", "--name", "imagenet"], "is the name of another dataset"),
        (["--dataset", "imagenet", "--eval-crop", "1.005"], "--eval-crop 1.005: must be at least 0.01"),
        (["--workers", "-1"], "--workers and seeds are whole numbers from 0"),
        (["--parts", "25", "--max-images", "40"], "its 40 images do not make 25 parts of two"),
        (["--dataset", "imagenet", "--task", "wordnet:crane"], "'crane' is no task"),
        (["--smoothing", "1"], "--smoothing 1.0: must be at least 0 and below 1"),
        (["--dataset", "imagefolder", "--name", "a_b"], "letters, digits and hyphens"),
        (["--batch-size", "1"], "--batch-size 1: must be at least 2"),
        (["--seed", "-1"], "seeds are whole numbers from 0"),
        (["--seed", "x"], "invalid int value"),
    ],
)
def test_faults_of_training_options(refused, tmp_path, arguments, sentence):
    assert sentence in refused(TRAIN, "--checkpoints", tmp_path / "c", *arguments)
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_faults_of_imprinting(refused, tmp_path):
    checkpoints = ["--checkpoints", tmp_path, "--predictions", tmp_path / "p"]
    assert "holds no runs of digits" in refused(STORE, *checkpoints)
    run = tmp_path / "digits_even" / "0"
    run.mkdir(parents=True)
    (run / "settings.json").write_text('{"arch": "cnn", "size": [1, 8, 8]}')
    assert "holds no runs of digits" in refused(STORE, *checkpoints)
    assert "even/0: holds no checkpoints" in refused(
        STORE, "--run-folder", run, "--arch", "cnn", "--task", "x", "--seed", 0, "--predictions", tmp_path / "p"
    )
    (run / "checkpoint_000.pt").write_text("")
    assert "did you mean even?" in refused(STORE, *checkpoints, "--task", "eve")
    assert "task even has no run with seed 1" in refused(STORE, *checkpoints, "--seed", "1")
    (run / "checkpoint_000.pt").write_text("no checkpoint")
    assert "checkpoint_000.pt: not a checkpoint" in refused(STORE, *checkpoints)
    (run / "settings.json").write_text("{}")
    assert "settings.json: not the settings of a run" in refused(STORE, *checkpoints)
    assert "needs --arch" in refused(STORE, "--run-folder", run)
    assert "must be above 0, and finite" in refused(STORE, *checkpoints, "--temperature", "nan")
    assert "--arch goes with --run-folder" in refused(STORE, *checkpoints, "--arch", "cnn")
    mine = ["--run-folder", tmp_path / "none", "--arch", "cnn", "--predictions", tmp_path / "p"]
    assert "none: no such folder of checkpoints" in refused(STORE, *mine, "--task", "mine", "--seed", 0)
    assert "has no slash" in refused(STORE, *mine, "--task", "a/b", "--seed", 0)
    assert "whole numbers from 0" in refused(STORE, *mine, "--task", "mine", "--seed", -1)
    (run / "settings.json").write_text('{"arch": 5, "size": [1, 8, 8]}')
    assert "arch must be a name" in refused(STORE, *checkpoints)
    (run / "settings.json").write_text('{"arch": "cnn", "size": [1, 8, 8]}')
    (run / "checkpoint_000.pt").unlink()
    (run / "checkpoint_000.pt").mkdir()
    assert "checkpoint_000.pt: not readable (Is a directory)" in refused(STORE, *checkpoints)
    assert not (tmp_path / "p").exists(), "nothing is written"


def test_what_is_made_stays_when_make_is_stopped(tmp_path):
    """GNU make deletes the targets of a recipe that is stopped, unless they are precious."""
    (tmp_path / "Makefile").write_text((REPOSITORY / "Makefile").read_text())
    (tmp_path / "pyproject.toml").write_text("")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        "#!/bin/sh\nmkdir -p predictions/digits_all\ntouch predictions/digits_all/preds_0.h5\nexec sleep 60\n"
    )
    python.chmod(0o755)
    (tmp_path / ".venv" / "ready").write_text("")
    made = tmp_path / "predictions" / "digits_all" / "preds_0.h5"
    process = subprocess.Popen(["make", "picture"], cwd=tmp_path, stderr=subprocess.PIPE)
    for _ in range(200):
        if made.exists():
            break
        time.sleep(0.05)
    # to make alone, which passes it on: were its child stopped at the same time, make would find it gone, now and then
    process.terminate()
    _, err = process.communicate()
    assert b"Terminated" in err
    assert made.exists()


@pytest.mark.parametrize("script", [INPCA, TRAJECTORY, TRAIN, STORE, STORE.replace("predictions", "labels")])
def test_help_imports_nothing_heavy(script):
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(REPOSITORY / script)!r}, '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'sklearn', 'matplotlib', 'plotly', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_geometry_imports_nothing_from_the_learning_side():
    for path in (REPOSITORY / "info_geometry").glob("*.py"):
        assert "supervised_imagenet" not in path.read_text()


def test_scripts_run_from_any_folder(folders, tmp_path):
    for command, folder in (
        (["inpca.py"], REPOSITORY / "info_geometry"),
        ([REPOSITORY / INPCA], tmp_path),
        (["-m", "info_geometry.inpca"], tmp_path),
    ):
        done = subprocess.run([sys.executable, *command, *folders], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_run_is_not_embedded_without_its_neighbours_faults(folders, call):
    # what else lies in the folder of predictions does not matter to a picture that does not name it
    write_published(folders[0].parent / "toy_c" / "preds_0.h5", models(2, 3, 2))
    assert call(INPCA, *folders)[0] == 0
