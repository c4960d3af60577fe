"""FixMatch: networks that learn from few labels, and from what they are sure of without labels.

    python representation_learning/fixmatch.py --dataset digits --task all --labelled 4 --seed 0 1 2

Sohn et al., "FixMatch: simplifying semi-supervised learning with consistency and confidence" (arXiv 2001.07685). Runs
with n labels a class go to `checkpoints/<dataset>_fixmatch<n>-<task>/<seed>/`.
"""

from info_geometry.script import InputError, run
from representation_learning import methods

RECIPES = {
    "digits": methods.SHARED
    | {
        "epochs": 30,
        "batch_size": 20,  # labelled images in a step
        "unlabelled": 7,  # times as many without labels
        "threshold": 0.95,
        "weight": 1.0,  # of the unlabelled loss
        "labelled": 4,  # a class
        "lr": 0.03,
        "weight_decay": 5e-4,
    },
    # table 4 of the paper: those for all of CIFAR-10, there for 2^20 steps
    "cifar10": methods.SHARED
    | {
        "arch": "wrn-16-4",
        "epochs": 100,
        "batch_size": 64,
        "unlabelled": 7,
        "threshold": 0.95,
        "weight": 1.0,
        "labelled": 25,
        "lr": 0.03,
        "weight_decay": 5e-4,
    },
}


def consistency(weak, strong, threshold):
    """Equation (4) of the paper, and the mask (B,) of the images that count.

    weak, strong : logits (B, C) of two views. The mean over all B of 1(max q >= threshold) H(argmax q, strong), with q
    the softmax of the weak ones, through which no gradient goes.
    """
    import torch.nn.functional as F

    q = weak.detach().float().softmax(dim=1)
    sure, pseudo = q.max(dim=1)
    mask = sure >= threshold
    return (F.cross_entropy(strong.float(), pseudo, reduction="none") * mask).mean(), mask


def labelled_indices(targets, n_each, seed):
    """Places (n_each C,) of `n_each` images of each class among `targets` (N,), drawn at random; raises InputError for
    a class that has fewer."""
    import numpy as np

    rng = np.random.default_rng([seed, 3])
    chosen = []
    for c in range(targets.max() + 1):
        places = np.flatnonzero(targets == c)
        if len(places) < n_each:
            raise InputError(f"--labelled {n_each}: class {c} of the task has {len(places)} images")
        chosen.append(rng.choice(places, n_each, replace=False))
    return np.sort(np.concatenate(chosen))


def learn(setup):
    import numpy as np
    import torch
    import torch.nn.functional as F

    from representation_learning import augmentations
    from supervised_imagenet import networks, runs
    from supervised_imagenet.batches import crop_and_flip

    settings = setup.settings
    indices, target_of = setup.targets()
    if settings["labelled"] < 1:
        raise InputError(f"--labelled {settings['labelled']}: a class needs one label or more")
    some = labelled_indices(target_of[indices].cpu().numpy(), settings["labelled"], settings["seed"])
    n = settings["batch_size"] // settings["parts"]
    n_free = min(settings["batch_size"] * settings["unlabelled"], len(indices)) // settings["parts"]
    if min(n, n_free) < 1:
        sizes = f"--batch-size {settings['batch_size']} --unlabelled {settings['unlabelled']}"
        raise InputError(f"{sizes}: make no {settings['parts']} parts of images with and without labels")
    steps = len(indices) // (n_free * settings["parts"])
    size = runs.Size(n * settings["parts"], steps, images=(n + 2 * n_free) * settings["parts"])
    network = networks.create(settings["arch"], len(setup.task.labels), setup.channels)
    strong = augmentations.strong(setup.channels, setup.side)

    def weak(pixels, key):
        if setup.channels == 1:  # digits are no longer themselves in a mirror
            return pixels
        return crop_and_flip(pixels, torch.Generator(setup.device).manual_seed(key))

    def losses(first, last):
        free_size = runs.Size(n_free * settings["parts"], steps)
        for step, batch in runs.shuffled(settings, indices, free_size, first, last):
            for part in runs.own_parts(settings):
                key = runs.key(settings, 4, step, part)
                chosen = indices[np.random.default_rng(key).choice(some, n, replace=len(some) < n)]
                free = setup.pixels(batch[part * n_free :][:n_free])
                views = weak(setup.pixels(chosen), key), weak(free, key + 1), augmentations.cut_out(strong(free))
                logits = network(torch.cat([setup.normalised(view) for view in views]))
                taught, weak_logits, strong_logits = logits.split([n, n_free, n_free])
                y = target_of[torch.as_tensor(chosen, device=setup.device)]
                loss, _ = consistency(weak_logits, strong_logits, settings["threshold"])
                loss = F.cross_entropy(taught, y) + settings["weight"] * loss
                yield runs.Loss(loss, (taught.detach().argmax(dim=1) == y).sum(), n)

    return methods.Learner(network, losses, size)


def name_of(recipe):
    return f"fixmatch{recipe['labelled']}"


if __name__ == "__main__":
    run(lambda: methods.main(name_of, __doc__, RECIPES, learn), resumes=True)
