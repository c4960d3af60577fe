"""Recording in training loops: what is written, what is left as it was, and what survives."""

import copy
import random
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
import torch
from conftest import REPOSITORY, labels_of
from torch import nn
from torch.nn.functional import one_hot

from info_geometry import Recorder, imprinting
from info_geometry.predictions import Trajectory, read, read_labels
from info_geometry.recorder import _hash, dense_early
from info_geometry.script import InputError

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
Y = labels_of(40, 4)


def network(seed=0, n_classes=4):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, n_classes))


def softmax_of(model, x=X):
    return model.eval()(torch.tensor(x)).softmax(dim=1).detach().numpy()


def close_to(found, expected):
    """But for the rounding to float32, of a softmax in float64, and in float32."""
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def recorded(folder, seed=0):
    t = Trajectory(folder / f"preds_{seed}.h5")
    return t[:, :].astype(float), {name: column.tolist() for name, column in t.columns.items()}


def trained(model, recorder, steps, first=0):
    """Each step is drawn from its number, so that a run goes on as it would have."""
    for step in range(first, steps):
        if recorder.due(step):
            recorder.record(model)
        with torch.no_grad():
            torch.manual_seed(step)
            for p in model.parameters():
                p += 0.1 * torch.randn_like(p)


def test_the_schedule_is_dense_at_first():
    steps = [step for step in range(1000) if dense_early(step)]
    assert steps[:12] == list(range(12))
    assert steps[-3:] == [790, 861, 939]
    for n in (16, 32, 64, 128, 256):
        assert sum(n <= step < 2 * n for step in steps) == 8
    assert not dense_early(-1)


def test_what_is_recorded(tmp_path):
    model, expected = network(), []
    with Recorder(tmp_path / "toy_all", X, Y, seed=3, batch_size=7) as recorder:
        for step in range(5):
            assert recorder.due(step)
            expected.append(softmax_of(model))
            model.train()
            recorder.record(model, epoch=step / 2)
            trained(model, Recorder(tmp_path / "toy_other", X, overwrite=True), 1)
    assert recorder.steps == [0, 1, 2, 3, 4]
    P, columns = recorded(tmp_path / "toy_all", 3)
    close_to(P, expected)
    assert columns["step"] == [0, 1, 2, 3, 4]
    assert columns["epoch"] == [0, 0.5, 1, 1.5, 2]
    np.testing.assert_allclose(columns["accuracy"], [np.mean(p.argmax(1) == Y) for p in expected])
    truth = [-np.log(p[np.arange(40), Y]).mean() for p in expected]
    np.testing.assert_allclose(columns["cross_entropy"], truth, rtol=1e-6)
    t = read([tmp_path / "toy_all"])
    assert read_labels(tmp_path / "labels" / "toy_val_labels.npy", t).tolist() == Y.tolist()
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["preds_0.h5", "preds_3.h5", "toy_val_labels.npy"]


def test_the_network_and_random_numbers_are_left_as_they_were(tmp_path):
    model = network().train()
    model[1].eval()  # frozen, as when fine-tuning
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    recorder = Recorder(tmp_path / "toy_all", X, Y, forward=restless)
    torch.manual_seed(5), np.random.seed(5), random.seed(5)  # noqa: NPY002
    drawn = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    torch.manual_seed(5), np.random.seed(5), random.seed(5)  # noqa: NPY002
    recorder.record(model, 0)
    assert torch.equal(torch.rand(3), drawn[0])
    assert np.array_equal(np.random.rand(3), drawn[1])  # noqa: NPY002
    assert random.random() == drawn[2]
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled()
    recorder.forward = failing
    with pytest.raises(RuntimeError):
        recorder.record(model, 1)
    assert [module.training for module in model.modules()] == modes


def restless(model, batch):
    np.random.rand(), random.random(), torch.rand(1)  # noqa: NPY002
    assert not torch.is_grad_enabled()
    return model(batch)


def failing(model, batch):
    raise RuntimeError


