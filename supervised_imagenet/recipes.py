"""How networks are trained: recipes, each value of which is an option of the script."""

import argparse
import math

from info_geometry.script import InputError, unknown
from supervised_imagenet import datasets

IN_MEMORY = {
    "parts": 1,  # of a batch, over which norms are taken; processes share them
    "lr_batch_size": None,  # the batch that the learning rate is for, scaled linearly for others; None: for any
    "warmup_epochs": 0,  # until the learning rate is at its peak
    "decay": "cosine",  # of the learning rate, to 0: cosine or linear
    "momentum": 0.9,
    "nesterov": True,
    "smoothing": 0.0,  # of labels
    "flip_average": False,  # whether evaluation averages over an image and its mirror image
    "dense_epochs": 5,  # with five checkpoints each; then one an epoch
    "max_images": None,  # in an epoch, and in an evaluation
    "precision": "auto",  # float32, bfloat16, float16; auto: half on a GPU, float32 on the CPU
}
CIFAR = IN_MEMORY | {
    # Wide-ResNet and settings of the published tutorial (CIFAR-100, two tasks)
    "arch": "wrn-16-4",
    "epochs": 25,
    "batch_size": 64,
    "lr": 0.01,
    "weight_decay": 5e-4,
    "augmentation": "shift",
}
RECIPES = {
    "digits": IN_MEMORY
    | {"arch": "cnn", "epochs": 30, "batch_size": 50, "lr": 0.05, "weight_decay": 5e-4, "augmentation": "none"},
    "cifar": CIFAR,
    # 200 classes, 40 images each, at 32 pixels: two cores train a network in minutes
    "tiny": CIFAR | {"arch": "resnet10t", "epochs": 40, "lr": 0.05, "smoothing": 0.1},
    # published with the paper: 40 epochs on 4 GPUs
    "rn50_40_epochs": IN_MEMORY
    | {
        "arch": "resnetblur50",  # ResNet-50 with BlurPool
        "epochs": 40,
        "batch_size": 1680,
        "parts": 4,  # 420 images on each GPU
        "lr": 1.7,
        "lr_batch_size": 1680,
        "warmup_epochs": 2,
        "decay": "linear",
        "nesterov": False,
        "weight_decay": 1e-4,
        "smoothing": 0.1,
        "augmentation": "resized-crop",
        "first_size": 160,  # side of training images, growing in steps of 32
        "last_size": 192,
        "grow_from": 29,  # epoch
        "grow_until": 34,
        "eval_size": 256,
        "eval_crop": 224 / 256,  # of the shorter side
        "flip_average": True,
    },
}
DEFAULT = {"digits": "digits", "cifar10": "cifar", "cifar100": "cifar", "imagefolder": "cifar"}
# a minute on a laptop
SMOKE = {
    "epochs": 2,
    "dense_epochs": 1,
    "batch_size": 16,
    "max_images": 96,
    "first_size": 32,
    "last_size": 64,
    "grow_from": 0,
    "grow_until": 1,
    "eval_size": 64,
}
# type or choices, least value, bound that is not reached, help
OPTIONS = {
    "arch": (str, None, None, "cnn, wrn-<depth>-<width> or the name of a timm model"),
    "epochs": (int, 0, math.inf, "0 stores the network that training would start from"),
    "batch_size": (int, 2, math.inf, "images in a step of all processes together"),
    "parts": (int, 1, math.inf, "of a batch, one after the other or shared by processes: more take less memory"),
    "lr": (float, 1e-30, math.inf, "peak learning rate, for a batch of --lr-batch-size"),
    "lr_batch_size": (int, 1, math.inf, "the learning rate is scaled linearly for other batches"),
    "warmup_epochs": (float, 0, math.inf, "until the learning rate is at its peak"),
    "decay": (["cosine", "linear"], None, None, "of the learning rate, to 0"),
    "momentum": (float, 0, 1, "of gradients"),
    "nesterov": (bool, None, None, "Nesterov's momentum"),
    "weight_decay": (float, 0, math.inf, "on weights, not on biases and norms"),
    "smoothing": (float, 0, 1, "label smoothing"),
    # the first two are for images in memory, the last for those on disk: see batches.py
    "augmentation": (["none", "shift", "resized-crop"], None, None, "of training images"),
    "first_size": (int, 32, math.inf, "side of training images read from disk, at first"),
    "last_size": (int, 32, math.inf, "and at last"),
    "grow_from": (float, 0, math.inf, "epoch from which the side grows"),
    "grow_until": (float, 0, math.inf, "epoch until which it grows"),
    "eval_size": (int, 32, math.inf, "side of images that are evaluated and imprinted"),
    "eval_crop": (float, 0.01, math.nextafter(1, 2), "part of the shorter side that they show, at most 1"),
    "flip_average": (bool, None, None, "evaluate the mirror image too"),
    "dense_epochs": (int, 0, math.inf, "epochs with five checkpoints each"),
    "max_images": (int, 2, math.inf, "in an epoch, and in an evaluation"),
    "precision": (["auto", "float32", "bfloat16", "float16"], None, None, "of matrix products"),
}


