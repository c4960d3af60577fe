"""Killed at random moments and started again, scripts end with what an undisturbed run makes."""

import contextlib
import random
import resource
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, content, trajectory, write_published

from info_geometry.predictions import Trajectory
from info_geometry.script import InputError
from supervised_imagenet import checkpoints

TRAIN = "supervised_imagenet/01_training/train.py"
INPCA = "info_geometry/inpca.py"
STORE = "supervised_imagenet/02_imprinting/store_predictions.py"
few_and_many = pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])


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
        (2, ["--task", "all", "--dense-epochs", 0, "--batch-size", 4, "--augmentation", "shift"]),
        # whose scaler changes with what it has seen
        (8, ["--task", "even", "--precision", "float16"]),
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
    whole, broken = files(tmp_path / "whole"), files(tmp_path / "broken")
    assert set(whole) == set(broken)
    for path in whole:
        if path.suffix != ".h5":
            assert whole[path] == broken[path]
            continue
        with h5py.File(tmp_path / "whole" / path) as a, h5py.File(tmp_path / "broken" / path) as b:
            assert set(a) == set(b)
            assert dict(a.attrs) == dict(b.attrs)
            for name in a:
                np.testing.assert_array_equal(a[name][:], b[name][:])


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


@pytest.mark.slow
def test_the_reader_survives_damaged_files(tmp_path):
    """A real file with bytes changed at random is read, or refused in a sentence; it never ends the process."""
    from hypothesis import given, settings
    from hypothesis import strategies as st

    path = tmp_path / "toy_a" / "preds_0.h5"
    write_published(path, trajectory())
    whole = path.read_bytes()
    damage = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=8)

    # a damaged size must not take the memory of the machine
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, before[1]))

    @settings(max_examples=20_000, deadline=None, derandomize=True)
    @given(damage, st.integers(0, len(whole)))
    def read(changes, length):
        content = bytearray(whole)
        for place, value in changes:
            content[place] = value
        path.write_bytes(content[: length or None])
        with contextlib.suppress(InputError):
            Trajectory(path)[:, :10]

    try:
        read()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
