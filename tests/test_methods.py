"""Other methods of learning: their losses and gradients against definitions, and their runs."""

import itertools
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import REPOSITORY, content, labels_of, trajectory, write_published

from info_geometry.bhattacharyya import aligned
from info_geometry.geodesic import progress
from info_geometry.predictions import read
from info_geometry.script import InputError
from info_geometry.trajectory import reindex, riemann_length
from representation_learning import augmentations, episodes, maml, protonets
from representation_learning.barlow_twins import barlow_twins
from representation_learning.fixmatch import consistency, labelled_indices
from representation_learning.simclr import nt_xent
from supervised_imagenet import batches, checkpoints, datasets, logs, networks

FOLDER = "representation_learning"
STORE = "supervised_imagenet/02_imprinting/store_predictions.py"
METHODS = {
    "simclr": "simclr",
    "barlow_twins": "barlow",
    "fixmatch": "fixmatch4",
    "protonets": "protonets",
    "maml": "maml",
    "multitask": "multitask",
}
SHORT = ("--epochs", 2, "--dense-epochs", 1)


def features(n=12, size=6, seed=0):
    return torch.tensor(np.random.default_rng(seed).normal(size=(n, size)), dtype=torch.float32)


# --- losses


def test_nt_xent_equals_its_definition_and_lightly():
    a, b = features(seed=1), features(seed=2)
    z = F.normalize(torch.cat([a, b]).double(), dim=1)
    total = 0.0
    for i in range(24):
        j = (i + 12) % 24
        others = sum(math.exp(z[i] @ z[k] / 0.5) for k in range(24) if k != i)
        total -= math.log(math.exp(z[i] @ z[j] / 0.5) / others) / 24
    found, _ = nt_xent(torch.cat([a, b]), 0.5)
    assert found.item() == pytest.approx(total, rel=1e-5)
    lightly = pytest.importorskip("lightly.loss")
    assert found.item() == pytest.approx(lightly.NTXentLoss(temperature=0.5)(a, b).item(), rel=1e-5)


def test_views_that_agree_are_all_told_right():
    a = features()
    loss, right = nt_xent(torch.cat([a, a]), 0.1)
    assert right == 12
    assert loss < nt_xent(torch.cat([a, features(seed=9)]), 0.1)[0]


def test_barlow_twins_equals_its_definition_and_lightly():
    a, b = features(20, seed=1), features(20, seed=2)
    p, q = ((x.double() - x.double().mean(0)) / x.double().std(0, correction=0) for x in (a, b))
    C = [[(p[:, i] * q[:, j]).mean().item() for j in range(6)] for i in range(6)]
    expected = sum((1 - C[i][j]) ** 2 if i == j else 0.0051 * C[i][j] ** 2 for i in range(6) for j in range(6))
    found = barlow_twins(a, b, 0.0051).item()
    assert found == pytest.approx(expected, rel=1e-5)
    lightly = pytest.importorskip("lightly.loss")
    assert found == pytest.approx(lightly.BarlowTwinsLoss(lambda_param=0.0051)(a, b).item(), rel=1e-3)


def test_only_what_the_network_is_sure_of_counts():
    weak = torch.tensor([[5.0, 0.0], [0.1, 0.0], [0.0, 6.0]], requires_grad=True)
    strong = torch.tensor([[0.0, 1.0], [3.0, 0.0], [0.0, 2.0]], requires_grad=True)
    loss, mask = consistency(weak, strong, 0.95)
    assert mask.tolist() == [True, False, True]
    expected = (math.log(1 + math.e) + math.log(1 + math.exp(-2))) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert weak.grad is None, "pseudo-labels are constants"
    assert (strong.grad[1] == 0).all()


def test_labels_are_as_many_of_each_class():
    targets = np.array([0] * 5 + [1] * 7 + [2] * 4)
    chosen = labelled_indices(targets, 4, seed=0)
    assert np.bincount(targets[chosen]).tolist() == [4, 4, 4]
    assert not np.array_equal(chosen, labelled_indices(targets, 4, seed=1))
    with pytest.raises(InputError, match="class 2 of the task has 4 images"):
        labelled_indices(targets, 5, seed=0)


