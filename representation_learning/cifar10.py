"""Every method on CIFAR-10 with a small network, and what README.md reports of it.

    python representation_learning/cifar10.py --dataset cifar10 --data-dir ~/data
    python representation_learning/cifar10.py --dataset imagefolder --name cifar10k --data-dir ~/cifar10k

The second is for a part of the images, such as the first thousand of each class: with 10,000 it takes three hours on
two cores. What is there is not done again.
"""

import argparse
import subprocess
import sys

from info_geometry.script import REPOSITORY, run
from supervised_imagenet import datasets

ANIMALS, VEHICLES = (
    REPOSITORY / "supervised_imagenet/tasks/cifar10" / f"{name}.json" for name in ("animals", "vehicles")
)
SEEDS = (0, 1, 2)


def every(epochs):
    """A small network, and five checkpoints an epoch to the end, so that lengths are of the same kind."""
    return ["--arch", "cnn", "--epochs", epochs, "--dense-epochs", epochs]


SUPERVISED = ["--recipe", "cifar", *every(25), "--lr", 0.05]
TWO_VIEWS = [*every(30), "--batch-size", 256, "--warmup-epochs", 2]
MAML = [*every(25), "--parts", 1, "--episodes", 80]
METHODS = [
    ("simclr", *TWO_VIEWS, "--lr", 0.25),
    ("barlow_twins", *TWO_VIEWS, "--lr", 0.05, "--projection", 256),
    *(("fixmatch", *every(20), "--batch-size", 16, "--labelled", labelled) for labelled in (4, 25, 400)),
    ("protonets", *every(25), "--episodes", 100),
    ("maml", *MAML),
    ("maml", *MAML, "--first-order"),
    ("multitask", *every(25), "--lr", 0.05, "--task", ANIMALS, VEHICLES),
]
# runs to be fine-tuned from, and their checkpoints
STARTS = {
    "animals": (0, 1, 5, 25, 125),
    "all": (125,),
    "simclr-all": (5, 25, 150),
    "barlow-all": (150,),
    "fixmatch25-all": (100,),
    "protonets-all": (125,),
    "maml-all": (125,),
    "fomaml-all": (125,),
}
LAST = {f"{run}-{numbers[-1]}": numbers[-1] for run, numbers in STARTS.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    datasets.add_arguments(parser)
    name = datasets.check_arguments(parser.parse_args())

    def call(script, *options, data=tuple(sys.argv[1:])):
        done = subprocess.run([sys.executable, REPOSITORY / script, *data, *map(str, options)])
        if done.returncode:
            sys.exit(done.returncode)

    def learn(method, *options):
        call(f"representation_learning/{method}.py", *options)

    def folders(runs):
        return [REPOSITORY / "predictions" / f"{name}_{run}" for run in runs]

    call("supervised_imagenet/01_training/train.py", *SUPERVISED, "--task", "all", ANIMALS, VEHICLES, "--seed", *SEEDS)
    for method in METHODS:
        learn(*method, "--seed", *SEEDS)
    for seed in SEEDS:  # each goes on from its own networks
        for start, numbers in STARTS.items():
            for number in numbers:
                tune(learn, name, start, number, seed)
        tune(learn, name, "animals", 125, seed, "--head-epochs", 2)
    call("supervised_imagenet/02_imprinting/store_labels.py")
    # early on, what norms have noted is of other weights, by more where steps are few
    call("supervised_imagenet/02_imprinting/store_predictions.py", "--norms", "renewed")
    others = ["simclr-all", "barlow-all", "fixmatch4-all", "fixmatch25-all", "fixmatch400-all", "protonets-all"]
    others += ["maml-all", "fomaml-all", "multitask-animals-vehicles"]
    starts = [f"finetune-{run}-{n}-vehicles" for run in ("animals", "simclr-all") for n in STARTS[run]]
    last = [f"finetune-{run}-vehicles" for run in LAST] + ["headfirst-animals-125-vehicles"]
    for title, runs in (("methods", ["all", *others]), ("when", ["vehicles", *starts]), ("from", ["vehicles", *last])):
        where = [
            "--results",
            REPOSITORY / "predictions/embedding" / title,
            "--plots",
            REPOSITORY / "plots" / name / title,
        ]
        call("representation_learning/compare.py", *folders(runs), *where, data=())
        pictured = ["animals", "vehicles", *starts[:5], "multitask-animals-vehicles"] if title == "when" else runs
        call("info_geometry/inpca.py", *folders(pictured), *where, data=())


def tune(learn, name, start, number, seed, *options):
    path = REPOSITORY / "checkpoints" / f"{name}_{start}" / str(seed) / f"checkpoint_{number:03d}.pt"
    learn("finetune", *every(10), "--lr", 0.01, "--task", VEHICLES, "--start", path, "--seed", seed, *options)


if __name__ == "__main__":
    run(main, resumes=True)
