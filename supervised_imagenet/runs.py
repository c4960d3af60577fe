"""Runs of training, by whatever method: checkpoints along the way, and a killed run goes on to the same bits.

A method is a generator of losses, one for each part of each batch; what is random in a part is drawn from the seed and
the number of the step. A run is a folder, see `supervised_imagenet.checkpoints`.
"""

import contextlib
import json
import shutil
import time
from typing import NamedTuple

import numpy as np
import torch
from timm.optim import param_groups_weight_decay
from tqdm import tqdm

from info_geometry import ranks
from info_geometry.predictions import digest
from info_geometry.script import InputError, differing_file, replacing, shown, versions
from supervised_imagenet import checkpoints, networks, recipes
from supervised_imagenet.logs import Log

SAVE_STEPS = 100  # between two states to go on from, where checkpoints are rarer


class Loss(NamedTuple):
    """Of a part of a batch: its loss (a scalar tensor), and how many of its images, `seen`, were told right."""

    value: torch.Tensor
    right: torch.Tensor
    seen: int


class Size(NamedTuple):
    """Of a batch of all parts, for which the learning rate is; steps in an epoch; and images, or views of these, that
    the network sees in a step, if more than the batch."""

    batch: int
    steps: int
    images: int = 0


def settings_of(dataset, shape, task, seed, recipe, device, start=None):
    """All that a run depends on, as its folder and its predictions record it."""
    return {
        "dataset": dataset.name,
        "size": list(shape),
        "n_train": len(dataset.train),
        "samples_sha256": digest(dataset.train.ids),
        "task": task.name,
        "labels": list(task.labels),
        "shuffled": task.shuffled,
        "seed": seed,
        "weights": start and start.id,
        **recipe,
        "versions": versions("torch", "torchvision", "timm", "numpy")
        | {"device": str(device), "threads": torch.get_num_threads(), "processes": ranks.count()},
    }


@contextlib.contextmanager
def begun(folder, settings, overwrite):
    """Have the run's folder for these processes alone, with the settings noted in it, while the block runs; it is
    emptied first if `overwrite` and if a run with others is there.

    Raises InputError where such a run, or anything without settings, is there and not to be overwritten, and where
    another process is at this run.
    """
    with ranks.alone(folder):
        if ranks.rank() == 0:
            _begin(folder, settings, overwrite)
        ranks.wait()
        yield


def _begin(folder, settings, overwrite):
    path = folder / "settings.json"
    if path.exists():
        if not (differ := differing_file(path, settings)):
            return
    else:
        differ = "there is none beside what is there" if any(folder.glob("[!.]*")) else ""
    if differ and not overwrite:
        raise InputError(f"{shown(path)}: not the settings of this run ({differ}); --overwrite trains anew")
    if differ:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise InputError(f"{shown(folder)}: cannot be removed ({error.strerror or error})") from error
    with replacing(path) as partial:
        partial.write_text(json.dumps(settings, indent=1) + "\n")


def key(settings, *numbers):
    """A seed for whatever these numbers name, such as a step and a part, in the run with these settings."""
    return int(np.random.SeedSequence((settings["seed"], *numbers)).generate_state(1)[0])


def own_parts(settings):
    """The numbers of a batch's parts that this process has."""
    return range(*ranks.share(settings["parts"], 1))


def shuffled(settings, indices, size, first, last):
    """Batches of `indices` (n,) for the steps from `first` to before `last`: (step, batch), each epoch in an order of
    its own, of which what makes no batch is left out."""
    for step in range(first, last):
        epoch, place = divmod(step, size.steps)
        if place == 0 or step == first:
            generator = torch.Generator().manual_seed(key(settings, 1, epoch))
            order = torch.randperm(len(indices), generator=generator).numpy()
        yield step, indices[order[place * size.batch :][: size.batch]]


