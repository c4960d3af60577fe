"""Imprint every checkpoint of runs on all classes of a dataset, and store the predictions.

    python supervised_imagenet/02_imprinting/store_predictions.py --dataset digits --task all even
    python supervised_imagenet/02_imprinting/store_predictions.py --dataset cifar10 --arch resnet18 \\
        --run-folder ~/my_checkpoints --task mine --seed 0

writes `predictions/<dataset>_<task>/preds_<seed>.h5` and `metrics.json`. Checkpoints imprinted before are not
done again, and what a killed run has done is kept.
"""

import argparse
import json
import math
from pathlib import Path

from info_geometry.predictions import PREDICTIONS, Trajectory, Writer, digest
from info_geometry.script import REPOSITORY, InputError, replacing, run, shown, unknown, versions
from supervised_imagenet import datasets


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    datasets.add_arguments(parser)
    parser.add_argument("--task", nargs="+", metavar="TASK", help="runs of these tasks (default: all there are)")
    parser.add_argument("--seed", nargs="+", type=int, metavar="SEED", help="(default: all there are)")
    parser.add_argument("--checkpoints", type=Path, default=REPOSITORY / "checkpoints", help="where runs are stored")
    parser.add_argument("--predictions", type=Path, default=PREDICTIONS, help="the folder of prediction folders")
    parser.add_argument("--run-folder", type=Path, help="checkpoints by others, in the order of their numbers")
    parser.add_argument("--arch", help="the network of --run-folder")
    parser.add_argument(
        "--rule", choices=["euclidean", "cosine"], default="euclidean", help="distance or angle to prototypes"
    )
    parser.add_argument("--temperature", type=float, default=1.0, help="divides distances or cosines")
    parser.add_argument(
        "--prototypes",
        choices=["crossfit", "val", "train"],
        default="crossfit",
        help="samples that prototypes are made from: the other folds of the predicted ones (default), all of the "
        "predicted ones (as published; leaks), or the training images",
    )
    parser.add_argument("--overwrite", action="store_true", help="make anew what was made with other settings")
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    args = parser.parse_args()
    if not 0 < args.temperature < math.inf or args.batch_size < 1:
        parser.error("--temperature and --batch-size must be above 0, and finite")
    args.task = [Path(task).stem if task.endswith(".json") else task for task in args.task or []]
    if any("/" in task or not task for task in args.task) or min(args.seed or [0]) < 0:
        parser.error("a task's name has no slash, and seeds are whole numbers from 0")
    if args.arch and not args.run_folder:
        parser.error("--arch goes with --run-folder; other runs say what their network is")
    if args.run_folder and not (args.arch and args.task and args.seed and len(args.task) == len(args.seed) == 1):
        parser.error("--run-folder needs --arch, one --task and one --seed to go with it")
    return args


def main():
    args = parse()
    name = datasets.check_arguments(args)
    runs = [args.run_folder] if args.run_folder else find_runs(args, name)
    dataset = datasets.load(args)

    from supervised_imagenet import imprinting, networks

    device = networks.device(args.device)
    folds = None
    if args.prototypes == "crossfit":
        folds = imprinting.assign_folds(dataset.val.labels, dataset.val.ids, dataset.classes)
    statistics = dataset.statistics()
    val = datasets.Batches(dataset.val, statistics, device)
    train = datasets.Batches(dataset.train, statistics, device) if args.prototypes == "train" else None
    for folder in runs:
        if args.run_folder:
            training, task, seed = {"arch": args.arch}, args.task[0], args.seed[0]
        else:
            training, task, seed = read_settings(folder), folder.parent.name.partition("_")[2], folder.name
        record = {
            "dataset": name,
            "task": task,
            "seed": int(seed),
            "samples_sha256": digest(dataset.val.ids),
            "labels_sha256": digest(dataset.val.labels),
            "imprinting": {
                "rule": args.rule,
                "temperature": args.temperature,
                "prototypes": args.prototypes,
                "folds": 1 if folds is None else int(folds.max()) + 1,
            },
            "training": training,
            "versions": versions("torch", "torchvision", "timm", "numpy", "h5py") | {"device": str(device)},
        }
        path = args.predictions / f"{name}_{task}" / f"preds_{seed}.h5"
        imprint_run(folder, path, record, dataset, val, train, folds, args)
        store_metrics(path.parent)
        print(shown(path))


