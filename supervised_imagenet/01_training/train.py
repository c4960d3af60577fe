"""Train networks on tasks, and store checkpoints along the way.

    python supervised_imagenet/01_training/train.py --dataset digits --task all even --seed 0 1 2
    python supervised_imagenet/01_training/train.py --dataset cifar10 --data-dir ~/data --task animals

Each task and seed becomes a run in `checkpoints/<dataset>_<task>/<seed>/`. Runs that are there are not trained
again, and one that was killed goes on from its last checkpoint to the same bits: everything random in a step
is drawn from the seed and the number of the step.
"""

import argparse
import json
import math
import shutil
from pathlib import Path

from info_geometry.predictions import differing
from info_geometry.script import REPOSITORY, InputError, replacing, run, shown, versions
from supervised_imagenet import datasets, tasks

COMMON = {
    "decay": "cosine",  # of the learning rate, to 0: cosine or linear
    "momentum": 0.9,  # Nesterov's
    "smoothing": 0.0,  # of labels
    "dense_epochs": 5,  # with five checkpoints each; then one an epoch
}
CIFAR = {
    # Wide-ResNet and settings of the published tutorial (CIFAR-100, two tasks)
    "arch": "wrn-16-4",
    "epochs": 25,
    "batch_size": 64,
    "lr": 0.01,
    "weight_decay": 5e-4,
}
RECIPES = {
    "digits": COMMON | {"arch": "cnn", "epochs": 30, "batch_size": 50, "lr": 0.05, "weight_decay": 5e-4},
    "cifar10": COMMON | CIFAR,
    "cifar100": COMMON | CIFAR,
    "imagefolder": COMMON | CIFAR,
}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    datasets.add_arguments(parser)
    parser.add_argument("--task", nargs="+", default=["all"], metavar="TASK", help="names, or paths of .json files")
    parser.add_argument("--seed", nargs="+", type=int, default=[0], metavar="SEED")
    parser.add_argument("--checkpoints", type=Path, default=REPOSITORY / "checkpoints", help="where runs are stored")
    parser.add_argument("--overwrite", action="store_true", help="train anew what was made with other settings")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    recipe = parser.add_argument_group("recipe", "each dataset has its own defaults; see RECIPES in the script")
    recipe.add_argument("--arch", help="cnn, wrn-<depth>-<width> or the name of a timm model")
    recipe.add_argument("--epochs", type=int)
    recipe.add_argument("--batch-size", type=int)
    recipe.add_argument("--lr", type=float, help="peak learning rate")
    recipe.add_argument("--decay", choices=["cosine", "linear"])
    recipe.add_argument("--momentum", type=float)
    recipe.add_argument("--weight-decay", type=float, help="on weights, not on biases and norms")
    recipe.add_argument("--smoothing", type=float, help="label smoothing")
    recipe.add_argument("--dense-epochs", type=int, help="epochs with five checkpoints each")
    args = parser.parse_args()
    if min(args.seed) < 0:
        parser.error("seeds are whole numbers from 0")
    return args


def main():
    args = parse()
    name = datasets.check_arguments(args)
    recipe = {key: getattr(args, key) for key in RECIPES[args.dataset]}
    recipe = {key: RECIPES[args.dataset][key] if value is None else value for key, value in recipe.items()}
    check_recipe(recipe)
    for task in args.task:
        tasks.check_name(task, name)
    dataset = datasets.load(args)
    chosen = [tasks.find(task, name, dataset.classes) for task in args.task]

    import torch

    from supervised_imagenet import checkpoints, networks

    device = networks.device(args.device)
    networks.check(recipe["arch"], dataset.train.images.shape[1:])
    images = datasets.Batches(dataset.train, dataset.statistics(), device)
    for task in chosen:
        for seed in args.seed:
            folder = checkpoints.run_folder(args.checkpoints, name, task.name, seed)
            settings = {
                "dataset": name,
                "size": list(dataset.train.images.shape[1:]),
                "n_train": len(dataset.train),
                "task": task.name,
                "labels": list(task.labels),
                "shuffled": task.shuffled,
                "seed": seed,
                **recipe,
                "versions": versions("torch", "torchvision", "timm", "numpy")
                | {"device": str(device), "threads": torch.get_num_threads()},
            }
            start(folder, settings, args.overwrite)
            train(folder, settings, task, dataset.train.labels, images, dataset.augmented)
            print(shown(folder))


