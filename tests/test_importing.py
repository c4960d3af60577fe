"""Arrays by others: whatever their format and order of axes, they come to the same predictions."""

import re

import h5py
import numpy as np
import pytest
import torch
from conftest import h5_of, labels_of, models, trajectory
from scipy.special import softmax

from info_geometry import formats
from info_geometry.importing import Source, import_runs, kind_of, labels_in
from info_geometry.inspection import info
from info_geometry.predictions import Trajectory, read_labels
from info_geometry.script import InputError

PREDICTIONS = "info_geometry/predictions.py"
P = trajectory(4, 12, 3).astype(np.float32)
LOGITS = (np.log(P) + np.linspace(-3, 5, 12)[:, None]).astype(np.float32)


def imported(path, folder, **told):
    with Source(path, **told) as source:
        paths = import_runs(source, folder)
    return [Trajectory(path)[:, :] for path in paths]


def save(path, array):
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, predictions=array)
    elif path.suffix == ".pt":
        torch.save({"predictions": torch.tensor(array)}, path)
    elif path.suffix == ".h5":
        h5_of(path, array, "predictions")
    else:
        np.savetxt(path, array, delimiter={".csv": ",", ".tsv": "\t", ".txt": " "}[path.suffix])
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".h5"])
@pytest.mark.parametrize("axes", ["TNC", "TCN", "NTC", "NCT", "CTN", "CNT"])
def test_formats_and_orders_of_axes(tmp_path, suffix, axes):
    path = save(tmp_path / f"array{suffix}", P.transpose(["TNC".index(axis) for axis in axes]))
    (found,) = imported(path, tmp_path / "toy_all", axes=axes)
    np.testing.assert_array_equal(found, P)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".h5", ".csv", ".tsv", ".txt"])
def test_one_model(tmp_path, suffix):
    (found,) = imported(save(tmp_path / f"array{suffix}", P[2]), tmp_path / "toy_all")
    np.testing.assert_array_equal(found, P[2:3])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".h5", ".csv"])
def test_a_file_a_checkpoint_in_natural_order(tmp_path, suffix):
    (tmp_path / "run").mkdir()
    for t, step in enumerate((0, 5, 10, 100)):
        save(tmp_path / "run" / f"step{step}{suffix}", P[t])
    (tmp_path / "run" / ".hidden.npy").write_bytes(b"")
    (tmp_path / "run" / "notes.md").write_text("not an array")
    (found,) = imported(tmp_path / "run", tmp_path / "toy_all")
    np.testing.assert_array_equal(found, P)


def test_files_of_one_checkpoint_each_are_checkpoints(tmp_path):
    (tmp_path / "run").mkdir()
    for t in range(4):
        save(tmp_path / "run" / f"{t}.npy", P[t : t + 1])
    (found,) = imported(tmp_path / "run", tmp_path / "toy_all")
    np.testing.assert_array_equal(found, P)


def test_a_source_that_has_changed_is_another(tmp_path):
    """Even where its size, its beginning and its end are the same."""
    values = np.tile(P, (1, 20_000, 1))
    imported(save(tmp_path / "array.npy", values), tmp_path / "toy_all")
    values[2, 9_000:12_000] = values[1, 9_000:12_000]
    with pytest.raises(InputError, match="made with other settings"):
        imported(save(tmp_path / "array.npy", values), tmp_path / "toy_all")


def test_seeds_in_an_array_and_in_files(tmp_path):
    seeds = np.stack([P, P[::-1]])
    first = imported(save(tmp_path / "seeds.npy", seeds), tmp_path / "toy_all")
    (tmp_path / "runs").mkdir()
    for seed in (0, 1):
        save(tmp_path / "runs" / f"seed{seed}.npy", seeds[seed])
    second = imported(tmp_path / "runs", tmp_path / "toy_other")
    odd = save(tmp_path / "odd.npy", seeds.transpose(1, 3, 0, 2))
    third = imported(odd, tmp_path / "toy_odd", axes="TCSN")
    for found in (first, second, third):
        np.testing.assert_array_equal(np.stack(found), seeds)


@pytest.mark.parametrize("kind", ["logits", "log-probabilities", "probabilities"])
@pytest.mark.parametrize("told", [True, False])
def test_kinds_of_values(tmp_path, kind, told):
    values = {"logits": LOGITS, "log-probabilities": np.log(P), "probabilities": P}[kind]
    path = save(tmp_path / "array.npy", values)
    (found,) = imported(path, tmp_path / "toy_all", **({"kind": kind} if told else {}))
    np.testing.assert_allclose(found, P, rtol=2e-6)  # logits are float32 of up to 8


