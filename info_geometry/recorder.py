"""Recording: the predictions of any network, taken in any training loop.

    recorder = Recorder("predictions/mine_all", probe, labels, seed=0)
    for step, (x, y) in enumerate(batches):
        if recorder.due(step):
            recorder.record(model)
        ...  # a step of training
    recorder.record(model, step + 1)
    recorder.close()

`probe` are samples that all networks of a picture predict; `python info_geometry/inpca.py predictions/mine_*` draws it.
"""

import atexit
import collections.abc
import contextlib
import hashlib
import math
import operator
import os
import random
import sys
import time
import warnings
import weakref

import numpy as np

from info_geometry import ranks
from info_geometry.importing import KINDS, check_folder, check_labels, kind_of, probabilities, store_labels
from info_geometry.predictions import Trajectory, digest, labels_path
from info_geometry.samples import slices
from info_geometry.script import InputError, shown, unknown, versions
from info_geometry.writer import Writer

OPEN = weakref.WeakValueDictionary()  # recorders of this process that have begun to write, by path


@atexit.register  # after h5py has been imported, whose own end would come first otherwise
def close_all():
    """Bring together what scripts have recorded that end, or fail, without `Recorder.close`."""
    for recorder in list(OPEN.values()):
        recorder.close()


def dense_early(step, per_doubling=8):
    """Whether a step is one of 0, 1, 2, ... 11, and then of `per_doubling` in each doubling, about evenly spaced in the
    logarithm: networks move most at first."""
    if step < 1:
        return step == 0
    return step == round(2 ** (round(per_doubling * math.log2(step)) / per_doubling))


