"""Train networks on tasks, and store checkpoints along the way.

    python supervised_imagenet/01_training/train.py --dataset digits --task all even --seed 0 1 2
    python supervised_imagenet/01_training/train.py --dataset cifar10 --data-dir ~/data --task animals
    torchrun --standalone --nproc-per-node=4 supervised_imagenet/01_training/train.py --dataset imagenet \\
        --data-dir ~/imagenet --recipe rn50_40_epochs --task dog wordnet:feline --seed 0

Each task and seed becomes a run in `checkpoints/<dataset>_<task>/<seed>/`, with a log that has a line of JSON for each
checkpoint. Runs that are there are not trained again, and one that was killed goes on where it was, to the same bits:
everything random in a step is drawn from the seed and the number of the step.
"""

import argparse
import itertools
import json
import shutil
import time
from pathlib import Path

from info_geometry import ranks
from info_geometry.predictions import differing_file, digest
from info_geometry.script import REPOSITORY, InputError, replacing, run, shown, versions
from supervised_imagenet import datasets, recipes, tasks

SAVE_STEPS = 100  # between two states to go on from, where checkpoints are rarer
EVALUATION_BATCH = 128


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    datasets.add_arguments(parser)
    parser.add_argument(
        "--task", nargs="+", default=["all"], metavar="TASK", help="names, paths of .json files, or wordnet:<word>"
    )
    parser.add_argument("--list-tasks", action="store_true", help="print the tasks and the number of their classes")
    parser.add_argument("--seed", nargs="+", type=int, default=[0], metavar="SEED")
    parser.add_argument("--weights", help="to start from: a file, or `pretrained` for those that timm has")
    parser.add_argument("--checkpoints", type=Path, help="where runs are stored (default: checkpoints/)")
    parser.add_argument("--overwrite", action="store_true", help="train anew what was made with other settings")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument("--workers", type=int, help="processes that read images from disk (default: one a core)")
    parser.add_argument("--compile", action="store_true", help="let torch.compile make the network faster")
    parser.add_argument("--tensorboard", action="store_true", help="log for TensorBoard, too")
    recipes.add_arguments(parser)
    args = parser.parse_args()
    if min(args.seed) < 0 or (args.workers or 0) < 0:
        parser.error("--workers and seeds are whole numbers from 0")
    return args