def test_logits_that_are_infinite_or_large(tmp_path):
    values = np.array([[[0, -np.inf, -np.inf], [1e4, 0, -1e4], [-1e30, -1e30, -np.inf]]])
    (found,) = imported(save(tmp_path / "array.npy", values), tmp_path / "toy_all")
    np.testing.assert_array_equal(found, [[[1, 0, 0], [1, 0, 0], [0.5, 0.5, 0]]])


@pytest.mark.parametrize("shape", [(4, 12), (4, 12, 1), (12,)])
def test_one_number_for_two_classes(tmp_path, shape):
    p = P[..., 0].ravel()[: np.prod(shape)].reshape(shape)
    pairs = np.stack([1 - p.reshape(-1, 12), p.reshape(-1, 12)], axis=-1)
    for name, values in (("p", p), ("logit", np.log(p / (1 - p)))):
        kind = {"p": None, "logit": "logits"}[name]
        (found,) = imported(save(tmp_path / f"{name}.npy", values), tmp_path / f"toy_{name}", binary=True, kind=kind)
        np.testing.assert_allclose(found, pairs, rtol=2e-6)


def test_half_precision_stays_half_and_others_are_single(tmp_path):
    for dtype, kept in (("float16", "float16"), ("float64", "float32"), ("float32", "float32")):
        with Source(save(tmp_path / f"{dtype}.npy", P.astype(dtype))) as source:
            (stored,) = import_runs(source, tmp_path / f"toy_{dtype}")
        assert Trajectory(stored).dtype == kept
    torch.save(torch.tensor(np.log(P)).bfloat16(), tmp_path / "b.pt")
    (found,) = imported(tmp_path / "b.pt", tmp_path / "toy_b", kind="logits")
    np.testing.assert_allclose(found, P, rtol=0.05)  # of seven bits


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a,b\n0.5,0.5\n0.25,0.75\n", [[0.5, 0.5], [0.25, 0.75]]),
        ("\ufeff0.5;0.5\n\n0.25;0.75", [[0.5, 0.5], [0.25, 0.75]]),
        (",cat,dog\n0,0.5,0.5\n1,0.25,0.75\n", [[0.5, 0.5], [0.25, 0.75]]),
        ("id,cat,dog\n0,0.5,0.5\n1,0.25,0.75\n2,1,0\n", [[0.5, 0.5], [0.25, 0.75], [1, 0]]),
        ("0,0.5,0.5\n1,0.25,0.75\n2,1,0\n", [[0.5, 0.5], [0.25, 0.75], [1, 0]]),
        ("0,1,2\n0.5,0.5,0\n", [[0.5, 0.5, 0]]),
        ("cat dog\n1 0.5 0.5\n2 0.25 0.75\n3 1 0\n", [[0.5, 0.5], [0.25, 0.75], [1, 0]]),
        ("1,0.5,0.5\n2,0.25,0.75\n3,1,0\n", [[0.5, 0.5], [0.25, 0.75], [1, 0]]),
        ("0.0,1.0\n0.5,0.5\n", [[0, 1], [0.5, 0.5]]),
        ("# cat dog\n0.5 0.5\n", [[0.5, 0.5]]),
        ("# what this is\n0.5 0.5\n", [[0.5, 0.5]]),
        ("# what this is\ncat,dog\n0.5,0.5\n", [[0.5, 0.5]]),
        ("bin1,bin2,3\n0.5,0.5,0\n", [[0.5, 0.5, 0]]),
        ('"cat, or kitten",dog\n"0.5","0.5"\n', [[0.5, 0.5]]),
        ("0.5   0.5\r\n 0.25  0.75\r\n", [[0.5, 0.5], [0.25, 0.75]]),
        ("1e-1,9E-1\n", [[0.1, 0.9]]),
    ],
)
def test_texts(tmp_path, text, rows):
    (tmp_path / "table.csv").write_text(text, newline="")
    (found,) = imported(tmp_path / "table.csv", tmp_path / "toy_all")
    np.testing.assert_allclose(found[0], rows, rtol=1e-7)