@pytest.mark.parametrize("kills", [0, 1, 4])
def test_a_killed_run_goes_on(tmp_path, kills):
    """The process ends without closing; the run starts again from an earlier step, and records anew from there."""
    with Recorder(tmp_path / "toy_whole", X, Y) as recorder:
        trained(network(), recorder, 40)
    model = network()
    for stop in range(kills):
        recorder = Recorder(tmp_path / "toy_all", X, Y, resume=True)
        trained(model, recorder, 8 * stop + 8, 8 * stop)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        trained(network(9), recorder, 8 * stop + 13, 8 * stop + 8)  # lost with the process
        recorder.writer = None  # without joining what lies beside the file
        recorder.close()
        model.load_state_dict(start)
    with Recorder(tmp_path / "toy_all", X, Y, resume=True) as recorder:
        trained(model, recorder, 40, 8 * kills)
    for found, wanted in zip(recorded(tmp_path / "toy_all"), recorded(tmp_path / "toy_whole"), strict=True):
        np.testing.assert_equal(found, wanted)
    assert [p.name for p in (tmp_path / "toy_all").iterdir()] == ["preds_0.h5"]


def test_a_run_that_is_there_is_kept_unless_it_is_to_be_replaced(tmp_path):
    with Recorder(tmp_path / "toy_all", X, Y) as recorder:
        trained(network(), recorder, 4)
    before = (tmp_path / "toy_all" / "preds_0.h5").read_bytes()
    with pytest.raises(InputError, match=r"holds a run of 4 checkpoints; resume=True"):
        Recorder(tmp_path / "toy_all", X, Y)
    with pytest.raises(InputError, match="made with other settings"):
        Recorder(tmp_path / "toy_all", X + 1, Y, resume=True).record(network(), 4)
    with pytest.raises(InputError, match="not finite"):  # before there is anything new
        Recorder(tmp_path / "toy_all", X * np.nan, Y, overwrite=True).record(network(), 0)
    with pytest.raises(InputError, match="holds other labels"):
        Recorder(tmp_path / "toy_all", X, (Y + 1) % 4, seed=1)
    assert (tmp_path / "toy_all" / "preds_0.h5").read_bytes() == before
    with Recorder(tmp_path / "toy_all", X + 1, Y, overwrite=True) as recorder:
        trained(network(), recorder, 2)
    assert recorded(tmp_path / "toy_all")[1]["step"] == [0, 1]


def test_what_another_run_left_beside_no_file_is_not_taken_away(tmp_path):
    """It was killed before its first checkpoint came into a file."""
    with Recorder(tmp_path / "toy_all", X) as recorder:
        recorder.next_join = np.inf
        recorder.record(network(), 0)
        recorder.writer = None
    parts = list(tmp_path.rglob("*.npz"))
    with pytest.raises(InputError, match="made with other settings"):
        Recorder(tmp_path / "toy_all", X + 1).record(network(), 0)
    assert len(parts) == 1
    assert parts[0].exists()


def test_a_cell_that_runs_again_closes_the_recorder_before(tmp_path):
    first = Recorder(tmp_path / "toy_all", X, Y)
    trained(network(), first, 3)
    assert first.steps == [0, 1, 2]
    second = Recorder(tmp_path / "toy_all", X, Y, overwrite=True)
    trained(network(), second, 2)
    with pytest.raises(InputError, match="this recorder is closed"):
        first.record(network(), 5)
    second.close()
    second.close()
    assert recorded(tmp_path / "toy_all")[1]["step"] == [0, 1]


def test_other_kinds_of_networks(tmp_path):
    model = network()
    expected = softmax_of(model)

    def found(name, model, samples=X, labels=Y, **how):
        with Recorder(tmp_path / f"toy_{name}", samples, labels, **how) as recorder:
            recorder.record(model, 0)
        return recorded(tmp_path / f"toy_{name}")[0][0]

    class Estimator:
        def predict_proba(self, x):
            return softmax_of(model, x)

    class Named(nn.Module):
        def forward(self, features, scale):
            return type("Output", (), {"logits": model(features) * scale})

    ones = np.ones((40, 1), np.float32)
    close_to(found("estimator", Estimator()), expected)
    close_to(found("numpy", lambda x: softmax_of(model, x), kind="probabilities"), expected)
    close_to(found("dict", Named(), {"features": X, "scale": ones}), expected)
    close_to(found("tuple", Named(), (torch.tensor(X), ones)), expected)
    close_to(found("compiled", torch.compile(model)), expected)
    close_to(found("forward", None, forward=lambda _, x: model(torch.tensor(x))), expected)
    log = found("log", lambda x: np.log(softmax_of(model, x)), kind="log-probabilities")
    close_to(log, expected)
    half = found("half", model, dtype="float16")
    np.testing.assert_allclose(half, expected, rtol=1e-3)
    one = network(n_classes=1)
    close_to(found("binary", one, labels=None)[:, 1], one.eval()(torch.tensor(X)).sigmoid().detach().numpy()[:, 0])