class Recorder:
    """Writes what a network predicts for N samples, from time to time, to `folder`/preds_<seed>.h5.

    What is recorded survives a kill; so that the file grows by each checkpoint without being written anew each time,
    checkpoints lie beside it until there are enough of them, or until `close`. Under torchrun all processes record at
    once: they share the samples, and the first one writes.

    Args:
        folder: <dataset>_<task>, such as predictions/mine_all
        samples: what the network is given, in batches: an array or tensor (N, ...), or a list; a tuple or a dict of
            these is given as several arguments
        labels: true classes (N,), stored beside the folder for progress and accuracy
        seed: the number of the run
        kind: of outputs (B, C), one of logits, log-probabilities, probabilities. Those of tokens, (B, L, C), are B L
            samples. scikit-learn's `predict_proba` gives probabilities, whatever is said here
        imprint: for networks trained on different classes (needs labels): the name of the last layer of a torch module,
            such as "fc", whose input is what is imprinted, or a function of a network and a batch that gives features
            (B, F)
        forward: a function of a network and a batch that gives the outputs, for networks that are not called like that
        schedule: a function of the step that says whether it is `due` (default: `dense_early`), or a set of steps
        batch_size: samples that are predicted at once
        dtype: of what is stored, float32 or float16, which is half as large, and coarse for thousands of classes
        resume: go on with the run that is there. One that starts from an earlier step forgets what was recorded from
            there on, and says so
        overwrite: replace the run that is there, once there is something new

    Raises InputError (a ValueError) for arguments that make no sense, for a run that is there and is neither to be
    resumed nor to be overwritten, and, when the first checkpoint is recorded, for one that another process records.
    """

    def __init__(
        self,
        folder,
        samples,
        labels=None,
        *,
        seed=0,
        kind="logits",
        imprint=None,
        forward=None,
        schedule=dense_early,
        batch_size=256,
        dtype="float32",
        resume=False,
        overwrite=False,
    ):
        folder = check_folder(folder)
        if kind not in KINDS:
            raise unknown("kind of outputs", kind, KINDS)
        if dtype not in ("float16", "float32"):
            raise unknown("type of predictions", dtype, ("float16", "float32"))
        if batch_size < 1 or (resume and overwrite):
            raise InputError("batch_size is from 1, and a run is either resumed or overwritten")
        if imprint and labels is None:
            raise InputError("imprinting makes a prototype of each class: it needs labels")
        self.path = folder / f"preds_{_whole(seed, 'seed')}.h5"
        _check_samples(samples)
        self.samples, self.labels, self.batch_size = samples, None if labels is None else _labels(labels), batch_size
        self.kind, self.imprint, self.forward, self.dtype = kind, imprint, forward, dtype
        self.schedule = schedule if callable(schedule) else frozenset(schedule).__contains__
        self.resume, self.overwrite, self.writer, self.step, self.last = resume, overwrite, None, None, None
        self.record_of_run = {
            "recorded": {"kind": kind, "imprint": imprint if isinstance(imprint, str | None) else "features"},
            "dtype": dtype,
            "versions": versions("torch", "numpy", "h5py"),
        }
        if known := _hash(samples):
            self.record_of_run["probe_sha256"] = known
        if labels is not None:
            self.record_of_run["labels_sha256"] = digest(self.labels)
            check_labels(self.labels, labels_path(folder))
        self.alone, self.closed, self.next_join = contextlib.ExitStack(), False, 0.0
        if self.path.exists() and not (resume or overwrite) and str(self.path) not in OPEN:
            raise self._there(len(Trajectory(self.path)))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    @property
    def steps(self):
        """The steps that are recorded, by a run that is resumed too."""
        there = self.writer or ((self.resume or self.closed) and Writer(self.path, self.record_of_run))
        return [int(id) for id in there.ids] if there else []

    def due(self, step):
        """Whether the schedule has this step, counted from 0, and it was not recorded just now; `record` then takes it
        for the step."""
        self.step = step
        return step != self.last and bool(self.schedule(step))

    def record(self, model, step=None, **numbers):
        """Record what `model` predicts, which is left as it is: its modes, and the state of random numbers.

        `step` is by default the one that was `due`, counted from the start of training through all epochs; the last one
        may be recorded again. `numbers`, such as epoch=, are stored with it. Raises InputError for a step before the
        last one, and for outputs that are no predictions.
        """
        step = self.step if step is None else step
        if step is None:
            raise InputError("record(model, step=...): says which step this is, unless due(step) has asked before")
        step = _whole(step, "step")
        if self.last is not None and step < self.last:
            raise InputError(
                f"step {step} comes after step {self.last}: steps are counted through all epochs; to go back, make a "
                "Recorder anew, with resume=True"
            )
        if self.closed:
            raise InputError(f"{shown(self.path)}: this recorder is closed")
        for name, value in numbers.items():
            if not name.isidentifier() or name in ("data", "id", "record", "samples", "predictions"):
                raise InputError(
                    f"record(..., {name}=...): another name, please: letters, digits and _, and none in use"
                )
            try:
                numbers[name] = float(value)
            except (TypeError, ValueError, RuntimeError) as error:
                raise InputError(f"record(..., {name}={value!r:.40}): is no number") from error
        with undisturbed(model) as network:
            outputs = self._outputs(network)
        if ranks.rank() == 0:
            P = self._imprinted(outputs) if self.imprint else outputs
            numbers = self._measured(P) | numbers
        self._begin()
        if ranks.rank() == 0:
            self._store(step, P, numbers)
        self.last = step

    def __del__(self):
        with contextlib.suppress(Exception):  # it may not have been made
            self.close()

    def close(self):
        """Bring all that is recorded together in the file."""
        self.closed = True
        if OPEN.get(str(self.path)) is self:
            del OPEN[str(self.path)]
        with self.alone:
            writer, self.writer = self.writer, None
            if writer and os.getpid() == self.process:  # not in a copy of the process
                writer.finish()

    def _begin(self):
        """Have the file for this recorder, in all processes at once."""
        if OPEN.get(str(self.path)) is self:
            return
        if other := OPEN.pop(str(self.path), None):  # as in a notebook's cell that runs again
            other.close()
        with contextlib.ExitStack() as stack:
            stack.enter_context(ranks.alone(self.path))
            if ranks.rank() == 0:
                self.writer = Writer(self.path, self.record_of_run, overwrite=self.overwrite)
                if self.overwrite:
                    self.writer.anew()
                elif self.writer.ids and not self.resume:
                    raise self._there(len(self.writer.ids))
                self.writer.begin()
                if self.labels is not None:
                    store_labels(self.labels, labels_path(self.path.parent))
            self.alone = stack.pop_all()
        self.process = os.getpid()
        OPEN[str(self.path)] = self

    def _there(self, n):
        return InputError(
            f"{shown(self.path)}: holds a run of {n} checkpoints; resume=True goes on with it, overwrite=True replaces "
            "it"
        )

    def _outputs(self, network):
        """Probabilities of all samples (N, C), or features (N, F), in all processes."""
        batches = slices(_length(self.samples), self.batch_size)
        # one batch tells a process without any how wide outputs are
        own = range(len(batches))[ranks.rank() :: ranks.count()]
        found = {n: self._outputs_of(network, _part(self.samples, batches[n])) for n in own or [0]}
        widths = {block.shape[1] for block in found.values()}
        if len(widths) > 1:
            raise InputError(f"the network's outputs have {sorted(widths)} classes in different batches")
        if ranks.count() == 1:
            return np.concatenate(list(found.values()))
        counts = np.zeros(len(batches), dtype=np.int64)
        counts[own] = [len(found[n]) for n in own]
        ranks.add_up(counts)
        ends = np.cumsum(counts)
        together = np.zeros((ends[-1], widths.pop()), np.float32)
        for n in own:
            together[ends[n] - counts[n] : ends[n]] = found[n]
        ranks.add_up(together)
        return together

    def _outputs_of(self, network, batch):
        """Probabilities, or features, of a batch, in float32."""
        torch = sys.modules.get("torch")
        is_module = torch and isinstance(network, torch.nn.Module)
        if is_module:
            batch = _each(batch, lambda leaf: _for(network, leaf))
        kind = self.kind
        if callable(self.imprint):
            found = self.imprint(network, batch)
        elif self.imprint:
            if not is_module:
                raise InputError(
                    "imprint= is the name of a layer of a torch module; a function gives features of others"
                )
            found = _input_of(network, self.imprint, lambda: self._called(network, batch))
        elif self.forward is None and hasattr(network, "predict_proba"):
            found, kind = network.predict_proba(batch), "probabilities"
            classes = getattr(network, "classes_", None)
            if self.labels is not None and classes is not None and list(classes) != list(range(len(classes))):
                raise InputError(f"the model's classes_ are {classes}; with labels they have to be 0, 1, 2, ...")
        else:
            found = self._called(network, batch)
        found = getattr(found, "logits", found)  # as transformers return them
        if isinstance(found, tuple | collections.abc.Mapping):
            raise InputError(f"the network's outputs are a {type(found).__name__}; forward= says which of them to take")
        if torch and isinstance(found, torch.Tensor):
            found = found.detach().cpu().double().numpy()
        found = np.asarray(found)
        n, numeric = _length(batch), found.dtype.kind in "fiub"
        fits = found.ndim in (1, 2, 3) and (len(found) == n or (self.forward is not None and found.ndim == 2))
        if not (fits and numeric):
            raise InputError(
                f"the network's outputs are {found.dtype} of shape {found.shape} for {n} samples; expected numbers "
                f"({n}, C), or ({n}, L, C) for tokens; forward= gives others that shape"
            )
        found = found[:, None] if found.ndim == 1 else found
        found = found.reshape(-1, found.shape[-1]).astype(np.float64)
        if not self.imprint:
            if kind == "logits" and self.last is None:
                _warn_of_probabilities(found)
            found = probabilities(found, kind, lambda n: f"what the network gives for sample {n} of a batch")
        return found.astype(np.float32)

    def _called(self, network, batch):
        if self.forward:
            return self.forward(network, batch)
        if isinstance(batch, collections.abc.Mapping):
            return network(**batch)
        return network(*batch) if isinstance(batch, tuple) else network(batch)

    def _imprinted(self, features):
        import torch

        from info_geometry import imprinting

        if len(features) != len(self.labels):
            raise InputError(f"there are {len(self.labels)} labels for features of {len(features)} samples")
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if bad.size:
            raise InputError(f"the network's features of sample {bad[0]} are not finite")
        n_classes = int(self.labels.max()) + 1
        ids, classes = [str(n) for n in range(len(self.labels))], [str(c) for c in range(n_classes)]
        folds = imprinting.assign_folds(self.labels, ids, classes)
        return imprinting.imprinted(torch.from_numpy(features), self.labels, n_classes, folds).numpy()

    def _measured(self, P):
        """Accuracy and cross-entropy of probabilities (N, C), where there are labels."""
        if self.labels is None:
            return {}
        if len(P) != len(self.labels):
            raise InputError(f"there are {len(self.labels)} labels for {len(P)} predicted samples")
        if self.labels.max() >= P.shape[1]:
            raise InputError(f"label {self.labels.max()} is none of the {P.shape[1]} classes that are predicted")
        with np.errstate(divide="ignore"):
            loss = -np.log(P[np.arange(len(P)), self.labels].astype(np.float64)).mean()
        return {"accuracy": float(np.mean(P.argmax(axis=1) == self.labels)), "cross_entropy": float(loss)}

    def _store(self, step, P, numbers):
        before = sum(known < step for known in self.steps)
        if forgotten := len(self.writer.ids) - before:
            if self.last is None:
                warnings.warn(
                    f"{shown(self.path)}: forgets {forgotten} of {len(self.writer.ids)} checkpoints, since the run is "
                    f"at step {step} again",
                    stacklevel=3,
                )
            self.writer.cut(before)
        self.writer.append(str(step), P.astype(self.dtype), step=step, **numbers)
        if time.monotonic() > self.next_join:  # so seldom that it takes a twentieth of the time
            start = time.monotonic()
            self.writer.finish()
            self.next_join = time.monotonic() + 20 * (time.monotonic() - start)