def test_prototypical_loss_equals_its_definition():
    support, query = features(6, 4), features(4, 4, seed=1)
    support_class, query_class = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([2, 0, 1, 1])
    total, right = 0.0, 0
    for f, c in zip(query, query_class, strict=True):
        distances = [float(((f - support[2 * k : 2 * k + 2].mean(0)) ** 2).sum()) for k in range(3)]
        total += (distances[c] + math.log(sum(math.exp(-d) for d in distances))) / 4
        right += int(np.argmin(distances) == c)
    loss, told = protonets.prototypical(support, support_class, query, query_class)
    assert loss.item() == pytest.approx(total, rel=1e-5)
    assert told == right


@pytest.mark.parametrize("steps", [1, 3])
def test_the_second_order_gradient_equals_finite_differences(steps):
    x, y = features(8, 3).double(), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    w = torch.tensor(np.random.default_rng(3).normal(size=(3, 3)), requires_grad=True)

    def inner(weights):
        return F.cross_entropy(x[:4] @ weights["w"].tanh(), y[:4])

    def outer(w, first_order=False):
        adapted = maml.adapted(inner, {"w": w}, steps, 0.5, first_order)
        return F.cross_entropy(x[4:] @ adapted["w"].tanh(), y[4:])

    (found,) = torch.autograd.grad(outer(w), w)
    assert torch.autograd.gradcheck(outer, w)
    (first,) = torch.autograd.grad(outer(w, True), w)
    end = maml.adapted(inner, {"w": w.detach()}, steps, 0.5)["w"].requires_grad_()
    (of_end,) = torch.autograd.grad(F.cross_entropy(x[4:] @ end.tanh(), y[4:]), end)
    torch.testing.assert_close(first, of_end)
    assert not torch.allclose(found, first)


# --- episodes and augmentations


def test_episodes_mix_no_support_with_queries():
    targets = np.repeat(np.arange(7), 9)
    for seed in range(50):
        e = episodes.draw(targets, 4, 2, 5, seed)
        assert len(np.unique(np.concatenate([e.support, e.query]))) == 4 * 7
        for places, names in ((e.support, e.support_class), (e.query, e.query_class)):
            for c in range(4):
                assert len(np.unique(targets[places[names == c]])) == 1
        assert (targets[e.support].reshape(4, 2)[:, 0] == targets[e.query].reshape(4, 5)[:, 0]).all()
        assert len(np.unique(targets[e.support])) == 4


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32)])
def test_views_are_random_for_each_image_and_repeat_with_the_seed(channels, side):
    augment = augmentations.strong(channels, side)
    pixels = torch.rand(1, channels, side, side).expand(6, -1, -1, -1)

    def views():
        torch.manual_seed(0)
        return augment(pixels)

    found = views()
    assert found.shape == pixels.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert len({tuple(view.flatten().tolist()) for view in found}) == 6
    torch.testing.assert_close(views(), found, rtol=0, atol=0)


def test_a_square_is_cut_out():
    torch.manual_seed(0)
    found = augmentations.cut_out(torch.zeros(100, 3, 8, 8), 0.5)
    sizes = (found == 0.5).sum(dim=(1, 2, 3))
    assert sizes.max() == 3 * 25
    assert sizes.min() >= 3 * 9
    assert set(found.unique().tolist()) == {0.0, 0.5}


# --- runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("script", METHODS)
def test_runs_repeat_and_are_imprinted(script, runs, tmp_path, call):
    name = f"digits_{METHODS[script]}-even"
    for place in (runs, tmp_path):
        status, out, err = call(f"{FOLDER}/{script}.py", "--task", "even", "--checkpoints", place, *SHORT)
        assert status == 0, err
        assert out.strip().endswith(f"{name}/0")
    files = sorted(p.name for p in (runs / name / "0").iterdir())
    n = len(files) - 2
    assert n >= 5
    assert files == [*(f"checkpoint_{i:03d}.pt" for i in range(n)), "log.jsonl", "settings.json"]
    for file in files:
        assert content(runs / name / "0" / file) == content(tmp_path / name / "0" / file), file
    settings = json.loads((runs / name / "0" / "settings.json").read_text())
    assert settings["method"] == METHODS[script]
    assert settings["labels"] == [0, 2, 4, 6, 8]
    status, _, err = call(STORE, "--checkpoints", runs, "--task", f"{METHODS[script]}-even", "--predictions", tmp_path)
    assert status == 0, err
    (t,) = read([tmp_path / name])
    assert t.shape == (n, 797, 10)
    assert (np.diff(t.columns["images"]) > 0).all()
    assert t.classes == [0, 2, 4, 6, 8]
    assert not np.array_equal(t[0], t[-1])