def test_blocks_of_samples_are_what_the_whole_is(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "BLOCK_VALUES", 7)
    for suffix, array in ((".npy", LOGITS), (".csv", P[0]), (".h5", LOGITS)):
        (found,) = imported(save(tmp_path / f"array{suffix}", array), tmp_path / f"toy_{suffix[1:]}")
        np.testing.assert_allclose(found, P if array.ndim == 3 else P[:1], rtol=2e-6)


@pytest.mark.parametrize("axes", ["TNLC", "CLTN", "NTCL"])
@pytest.mark.parametrize("suffix", [".npy", ".h5", ".pt"])
def test_each_position_is_a_sample(tmp_path, monkeypatch, axes, suffix):
    monkeypatch.setattr(formats, "BLOCK_VALUES", 15)  # five rows: more than a text, and not a whole number of them
    texts = LOGITS.reshape(4, 3, 4, 3).transpose(["TNLC".index(axis) for axis in axes]).copy()
    path = save(tmp_path / f"tokens{suffix}", texts)
    (found,) = imported(path, tmp_path / "lm_all", axes=axes, kind="logits")
    np.testing.assert_allclose(found, P, rtol=2e-6)
    texts[tuple({"T": 2, "N": 1, "L": 3, "C": 0}[axis] for axis in axes)] = np.nan
    save(path, texts)
    place = ", ".join({"T": "2", "N": "1", "L": "3", "C": ":"}[axis] for axis in axes)
    with pytest.raises(InputError, match=re.escape(f"[{place}] holds a value that is not finite")):
        imported(path, tmp_path / "lm_bad", axes=axes, kind="logits")


@pytest.mark.parametrize("axes", ["TNLC", "TLNC"])
def test_labels_of_positions_are_in_the_order_of_axes(tmp_path, axes):
    labels = np.random.default_rng(0).integers(4, size=(3, 3))  # nothing tells the axes apart but what is said
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "a.npy", np.eye(4)[labels][None] * 0.8 + 0.05)
    with Source(tmp_path / "a.npy", axes=axes) as source:
        found = labels_in(tmp_path / "labels.npy", source)
        (path,) = import_runs(source, tmp_path / "lm_all", labels=found)[:1]
    np.testing.assert_array_equal(Trajectory(path)[0].argmax(axis=1), found)
    np.save(tmp_path / "labels.npy", labels.ravel()[:, None])
    with Source(tmp_path / "a.npy", axes=axes) as source:
        np.testing.assert_array_equal(labels_in(tmp_path / "labels.npy", source), labels.ravel())


def test_the_label_of_one_sample(tmp_path):
    (tmp_path / "labels.txt").write_text("0\n")
    with Source(save(tmp_path / "a.npy", P[:, :1])) as source:
        assert labels_in(tmp_path / "labels.txt", source).tolist() == [0]


def test_labels_in_an_archive_with_the_rest(tmp_path):
    np.savez(tmp_path / "all.npz", preds=P, labels=labels_of(12, 3))
    with Source(tmp_path / "all.npz", key="preds") as source:
        np.testing.assert_array_equal(labels_in(tmp_path / "all.npz", source), labels_of(12, 3))


@pytest.mark.parametrize("kind", ["logits", "log-probabilities", "probabilities"])
def test_info_of_the_accuracy_of_one_number(tmp_path, kind):
    right = np.where(np.arange(12) % 2, 0.9, 0.2)
    values = {"logits": np.log(right / (1 - right)), "log-probabilities": np.log(right), "probabilities": right}[kind]
    np.save(tmp_path / "a.npy", values[None])
    with Source(tmp_path / "a.npy", kind=kind, binary=True) as source:
        assert "accuracy    1.0000 at first" in "\n".join(info(source, np.arange(12) % 2))


def test_other_byte_orders_and_types_side_by_side(tmp_path):
    (found,) = imported(save(tmp_path / "a.npy", P.astype(">f4")), tmp_path / "toy_a")
    np.testing.assert_array_equal(found, P)
    (tmp_path / "run").mkdir()
    for t, dtype in enumerate(("f4", "f4", "f2")):
        np.save(tmp_path / "run" / f"{t}.npy", P[t].astype(dtype))
    with Source(tmp_path / "run") as source:
        assert str(source).endswith(
            "in float16 and float32, 3 files, 0.npy to 2.npy, of samples, classes: 1 run, "
            "3 checkpoints, 12 samples, 3 classes"
        )
        (path,) = import_runs(source, tmp_path / "toy_b")
    assert Trajectory(path).dtype == "float32"


