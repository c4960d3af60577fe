"""MAML: weights from which a few steps of gradient descent solve an episode.

    python representation_learning/maml.py --dataset digits --task all even --seed 0 1 2
    python representation_learning/maml.py --dataset digits --task all --first-order --seed 0

Finn et al., "Model-agnostic meta-learning for fast adaptation of deep networks" (arXiv 1703.03400): second order, or
first order, which takes the adapted weights' gradient for that of the initial ones. Runs go to
`checkpoints/<dataset>_maml-<task>/<seed>/`, those of first order to `<dataset>_fomaml-<task>`.
"""

from info_geometry.script import run
from representation_learning import methods, protonets

RECIPES = {
    "digits": protonets.EPISODIC
    | {
        "epochs": 30,
        "episodes": 10,
        "lr": 0.003,
        "weight_decay": 0.0,
        "steps": 3,
        "inner_lr": 0.1,
        "first_order": False,
    },
    # appendix A.1, for miniImageNet: five steps of 0.01, Adam at 0.001, 15 queries; for 5 shots batches of 2 episodes
    "cifar10": protonets.EPISODIC
    | {
        "arch": "wrn-16-2",
        "parts": 2,
        "epochs": 50,
        "episodes": 200,
        "lr": 0.001,
        "weight_decay": 0.0,
        "steps": 5,
        "inner_lr": 0.01,
        "first_order": False,
    },
}


def adapted(loss_of, weights, steps, rate, first_order=False):
    """Weights {name: tensor} after some steps of gradient descent on loss_of(weights), a scalar; differentiable in the
    initial ones, equation (1) of the paper. In first order, gradients are taken for constants."""
    import torch

    for _ in range(steps):
        gradients = torch.func.grad(loss_of)(weights)
        if first_order:
            gradients = {name: gradient.detach() for name, gradient in gradients.items()}
        weights = {name: weight - rate * gradients[name] for name, weight in weights.items()}
    return weights


def learn(setup):
    import torch
    import torch.nn.functional as F
    from torch.func import functional_call

    from supervised_imagenet import networks

    settings = setup.settings
    network = networks.create(settings["arch"], settings["ways"], setup.channels)

    def predicted(weights, images):
        # norms are over the images at hand; what they note is of the copy
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        return functional_call(network, weights | buffers, (images,))

    def loss_of(support, support_class, query, query_class):
        def of_support(weights):
            return F.cross_entropy(predicted(weights, support), support_class)

        with torch.no_grad():
            network(support)  # here the network's norms take note, of the weights that are stored
        weights = dict(network.named_parameters())
        weights = adapted(of_support, weights, settings["steps"], settings["inner_lr"], settings["first_order"])
        logits = predicted(weights, query)
        return F.cross_entropy(logits, query_class), (logits.detach().argmax(dim=1) == query_class).sum()

    return protonets.episodic(setup, network, loss_of)


def name_of(recipe):
    return "fomaml" if recipe["first_order"] else "maml"


if __name__ == "__main__":
    run(lambda: methods.main(name_of, __doc__, RECIPES, learn), resumes=True)