def test_tokens_are_samples(tmp_path):
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9))
    text = torch.arange(60).reshape(12, 5) % 9
    with Recorder(tmp_path / "lm_all", text, text.flatten(), batch_size=5) as recorder:
        recorder.record(model, 0)
    P = recorded(tmp_path / "lm_all")[0][0]
    close_to(P, model(text).softmax(-1).reshape(60, 9).detach().numpy())


@pytest.mark.parametrize("imprint", ["4", lambda model, x: model[:4](x)], ids=["layer", "function"])
def test_imprinting(tmp_path, imprint):
    model = network(n_classes=2).eval()
    with Recorder(tmp_path / "toy_all", X, Y, imprint=imprint, batch_size=16) as recorder:
        recorder.record(model, 0)
    features = model[:4](torch.tensor(X)).detach()
    folds = imprinting.assign_folds(Y, [str(n) for n in range(40)], "abcd")
    expected = imprinting.imprinted(features, Y, 4, folds)
    np.testing.assert_allclose(recorded(tmp_path / "toy_all")[0][0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"folder": "toy"}, "the folder's name must be"),
        ({"kind": "logit"}, "did you mean logits?"),
        ({"dtype": "float64"}, "unknown type"),
        ({"imprint": "4", "labels": None}, "it needs labels"),
        ({"imprint": "fc"}, "unknown layer 'fc'; known are 0, 1"),
        ({"samples": (X, X[:3])}, "expected as many in each array"),
        ({"samples": X[:0]}, "not none"),
        ({"samples": (x for x in X)}, "samples are generator"),
        ({"samples": torch.utils.data.DataLoader(X)}, "samples are DataLoader"),
        ({"forward": lambda model, x: (model(x), None)}, "outputs are a tuple; forward= says"),
        ({"forward": lambda model, x: [model(x), model(x)]}, "shape (2, 40, 4) for 40 samples"),
        (
            {"forward": lambda model, x: model(x).squeeze(), "batch_size": 1},
            "shape (4,) for 1 samples; expected numbers (1, C)",
        ),
        ({"seed": 0.5}, "seed is 0.5; expected a whole number from 0"),
        ({"seed": -1}, "seed is -1; expected a whole number from 0"),
        ({"batch_size": 0}, "batch_size is from 1"),
        ({"resume": True, "overwrite": True}, "either resumed or overwritten"),
        (
            {"forward": lambda model, x: np.zeros((5, 4, 6, 7))},
            "shape (5, 4, 6, 7) for 40 samples; expected numbers (40, C)",
        ),
        ({"forward": lambda model, x: np.zeros((len(x), len(x))), "batch_size": 39}, "[2, 39] classes in different"),
        ({"labels": Y[:39]}, "there are 39 labels for 40 predicted samples"),
        ({"labels": Y + 1}, "label 4 is none of the 4 classes"),
        ({"labels": Y.astype(float)}, "labels are float64"),
        ({"labels": Y - 1}, "expected whole numbers from 0, (N,)"),
        ({"kind": "probabilities"}, "what the network gives for sample 0"),
        ({"forward": lambda model, x: "text"}, "outputs are"),
        ({"forward": lambda model, x: x * np.nan}, "holds a value that is not finite"),
    ],
)
def test_what_makes_no_sense_is_said_and_nothing_is_left(tmp_path, arguments, sentence):
    arguments = {"folder": "toy_all", "samples": X, "labels": Y} | arguments
    arguments["folder"] = tmp_path / arguments["folder"]
    with pytest.raises(InputError) as error, Recorder(**arguments) as recorder:
        recorder.record(network(), 0)
    assert sentence in str(error.value)
    assert not list(tmp_path.rglob("*preds*"))


def test_steps_are_counted_through_all_epochs(tmp_path):
    with Recorder(tmp_path / "toy_all", X) as recorder:
        for step in (0, 1, 2, np.int64(2), torch.tensor(3)):  # the last one may be recorded again
            recorder.record(network(), step)
        with pytest.raises(InputError, match="step 0 comes after step 3: steps are counted through all epochs"):
            recorder.record(network(), 0)
        with pytest.raises(InputError, match=r"step is 3\.5; expected a whole number"):
            recorder.record(network(), 3.5)
    assert recorded(tmp_path / "toy_all")[1]["step"] == [0, 1, 2, 3]