@pytest.mark.parametrize("script", METHODS)
def test_stopped_runs_go_on_to_the_same_bits(script, runs, tmp_path, call, monkeypatch):
    name = f"digits_{METHODS[script]}-even"
    save, saved = checkpoints.save, []

    def stop(path, **what):
        save(path, **what)
        saved.append(path.name)
        if saved.count("resume.pt") == 3:
            raise KeyboardInterrupt

    arguments = (f"{FOLDER}/{script}.py", "--task", "even", "--checkpoints", tmp_path, *SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", stop)
        status, _, err = call(*arguments)
    assert status == 130
    assert "goes on from here" in err
    status, _, err = call(*arguments)
    assert status == 0, err
    if not (runs / name / "0").is_dir():
        call(f"{FOLDER}/{script}.py", "--task", "even", "--checkpoints", runs, *SHORT)
    for path in (runs / name / "0").iterdir():
        assert content(tmp_path / name / "0" / path.name) == content(path), path.name


def test_contrastive_networks_learn_what_tells_digits_apart(tmp_path, call):
    status, _, err = call(f"{FOLDER}/simclr.py", "--checkpoints", tmp_path, "--epochs", 10)
    assert status == 0, err
    status, _, err = call(STORE, "--checkpoints", tmp_path, "--predictions", tmp_path)
    assert status == 0, err
    (t,) = read([tmp_path / "digits_simclr-all"])
    assert t.columns["accuracy"][-1] > t.columns["accuracy"][0] + 0.1


def start(runs, call):
    """The checkpoint of a contrastive run."""
    folder = runs / "digits_simclr-even" / "0"
    if not folder.is_dir():
        call(f"{FOLDER}/simclr.py", "--task", "even", "--checkpoints", runs, *SHORT)
    return checkpoints.listed(folder)[2]


def test_fine_tuning_begins_with_the_network_it_starts_from(runs, tmp_path, call):
    path = start(runs, call)
    status, out, err = call(
        f"{FOLDER}/finetune.py", "--start", path, "--task", "odd", "--checkpoints", tmp_path, *SHORT, "--head-epochs", 1
    )
    assert status == 0, err
    folder = tmp_path / "digits_headfirst-simclr-even-2-odd" / "0"
    assert out.strip().endswith(str(folder))
    before = checkpoints.load(path)["model"]
    each = [checkpoints.load(p) for p in checkpoints.listed(folder)]
    for stored in each:
        same = all(torch.equal(stored["model"][name], before[name]) for name in before)
        assert same == (stored["epoch"] <= 1), "the last layer learns alone at first"
    heads = [stored["model"]["head.weight"] for stored in each]
    assert not torch.equal(heads[0], heads[1])
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["weights"] == checkpoints.sha256(path)
    assert "start" not in settings


def test_several_tasks_are_learned_at_once(tmp_path, call):
    status, out, err = call(f"{FOLDER}/multitask.py", "--task", "even", "odd", "--checkpoints", tmp_path, "--epochs", 4)
    assert status == 0, err
    folder = tmp_path / "digits_multitask-even-odd" / "0"
    assert out.strip().endswith(str(folder))
    assert json.loads((folder / "settings.json").read_text())["labels"] == list(range(10))
    assert logs.read(folder)[-1]["accuracy"] > 0.8


@pytest.mark.parametrize("script", ["simclr", pytest.param("protonets", marks=pytest.mark.slow)])
def test_two_processes_learn_what_one_does(script, tmp_path):
    common = ["--parts", "2", "--task", "even", *map(str, SHORT)]
    script, folder = REPOSITORY / FOLDER / f"{script}.py", f"digits_{METHODS[script]}-even"
    one = [sys.executable, script, *common, "--checkpoints", tmp_path / "one"]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, *common]
    threads = os.environ | {"OMP_NUM_THREADS": "1"}
    for command in (one, [*two, "--checkpoints", tmp_path / "two"]):
        subprocess.run(command, env=threads, check=True, capture_output=True)
    first, second = (checkpoints.listed(tmp_path / place / folder / "0") for place in ("one", "two"))
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        a, b = checkpoints.load(a)["model"], checkpoints.load(b)["model"]
        for name in a:  # sums of gradients in another order
            torch.testing.assert_close(a[name], b[name], atol=1e-4, rtol=1e-3)


# --- the comparison


