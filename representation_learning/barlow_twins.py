"""Barlow Twins: networks whose features agree on two views of an image, and are not redundant.

    python representation_learning/barlow_twins.py --dataset digits --task all even --seed 0 1 2

Zbontar et al., "Barlow Twins: self-supervised learning via redundancy reduction" (arXiv 2103.03230). Labels are used
only to choose a task's images. Runs go to `checkpoints/<dataset>_barlow-<task>/<seed>/`.
"""

from info_geometry.script import run
from representation_learning import methods
from representation_learning.simclr import two_views

RECIPES = {
    "digits": methods.SHARED
    | {"epochs": 30, "batch_size": 100, "lr": 0.01, "weight_decay": 1e-4, "redundancy": 0.0051, "projection": 64},
    # section 2.2 is for ImageNet, with LARS: lambda, and a projection of three layers that is wider than the features
    "cifar10": methods.SHARED
    | {
        "arch": "wrn-16-4",
        "epochs": 100,
        "batch_size": 256,
        "lr": 0.1,
        "warmup_epochs": 10.0,
        "weight_decay": 1e-4,
        "redundancy": 0.0051,
        "projection": 1024,
    },
}


def barlow_twins(a, b, redundancy):
    """Equation (1) of the paper: sum_i (1 - C_ii)^2 + redundancy * sum_{i != j} C_ij^2.

    a, b : (B, F), two views of the same images. C (F, F) is the correlation of the features of one with those of the
    other, over the batch.
    """
    import torch

    with torch.autocast(a.device.type, enabled=False):
        a, b = ((x - x.mean(dim=0)) / x.std(dim=0, correction=0).clamp(min=1e-5) for x in (a.float(), b.float()))
        C = a.T @ b / len(a)
    on = (1 - C.diagonal()).square().sum()
    return on + redundancy * (C.square().sum() - C.diagonal().square().sum())


def learn(setup):
    from torch import nn

    n, wide = setup.width, setup.settings["projection"]
    layers = [
        layer for size in (n, wide) for layer in (nn.Linear(size, wide, bias=False), nn.BatchNorm1d(wide), nn.ReLU())
    ]
    head = nn.Sequential(*layers, nn.Linear(wide, wide, bias=False))

    def loss_of(z):
        a, b = z.chunk(2)
        return barlow_twins(a, b, setup.settings["redundancy"]), z.new_zeros(())

    return two_views(setup, loss_of, head)


if __name__ == "__main__":
    run(lambda: methods.main("barlow", __doc__, RECIPES, learn), resumes=True)
