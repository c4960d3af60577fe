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
from pathlib import Path

from info_geometry import ranks
from info_geometry.script import REPOSITORY, InputError, run, shown
from supervised_imagenet import datasets, recipes, tasks

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

    from supervised_imagenet import batches, checkpoints, networks, runs
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
            settings = runs.settings_of(dataset, shape, task, seed, recipe, device, start)
            if ranks.rank() == 0:
                say(task)
            with (
                runs.begun(folder, settings, args.overwrite),
                networks.memory_suffices(device, "lower --batch-size, or raise --parts"),
                networks.compiler_works(),
            ):
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


def train(folder, settings, task, train_images, val_images, start, options):
    """One run of a task, in which batches are made of parts, taken one after the other or shared by processes."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    from supervised_imagenet import networks, runs
    from supervised_imagenet.batches import Request

    n_parts, device = settings["parts"], train_images.device
    indices, targets = task.select(train_images.split.labels, settings["seed"])
    n_images, part_size = size_of_parts(task, train_images.split.labels, settings)
    size = runs.Size(n_parts * part_size, n_images // (n_parts * part_size))
    target_of = np.zeros(len(train_images), dtype=np.int64)
    target_of[indices] = targets

    torch.manual_seed(runs.key(settings, 0))
    network = networks.create(settings["arch"], len(task.labels), settings["size"][0])
    if start:
        start.fill(network)
    network.to(device).train()
    precision = networks.Precision(network, device, settings["precision"])
    model = torch.compile(network) if options.compile else network

    def requests(first, last):
        for step, batch in runs.shuffled(settings, indices, size, first, last):
            for part in runs.own_parts(settings):
                chosen = batch[part * part_size :][:part_size]
                side = recipes.image_size(settings, step // size.steps)
                yield Request(chosen, runs.key(settings, 2, step, part), side)

    def losses(first, last):
        for x, chosen in train_images.augmented(requests(first, last)):
            y = torch.from_numpy(target_of[chosen]).to(device, non_blocking=True)
            logits = model(precision.layout(x))
            loss = F.cross_entropy(logits, y, label_smoothing=settings["smoothing"])
            yield runs.Loss(loss, (logits.detach().argmax(dim=1) == y).sum(), len(y))

    def evaluated():
        return evaluate(network, precision, val_images, task, settings)

    runs.train(folder, settings, network, losses, size, precision, evaluate=evaluated, tensorboard=options.tensorboard)


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