def _warn_of_probabilities(outputs):
    """Warn where what are said to be logits look like something else."""
    with contextlib.suppress(InputError):
        kind = kind_of(outputs, "")
        if kind != "logits":
            warnings.warn(f"outputs look like {kind}, and are taken for logits; kind={kind!r} says so", stacklevel=5)


@contextlib.contextmanager
def undisturbed(model):
    """The network itself, ready for evaluation: out of what wraps it for several processes or compiles it, in its
    evaluation mode, without gradients. Afterwards its modes, and random states, are as they were."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  which others may draw from
    with contextlib.ExitStack() as stack:
        if torch := sys.modules.get("torch"):
            devices = {torch.cuda.current_device()} if torch.cuda.is_initialized() else ()
            stack.enter_context(torch.random.fork_rng(devices))
            stack.enter_context(torch.no_grad())
            if isinstance(model, torch.nn.Module):
                model = getattr(model, "_orig_mod", model)
                if isinstance(model, torch.nn.parallel.DistributedDataParallel | torch.nn.DataParallel):
                    model = model.module
                stack.callback(_restore, {module: module.training for module in model.modules()})
                model.eval()
        try:
            yield model
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def _restore(modes):
    for module, training in modes.items():
        module.training = training


def _input_of(network, name, call):
    """What goes into the layer called `name` while the network is called."""
    inputs = []
    try:
        layer = network.get_submodule(name)
    except AttributeError as error:
        raise unknown("layer", name, [found for found, _ in network.named_modules() if found]) from error
    handle = layer.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    try:
        call()
    finally:
        handle.remove()
    if len(inputs) != 1:
        raise InputError(f"the layer {name} is called {len(inputs)} times for a batch, which is to be once")
    return inputs[0].flatten(1) if inputs[0].ndim > 2 else inputs[0]


def _each(samples, function):
    """A function of an array, or of each of the arrays of a tuple or a mapping."""
    if isinstance(samples, collections.abc.Mapping):
        return {name: function(leaf) for name, leaf in samples.items()}
    return tuple(map(function, samples)) if isinstance(samples, tuple) else function(samples)


def _leaves(samples):
    leaves = []
    _each(samples, leaves.append)
    return leaves


def _length(samples):
    lengths = {leaf.shape[0] if hasattr(leaf, "shape") else len(leaf) for leaf in _leaves(samples)}
    if len(lengths) != 1 or 0 in lengths:
        raise InputError(f"samples are {sorted(lengths)} in number; expected as many in each array, and not none")
    return lengths.pop()


def _part(samples, part):
    return _each(samples, lambda leaf: leaf[part])


def _for(network, leaf):
    """An array or a tensor as the network takes it: where its weights are, and in their precision."""
    import torch

    if not isinstance(leaf, np.ndarray | torch.Tensor):
        return leaf
    if isinstance(leaf, np.ndarray):
        if leaf.dtype.kind not in "fiub":
            return leaf
        leaf = np.array(leaf, dtype=leaf.dtype.newbyteorder("="))  # whatever its strides, and writable
    leaf = torch.as_tensor(leaf)
    weights = next((p for p in network.parameters() if p.is_floating_point()), leaf)
    return leaf.to(weights.device, weights.dtype if leaf.is_floating_point() else None)


def _check_samples(samples):
    """Raise InputError for what is no sequence of samples, from which batches can be taken."""
    try:
        _part(samples, slice(0, min(1, _length(samples))))
    except InputError:
        raise
    except Exception as error:  # whatever it is
        raise InputError(
            f"samples are {type(samples).__name__}, of which no batch can be taken by [a:b]; expected an array, a "
            "tensor or a list, or a tuple or dict of these"
        ) from error


def _whole(number, name):
    """A whole number from 0, as Python's; raises InputError for another."""
    try:
        found = operator.index(number)
    except TypeError:
        found = -1
    if found < 0:
        raise InputError(f"{name} is {number!r}; expected a whole number from 0")
    return found


