"""Killed at random moments and started again, scripts end with what an undisturbed run makes."""

import contextlib
import random
import resource
import signal
import subprocess
import sys
import time
import types

import h5py
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, content, trajectory, write_published

from info_geometry.importing import Source, labels_in
from info_geometry.picture import Picture
from info_geometry.predictions import Trajectory
from info_geometry.script import InputError
from supervised_imagenet import checkpoints

TRAIN = "supervised_imagenet/01_training/train.py"
INPCA = "info_geometry/inpca.py"
STORE = "supervised_imagenet/02_imprinting/store_predictions.py"
few_and_many = pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])


def files(folder):
    return {p.relative_to(folder): content(p) for p in folder.rglob("*") if p.is_file()}


def killed_again_and_again(command, folder, kills, seconds):
    """Run `command` to its end, but for `kills` times that it is killed after up to `seconds` of its work."""
    rng, done = random.Random(kills), 0
    command = [sys.executable, *map(str, command)]
    while done < kills:
        before = set(files(folder)) if folder.exists() else set()
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        while process.poll() is None and folder_is_still(folder, before):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, seconds))
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr.read().decode()
            pytest.fail(f"the run was over after {done} kills of {kills}: give it more to do")
        process.send_signal(signal.SIGKILL)
        process.wait()
        done += 1
    subprocess.run(command, check=True, capture_output=True)


def folder_is_still(folder, before):
    return not folder.exists() or set(files_names(folder)) == before


