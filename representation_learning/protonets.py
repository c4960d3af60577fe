"""Prototypical networks: features in which images lie nearest to the mean of their class, episode by episode.

    python representation_learning/protonets.py --dataset digits --task all even --seed 0 1 2

Snell et al., "Prototypical networks for few-shot learning" (arXiv 1703.05175). Runs go to
`checkpoints/<dataset>_protonets-<task>/<seed>/`.
"""

from info_geometry.script import run
from representation_learning import episodes, methods

EPISODIC = methods.SHARED | {"ways": 5, "shots": 5, "queries": 15, "batch_size": 1, "optimizer": "adam"}
RECIPES = {
    "digits": EPISODIC | {"epochs": 30, "episodes": 20, "lr": 0.001, "weight_decay": 0.0},
    # section 3.2, for miniImageNet: Adam at 0.001, halved every 2000 episodes (here to 0, along a cosine), 15 queries
    "cifar10": EPISODIC | {"arch": "wrn-16-4", "epochs": 50, "episodes": 400, "lr": 0.001, "weight_decay": 0.0},
}


def prototypical(support, support_class, query, query_class):
    """Equation (2) of the paper: the mean cross entropy of queries (Q, F), by softmax over -|f - m_c|^2 with the means
    m_c of the support (S, F) of each class; and how many queries are told right."""
    import torch
    import torch.nn.functional as F

    ways = int(support_class.max()) + 1
    means = torch.stack([support[support_class == c].float().mean(dim=0) for c in range(ways)])
    logits = -(query.float()[:, None] - means).square().sum(dim=2)
    return F.cross_entropy(logits, query_class), (logits.detach().argmax(dim=1) == query_class).sum()


def episodic(setup, network, loss_of):
    """The learner of a method whose loss is of an episode: loss_of(support images, their classes, queries, theirs)."""
    import torch

    from supervised_imagenet import runs

    settings = setup.settings
    indices, targets = setup.task.select(setup.images.split.labels, settings["seed"])
    drawn = settings["ways"], settings["shots"], settings["queries"]
    episodes.check(targets, *drawn, [str(c) for c in setup.task.labels])

    def losses(first, last):
        for step in range(first, last):
            for part in runs.own_parts(settings):
                episode = episodes.draw(targets, *drawn, runs.key(settings, 5, step, part))
                support, query = (
                    setup.normalised(setup.pixels(indices[places])) for places in (episode.support, episode.query)
                )
                classes = (
                    torch.as_tensor(c, device=setup.device) for c in (episode.support_class, episode.query_class)
                )
                support_class, query_class = classes
                loss, right = loss_of(support, support_class, query, query_class)
                yield runs.Loss(loss, right, len(query))

    images = settings["parts"] * settings["ways"] * (settings["shots"] + settings["queries"])
    return methods.Learner(network, losses, runs.Size(settings["parts"], settings["episodes"], images))


def learn(setup):
    import torch

    from supervised_imagenet import networks

    network = networks.create(setup.settings["arch"], 0, setup.channels)

    def loss_of(support, support_class, query, query_class):
        features = networks.features(network, torch.cat([support, query]))
        return prototypical(features[: len(support)], support_class, features[len(support) :], query_class)

    return episodic(setup, network, loss_of)


if __name__ == "__main__":
    run(lambda: methods.main("protonets", __doc__, RECIPES, learn), resumes=True)
