"""Imprint every checkpoint of runs on all classes of a dataset, and store the predictions.

    python supervised_imagenet/02_imprinting/store_predictions.py --dataset digits --task all even
    python supervised_imagenet/02_imprinting/store_predictions.py --dataset cifar10 --arch resnet18 \\
        --run-folder ~/my_checkpoints --task mine --seed 0
    torchrun --standalone --nproc-per-node=4 supervised_imagenet/02_imprinting/store_predictions.py \\
        --dataset imagenet --data-dir ~/imagenet --rule euclidean cosine --prototypes crossfit val

writes `predictions/<dataset>_<task>/preds_<seed>.h5` and `metrics.json`; of several rules each has a folder of its own,
`predictions/<rule>-<prototypes>/<dataset>_<task>/`. Checkpoints imprinted before are not done again, and what a killed
run has done is kept.
"""

import argparse
import contextlib
import itertools
import json
import math
from pathlib import Path

from info_geometry import ranks
from info_geometry.predictions import PREDICTIONS, Trajectory, digest
from info_geometry.script import REPOSITORY, InputError, from_json, replacing, run, shown, unknown, versions
from info_geometry.writer import Writer
from supervised_imagenet import datasets, tasks

NORM_IMAGES = 1000  # of all classes alike, for --norms renewed


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    datasets.add_arguments(parser)
    parser.add_argument("--task", nargs="+", metavar="TASK", help="runs of these tasks (default: all there are)")
    parser.add_argument("--seed", nargs="+", type=int, metavar="SEED", help="(default: all there are)")
    parser.add_argument("--checkpoints", type=Path, default=REPOSITORY / "checkpoints", help="where runs are stored")
    parser.add_argument("--predictions", type=Path, default=PREDICTIONS, help="the folder of prediction folders")
    parser.add_argument("--run-folder", type=Path, help="checkpoints by others, in the order of their numbers")
    parser.add_argument(
        "--weights", help="one network by others: a file, or `pretrained` for the weights that timm has"
    )
    parser.add_argument("--arch", help="the network of --run-folder or --weights")
    parser.add_argument(
        "--rule",
        nargs="+",
        choices=["euclidean", "cosine"],
        default=["euclidean"],
        help="distance or angle to prototypes; several are made in one pass",
    )
    parser.add_argument("--temperature", type=float, default=1.0, help="divides distances or cosines")
    parser.add_argument(
        "--prototypes",
        nargs="+",
        choices=["crossfit", "val", "train"],
        default=["crossfit"],
        help="samples that prototypes are made from: the other folds of the predicted ones (default), all of the "
        "predicted ones (as published; leaks), or training images; several are made in one pass",
    )
    parser.add_argument(
        "--norms",
        choices=["running", "renewed"],
        default="running",
        help="what batch normalisation normalises by: what training noted (default), or statistics of a thousand "
        "training images for the weights as they are",
    )
    parser.add_argument("--per-class", type=int, help="training images a class for --prototypes train (default: all)")
    parser.add_argument(
        "--dtype",
        choices=["float16", "float32"],
        default="float16",
        help="of stored probabilities; float16 has none between 0 and 6e-8",
    )
    parser.add_argument(
        "--round", type=int, metavar="DIGITS", help="round probabilities; 5 as published: smaller files"
    )
    parser.add_argument("--overwrite", action="store_true", help="make anew what was made with other settings")
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--precision", choices=["float32", "bfloat16", "float16"], help="(default: float16 on a GPU)")
    parser.add_argument("--workers", type=int, help="processes that read images from disk (default: one a core)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    args = parser.parse_args()
    if not 0 < args.temperature < math.inf or args.batch_size < 1 or (args.workers or 0) < 0:
        parser.error("--temperature and --batch-size must be above 0, and finite, and --workers at least 0")
    args.task = [tasks.run_name(task) for task in args.task or []]
    if any("/" in task or not task for task in args.task) or min(args.seed or [0]) < 0:
        parser.error("a task's name has no slash, and seeds are whole numbers from 0")
    if args.run_folder and args.weights:
        parser.error("--run-folder and --weights are two ways to name what is imprinted; choose one")
    foreign = args.run_folder or args.weights
    if args.arch and not foreign:
        parser.error("--arch goes with --run-folder or --weights; other runs say what their network is")
    if foreign and not (args.arch and args.task and args.seed and len(args.task) == len(args.seed) == 1):
        parser.error(
            f"--{'weights' if args.weights else 'run-folder'} needs --arch, one --task and one --seed to go with it"
        )
    if args.round is not None and args.round < 2:
        parser.error("--round takes 2 digits or more")
    if args.per_class is not None and (args.per_class < 1 or "train" not in args.prototypes):
        parser.error("--per-class takes 1 or more, and goes with --prototypes train")
    return args


def main():
    args = parse()
    name = datasets.check_arguments(args)
    runs = [None] if args.run_folder or args.weights else find_runs(args, name)
    dataset = datasets.load(args)

    import torch

    from info_geometry import imprinting
    from supervised_imagenet import networks

    rules = [imprinting.Rule(*pair, args.temperature) for pair in itertools.product(args.rule, args.prototypes)]
    folds = None
    if "crossfit" in args.prototypes:
        folds = imprinting.assign_folds(dataset.val.labels, dataset.val.ids, dataset.classes)
    with ranks.joined(str(networks.device(args.device))) as device:
        device = torch.device(device)
        for folder in runs:
            settings = read_settings(folder, dataset) if folder else foreign_settings(args, dataset)
            task, seed = (folder.parent.name.partition("_")[2], folder.name) if folder else (args.task[0], args.seed[0])
            record = {
                "dataset": name,
                "task": task,
                "seed": int(seed),
                "samples_sha256": digest(dataset.val.ids),
                "labels_sha256": digest(dataset.val.labels),
                "training": settings,
                "view": view_of(settings, dataset),
                "precision": args.precision or ("float16" if device.type == "cuda" else "float32"),
                "dtype": args.dtype,
                "decimals": args.round,
                "versions": versions("torch", "torchvision", "timm", "numpy", "h5py") | {"device": str(device)},
            }
            paths = {}
            for rule in rules:
                root = args.predictions / f"{rule.kind}-{rule.prototypes}" if len(rules) > 1 else args.predictions
                paths[rule] = root / f"{name}_{task}" / f"preds_{seed}.h5"
            with contextlib.ExitStack() as alone:
                for path in paths.values():
                    alone.enter_context(ranks.alone(path))
                alone.enter_context(networks.memory_suffices(device, "lower --batch-size"))
                imprint_run(folder or args.run_folder, paths, record, dataset, folds, device, args)
            if ranks.rank() == 0:
                for path in paths.values():
                    store_metrics(path.parent)
                    print(shown(path))


def find_runs(args, dataset):
    """The folders of the chosen tasks' and seeds' runs, tasks in the order given, seeds ascending."""
    found = sorted(path.parent for path in args.checkpoints.glob(f"{dataset}_*/*/settings.json"))
    found = [folder for folder in found if folder.name.isdigit() and any(folder.glob("checkpoint_*.pt"))]
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


def read_settings(folder, dataset):
    """The settings of a run; raises InputError unless it was trained on such images as the dataset has."""
    path = folder / "settings.json"
    try:
        settings = from_json(path.read_text())
        size = [3, settings["eval_size"], settings["eval_size"]] if dataset.on_disk else list(dataset.shape)
        if not isinstance(settings["arch"], str) or not isinstance(settings["size"], list):
            raise TypeError("arch must be a name, and size a list")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{shown(path)}: not the settings of a run ({error!r})") from error
    if settings["size"] != size:
        raise InputError(f"{shown(folder)}: was trained on images {settings['size']}, not {size}")
    if "eval_size" in settings and not dataset.on_disk:
        raise InputError(f"{shown(folder)}: was trained on images read from disk; leave --size out")
    return settings


def view_of(settings, dataset):
    """What part of an image a network sees, and how large: in memory the whole of its central square."""
    if dataset.on_disk:
        return {"size": settings["eval_size"], "crop": settings["eval_crop"], "on_disk": True}
    return {"size": settings["size"][1], "crop": 1, "on_disk": False}


def foreign_settings(args, dataset):
    """What the options say of checkpoints by others."""
    from supervised_imagenet import networks

    if not dataset.on_disk:
        return {"arch": args.arch, "size": list(dataset.shape)}
    size, crop = networks.evaluation_view(args.arch)
    return {"arch": args.arch, "size": [3, size, size], "eval_size": size, "eval_crop": crop}


def imprint_run(folder, paths, record, dataset, folds, device, args):
    """Predictions of every checkpoint in `folder`, or of --weights, by each rule to its file, {rule: path}."""
    import numpy as np

    from info_geometry import imprinting
    from supervised_imagenet import checkpoints

    training, train, val = record["training"], dataset.train, dataset.val
    sources = checkpoints.sources(args.weights or folder, training["arch"], training["size"][0])
    prototypes_from = np.arange(0)
    if "train" in args.prototypes:
        prototypes_from = imprinting.sample(train.labels, train.ids, args.per_class or len(train))
    writers = {}
    for rule, path in paths.items():
        imprinted = {"rule": rule.kind, "temperature": rule.temperature, "prototypes": rule.prototypes}
        imprinted["folds"] = int(folds.max()) + 1 if rule.prototypes == "crossfit" else 1
        if args.norms != "running":
            imprinted["norms"] = args.norms
        if rule.prototypes == "train":
            imprinted["train_images"] = len(prototypes_from)
        ids = [source.id for source in sources]
        writers[rule] = Writer(path, record | {"imprinting": imprinted}, ids, args.overwrite, val.ids)
    ranks.agree(sum(len(writer.missing) for writer in writers.values()), shown(folder or args.weights))
    ranks.wait()  # all have looked
    if ranks.rank() == 0:
        for writer in writers.values():
            writer.begin()
    ranks.wait()
    if any(writer.missing for writer in writers.values()):
        imprint_missing(sources, writers, record, dataset, folds, prototypes_from, device, args)
    ranks.wait()  # all have written
    if ranks.rank() == 0:
        for writer in writers.values():
            writer.finish()


def imprint_missing(sources, writers, record, dataset, folds, prototypes_from, device, args):
    """Predictions of the checkpoints that writers miss, which the processes share."""
    import numpy as np
    import torch
    from tqdm import tqdm

    from info_geometry import imprinting
    from supervised_imagenet import batches, checkpoints, networks

    training, train, val = record["training"], dataset.train, dataset.val
    networks.check(training["arch"], training["size"])
    network = networks.create(training["arch"], 0, training["size"][0]).to(device).eval()
    precision = networks.Precision(network, device, record["precision"])

    def features_of(split, indices=None):
        images = batches.of(dataset, split, training, device, args.workers)

        def features(skip):
            for x in images.ordered(args.batch_size, skip, indices):
                yield networks.finite_features(network, precision.layout(x), precision)

        return features

    val_features, source = features_of(val), None
    for_norms = imprinting.sample(train.labels, train.ids, -(-NORM_IMAGES // len(dataset.classes)))
    images_for_norms = batches.of(dataset, train, training, device, args.workers) if args.norms == "renewed" else None
    if len(prototypes_from):
        source = features_of(train, prototypes_from), train.labels[prototypes_from]
    missing = sorted(set().union(*(writer.missing for writer in writers.values())))
    bar = tqdm(
        total=len(sources),
        initial=len(sources) - len(missing),
        desc=f"{record['dataset']}_{record['task']} seed {record['seed']}",
        disable=True if ranks.rank() else None,
    )
    for index in missing[ranks.rank() :: ranks.count()]:
        content = sources[index].load()
        checkpoints.load_features(network, checkpoints.weights(content, sources[index].name), sources[index].name)
        if images_for_norms:
            of_batches = images_for_norms.ordered(args.batch_size, 0, for_norms)
            networks.renew_statistics(network, map(precision.layout, of_batches))
        wanted = [rule for rule, writer in writers.items() if index in writer.missing]
        P = {rule: np.empty((len(val), len(dataset.classes)), args.dtype) for rule in wanted}
        loss, place = dict.fromkeys(wanted, 0.0), 0
        try:
            with torch.inference_mode():
                for found in imprinting.imprint(val_features, val.labels, len(dataset.classes), wanted, folds, source):
                    for rule, log_p in found.items():
                        part = slice(place, place + len(log_p))
                        p = log_p.exp().cpu().numpy()
                        P[rule][part] = p if args.round is None else p.round(args.round)
                        true = torch.as_tensor(val.labels[part], device=device)[:, None]
                        loss[rule] -= log_p.gather(1, true).sum().item()
                    place = part.stop
        except FloatingPointError as error:
            raise InputError(f"{shown(sources[index].name)}: {error}") from error
        seen = {"images": int(content["images"])} if "images" in content else {}
        for rule in wanted:
            writers[rule].write(
                index,
                P[rule],
                epoch=number_in(content, "epoch", index),
                step=int(number_in(content, "step", index)),
                accuracy=np.mean(P[rule].argmax(axis=1) == val.labels),
                cross_entropy=loss[rule] / len(val),
                **seen,
            )
        bar.update(min(ranks.count(), bar.total - bar.n))
    bar.close()


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