def add_arguments(parser):
    """The options that choose a recipe and change its values."""
    group = parser.add_argument_group("recipe", "values are in supervised_imagenet/recipes.py; options change them")
    group.add_argument("--recipe", help=f"{', '.join(RECIPES)} (default: by the dataset)")
    group.add_argument("--smoke", action="store_true", help="shrink the recipe to a minute, to try things")
    for key, (kind, _, _, text) in OPTIONS.items():
        option = f"--{key.replace('_', '-')}"
        if kind is bool:
            group.add_argument(option, action=argparse.BooleanOptionalAction, help=text)
        elif isinstance(kind, type):
            group.add_argument(option, type=kind, help=text)
        else:
            group.add_argument(option, choices=kind, help=text)


def chosen(args):
    """The recipe that the options choose, {name: value}; raises InputError for values that make no sense."""
    on_disk = datasets.on_disk(args)
    name = args.recipe or ("rn50_40_epochs" if on_disk else DEFAULT.get(args.dataset, "tiny"))
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    recipe = dict(RECIPES[name])
    if args.smoke:
        recipe |= {key: value for key, value in SMOKE.items() if key in recipe}
    for key in OPTIONS:
        value = getattr(args, key)
        if value is not None and key not in recipe:
            raise InputError(f"--{key.replace('_', '-')} {value}: the recipe {name} has no such setting")
        if value is not None:
            recipe[key] = value
    if (recipe["augmentation"] == "resized-crop") != on_disk:
        where = "on disk (--size 0)" if not on_disk else "in memory (--size 32)"
        raise InputError(f"--augmentation {recipe['augmentation']}: goes with images {where}, as does --recipe {name}")
    _check(recipe)
    return recipe


def _check(recipe):
    for key, value in recipe.items():
        _, least, bound, _ = OPTIONS[key]
        if least is not None and value is not None and not least <= value < bound:
            raise InputError(f"--{key.replace('_', '-')} {value}: must be at least {least} and below {bound}")
    if recipe["parts"] * 2 > recipe["batch_size"]:
        raise InputError(
            f"--parts {recipe['parts']}: leave less than two images of --batch-size {recipe['batch_size']} for a part, "
            "over which norms are taken"
        )


def learning_rate(recipe, batch_size, step, steps_per_epoch):
    """The learning rate of a step, counted from 0: rising linearly to its peak, then decaying to 0."""
    scale = batch_size / recipe["lr_batch_size"] if recipe["lr_batch_size"] else 1
    warm, total = (round(recipe[key] * steps_per_epoch) for key in ("warmup_epochs", "epochs"))
    if step < warm:
        return scale * recipe["lr"] * (step + 1) / warm
    fraction = (step - warm) / (total - warm)
    decayed = (1 + math.cos(math.pi * fraction)) / 2 if recipe["decay"] == "cosine" else 1 - fraction
    return scale * recipe["lr"] * decayed


def image_size(recipe, epoch):
    """The side of training images read from disk in an epoch, a multiple of 32; 0 for those in memory."""
    if "first_size" not in recipe:
        return 0
    grown = (epoch - recipe["grow_from"]) / max(recipe["grow_until"] - recipe["grow_from"], 1e-9)
    size = recipe["first_size"] + min(1, max(0, grown)) * (recipe["last_size"] - recipe["first_size"])
    return 32 * round(size / 32)