def test_a_last_layer_of_zeros_is_no_doubt(tmp_path):
    (found,) = imported(save(tmp_path / "a.npy", np.concatenate([0 * LOGITS[:1], LOGITS])), tmp_path / "toy_a")
    np.testing.assert_allclose(found[0], 1 / 3, rtol=1e-7)


def test_kinds_of_all_seeds_are_looked_at(tmp_path):
    np.save(tmp_path / "a.npy", np.stack([P, LOGITS]))
    with pytest.raises(
        InputError, match=r"\[0, 0, :, :\] looks like probabilities, but .*\[1, 0, :, :\] looks like lo"
    ):
        imported(tmp_path / "a.npy", tmp_path / "toy_a")


def test_the_vocabulary_of_a_language_model(tmp_path):
    logits = np.random.default_rng(0).normal(size=(2, 20, 50_000)).astype(np.float32)
    (found,) = imported(save(tmp_path / "tokens.npy", logits), tmp_path / "lm_all")
    np.testing.assert_allclose(found, softmax(logits.astype(float), axis=-1), rtol=1e-6)


def test_an_import_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    path = save(tmp_path / "array.npy", LOGITS)
    whole = imported(path, tmp_path / "toy_whole")
    read = formats.Array.block

    def stopped(self, layout, place, samples):
        if place["T"] == 2:
            raise KeyboardInterrupt
        return read(self, layout, place, samples)

    monkeypatch.setattr(formats.Array, "block", stopped)
    with pytest.raises(KeyboardInterrupt):
        imported(path, tmp_path / "toy_all", kind="logits")
    seen = []
    monkeypatch.setattr(formats.Array, "block", lambda self, *how: (seen.append(how[1]["T"]), read(self, *how))[1])
    np.testing.assert_array_equal(imported(path, tmp_path / "toy_all", kind="logits"), whole)
    assert seen == [2, 3]


def test_from_arrays_to_a_picture_in_two_commands(tmp_path, call):
    """As others publish them: seeds, checkpoints, samples and classes in one file."""
    np.save(tmp_path / "published.npy", np.stack([trajectory(seed=s).astype(np.float16) for s in (0, 1)]))
    np.savetxt(tmp_path / "labels.txt", labels_of(), fmt="%d")
    arguments = ["import", tmp_path / "published.npy", tmp_path / "toy_all", "--labels", tmp_path / "labels.txt"]
    status, out, err = call(PREDICTIONS, *arguments)
    assert (status, err) == (0, "")
    assert "probabilities in float16, seeds, checkpoints, samples, classes: 2 runs, 9 checkpoints" in out
    assert call("info_geometry/inpca.py", tmp_path / "toy_all")[0] == 0
    assert (tmp_path / "plots" / "toy" / "inpca.png").exists()
    assert np.load(tmp_path / "embedding" / "toy_inpca.npz")["progress"].shape == (18,)
    assert call(PREDICTIONS, *arguments)[0] == 0, "what is there already is left"


