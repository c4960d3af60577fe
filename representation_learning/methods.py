"""What the methods share: a script's options, and a run for each task and seed.

A method is a module with `RECIPES`, its settings for each dataset, and `learn(setup)`, which makes the network, a
generator of losses and the sizes that go with it. Its runs are called `<dataset>_<method>-<task>`, and are imprinted
and compared like any others.
"""

import argparse
import math
from pathlib import Path
from typing import Any, NamedTuple

from info_geometry import ranks
from info_geometry.script import REPOSITORY, InputError, shown
from supervised_imagenet import datasets, tasks

SHARED = {
    "arch": "cnn",
    "parts": 1,  # of a batch, over which norms and comparisons are taken; processes share them
    "lr_batch_size": None,  # the batch that the learning rate is for; None: for any
    "warmup_epochs": 0.0,  # until the learning rate is at its peak
    "decay": "cosine",  # of the learning rate, to 0: cosine or linear
    "optimizer": "sgd",  # or adam
    "momentum": 0.9,
    "nesterov": True,
    "dense_epochs": 5,  # with five checkpoints each; then one an epoch
    "precision": "auto",  # float32, bfloat16, float16; auto: half on a GPU, float32 on the CPU
}


class Setup(NamedTuple):
    """What a run starts from: `images` are `supervised_imagenet.batches.InMemory` of the training split."""

    settings: dict
    task: tasks.Task
    images: Any
    device: Any
    start: Any = None  # `supervised_imagenet.checkpoints.Start`, of a recipe with `start`
    together: tuple = ()  # tasks that are learned at once

    @property
    def channels(self):
        return self.settings["size"][0]

    @property
    def side(self):
        return self.settings["size"][1]

    @property
    def width(self):
        """How many features the network makes of an image."""
        import torch

        from supervised_imagenet import networks

        network = networks.create(self.settings["arch"], 0, self.channels).eval()
        with torch.no_grad():
            return networks.features(network, torch.zeros(2, *self.settings["size"])).shape[1]

    def pixels(self, indices):
        """Images (B, channels, S, S) at some indices, as floats from 0 to 1."""
        import torch

        return self.images.images[torch.as_tensor(indices, device=self.device)].float() / 255

    def targets(self):
        """The places of the task's images (n,), and the outputs that are right for all images (N,), on the device."""
        import torch

        indices, targets = self.task.select(self.images.split.labels, self.settings["seed"])
        target_of = torch.zeros(len(self.images), dtype=torch.int64)
        target_of[indices] = torch.from_numpy(targets)
        return indices, target_of.to(self.device)

    def normalised(self, pixels):
        """Floats from 0 to 1 as the network sees them."""
        return self.images.normalised(255 * pixels)


class Learner(NamedTuple):
    """What a method makes of a setup; see `supervised_imagenet.runs.train`."""

    network: Any
    losses: Any
    size: Any
    heads: Any = None


def parser_of(doc, recipes):
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    datasets.add_arguments(parser)
    parser.add_argument("--task", nargs="+", default=["all"], metavar="TASK", help="names, or paths of .json files")
    parser.add_argument("--seed", nargs="+", type=int, default=[0], metavar="SEED")
    parser.add_argument("--checkpoints", type=Path, default=REPOSITORY / "checkpoints", help="where runs are stored")
    parser.add_argument("--overwrite", action="store_true", help="train anew what was made with other settings")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument("--tensorboard", action="store_true", help="log for TensorBoard, too")
    group = parser.add_argument_group("recipe", "values stand in the script, by dataset; options change them")
    for key, value in {k: v for recipe in recipes.values() for k, v in recipe.items()}.items():
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            group.add_argument(option, action=argparse.BooleanOptionalAction)
        else:
            group.add_argument(option, type=type(value) if value is not None else int, metavar="VALUE")
    return parser


