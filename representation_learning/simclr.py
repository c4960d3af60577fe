"""SimCLR: networks that learn to tell which two views are of the same image.

    python representation_learning/simclr.py --dataset digits --task all even --seed 0 1 2

Chen et al., "A simple framework for contrastive learning of visual representations" (arXiv 2002.05709). Labels are used
only to choose a task's images. Runs go to `checkpoints/<dataset>_simclr-<task>/<seed>/`.
"""

from info_geometry.script import run
from representation_learning import methods

RECIPES = {
    "digits": methods.SHARED
    | {"epochs": 30, "batch_size": 100, "lr": 0.1, "weight_decay": 1e-4, "temperature": 0.5, "projection": 32},
    # appendix B.9: the best of batch sizes, learning rates and temperatures; there with LARS for 1000 epochs
    "cifar10": methods.SHARED
    | {
        "arch": "wrn-16-4",
        "epochs": 100,
        "batch_size": 512,
        "lr": 0.5,  # 1.0 for a batch of 1024
        "warmup_epochs": 10.0,
        "weight_decay": 1e-4,
        "temperature": 0.5,
        "projection": 128,
    },
}


def nt_xent(z, temperature):
    """Normalised temperature-scaled cross entropy, equation (1) of the paper, and how many views are told right.

    z : (2B, F), views i and B + i of one image. The mean over all 2B of -log(exp(s_ij / t) / sum_{k != i} exp(s_ik /
    t)), with j the other view of i, and s the cosine.
    """
    import torch
    import torch.nn.functional as F

    with torch.autocast(z.device.type, enabled=False):
        z = F.normalize(z.float(), dim=1)
        similar = z @ z.T / temperature
    similar.fill_diagonal_(-torch.inf)
    other = torch.arange(len(z), device=z.device).roll(len(z) // 2)
    return F.cross_entropy(similar, other), (similar.argmax(dim=1) == other).sum() / 2


def learn(setup):
    from torch import nn

    n = setup.width
    head = nn.Sequential(nn.Linear(n, n), nn.ReLU(), nn.Linear(n, setup.settings["projection"]))
    return two_views(setup, lambda z: nt_xent(z, setup.settings["temperature"]), head)


def two_views(setup, loss_of, heads):
    """The learner of a method whose loss is of two augmented views of each image, projected: (2B, F)."""
    import torch

    from representation_learning import augmentations
    from supervised_imagenet import networks, runs

    settings = setup.settings
    indices, _ = setup.task.select(setup.images.split.labels, settings["seed"])
    part_size, size = methods.size_of(settings, len(indices), views=2)
    network = networks.create(settings["arch"], 0, setup.channels)
    augment = augmentations.strong(setup.channels, setup.side)

    def losses(first, last):
        for _, batch in runs.shuffled(settings, indices, size, first, last):
            for part in runs.own_parts(settings):
                pixels = setup.pixels(batch[part * part_size :][:part_size])
                views = torch.cat([setup.normalised(augment(pixels)) for _ in range(2)])
                loss, right = loss_of(heads(networks.features(network, views)))
                yield runs.Loss(loss, right, part_size)

    return methods.Learner(network, losses, size, heads)


if __name__ == "__main__":
    run(lambda: methods.main("simclr", __doc__, RECIPES, learn), resumes=True)
