"""Store the true classes of the samples that networks predict.

    python supervised_imagenet/02_imprinting/store_labels.py --dataset digits

writes `predictions/labels/<dataset>_val_labels.npy`, (N,) whole numbers, in the order of the predictions.
"""

import argparse
from pathlib import Path

import numpy as np

from info_geometry.predictions import PREDICTIONS, labels_path
from info_geometry.script import replacing, run, shown
from supervised_imagenet import datasets


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    datasets.add_arguments(parser)
    parser.add_argument("--predictions", type=Path, default=PREDICTIONS, help="the folder of prediction folders")
    args = parser.parse_args()
    dataset = datasets.load(args)
    path = labels_path(args.predictions / dataset.name)
    with replacing(path) as partial:
        np.save(partial, dataset.val.labels)
    print(shown(path))


if __name__ == "__main__":
    run(main)