def test_what_is_there_is_not_replaced(tmp_path, refused):
    np.save(tmp_path / "a.npy", P)
    np.save(tmp_path / "b.npy", P[::-1])
    np.save(tmp_path / "others.npy", labels_of(12, 3)[::-1])
    imported(tmp_path / "a.npy", tmp_path / "toy_all")
    before = (tmp_path / "toy_all" / "preds_0.h5").read_bytes()
    assert "made with other settings" in refused(PREDICTIONS, "import", tmp_path / "b.npy", tmp_path / "toy_all")
    assert (tmp_path / "toy_all" / "preds_0.h5").read_bytes() == before
    with Source(tmp_path / "b.npy") as source:
        import_runs(source, tmp_path / "toy_all", overwrite=True, labels=labels_of(12, 3))
    t = Trajectory(tmp_path / "toy_all" / "preds_0.h5")
    np.testing.assert_array_equal(t[:, :], P[::-1])
    assert read_labels(tmp_path / "labels" / "toy_val_labels.npy", [t]).tolist() == labels_of(12, 3).tolist()
    arguments = ["import", tmp_path / "a.npy", tmp_path / "toy_b", "--labels", tmp_path / "others.npy"]
    assert "holds other labels" in refused(PREDICTIONS, *arguments)
    assert not (tmp_path / "toy_b").exists()
    assert "the folder's name must be" in refused(PREDICTIONS, "import", tmp_path / "a.npy", tmp_path / "toy")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ("0\n1\n", "holds (2, 1) numbers, not a label for each of 12"),
        ("0\n" * 11 + "3\n", "[11] is 3, no whole number from 0 to 2"),
        ("0\n" * 11 + "0.5\n", "[11] is 0.5"),
        ("0\n" * 11 + "-1\n", "[11] is -1"),
        ("0\n" * 11 + "nan\n", "[11] is nan"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, refused, labels, sentence):
    np.save(tmp_path / "a.npy", P)
    (tmp_path / "labels.txt").write_text(labels)
    arguments = ["import", tmp_path / "a.npy", tmp_path / "toy_all", "--labels", tmp_path / "labels.txt"]
    assert sentence in refused(PREDICTIONS, *arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--axes", "TN"], "not the axes TN"),
        (["--axes", "TNX"], "not the axes TNX"),
        (["--axes", "TTC"], "not the axes TTC"),
        (["--axes", "STC"], "not the axes STC"),
        (["--binary", "--axes", "TNC"], "has 3 classes, whereas --binary"),
        (["--kind", "logit"], "did you mean logits?"),
        (["--kind", "log-probabilities"], "holds a value above 0"),
        (["--seed", "-1"], "seeds are whole numbers from 0"),
        (["--key", "other"], "holds data, not other"),
    ],
)
def test_options_that_do_not_fit(tmp_path, refused, arguments, sentence):
    np.savez(tmp_path / "a.npz", data=P)
    assert sentence in refused(PREDICTIONS, "import", tmp_path / "a.npz", tmp_path / "toy_all", *arguments)
    assert not (tmp_path / "toy_all").exists()


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([[0.5, 0.5], [1, 0]], "probabilities"),
        ([[0.499, 0.499]], "probabilities"),
        ([[np.log(0.5), np.log(0.5)], [0, -np.inf]], "log-probabilities"),
        ([[-1, -1]], "logits"),
        ([[-1, 2]], "logits"),
        ([[-np.inf, 2]], "logits"),
        ([[0.5], [1]], "probabilities"),
        ([[-3], [2]], "logits"),
        ([[-1e-8, 0.5]], "logits"),
    ],
)
def test_kinds_are_told_by_values(rows, kind):
    assert kind_of(np.array(rows, dtype=float), "rows") == kind


@pytest.mark.parametrize(
    "rows", [[[0.2, 0.2]], [[3, 1]], [[-3.0], [-2.0]], [[1.5], [2]], [[np.nan, 0.5]], [[0, 0]], [[-1e-8, 1 + 1e-8]]]
)
def test_what_may_be_several_kinds_is_asked_for(rows):
    with pytest.raises(InputError, match=r"--kind says|none of the rows"):
        kind_of(np.array(rows, dtype=float), "rows")


def test_info_says_what_is_inside(tmp_path, call):
    odd = np.concatenate([P, P[:1]])
    odd[1, 2] = [1, 0, 0]
    np.save(tmp_path / "odd.npy", odd)
    np.save(tmp_path / "labels.npy", labels_of(12, 3))
    status, out, err = call(PREDICTIONS, "info", tmp_path / "odd.npy", "--labels", tmp_path / "labels.npy")
    assert (status, err) == (0, "")
    assert "probabilities in float32, checkpoints, samples, classes: 1 run, 5 checkpoints, 12 samples, 3 classes" in out
    assert "1.11% of them zero" in out
    assert f"{(odd[0].argmax(-1) == labels_of(12, 3)).mean():.4f} at first" in out
    assert "likely problem: 1 of 5 checkpoints have the same values as others" in out
    np.save(tmp_path / "good.npy", P)
    assert "no problem found" in call(PREDICTIONS, "info", tmp_path / "good.npy")[1]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.eye(3)[np.zeros((4, 12), int)], "100% of the rows are sure of one class"),
        (np.where(np.arange(3) == 0, 0.0, 0.5) * np.ones((4, 12, 1)) * [0, 2, 0] + [0.0, 0, 0], "sure of one class"),
        (2 * P, "its rows sum to 2 to 2"),
        (np.where(np.arange(12)[:, None] == 3, np.nan, LOGITS), "12 values are not finite"),
        (np.where(np.arange(12)[:, None] == 3, [0.3, 0.3, 0.3], P), "its rows sum to 0.9 to 1"),
    ],
)
def test_info_says_what_is_strange(tmp_path, call, values, sentence):
    np.save(tmp_path / "odd.npy", values)
    status, out, _ = call(PREDICTIONS, "info", tmp_path / "odd.npy")
    assert status == 0
    assert sentence in next(line for line in out.splitlines() if line.startswith("likely problem: "))


