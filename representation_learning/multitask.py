"""Multi-task training: one network learns several tasks at once, each with a last layer of its own.

    python representation_learning/multitask.py --dataset digits --task even odd --seed 0 1 2

The point of reference for networks that learn the tasks one by one. Runs go to
`checkpoints/<dataset>_multitask-<task>-<task>.../<seed>/`.
"""

from info_geometry.script import run
from representation_learning import methods

RECIPES = {
    # as the supervised recipes
    "digits": methods.SHARED | {"epochs": 30, "batch_size": 50, "lr": 0.05, "weight_decay": 5e-4},
    "cifar10": methods.SHARED | {"arch": "wrn-16-4", "epochs": 25, "batch_size": 64, "lr": 0.01, "weight_decay": 5e-4},
}


def learn(setup):
    import numpy as np
    import torch
    import torch.nn.functional as F
    from torch import nn

    from supervised_imagenet import networks, runs

    settings, labels = setup.settings, setup.images.split.labels
    indices, _ = setup.task.select(labels, settings["seed"])
    part_size, size = methods.size_of(settings, len(indices))
    network = networks.create(settings["arch"], 0, setup.channels)
    heads = nn.ModuleList([nn.Linear(setup.width, len(task.labels)) for task in setup.together])
    targets = np.full((len(heads), len(labels)), -1)  # of images that a task does not have
    for own, task in zip(targets, setup.together, strict=True):
        places, outputs = task.select(labels, settings["seed"])
        own[places] = outputs
    targets = torch.from_numpy(targets).to(setup.device)

    def losses(first, last):
        for _, batch in runs.shuffled(settings, indices, size, first, last):
            for part in runs.own_parts(settings):
                chosen = batch[part * part_size :][:part_size]
                features = networks.features(network, setup.normalised(setup.pixels(chosen)))
                loss, right, seen = features.new_zeros(()), targets.new_zeros(()), 0
                for head, own in zip(heads, targets[:, torch.as_tensor(chosen, device=setup.device)], strict=True):
                    logits, y = head(features[own >= 0]), own[own >= 0]
                    loss = loss + F.cross_entropy(logits, y, reduction="sum")
                    right = right + (logits.detach().argmax(dim=1) == y).sum()
                    seen += len(y)
                yield runs.Loss(loss / max(seen, 1), right, seen)

    return methods.Learner(network, losses, size, heads)


if __name__ == "__main__":
    run(lambda: methods.main("multitask", __doc__, RECIPES, learn, together=True), resumes=True)