def files_names(folder):
    return (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


@few_and_many
@pytest.mark.parametrize(
    ("epochs", "recipe"),
    [
        (20, ["--task", "even", "randomlab"]),
        # 250 steps an epoch, in which there is no checkpoint, but a state to go on from is saved
        pytest.param(
            2,
            ["--task", "all", "--dense-epochs", 0, "--batch-size", 4, "--augmentation", "shift"],
            marks=pytest.mark.slow,
        ),
        # whose scaler changes with what it has seen
        pytest.param(8, ["--task", "even", "--precision", "float16"], marks=pytest.mark.slow),
    ],
    ids=["checkpoints", "between checkpoints", "float16"],
)
def test_training(tmp_path, kills, epochs, recipe):
    def command(place):
        return [REPOSITORY / TRAIN, "--checkpoints", tmp_path / place, "--epochs", epochs * kills, *recipe]

    subprocess.run([sys.executable, *map(str, command("whole"))], check=True, capture_output=True)
    killed_again_and_again(command("broken"), tmp_path / "broken", kills, seconds=0.6)
    assert files(tmp_path / "broken") == files(tmp_path / "whole")


def test_a_checkpoint_that_the_disk_has_no_room_for_leaves_the_old_one(tmp_path):
    path = tmp_path / "checkpoint_000.pt"
    checkpoints.save(path, model={"w": torch.zeros(1000)})
    whole, before = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # a write beyond fails half-way, as on a full disk
    try:
        with pytest.raises(InputError, match=r"cannot write .*checkpoint_000\.pt: .*make room"):
            checkpoints.save(path, model={"w": torch.ones(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


@few_and_many
def test_imprinting(tmp_path, kills):
    train = [REPOSITORY / TRAIN, "--checkpoints", tmp_path / "c", "--task", "even", "all", "--epochs", 12 * kills]
    subprocess.run([sys.executable, *map(str, train)], check=True, capture_output=True)

    def command(place):
        return [REPOSITORY / STORE, "--checkpoints", tmp_path / "c", "--predictions", tmp_path / place]

    subprocess.run([sys.executable, *map(str, command("whole"))], check=True, capture_output=True)
    killed_again_and_again(command("broken"), tmp_path / "broken", kills, seconds=0.4)
    same_predictions(tmp_path / "whole", tmp_path / "broken")


RECORDING = """
import sys, time, numpy as np
from info_geometry import Recorder
samples = np.arange(2000)[:, None]
recorder = Recorder(sys.argv[1] + "/toy_all", samples, samples[:, 0] % 7, resume=True)
first = recorder.steps[-1] + 1 if recorder.steps else 0
for step in range(first, int(sys.argv[2])):
    recorder.record(lambda x: np.sin(x * np.arange(1, 8) * (step + 1)), step)
recorder.close()
"""


def same_predictions(one, other):
    """Whether two folders hold the same files, of which predictions are compared by values."""
    assert set(files(one)) == set(files(other))
    for path in files(one):
        if path.suffix != ".h5":
            assert content(one / path) == content(other / path)
            continue
        with h5py.File(one / path) as a, h5py.File(other / path) as b:
            assert set(a) == set(b)
            assert dict(a.attrs) == dict(b.attrs)
            for name in a:
                np.testing.assert_array_equal(a[name][:], b[name][:])


@few_and_many
def test_recording(tmp_path, kills):
    def command(place):
        return ["-c", RECORDING, tmp_path / place, 400 * kills]

    subprocess.run([sys.executable, *map(str, command("whole"))], check=True, capture_output=True)
    killed_again_and_again(command("broken"), tmp_path / "broken", kills, seconds=0.5)
    same_predictions(tmp_path / "whole", tmp_path / "broken")


@few_and_many
def test_importing(tmp_path, kills):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "logits.npy", rng.normal(size=(2, 100 * kills, 1000, 10)).astype(np.float32))

    def command(place):
        arguments = ["import", tmp_path / "logits.npy", tmp_path / place / "toy_all"]
        return [REPOSITORY / "info_geometry/predictions.py", *arguments]

    subprocess.run([sys.executable, *map(str, command("whole"))], check=True, capture_output=True)
    killed_again_and_again(command("broken"), tmp_path / "broken", kills, seconds=0.3)
    same_predictions(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.slow
def test_distances_of_many_models(tmp_path):
    """What 5000 models have so far is kept, and gone on from."""
    for seed in range(100):
        write_published(tmp_path / "toy_a" / f"preds_{seed}.h5", trajectory(50, 4000, 10, seed=seed))

    def command(place):
        return [REPOSITORY / INPCA, tmp_path / "toy_a", "--results", tmp_path / place, "--plots", tmp_path / "plots"]

    subprocess.run([sys.executable, *map(str, command("whole"))], check=True, capture_output=True)
    killed_again_and_again(command("broken"), tmp_path / "broken", 1, seconds=3)
    whole, broken = (np.load(tmp_path / place / "toy_inpca.npz") for place in ("whole", "broken"))
    for name in whole.files:
        np.testing.assert_array_equal(whole[name], broken[name])
    assert [p.name for p in (tmp_path / "broken").iterdir()] == ["toy_inpca.npz"]


def of_npy(path):
    np.save(path, trajectory().astype(np.float32))


def of_npz(path):
    np.savez_compressed(path, data=trajectory().astype(np.float32))


def of_pt(path):
    torch.save({"data": torch.tensor(trajectory())}, path)


def of_csv(path):
    np.savetxt(path, trajectory()[0], delimiter=",", header="a,b,c,d,e", comments="")


def of_embedding(path):
    M = 6
    arrays = {"embedding": np.ones((M, 3)), "eigenvalues": np.ones(3), "explained_stress": np.ones(3)}
    np.savez(path, **arrays, task=np.array(["a"] * M), seed=np.zeros(M, int), checkpoint=np.arange(M))


def read_predictions(path):
    Trajectory(path)[:, :10]


def read_source(path):
    with Source(path) as source:
        for run in source.runs.values():
            for checkpoint in run:
                source.checkpoint(checkpoint, np.float32)[0 : min(10, source.shape[0])]


def read_labels(path):
    labels_in(path, types.SimpleNamespace(shape=(60, 5), samples=(60,), axes="NC"))


READERS = {
    "preds_0.h5": (lambda path: write_published(path, trajectory()), read_predictions),
    "source.h5": (lambda path: write_published(path, trajectory()), read_source),
    "source.npy": (of_npy, read_source),
    "source.npz": (of_npz, read_source),
    "source.pt": (of_pt, read_source),
    "source.csv": (of_csv, read_source),
    "labels.npy": (lambda path: np.save(path, np.arange(60) % 5), read_labels),
    "toy_inpca.npz": (of_embedding, Picture.load),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_readers_survive_damaged_files(tmp_path, name):
    """A real file with bytes changed at random is read, or refused in a sentence; it never ends the process, nor keeps
    it long. Ten minutes in all."""
    make, read = READERS[name]
    path = tmp_path / "toy_a" / name
    path.parent.mkdir()
    make(path)
    whole, rng, n = path.read_bytes(), random.Random(0), 0
    # a damaged size must not take the memory of the machine
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, before[1]))
    end = time.monotonic() + 75
    try:
        while time.monotonic() < end:
            path.write_bytes(damaged(whole, rng))
            signal.alarm(20)
            with contextlib.suppress(InputError):
                read(path)
            n += 1
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, before)
    print(f"{name}: {n} files")
    assert n > 1000


def damaged(whole, rng):
    """Some bytes changed, half of them where formats have what they say of themselves, or some taken away or put in."""
    found = bytearray(whole)
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(min(300, len(found)) if rng.random() < 0.5 else len(found))
        if (kind := rng.random()) < 0.8:
            found[place] = rng.randrange(256)
        elif kind < 0.9:
            del found[place : place + rng.randint(1, 20)]
        else:
            found[place:place] = rng.randbytes(rng.randint(1, 20))
    return bytes(found[: rng.randrange(len(found))] if rng.random() < 0.1 else found)