def _labels(labels):
    labels = np.asarray(getattr(labels, "cpu", lambda: labels)())
    if labels.ndim not in (1, 2) or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise InputError(
            f"labels are {labels.dtype} {labels.shape}; expected whole numbers from 0, (N,), or (B, L) of tokens"
        )
    return labels.astype(np.int64).ravel()


def _hash(samples):
    """SHA-256 of samples; None where they are objects that this project knows nothing of."""
    found = hashlib.sha256()
    with contextlib.suppress(TypeError):
        _add_to(found, _leaves(samples))
        return found.hexdigest()
    return None


def _add_to(found, leaf):
    if hasattr(leaf, "detach"):  # a tensor, whose type numpy may lack
        leaf = leaf.detach().cpu()
        leaf = (leaf.float() if leaf.is_floating_point() else leaf).numpy()
    elif hasattr(leaf, "tocoo"):  # of scipy
        leaf = leaf.tocoo()
        leaf = [leaf.shape, leaf.row, leaf.col, leaf.data]
    elif not isinstance(leaf, list | tuple) and hasattr(leaf, "__array__"):  # of pandas, for instance
        leaf = np.asarray(leaf)
    if isinstance(leaf, np.ndarray) and not leaf.dtype.hasobject:
        found.update(f"{leaf.shape}".encode())
        found.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8))
    elif isinstance(leaf, np.ndarray | list | tuple):
        found.update(f"{len(leaf)} of".encode())
        for part in leaf:
            _add_to(found, part)
    elif isinstance(leaf, str | bytes | int | float | None):
        found.update(f"{leaf!r} ".encode())
    else:
        raise TypeError(type(leaf))