def main():
    args = parse()
    name, family = datasets.check_arguments(args), datasets.family_of(args)
    if args.list_tasks:
        print(*tasks.listed(family, datasets.class_names(args)), sep="\n")
        return
    recipe = recipes.chosen(args)
    for task in args.task:
        tasks.check_name(task, family)
    dataset = datasets.load(args)
    chosen = [tasks.find(task, family, dataset.classes) for task in args.task]

    import torch

    from supervised_imagenet import batches, checkpoints, networks
    from supervised_imagenet.logs import summary_writer

    if args.tensorboard:
        summary_writer()
    shape = (3, recipe["eval_size"], recipe["eval_size"]) if dataset.on_disk else dataset.shape
    for size in {shape[1], *(recipe[key] for key in ("first_size", "last_size") if key in recipe)}:
        networks.check(recipe["arch"], (shape[0], size, size))
    start = checkpoints.Start(args.weights, recipe["arch"], shape[0]) if args.weights else None
    root = args.checkpoints or REPOSITORY / "checkpoints" / ("smoke" if args.smoke else "")
    with ranks.joined(str(networks.device(args.device))) as device:
        device = torch.device(device)
        recipe["precision"] = networks.precision_on(device, recipe["precision"])
        if recipe["parts"] % ranks.count():
            raise InputError(
                f"{ranks.count()} processes cannot share batches of {recipe['parts']} parts, over each of which norms "
                f"are taken; --parts {ranks.count()} gives them one each"
            )
        for task in chosen:
            size_of_parts(task, dataset.train.labels, recipe)
        with networks.memory_suffices(device, "choose a smaller --size, or --size 0"):
            train_images, val_images = (
                batches.of(dataset, split, recipe, device, args.workers) for split in (dataset.train, dataset.val)
            )
        for task, seed in itertools.product(chosen, args.seed):
            folder = checkpoints.run_folder(root, name, task.name, seed)
            settings = {
                "dataset": name,
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
            if ranks.rank() == 0:
                say(task)
                begin(folder, settings, args.overwrite)
            ranks.wait()
            with networks.memory_suffices(device, "lower --batch-size, or raise --parts"), networks.compiler_works():
                train(folder, settings, task, train_images, val_images, start, args)
            if ranks.rank() == 0:
                print(shown(folder))


def size_of_parts(task, labels, recipe):
    """Images in an epoch of a task, and in a part of its batches; raises InputError where these are too few."""
    n_images = len(task.select(labels, seed=0)[0])
    n_images = min(n_images, recipe["max_images"] or n_images)
    part_size = min(recipe["batch_size"], n_images) // recipe["parts"]
    if part_size < 2:
        raise InputError(
            f"task {task.name}: its {n_images} images do not make {recipe['parts']} parts of two; lower --parts"
        )
    return n_images, part_size


def say(task):
    if task.n_lacking:
        print(f"task {task.name}: {len(task.labels)} of its {len(task.labels) + task.n_lacking} classes are there")


def begin(folder, settings, overwrite):
    """Note the settings in the run's folder, emptied first if `overwrite` and if a run with others is there.

    Raises InputError where such a run, or anything without settings, is there and not to be overwritten.
    """
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


def train(folder, settings, task, train_images, val_images, start, options):
    """One run: from where it was, if it was begun, to the end of its schedule.

    A batch is made of parts, taken one after the other or shared by processes, and their gradients are averaged. Norms
    are over one part, and what they note for evaluation comes from the first, so that the number of processes does not
    change what is learned.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F
    from timm.optim import param_groups_weight_decay
    from tqdm import tqdm

    from supervised_imagenet import checkpoints, networks
    from supervised_imagenet.batches import Request
    from supervised_imagenet.logs import Log

    seed, n_parts, device = settings["seed"], settings["parts"], train_images.device
    indices, targets = task.select(train_images.split.labels, seed)
    n_images, part_size = size_of_parts(task, train_images.split.labels, settings)
    batch_size = n_parts * part_size
    steps_per_epoch = n_images // batch_size  # the rest of an epoch comes up in others
    taken = checkpoints.schedule(settings["epochs"], steps_per_epoch, settings["dense_epochs"])
    own_parts = range(*ranks.share(n_parts, 1))
    target_of = np.zeros(len(train_images), dtype=np.int64)
    target_of[indices] = targets

    def key(*numbers):
        return int(np.random.SeedSequence((seed, *numbers)).generate_state(1)[0])

    def requests(first):
        for step in range(first, taken[-1]):
            epoch, place = divmod(step, steps_per_epoch)
            if place == 0 or step == first:
                order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(key(1, epoch))).numpy()
            for part in own_parts:
                chosen = order[place * batch_size + part * part_size :][:part_size]
                yield Request(indices[chosen], key(2, step, part), recipes.image_size(settings, epoch))

    torch.manual_seed(key(0))
    network = networks.create(settings["arch"], len(task.labels), settings["size"][0])
    if start:
        start.fill(network)
    network.to(device).train()
    precision = networks.Precision(network, device, settings["precision"])
    nesterov = settings["nesterov"] and settings["momentum"] > 0
    groups = param_groups_weight_decay(network, settings["weight_decay"])
    optimizer = torch.optim.SGD(groups, settings["lr"], settings["momentum"], nesterov=nesterov)
    step, sums = 0, torch.zeros(3, dtype=torch.float64)  # loss, right ones and images since the last checkpoint
    resume = folder / "resume.pt"
    finished = checkpoints.path_of(folder, len(taken) - 1).exists()
    if resume.exists() and not finished:
        state = checkpoints.load(resume)
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        precision.scaler.load_state_dict(state["scaler"])
        step, sums = state["step"], state["sums"]
    ranks.agree(-1 if finished else step, shown(folder))
    ranks.wait()  # all have read what the first will replace
    if finished:
        resume.unlink(missing_ok=True)
        return

    # what was logged later is logged again, as the first checkpoint always is
    log = Log(folder, step or -1, options.tensorboard) if ranks.rank() == 0 else None
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
            row |= evaluate(network, precision, val_images, task, settings)
            if log:
                log.write(row)
            sums = torch.zeros_like(sums)
        if ranks.rank() == 0:
            weights = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
            if step in taken:
                path = checkpoints.path_of(folder, taken.index(step))
                checkpoints.save(path, model=weights, epoch=step / steps_per_epoch, step=step)
            if step < taken[-1]:
                state = {"optimizer": optimizer.state_dict(), "scaler": precision.scaler.state_dict()}
                checkpoints.save(resume, model=weights, step=step, sums=sums.cpu(), **state)
        sums = sums * (ranks.rank() == 0)
        if step in taken:
            since, seen_before = time.monotonic(), 0
        return loss / max(seen, 1)

    if step == 0:
        store()
    model = torch.compile(network) if options.compile else network
    images = train_images.augmented(requests(step))
    bar = tqdm(
        total=taken[-1],
        initial=step,
        desc=f"{folder.parent.name} seed {seed}",
        unit="step",
        disable=True if ranks.rank() else None,
    )
    while step < taken[-1]:
        for group in optimizer.param_groups:
            group["lr"] = recipes.learning_rate(settings, batch_size, step, steps_per_epoch)
        for part in own_parts:
            x, chosen = next(images)
            y = torch.from_numpy(target_of[chosen]).to(device, non_blocking=True)
            torch.manual_seed(key(2, step, part))
            networks.track_statistics(network, part == 0)
            with precision.autocast():
                logits = model(precision.layout(x))
                loss = F.cross_entropy(logits, y, label_smoothing=settings["smoothing"])
            precision.scaler.scale(loss / n_parts).backward()
            right = (logits.detach().argmax(dim=1) == y).sum()
            sums += torch.stack([loss.detach().double() * len(y), right.double(), right.new_tensor(len(y)).double()])
        ranks.add_up_all(p.grad for p in network.parameters() if p.grad is not None)
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


def evaluate(network, precision, images, task, settings):
    """Loss and accuracy on the task's validation images, which all processes share."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    from supervised_imagenet import networks

    indices, targets = task.select(images.split.labels, settings["seed"])
    kept = np.sort(np.random.default_rng(0).permutation(len(indices))[: settings["max_images"]])
    n_images = len(kept)
    first, stop = ranks.share(n_images, EVALUATION_BATCH)
    kept = kept[first:stop]
    ranks.spread(network.buffers())  # what norms have noted, from the first process
    networks.track_statistics(network, True)
    network.eval()
    sums, place = torch.zeros(2, dtype=torch.float64, device=images.device), 0
    with torch.inference_mode():
        for x in images.ordered(EVALUATION_BATCH, indices=indices[kept]):
            y = torch.from_numpy(targets[kept[place : place + len(x)]]).to(images.device)
            with precision.autocast():
                logits = network(precision.layout(x))
                if settings["flip_average"]:
                    logits = (logits + network(precision.layout(x.flip(3)))) / 2
            sums += torch.stack(
                [F.cross_entropy(logits.float(), y, reduction="sum"), (logits.argmax(dim=1) == y).sum()]
            )
            place += len(x)
    network.train()
    loss, right = (ranks.total(sums) / n_images).tolist()
    return {"val_loss": loss, "val_accuracy": right}


if __name__ == "__main__":
    run(main, resumes=True)
