"""The whole way from training to predictions, on the digits, in seconds."""

import importlib.metadata
import json

import h5py
import numpy as np
import pytest
import torch
from conftest import content, models

from supervised_imagenet import checkpoints, datasets, logs

TRAIN = "supervised_imagenet/01_training/train.py"
LABELS = "supervised_imagenet/02_imprinting/store_labels.py"
STORE = "supervised_imagenet/02_imprinting/store_predictions.py"
SHORT = ["--epochs", 3, "--dense-epochs", 1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def trained(place, call):
    """Two tasks with two seeds, trained and imprinted once for the tests of this file."""
    arguments = ["--task", "even", "randomlab", "--seed", 0, 1, "--checkpoints", place / "checkpoints"]
    status, _, err = call(TRAIN, *arguments, *SHORT)
    assert status == 0, err
    assert call(LABELS, "--predictions", place / "predictions")[0] == 0
    status, _, err = call(STORE, "--checkpoints", place / "checkpoints", "--predictions", place / "predictions")
    assert status == 0, err
    return place


def files(folder):
    return {p.relative_to(folder): (content(p), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_a_run_holds_checkpoints_and_settings(trained):
    run = trained / "checkpoints" / "digits_even" / "0"
    names = [*(f"checkpoint_{i:03d}.pt" for i in range(8)), "log.jsonl", "settings.json"]
    assert sorted(p.name for p in run.iterdir()) == names
    loaded = [checkpoints.load(p) for p in checkpoints.listed(run)]
    digits = datasets.digits()
    steps_per_epoch = np.count_nonzero(digits.train.labels % 2 == 0) // 50  # of 50 images; the rest are left out
    assert [c["step"] for c in loaded] == checkpoints.schedule(3, steps_per_epoch, dense_epochs=1)
    assert [c["epoch"] for c in loaded] == [c["step"] / steps_per_epoch for c in loaded]
    assert loaded[0]["model"]["head.weight"].shape == (5, 64)
    settings = json.loads((run / "settings.json").read_text())
    assert settings["labels"] == [0, 2, 4, 6, 8]
    assert settings["epochs"] == 3
    assert settings["versions"]["torch"] == importlib.metadata.version("torch")
    other = checkpoints.load(checkpoints.path_of(trained / "checkpoints" / "digits_even" / "1", 0))
    assert (other["model"]["head.weight"] != loaded[0]["model"]["head.weight"]).any(), "seeds differ"


def test_predictions_are_on_all_classes_and_tell_what_made_them(trained):
    folder = trained / "predictions" / "digits_even"
    labels = np.load(trained / "predictions" / "labels" / "digits_val_labels.npy")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics) == ["0", "1"]
    with h5py.File(folder / "preds_1.h5") as file:
        P = file["data"][:]
        assert P.shape == (8, 797, 10)
        assert P.dtype == np.float16
        record = json.loads(file.attrs["record"])
        assert file["epoch"][:].tolist() == [row["epoch"] for row in metrics["1"]]
    assert record["imprinting"] == {"rule": "euclidean", "temperature": 1.0, "prototypes": "crossfit", "folds": 10}
    assert record["training"]["task"] == "even"
    right = (P.argmax(axis=-1) == labels).mean(axis=-1)
    assert [row["accuracy"] for row in metrics["1"]] == right.tolist()
    assert right[-1] > 0.7, "even digits teach something about all"


def test_a_second_call_does_nothing(trained, call):
    before = files(trained / "checkpoints"), files(trained / "predictions")
    arguments = ["--task", "even", "randomlab", "--seed", 0, 1, "--checkpoints", trained / "checkpoints"]
    assert call(TRAIN, *arguments, *SHORT)[0] == 0
    assert call(STORE, "--checkpoints", trained / "checkpoints", "--predictions", trained / "predictions")[0] == 0
    after = files(trained / "checkpoints"), files(trained / "predictions")
    metrics = [p for p in before[1] if p.name == "metrics.json"]
    for path in metrics:
        assert before[1].pop(path)[0] == after[1].pop(path)[0]
    assert before == after


def test_the_same_seed_makes_the_same_bits(trained, call, tmp_path):
    assert call(TRAIN, "--task", "even", "--seed", 1, "--checkpoints", tmp_path, *SHORT)[0] == 0
    again, before = (files(folder / "digits_even" / "1") for folder in (tmp_path, trained / "checkpoints"))
    assert {k: v[0] for k, v in again.items()} == {k: v[0] for k, v in before.items()}


def test_a_run_killed_at_its_first_checkpoint_logs_it_once(call, tmp_path, monkeypatch):
    """Before, and after, the state to go on from is there."""
    arguments = ["--task", "even", "--checkpoints", tmp_path, *SHORT]
    save = checkpoints.save

    def killed_at(name):
        def killed(path, **content):
            if path.name == name:
                raise KeyboardInterrupt
            save(path, **content)

        monkeypatch.setattr(checkpoints, "save", killed)

    for name in ("checkpoint_000.pt", "resume.pt", "checkpoint_001.pt"):
        killed_at(name)
        assert call(TRAIN, *arguments)[0] == 130
    killed_at(None)
    assert call(TRAIN, *arguments)[0] == 0
    rows = logs.read(tmp_path / "digits_even" / "0")
    assert [row["step"] for row in rows] == [
        c["step"] for c in map(checkpoints.load, checkpoints.listed(tmp_path / "digits_even" / "0"))
    ]


def test_other_settings_are_refused(trained, refused, call, tmp_path):
    arguments = ["--task", "even", "--seed", 0, "--checkpoints", trained / "checkpoints", "--epochs", 4]
    assert "epochs: 3 there, 4 wanted" in refused(TRAIN, *arguments, "--dense-epochs", 1)
    places = ["--checkpoints", trained / "checkpoints", "--predictions", trained / "predictions"]
    sentence = refused(STORE, *places, "--task", "even", "--rule", "cosine")
    assert "imprinting.rule: euclidean there, cosine wanted" in sentence
    # weights without settings are not given new ones
    run = tmp_path / "digits_even" / "0"
    run.mkdir(parents=True)
    (run / "mine.pth").write_bytes(b"")
    (run / "inside").mkdir()
    again = ["--task", "even", "--seed", 0, "--checkpoints", tmp_path, *SHORT]
    assert "there is none beside what is there" in refused(TRAIN, *again)
    assert (run / "mine.pth").exists()
    (run / "settings.json").write_text("[]")
    assert "list there" in refused(TRAIN, *again)
    (run / "settings.json").write_text("{")
    assert "it is not readable" in refused(TRAIN, *again)
    assert call(TRAIN, *again, "--overwrite")[0] == 0
    made = {p: p.stat().st_mtime_ns for p in run.iterdir()}
    assert len(made) == 10
    assert call(TRAIN, *again, "--overwrite")[0] == 0
    assert {p: p.stat().st_mtime_ns for p in run.iterdir()} == made, "what has these settings is not made again"


def test_more_checkpoints_are_added_to_those_imprinted(trained, call, tmp_path):
    """As when a run is imprinted while it is still training."""
    run, half = trained / "checkpoints" / "digits_even" / "0", tmp_path / "c" / "digits_even" / "0"
    half.mkdir(parents=True)
    names = sorted(p.name for p in run.iterdir())
    for part in (names[:5], names[5:]):
        for name in {*part, "settings.json"}:
            (half / name).write_bytes((run / name).read_bytes())
        status, _, err = call(STORE, "--checkpoints", tmp_path / "c", "--predictions", tmp_path / "p")
        assert status == 0, err
    with (
        h5py.File(tmp_path / "p" / "digits_even" / "preds_0.h5") as found,
        h5py.File(trained / "predictions" / "digits_even" / "preds_0.h5") as expected,
    ):
        assert set(found) == set(expected)
        for name in found:
            np.testing.assert_array_equal(found[name][:], expected[name][:])


def test_checkpoints_by_others_are_imprinted(trained, call, tmp_path):
    for index, path in enumerate(checkpoints.listed(trained / "checkpoints" / "digits_even" / "0")):
        weights = {f"module.{k}": v for k, v in checkpoints.load(path)["model"].items()}
        torch.save({"state_dict": weights, "epoch": None, "step": float("nan")}, tmp_path / f"epoch_{index}.pth")
    arguments = ["--run-folder", tmp_path, "--arch", "cnn", "--task", "mine", "--seed", 7]
    status, _, err = call(STORE, *arguments, "--predictions", tmp_path / "p")
    assert status == 0, err
    with (
        h5py.File(tmp_path / "p" / "digits_mine" / "preds_7.h5") as found,
        h5py.File(trained / "predictions" / "digits_even" / "preds_0.h5") as expected,
    ):
        np.testing.assert_array_equal(found["data"][:], expected["data"][:])


@pytest.mark.parametrize("prototypes", ["val", "train"])
@pytest.mark.parametrize("rule", ["euclidean", "cosine"])
def test_every_rule_is_recorded(trained, call, tmp_path, rule, prototypes):
    places = ["--checkpoints", trained / "checkpoints", "--predictions", tmp_path]
    options = ["--rule", rule, "--prototypes", prototypes, "--temperature", 0.5]
    assert call(STORE, *places, "--task", "even", "--seed", 0, *options)[0] == 0
    with h5py.File(tmp_path / "digits_even" / "preds_0.h5") as file:
        record = json.loads(file.attrs["record"])
        expected = {"rule": rule, "temperature": 0.5, "prototypes": prototypes, "folds": 1}
        assert record["imprinting"] == expected | ({"train_images": 1000} if prototypes == "train" else {})
        np.testing.assert_allclose(file["data"][:].astype(float).sum(-1), 1, atol=1e-2)


def test_images_of_another_size_are_refused(trained, refused, tmp_path):
    run = tmp_path / "digits_even" / "0"
    run.mkdir(parents=True)
    settings = json.loads((trained / "checkpoints" / "digits_even" / "0" / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps(settings | {"size": [3, 8, 8]}))
    (run / "checkpoint_000.pt").write_bytes(b"")
    assert "was trained on images [3, 8, 8]" in refused(STORE, "--checkpoints", tmp_path, "--predictions", tmp_path)


def test_a_loss_that_is_not_finite_stops_with_the_way_out(call, tmp_path):
    status, _, err = call(TRAIN, "--checkpoints", tmp_path, "--lr", 1e30, "--epochs", 1)
    assert status == 2
    assert "lower --lr" in err


def test_augmented_training_on_a_folder_of_images(call, tmp_path):
    from PIL import Image

    pixels = (models(24, 16, 48, concentration=5) * 5000).clip(0, 255).astype(np.uint8).reshape(24, 16, 16, 3)
    for n, image in enumerate(pixels):
        path = tmp_path / "images" / ("train" if n < 16 else "val") / f"class{n % 2}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    data = ["--dataset", "imagefolder", "--name", "tiny", "--data-dir", tmp_path / "images", "--size", 16]
    recipe = ["--arch", "wrn-10-1", "--epochs", 1, "--batch-size", 4, "--decay", "linear", "--smoothing", 0.1]
    status, _, err = call(TRAIN, *data, *recipe, "--task", "all", "--checkpoints", tmp_path / "c")
    assert status == 0, err
    status, _, err = call(STORE, *data, "--checkpoints", tmp_path / "c", "--predictions", tmp_path / "p")
    assert status == 0, err
    with h5py.File(tmp_path / "p" / "tiny_all" / "preds_0.h5") as file:
        assert file["data"].shape == (5, 8, 2)