@pytest.fixture
def ways(tmp_path):
    """Folders of a reference with three seeds, of a method that goes another way, and of one that gets less far."""
    labels = labels_of()
    for way, end, noise, seeds in (
        ("all", 14.0, 1.0, (0, 1, 2)),
        ("other-all", 15.0, 3.0, (0, 1)),
        ("few-all", 3.0, 1.0, (5,)),
    ):
        for seed in seeds:
            P = trajectory(seed=seed + int(10 * noise), end=end, noise=noise)
            write_published(tmp_path / f"toy_{way}" / f"preds_{seed}.h5", P)
    (tmp_path / "labels").mkdir()
    np.save(tmp_path / "labels" / "toy_val_labels.npy", labels)
    return [tmp_path / f"toy_{way}" for way in ("all", "other-all", "few-all")]


def test_methods_are_compared_run_by_run(ways, call):
    status, out, err = call(f"{FOLDER}/compare.py", *ways)
    assert (status, err) == (0, "")
    embedding = ways[0].parent / "embedding"
    found = json.loads((embedding / "toy_methods.json").read_text())
    assert found["reference"] == "all"
    first, second, third = found["methods"]
    assert [row["method"] for row in found["methods"]] == ["all", "other-all", "few-all"]
    runs = {folder: read([folder]) for folder in ways}
    at = {t: progress(t, labels_of()) for folder in ways for t in runs[folder]}
    lengths = [np.mean([riemann_length(t) for t in runs[folder]]) for folder in ways]
    assert second["length_ratio"] == pytest.approx(lengths[1] / lengths[0])
    both = [*runs[ways[0]], *runs[ways[1]]]
    grid = np.linspace(max(at[t][0] for t in both), min(at[t].max() for t in both), 51)[1:]
    models = {t: reindex(t, at[t], grid) for t in both}
    pairs = [(t, u) for t in runs[ways[0]] for u in runs[ways[1]] if t.seed != u.seed]  # some share their beginning
    across = [aligned(models[t], models[u]) for t, u in pairs]
    within = [aligned(models[t], models[u]) for t, u in itertools.combinations(runs[ways[0]], 2)]
    assert second["distance"] == pytest.approx(np.mean(across), rel=1e-6)
    assert second["distance_over_seeds"] == pytest.approx(np.mean(across) / np.mean(within), rel=1e-6)
    alongside = np.mean(np.mean(across, axis=0) <= 2 * np.mean(within, axis=0))
    assert second["alongside"] == pytest.approx(alongside)
    assert second["ends"] == pytest.approx(np.mean([aligned(t[-1:], u[-1:]) for t, u in pairs]), rel=1e-6)
    last = [aligned(t[-1:], u[-1:]) for t, u in itertools.combinations(runs[ways[0]], 2)]
    assert first["ends"] == pytest.approx(np.mean(last), rel=1e-6)
    moved = [aligned(t[:1], t[-1:])[0] for t in runs[ways[1]]]
    assert second["moved"] == pytest.approx(np.mean(moved), rel=1e-6)
    coarse = [
        np.mean([riemann_length(t[sorted({*range(0, len(t), 5), len(t) - 1})]) for t in runs[w]]) for w in ways[:2]
    ]
    assert second["coarse_length_ratio"] == pytest.approx(coarse[1] / coarse[0])
    assert third["progress"] < first["progress"]
    own = [aligned(models[t], models[u]) for t, u in itertools.combinations(runs[ways[1]], 2)]
    assert second["own_seeds"] == pytest.approx(np.mean(own) / np.mean(within), rel=1e-6)
    assert [second["from"], second["to"]] == pytest.approx([grid[0], grid[-1]])
    assert first["thousands_of_images"] is None, "files by others do not say how many"
    assert f"{second['length_ratio']:.4f}" in out
    assert (ways[0].parent / "plots" / "toy" / "methods.png").is_file()


def test_fine_tuning_from_several_checkpoints_is_drawn(ways, call):
    for number, way in zip((0, 5), ways[1:], strict=True):
        way.rename(way.with_name(f"toy_finetune-even-{number}-odd"))
    assert call(f"{FOLDER}/compare.py", *sorted(ways[0].parent.glob("toy_*")))[0] == 0
    assert (ways[0].parent / "plots" / "toy" / "finetuning.png").is_file()