def check_recipe(recipe):
    for key in ("epochs", "batch_size", "lr"):
        if not recipe[key] > 0:
            raise InputError(f"--{key.replace('_', '-')} {recipe[key]}: must be above 0")
    if recipe["batch_size"] < 2:
        raise InputError(f"--batch-size {recipe['batch_size']}: must be 2 or more, since norms are over the batch")
    for key, above in (
        ("momentum", 1),
        ("weight_decay", math.inf),
        ("smoothing", 1),
        ("dense_epochs", math.inf),
    ):
        if not 0 <= recipe[key] < above:
            raise InputError(f"--{key.replace('_', '-')} {recipe[key]}: must be at least 0 and below {above}")


def start(folder, settings, overwrite):
    """Note the settings in the run's folder, emptied first if `overwrite` and if a run with others is there.

    Raises InputError where such a run, or anything without settings, is there and not to be overwritten.
    """
    path = folder / "settings.json"
    if path.exists():
        try:
            differ = differing(json.loads(path.read_text()), settings)
        except (OSError, ValueError) as error:
            differ = f"it is not readable: {error}"
        if not differ:
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


def train(folder, settings, task, labels, images, augmented):
    """One run: from its last checkpoint, if it has one, to the end of its schedule."""
    import numpy as np
    import torch
    import torch.nn.functional as F
    from timm.optim import param_groups_weight_decay
    from tqdm import tqdm

    from supervised_imagenet import checkpoints, networks

    seed, device = settings["seed"], images.images.device
    indices, targets = (torch.from_numpy(a).to(device) for a in task.select(labels, seed))
    batch_size = min(settings["batch_size"], len(indices))
    steps_per_epoch = len(indices) // batch_size  # the rest of an epoch comes up in others
    taken = checkpoints.schedule(settings["epochs"], steps_per_epoch, settings["dense_epochs"])
    resume = folder / "resume.pt"
    if checkpoints.path_of(folder, len(taken) - 1).exists():
        resume.unlink(missing_ok=True)
        return

    def draw_from(*key):
        torch.manual_seed(int(np.random.SeedSequence((seed, *key)).generate_state(1)[0]))

    draw_from(0)
    network = networks.create(settings["arch"], len(task.labels), images.images.shape[1]).to(device)
    groups = param_groups_weight_decay(network, settings["weight_decay"])
    optimizer = torch.optim.SGD(groups, settings["lr"], settings["momentum"], nesterov=settings["momentum"] > 0)
    precision = networks.MixedPrecision(network, device)
    step = 0
    if resume.exists():
        state = checkpoints.load(resume)
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        precision.scaler.load_state_dict(state["scaler"])
        step = state["step"]

    def store():
        epoch = step / steps_per_epoch
        weights = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
        index = taken.index(step)
        checkpoints.save(checkpoints.path_of(folder, index), model=weights, epoch=epoch, step=step)
        if index + 1 < len(taken):
            state = {"optimizer": optimizer.state_dict(), "scaler": precision.scaler.state_dict()}
            checkpoints.save(resume, model=weights, step=step, **state)

    if step == 0:
        store()
    network.train()
    bar = tqdm(total=taken[-1], initial=step, desc=f"{folder.parent.name} seed {seed}", unit="step", disable=None)
    first = step
    while step < taken[-1]:
        epoch, place = divmod(step, steps_per_epoch)
        if place == 0 or step == first:
            draw_from(1, epoch)
            order = torch.randperm(len(indices)).to(device)
        draw_from(2, step)
        for group in optimizer.param_groups:
            group["lr"] = settings["lr"] * decayed(settings["decay"], step / taken[-1])
        batch = order[place * batch_size : (place + 1) * batch_size]
        with precision.autocast():
            logits = network(precision.layout(images.get(indices[batch], augmented)))
            loss = F.cross_entropy(logits, targets[batch], label_smoothing=settings["smoothing"])
        optimizer.zero_grad()
        precision.scaler.scale(loss).backward()
        precision.scaler.step(optimizer)
        precision.scaler.update()
        step += 1
        bar.update()
        if step in taken:
            bar.set_postfix(loss=f"{loss.item():.3f}")
            if not loss.isfinite():
                raise InputError(
                    f"{shown(folder)}: the loss is {loss.item()} at step {step}; --overwrite with a lower --lr"
                )
            store()
    bar.close()
    resume.unlink()


def decayed(decay, fraction):
    """The learning rate at a fraction of training, as a fraction of its peak."""
    return (1 + math.cos(math.pi * fraction)) / 2 if decay == "cosine" else 1 - fraction


if __name__ == "__main__":
    run(main, resumes=True)