def test_info_of_labels_in_another_order(tmp_path, call):
    sure = np.full((1, 300, 3), 0.1)
    sure[0, np.arange(300), labels_of(300, 3)] = 0.8
    np.save(tmp_path / "sure.npy", sure)
    np.save(tmp_path / "labels.npy", (labels_of(300, 3) + 1) % 3)
    out = call(PREDICTIONS, "info", tmp_path / "sure.npy", "--labels", tmp_path / "labels.npy")[1]
    assert "below that of guesses, 0.3333: labels may be in another order" in out


def test_check_says_whether_runs_can_be_compared(folders, call, refused):
    status, out, err = call(PREDICTIONS, "check", *folders)
    assert (status, err) == (0, "")
    assert "can be compared, runs: 4, tasks: 2, as many samples; files do not say which" in out
    with h5py.File(folders[1] / "preds_1.h5", "a") as file:
        file["data"][3, 7] = np.float16(0.9)
    assert "toy_b/preds_1.h5: cannot be compared, since rows sum to" in refused(PREDICTIONS, "check", *folders)
    (folders[0].parent / "labels" / "toy_val_labels.npy").unlink()
    assert "without labels" in call(PREDICTIONS, "check", folders[0])[1]


def test_python_from_arrays_to_figures(tmp_path):
    from info_geometry import InPCA, embed, page, plot
    from info_geometry.bhattacharyya import pairwise
    from info_geometry.geodesic import progress

    runs = {"a": [trajectory(seed=0), trajectory(seed=1)], "b": trajectory(5, seed=2)}
    picture = embed(runs, labels_of())
    stack = np.concatenate([*runs["a"], runs["b"]])
    np.testing.assert_array_equal(picture.embedding, InPCA(50).fit(pairwise(stack)).embedding_)
    np.testing.assert_allclose(picture.progress, progress(stack, labels_of()), atol=1e-12)
    assert picture.task.tolist() == ["a"] * 18 + ["b"] * 5
    assert picture.seed.tolist() == [0] * 9 + [1] * 9 + [0] * 5
    assert all(path.exists() for path in plot.inpca_figures(tmp_path, picture))
    assert page.write(tmp_path / "inpca.html", picture).exists()
    assert embed({"a": runs["b"]}).geodesic is None
    with pytest.raises(InputError, match="labels"):
        embed(runs, np.arange(3))


def test_runs_in_other_shapes_are_the_same():
    from info_geometry import embed

    runs = [trajectory(seed=0), trajectory(seed=1)]
    expected = embed({"a": runs}, labels_of())
    for given in (np.stack(runs), torch.tensor(np.stack(runs), requires_grad=True), tuple(map(torch.tensor, runs))):
        found = embed({"a": given}, labels_of())
        np.testing.assert_array_equal(found.embedding, expected.embedding)
        assert found.seed.tolist() == expected.seed.tolist()
    assert set(embed({7: runs[0]}).task) == {"7"}


@pytest.mark.parametrize("n_models", [1, 3])
def test_models_that_are_the_same_have_no_geodesic(tmp_path, n_models):
    from info_geometry import embed, plot

    picture = embed({"a": np.repeat(trajectory()[3:4], n_models, axis=0)}, labels_of())
    assert picture.geodesic is None
    assert not picture.embedding.any()
    assert all(path.exists() for path in plot.inpca_figures(tmp_path, picture))


def with_nan():
    P = models(5, 3, 4)
    P[2, 1] = np.nan
    return P


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        ({}, "there are no runs to embed"),
        (models(2, 3, 4), "there are no runs to embed; expected {task:"),
        ({"a": []}, "a: has no runs"),
        ({"a": models(2, 3, 4), "b": models(2, 3, 5)}, "the same samples and classes"),
        ({"a": np.full((2, 3, 4), 0.5)}, "a, seed 0: [0, 0] sums to 2"),
        ({"a": [models(5, 3, 4), with_nan()]}, "a, seed 1: [2, 1] holds a value that is not finite"),
        ({"a": list(models(2, 3, 4))}, "a, seed 0: expected (checkpoints, samples, classes), got shape (3, 4)"),
    ],
)
def test_arrays_that_cannot_be_embedded(runs, sentence):
    from info_geometry import embed

    with pytest.raises(InputError, match=re.escape(sentence)):
        embed(runs)