def test_hashes_tell_samples_apart():
    different = [
        [[1, 11]],
        [[11, 1]],
        [[1, 2], [3]],
        [[1], [2, 3]],
        ["1", 2],
        [1, 2],
        np.arange(4),
        np.arange(4).reshape(2, 2),
        scipy.sparse.csr_array(np.eye(2)),
        scipy.sparse.csr_array(2 * np.eye(2)),
        np.array([[1, 2], [3]], dtype=object)[::-1],
    ]
    hashes = [_hash(samples) for samples in different]
    assert len({*hashes, None}) == len(different) + 1
    assert [_hash(samples) for samples in copy.deepcopy(different)] == hashes
    assert _hash([object()]) is None
    assert _hash(torch.arange(4)) == _hash(np.arange(4))


@pytest.mark.parametrize("samples", [X[::-1], X.astype(">f4"), np.asfortranarray(X)], ids=["back", "bytes", "order"])
def test_arrays_of_any_layout(tmp_path, samples):
    with Recorder(tmp_path / "toy_all", samples) as recorder:
        recorder.record(network(), 0)
    close_to(recorded(tmp_path / "toy_all")[0][0], softmax_of(network(), np.array(samples, dtype=np.float32)))


def test_a_step_has_to_be_known(tmp_path):
    with Recorder(tmp_path / "toy_all", X) as recorder, pytest.raises(InputError, match="which step"):
        recorder.record(network())


def test_several_processes_share_the_samples(tmp_path):
    """Under torchrun, with a network wrapped for it, whose buffers it would spread at each call."""
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, torch; sys.path.insert(0, sys.argv[2]); from test_recorder import *\n"
        "torch.distributed.init_process_group('gloo')\n"
        "model = nn.parallel.DistributedDataParallel(network())\n"
        "with Recorder(sys.argv[1] + '/toy_all', X, Y, batch_size=7) as recorder: recorder.record(model, 0)\n"
        "torch.distributed.destroy_process_group()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script]
    done = subprocess.run([*command, tmp_path, REPOSITORY / "tests"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    P, _ = recorded(tmp_path / "toy_all")
    close_to(P[0], softmax_of(network()))


def test_several_runs_at_once_share_a_folder(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from test_recorder import *\n"
        "for _ in range(3):\n"
        "    with Recorder(sys.argv[1] + '/toy_all', X, Y, seed=int(sys.argv[3]), overwrite=True) as recorder:\n"
        "        trained(network(), recorder, 20)\n"
    )
    command = [sys.executable, "-c", code, tmp_path, REPOSITORY / "tests"]
    processes = [subprocess.Popen([*command, str(seed)], stderr=subprocess.PIPE) for seed in range(2)]
    for process in processes:
        assert process.wait() == 0, process.stderr.read().decode()
    assert [len(t) for t in read([tmp_path / "toy_all"])] == [len([s for s in range(20) if dense_early(s)])] * 2


def test_one_run_is_recorded_once_at_a_time(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from test_recorder import *\n"
        "Recorder(sys.argv[1] + '/toy_all', X, Y, overwrite=True).record(network(), 0)"
    )
    with Recorder(tmp_path / "toy_all", X, Y) as recorder:
        trained(network(), recorder, 3)
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path, REPOSITORY / "tests"], capture_output=True, text=True
        )
        assert "preds_0.h5: another process is writing it" in done.stderr
    assert recorded(tmp_path / "toy_all")[1]["step"] == [0, 1, 2]


def test_one_hot_outputs_and_their_cross_entropy(tmp_path):
    truth = one_hot(torch.tensor(Y)).double()
    with Recorder(tmp_path / "toy_all", X, Y, kind="probabilities", forward=lambda m, x: m, batch_size=40) as recorder:
        recorder.record(truth, 0)
        recorder.record(1 - truth - (1 - truth) * 2 / 3, 1)
    _, columns = recorded(tmp_path / "toy_all")
    assert columns["cross_entropy"] == [0, np.inf]
    assert columns["accuracy"] == [1, 0]


def test_what_is_not_written_leaves_no_gap(tmp_path):
    with Recorder(tmp_path / "toy_all", X, Y) as recorder:
        recorder.record(network(), 0)
        for bad in ({"loss": None}, {"rates": [1, 2, 3]}, {"data": 1.0}, {"val/loss": 1.0}, {"phase": "train"}):
            with pytest.raises(InputError):
                recorder.record(network(), 1, **bad)
        recorder.record(network(), 2)
    assert recorded(tmp_path / "toy_all")[1]["step"] == [0, 2]