def test_methods_without_common_progress_are_measured_all_the_same(ways, call):
    late = trajectory(seed=4, end=14.0)[-2:]  # begins where the others of `few` never come
    write_published(ways[0].parent / "toy_late" / "preds_0.h5", late)
    status, _, err = call(f"{FOLDER}/compare.py", ways[2], ways[0].parent / "toy_late")
    assert (status, err) == (0, "")
    row = json.loads((ways[0].parent / "embedding" / "toy_methods.json").read_text())["methods"][1]
    assert row["length"] > 0
    assert "distance" not in row


def test_one_method_is_no_comparison(ways, refused):
    assert "name two folders or more" in refused(f"{FOLDER}/compare.py", ways[0])


# --- what they refuse


def test_bad_input_is_one_sentence(refused, runs, call, tmp_path):
    place = ("--checkpoints", tmp_path)
    assert "the task has 5 classes" in refused(f"{FOLDER}/protonets.py", "--task", "even", "--ways", 6, *place)
    found = refused(f"{FOLDER}/maml.py", "--task", "even", "--shots", 80, "--queries", 30, *place)
    assert "images, which is too few" in found
    assert "needs two ways" in refused(f"{FOLDER}/protonets.py", "--shots", 0, *place)
    assert "has 97 images" in refused(f"{FOLDER}/fixmatch.py", "--labelled", 98, *place)
    assert "with and without labels" in refused(f"{FOLDER}/fixmatch.py", "--unlabelled", 0, *place)
    assert "one label or more" in refused(f"{FOLDER}/fixmatch.py", "--labelled", 0, *place)
    assert "must be at least 0" in refused(f"{FOLDER}/simclr.py", "--lr", -1, *place)
    assert "must be sgd or adam" in refused(f"{FOLDER}/simclr.py", "--optimizer", "lars", *place)
    assert "unknown network" in refused(f"{FOLDER}/barlow_twins.py", "--arch", "cnm", *place)
    assert "images in memory" in refused(f"{FOLDER}/simclr.py", "--dataset", "imagenet", *place)
    other = start(runs, call)
    found = refused(f"{FOLDER}/finetune.py", "--start", other, "--task", "odd", "--arch", "wrn-16-1", *place)
    assert "weights of another network" in found
    assert "names the checkpoint to start from" in refused(f"{FOLDER}/finetune.py", "--task", "odd", *place)
    (tmp_path / "weights.pt").write_bytes(other.read_bytes())
    assert "not the path of a checkpoint" in refused(
        f"{FOLDER}/finetune.py", "--start", tmp_path / "weights.pt", *place
    )
    (tmp_path / "weights.pt").unlink()
    assert not any(tmp_path.iterdir()), "nothing is begun"


def test_the_network_is_stored_without_what_the_loss_is_taken_of(runs, call):
    weights = checkpoints.load(start(runs, call))["model"]
    assert weights.keys() == networks.create("cnn", 0, 1).state_dict().keys()


def test_norms_note_what_the_stored_weights_make_of_images(runs, call, tmp_path):
    """Of MAML, whose loss is taken of other weights; and they can be renewed."""
    options = ("--epochs", 4, "--dense-epochs", 0, "--episodes", 20, "--checkpoints", tmp_path)
    assert call(f"{FOLDER}/maml.py", "--task", "all", *options)[0] == 0
    digits = datasets.digits()
    images = batches.InMemory(digits.train, digits.statistics, "cpu")
    network = networks.create("cnn", 0, 1).eval()
    weights = checkpoints.load(tmp_path / "digits_maml-all" / "0" / "checkpoint_004.pt")["model"]
    network.load_state_dict({name: value for name, value in weights.items() if name in network.state_dict()})
    noted = {name: value.clone() for name, value in network.named_buffers() if "running" in name}
    networks.renew_statistics(network, images.ordered(500))
    assert not network.training
    for name, value in network.named_buffers():
        if "running_var" in name:
            assert (value / noted[name]).log().abs().mean() < 0.2, name


def test_renewed_norms_are_of_whole_batches():
    network = networks.create("cnn", 0, 1)
    x = torch.rand(60, 1, 8, 8)
    networks.renew_statistics(network, [x[:30], x[30:]])
    first = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
    before = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))(x)
    torch.testing.assert_close(first.running_mean, before.mean(dim=(0, 2, 3)))
    variances = [part.var(dim=(0, 2, 3)) for part in before.split(30)]
    torch.testing.assert_close(first.running_var, torch.stack(variances).mean(dim=0))
    assert first.momentum == 0.1
