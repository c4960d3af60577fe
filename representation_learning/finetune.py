"""Fine-tuning: any stored network of any method learns another task.

    python representation_learning/finetune.py --start checkpoints/digits_even/0/checkpoint_010.pt --task odd
    python representation_learning/finetune.py --start checkpoints/digits_even/0/checkpoint_020.pt --task odd \\
        --head-epochs 2 --seed 0 1 2

The last layer is new; with `--head-epochs` it learns alone at first, while features, and so predictions, stay as they
are, and the learning rate already falls. The run's first checkpoint is the network that it starts from, so that a
picture of both runs shows the way on. Runs go to
`checkpoints/<dataset>_finetune-<task it was>-<checkpoint>-<task>/<seed>/`, those with `--head-epochs` to
`<dataset>_headfirst-...`.
"""

import re
from pathlib import Path

from info_geometry.script import InputError, run, shown
from representation_learning import methods

OWN = methods.SHARED | {"start": "", "head_epochs": 0.0}
RECIPES = {
    # as the supervised recipes, with a fifth of their learning rates
    "digits": OWN | {"epochs": 15, "batch_size": 50, "lr": 0.01, "weight_decay": 5e-4},
    "cifar10": OWN | {"arch": "wrn-16-4", "epochs": 15, "batch_size": 64, "lr": 0.002, "weight_decay": 5e-4},
}


def learn(setup):
    import torch
    import torch.nn.functional as F

    from supervised_imagenet import networks, runs

    settings = setup.settings
    indices, target_of = setup.targets()
    part_size, size = methods.size_of(settings, len(indices))
    network = networks.create(settings["arch"], len(setup.task.labels), setup.channels)
    fresh = {name: tensor.clone() for name, tensor in network.get_classifier().state_dict().items()}
    setup.start.fill(network)
    network.get_classifier().load_state_dict(fresh)

    def losses(first, last):
        for step, batch in runs.shuffled(settings, indices, size, first, last):
            for part in runs.own_parts(settings):
                chosen = batch[part * part_size :][:part_size]
                x, y = setup.normalised(setup.pixels(chosen)), target_of[torch.as_tensor(chosen, device=setup.device)]
                if step < settings["head_epochs"] * size.steps:
                    network.eval()  # the body stays as it is, what its norms have noted too
                    with torch.no_grad():
                        features = networks.features(network, x)
                    network.train()
                    logits = network.get_classifier()(features)
                else:
                    logits = network(x)
                yield runs.Loss(F.cross_entropy(logits, y), (logits.detach().argmax(dim=1) == y).sum(), part_size)

    return methods.Learner(network, losses, size)


def name_of(recipe):
    if not recipe["start"]:
        raise InputError(
            "--start: names the checkpoint to start from, such as checkpoints/digits_even/0/checkpoint_010.pt"
        )
    path = Path(recipe["start"]).absolute()
    task, number = path.parent.parent.name.partition("_")[2], re.search(r"(\d+)$", path.stem)
    if not task or not number:
        raise InputError(f"{shown(path)}: not the path of a checkpoint <dataset>_<task>/<seed>/checkpoint_<n>.pt")
    return f"{'headfirst' if recipe['head_epochs'] else 'finetune'}-{task}-{int(number[1])}"


if __name__ == "__main__":
    run(lambda: methods.main(name_of, __doc__, RECIPES, learn), resumes=True)