def recipe_of(args, recipes):
    """The recipe for the dataset, changed by options; raises InputError for values that make no sense."""
    recipe = dict(recipes.get(args.dataset, recipes["cifar10"]))
    for key in recipe:
        if (value := getattr(args, key)) is not None:
            recipe[key] = value
    for key, value in recipe.items():
        option = f"--{key.replace('_', '-')} {value}"
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise InputError(f"{option}: must be at least 0, and finite")
        if key in ("batch_size", "parts", "episodes", "steps", "projection") and value < 1:
            raise InputError(f"{option}: must be 1 or more")
        if (
            (key == "momentum" and value >= 1)
            or (key == "threshold" and value > 1)
            or (key == "temperature" and not value)
        ):
            raise InputError(f"{option}: momentum is below 1, a threshold at most 1, and a temperature above 0")
    choices = {"optimizer": ("sgd", "adam"), "decay": ("cosine", "linear")}
    choices["precision"] = ("auto", "float32", "bfloat16", "float16")
    for key, known in choices.items():
        if recipe[key] not in known:
            raise InputError(f"--{key} {recipe[key]}: must be {', '.join(known[:-1])} or {known[-1]}")
    return recipe


def main(method, doc, recipes, learn, together=False):
    """The script of a method, called `method` or by a function of its recipe: a run for each chosen task and seed, or
    for all the tasks `together`."""
    args = parser_of(doc, recipes).parse_args()
    name, family = datasets.check_arguments(args), datasets.family_of(args)
    recipe = recipe_of(args, recipes)
    method = method(recipe) if callable(method) else method
    if datasets.on_disk(args):
        raise InputError(f"--dataset {args.dataset}: {method} takes images in memory; --size 32 brings them there")
    if min(args.seed) < 0:
        raise InputError(f"--seed {min(args.seed)}: seeds are whole numbers from 0")
    for task in args.task:
        tasks.check_name(task, family)
    dataset = datasets.load(args)
    chosen = [tasks.find(task, family, dataset.classes) for task in args.task]
    runs_of = [(union(chosen), tuple(chosen))] if together else [(task, ()) for task in chosen]

    import torch

    from supervised_imagenet import batches, checkpoints, networks, runs
    from supervised_imagenet.logs import summary_writer

    if args.tensorboard:
        summary_writer()
    networks.check(recipe["arch"], dataset.shape)
    with ranks.joined(str(networks.device(args.device))) as device:
        device = torch.device(device)
        recipe["precision"] = networks.precision_on(device, recipe["precision"])
        if recipe["parts"] % ranks.count():
            raise InputError(f"{ranks.count()} processes cannot share {recipe['parts']} parts; see --parts")
        with networks.memory_suffices(device, "choose a smaller --size"):
            images = batches.of(dataset, dataset.train, recipe, device)
        start = recipe.pop("start", None)
        start = start and checkpoints.Start(start, recipe["arch"], dataset.shape[0])
        for task, several in runs_of:
            for seed in args.seed:
                folder = checkpoints.run_folder(args.checkpoints, name, f"{method}-{task.name}", seed)
                settings = runs.settings_of(
                    dataset, dataset.shape, task, seed, {"method": method, **recipe}, device, start
                )
                torch.manual_seed(runs.key(settings, 0))
                learner = learn(Setup(settings, task, images, device, start, several))
                network, losses, size, heads = learner
                for module in filter(None, (network, heads)):
                    module.to(device).train()
                precision = networks.Precision(network, device, recipe["precision"])
                with (
                    runs.begun(folder, settings, args.overwrite),
                    networks.memory_suffices(device, "lower --batch-size, or raise --parts"),
                ):
                    runs.train(folder, settings, network, losses, size, precision, heads, tensorboard=args.tensorboard)
                if ranks.rank() == 0:
                    print(shown(folder))


def union(chosen):
    """The task of all classes of several tasks."""
    return tasks.Task(
        "-".join(task.name for task in chosen), tuple(sorted({c for task in chosen for c in task.labels}))
    )


def size_of(settings, n_images, views=1):
    """Images in each part of a batch, and the `supervised_imagenet.runs.Size` of a run on so many images, of each of
    which the network sees some views; raises InputError where they make no parts of two."""
    from supervised_imagenet.runs import Size

    part_size = min(settings["batch_size"], n_images) // settings["parts"]
    if part_size < 2:
        raise InputError(f"{n_images} images do not make {settings['parts']} parts of two; lower --parts")
    batch_size = part_size * settings["parts"]
    return part_size, Size(batch_size, n_images // batch_size, views * batch_size)