def find_runs(args, dataset):
    """The folders of the chosen tasks' and seeds' runs, tasks in the order given, seeds ascending."""
    found = sorted(path.parent for path in args.checkpoints.glob(f"{dataset}_*/*/settings.json"))
    found = [folder for folder in found if folder.name.isdigit()]
    if not found:
        raise InputError(f"{shown(args.checkpoints)}: holds no runs of {dataset}; 01_training/train.py makes them")
    known = list(dict.fromkeys(folder.parent.name.partition("_")[2] for folder in found))
    runs = []
    for task in args.task or known:
        if task not in known:
            raise unknown(f"task among the runs in {shown(args.checkpoints)}:", task, known)
        seeds = {int(folder.name): folder for folder in found if folder.parent.name == f"{dataset}_{task}"}
        missing = set(args.seed or seeds) - set(seeds)
        if missing:
            raise InputError(f"{shown(args.checkpoints)}: task {task} has no run with seed {min(missing)}")
        runs += [seeds[seed] for seed in sorted(args.seed or seeds)]
    return runs


def read_settings(folder):
    path = folder / "settings.json"
    try:
        settings = json.loads(path.read_text())
        if not isinstance(settings["arch"], str) or not isinstance(settings["size"], list):
            raise TypeError("arch must be a name, and size a list")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{shown(path)}: not the settings of a run ({error!r})") from error
    return settings


def imprint_run(folder, path, record, dataset, val, train, folds, args):
    """Predictions of every checkpoint in `folder` to the file `path`."""
    import numpy as np
    import torch
    from tqdm import tqdm

    from supervised_imagenet import checkpoints, imprinting, networks

    files = checkpoints.listed(folder)
    if not files:
        raise InputError(f"{shown(folder)}: holds no checkpoints (.pt or .pth)")
    size = list(dataset.val.images.shape[1:])
    if record["training"].get("size", size) != size:
        raise InputError(f"{shown(folder)}: was trained on images {record['training']['size']}, not {size}")
    ids = [checkpoints.sha256(file) for file in files]
    writer = Writer(path, record, ids, args.overwrite)
    if writer.done == len(files):
        writer.finish()
        return
    networks.check(record["training"]["arch"], size)
    network = networks.create(record["training"]["arch"], 0, size[0]).to(val.images.device).eval()
    precision = networks.MixedPrecision(network, val.images.device)

    def batches_of(split):
        def batches(skip):
            for start in range(skip * args.batch_size, len(split), args.batch_size):
                images = precision.layout(split.get(slice(start, start + args.batch_size)))
                yield networks.finite_features(network, images, precision)

        return batches

    labels = dataset.val.labels
    source = (batches_of(train), dataset.train.labels) if args.prototypes == "train" else None
    bar = tqdm(total=len(files), initial=writer.done, desc=f"{path.parent.name} seed {record['seed']}", disable=None)
    for file in files[writer.done :]:
        content = checkpoints.load(file)
        checkpoints.load_features(network, content, file)
        try:
            with torch.inference_mode():
                p = imprinting.imprint(
                    batches_of(val), labels, len(dataset.classes), folds, source, args.rule, args.temperature
                )
        except FloatingPointError as error:
            raise InputError(f"{shown(file)}: {error}") from error
        chosen = p[np.arange(len(p)), labels]
        writer.append(
            p,
            epoch=number_in(content, "epoch", writer.done),
            step=int(number_in(content, "step", writer.done)),
            accuracy=np.mean(p.astype(np.float16).argmax(axis=1) == labels),  # as readers of the file see it
            cross_entropy=-np.mean(np.log(np.maximum(chosen, np.finfo(float).tiny))),
        )
        bar.update()
    bar.close()
    writer.finish()


def number_in(content, key, default):
    """The number that a checkpoint, perhaps somebody else's, holds under `key`."""
    value = content.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else float(default)


def store_metrics(folder):
    """What each run's file says of its checkpoints, as `metrics.json` beside it: {seed: [{...}, ...]}."""
    metrics = {}
    for t in sorted(map(Trajectory, folder.glob("preds_*.h5")), key=lambda t: t.seed):
        rows = zip(*(column.tolist() for column in t.columns.values()), strict=True)
        metrics[str(t.seed)] = [dict(zip(t.columns, row, strict=True)) for row in rows]
    with replacing(folder / "metrics.json") as partial:
        partial.write_text(json.dumps(metrics, indent=1) + "\n")


if __name__ == "__main__":
    run(main, resumes=True)
