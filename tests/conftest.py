"""What tests share: models and trajectories of known make, prediction folders, and a way to call the scripts."""

import re
import runpy
import sys
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"


def models(n_models=7, n_samples=40, n_classes=5, seed=0, concentration=0.5):
    """Random probabilities (M, N, C)."""
    return np.random.default_rng(seed).dirichlet(np.full(n_classes, concentration), (n_models, n_samples))


def trajectory(n_checkpoints=9, n_samples=60, n_classes=5, seed=0, end=4.0, noise=1.0):
    """A run from near ignorance towards the labels `n % n_classes`, (T, N, C), with its own noise."""
    rng = np.random.default_rng(seed)
    target = np.eye(n_classes)[labels_of(n_samples, n_classes)]
    drift = noise * rng.normal(size=(n_samples, n_classes))
    logits = np.linspace(0.02, 1, n_checkpoints)[:, None, None] * (end * target + drift)
    p = np.exp(logits)
    return p / p.sum(axis=-1, keepdims=True)


def labels_of(n_samples=60, n_classes=5):
    return np.arange(n_samples) % n_classes


def write_published(path, P, decimals=5):
    """A prediction file as the published code writes it: float16, rounded, LZ4, nothing but `data`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=np.round(P, decimals).astype(np.float16), chunks=True, **hdf5plugin.LZ4())


def h5_of(path, P, name="data"):
    """A file of one dataset."""
    with h5py.File(path, "w") as file:
        file[name] = P


def content(path):
    """The bytes of a file; of a log without its times."""
    return re.sub(rb'"images_per_second": [0-9.]+', b"", path.read_bytes())


@pytest.fixture
def folders(tmp_path):
    """Two tasks with two seeds each, and their labels, in `tmp_path`: [toy_a, toy_b]."""
    for task, end in (("a", 14.0), ("b", 15.0)):
        for seed in (0, 1):
            P = trajectory(seed=seed + int(10 * end), end=end)
            write_published(tmp_path / f"toy_{task}" / f"preds_{seed}.h5", P)
    (tmp_path / "labels").mkdir()
    np.save(tmp_path / "labels" / "toy_val_labels.npy", labels_of())
    return [tmp_path / "toy_a", tmp_path / "toy_b"]


@pytest.fixture
def call(capsys, monkeypatch):
    """Run a script of the repository in this process: call(path, *arguments) -> (status, out, err)."""

    def call(script, *arguments):
        monkeypatch.setattr(sys, "argv", [str(REPOSITORY / script), *map(str, arguments)])
        status = 0
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as stop:
            status = stop.code or 0
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def refused(call):
    """Run a script that must refuse its input: status 2, one sentence on standard error, which is returned."""

    def refused(script, *arguments):
        status, out, err = call(script, *arguments)
        assert status == 2, err
        sentence = [line for line in err.splitlines() if not line.startswith(("usage:", " "))]
        assert len(sentence) == 1, err
        assert "Traceback" not in err
        assert not out
        return sentence[0]

    return refused


@pytest.fixture(scope="session")
def shared():
    """The folder of real data for tests, if there is one."""
    if not SHARED.is_dir():
        pytest.skip("needs the real data that lie beside the repository of its developers")
    return SHARED


def pytest_collection_modifyitems(items):
    """Formulas first, then files, then what trains networks or starts processes."""
    order = [
        "geometry",
        "engine",
        "predictions",
        "importing",
        "recorder",
        "faults",
        "pictures",
        "learning",
        "scripts",
        "training",
        "methods",
        "imagenet",
        "kill",
        "examples",
        "documentation",
    ]
    items.sort(key=lambda item: next(i for i, name in enumerate(order) if name in item.path.stem))