def test_numbers_are_what_they_were_and_missing_ones_are_none(tmp_path):
    with Recorder(tmp_path / "toy_all", X) as recorder:
        for step, numbers in enumerate(
            ({"epoch": 0}, {"epoch": 0.5, "rate": 1}, {}, {"epoch": torch.tensor(2), "rate": 0.1})
        ):
            recorder.record(network(), step, **numbers)
    _, columns = recorded(tmp_path / "toy_all")
    np.testing.assert_equal(columns["epoch"], [0, 0.5, np.nan, 2])
    np.testing.assert_equal(columns["rate"], [np.nan, 1, np.nan, 0.1])


@pytest.mark.parametrize("first", ["torch", "json"])
def test_a_script_that_fails_leaves_what_it_recorded_in_one_file(tmp_path, first):
    script = tmp_path / "train.py"
    script.write_text(
        f"import {first}\nimport numpy as np\nfrom info_geometry import Recorder\n"
        f"recorder = Recorder({str(tmp_path / 'toy_all')!r}, np.arange(9)[:, None])\n"
        "for step in range(6): recorder.record(lambda x: np.hstack([x, -x]), step)\n1 / 0\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert "ZeroDivisionError" in done.stderr
    assert "Exception ignored" not in done.stderr
    assert recorded(tmp_path / "toy_all")[1]["step"] == list(range(6))
    assert [p.name for p in (tmp_path / "toy_all").iterdir()] == ["preds_0.h5"]


def test_a_run_that_goes_back_says_what_it_forgets(tmp_path):
    with Recorder(tmp_path / "toy_all", X) as recorder:
        trained(network(), recorder, 6)
    with Recorder(tmp_path / "toy_all", X, resume=True) as recorder, pytest.warns(match="forgets 4 of 6 checkpoints"):
        trained(network(), recorder, 3, first=2)
    assert recorded(tmp_path / "toy_all")[1]["step"] == [0, 1, 2]


def test_checkpoints_that_wait_beside_the_file_are_spoken_of(tmp_path):
    with Recorder(tmp_path / "toy_all", X) as recorder:
        recorder.record(network(), 0)
        recorder.next_join = np.inf
        recorder.record(network(), 1)
        with pytest.warns(match="lacks 1 checkpoints that lie beside it"):
            assert len(read([tmp_path / "toy_all"])[0]) == 1
    assert len(read([tmp_path / "toy_all"])[0]) == 2


def test_probabilities_that_are_said_to_be_logits_are_spoken_of(tmp_path):
    with Recorder(tmp_path / "toy_all", X) as recorder, pytest.warns(match="look like probabilities"):
        recorder.record(lambda x: softmax_of(network(), x), 0)


def test_samples_of_many_kinds(tmp_path):
    """What tokenizers of Hugging Face give is a mapping, but no dict."""
    from collections import UserDict

    calls = []
    kinds = {
        "mapping": UserDict({"a": X, "b": X}),
        "ragged": [[1], [2, 3], [4]],
        "texts": ["one", "two", "three"],
        "bfloat16": torch.tensor(X).bfloat16(),
        "single": X,
        "graph": torch.tensor(X, requires_grad=True),
        "double": X.astype(np.float64),
    }
    for name, samples in kinds.items():
        forward = (lambda model, x: model(torch.tensor(X))) if name == "mapping" else None
        model = (
            network()
            if name in ("bfloat16", "single", "graph", "double", "mapping")
            else lambda x: np.eye(3)[: len(x)] * -2
        )
        with Recorder(tmp_path / f"toy_{name}", samples, forward=forward) as recorder:
            recorder.record(model, 0)
        calls.append(recorded(tmp_path / f"toy_{name}")[0].shape)
    assert calls == [(1, 40, 4), (1, 3, 3), (1, 3, 3), (1, 40, 4), (1, 40, 4), (1, 40, 4), (1, 40, 4)]
    hashes = {Trajectory(tmp_path / f"toy_{name}" / "preds_0.h5").record["probe_sha256"] for name in kinds}
    assert len(hashes) == 6, "a tensor is what its values are"


def test_classes_of_an_estimator_have_to_be_those_of_labels(tmp_path):
    class Estimator:
        classes_ = np.array([1, 2, 3, 4])

        def predict_proba(self, x):
            return softmax_of(network(), x)

    with Recorder(tmp_path / "toy_all", X, Y) as recorder, pytest.raises(InputError, match="classes_ are"):
        recorder.record(Estimator(), 0)