def train(folder, settings, network, losses, size, precision, heads=None, evaluate=None, tensorboard=False):
    """One run: from where it was, if it was begun, to the end of its schedule.

    `losses(first, last)` yields a `Loss` for each part, of those that this process has, of each batch from step `first`
    to before `last`; the parts' gradients are averaged. Norms are over one part, and what they note for evaluation
    comes from the first, so that the number of processes does not change what is learned. `size` is that of batches and
    epochs. Checkpoints hold `network`; `heads`, a module or none, are trained with it. `evaluate()` gives numbers for
    the log, {name: number}.
    """
    device, steps_per_epoch = precision.device, size.steps
    taken = checkpoints.schedule(settings["epochs"], steps_per_epoch, settings["dense_epochs"])
    parts = own_parts(settings)
    optimizer = _optimizer(network, heads, settings)
    step, sums = 0, torch.zeros(3, dtype=torch.float64)  # loss, right ones and images since the last checkpoint
    resume = folder / "resume.pt"
    finished = checkpoints.path_of(folder, len(taken) - 1).exists()
    if resume.exists() and not finished:
        state = checkpoints.load(resume)
        network.load_state_dict(state["model"])
        if heads:
            heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        precision.scaler.load_state_dict(state["scaler"])
        step, sums = state["step"], state["sums"]
    ranks.agree(-1 if finished else step, shown(folder))
    ranks.wait()  # all have read what the first will replace
    if finished:
        resume.unlink(missing_ok=True)
        return

    # what was logged later is logged again, as the first checkpoint always is
    log = Log(folder, step or -1, tensorboard) if ranks.rank() == 0 else None
    sums = sums.to(device) * (ranks.rank() == 0)
    since, seen_before = time.monotonic(), sums[2].item()

    def store():
        """At a checkpoint, or between two of them: what a killed run goes on from."""
        nonlocal sums, since, seen_before
        sums = ranks.total(sums)
        loss, right, seen = sums.tolist()
        if seen and not np.isfinite(loss):
            raise InputError(f"{shown(folder)}: the loss is {loss} at step {step}; --overwrite with a lower --lr")
        if step in taken:
            row = {"step": step, "epoch": step / steps_per_epoch}
            if seen:
                rate = round((seen - seen_before) / (time.monotonic() - since), 1)
                row |= {"learning_rate": optimizer.param_groups[0]["lr"], "loss": loss / seen, "accuracy": right / seen}
                row |= {"images_per_second": rate}
            row |= evaluate() if evaluate else {}
            if log:
                log.write(row)
            sums = torch.zeros_like(sums)
        if ranks.rank() == 0:
            weights = _on_cpu(network)
            if step in taken:
                path = checkpoints.path_of(folder, taken.index(step))
                images = step * (size.images or size.batch)
                checkpoints.save(path, model=weights, epoch=step / steps_per_epoch, step=step, images=images)
            if step < taken[-1]:
                state = {"optimizer": optimizer.state_dict(), "scaler": precision.scaler.state_dict()}
                state |= {"heads": _on_cpu(heads)} if heads else {}
                checkpoints.save(resume, model=weights, step=step, sums=sums.cpu(), **state)
        sums = sums * (ranks.rank() == 0)
        if step in taken:
            since, seen_before = time.monotonic(), 0
        return loss / max(seen, 1)

    if step == 0:
        store()
    found = losses(step, taken[-1])
    bar = tqdm(
        total=taken[-1],
        initial=step,
        desc=f"{folder.parent.name} seed {settings['seed']}",
        unit="step",
        disable=True if ranks.rank() else None,
    )
    while step < taken[-1]:
        for group in optimizer.param_groups:
            group["lr"] = recipes.learning_rate(settings, size.batch, step, steps_per_epoch)
        for part in parts:
            torch.manual_seed(key(settings, 2, step, part))
            networks.track_statistics(network, part == 0)
            with precision.autocast():
                loss, right, seen = next(found)
            precision.scaler.scale(loss / settings["parts"]).backward()
            sums += torch.stack([loss.detach().double() * seen, right.double(), right.new_tensor(seen).double()])
        trained = [p for module in (network, heads) if module for p in module.parameters()]
        ranks.add_up_all(p.grad for p in trained if p.grad is not None)
        precision.scaler.step(optimizer)
        precision.scaler.update()
        optimizer.zero_grad()
        step += 1
        bar.update()
        if step in taken or step % SAVE_STEPS == 0:
            bar.set_postfix(loss=f"{store():.3f}")
    bar.close()
    if ranks.rank() == 0:
        resume.unlink(missing_ok=True)


def _optimizer(network, heads, settings):
    module = torch.nn.ModuleList([network, heads]) if heads else network
    groups = param_groups_weight_decay(module, settings["weight_decay"])
    if settings.get("optimizer") == "adam":
        return torch.optim.Adam(groups, settings["lr"])
    nesterov = settings["nesterov"] and settings["momentum"] > 0
    return torch.optim.SGD(groups, settings["lr"], settings["momentum"], nesterov=nesterov)


def _on_cpu(module):
    return {name: value.cpu().contiguous() for name, value in module.state_dict().items()}
