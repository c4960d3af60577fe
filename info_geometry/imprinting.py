"""Imprinting: networks trained on different classes made to predict on the same ones.

The last layer is replaced by prototypes, the mean features of each class, and features become predictions by
their distance or angle to these. See Ramesh et al., "A picture of the space of typical learnable tasks"
(arXiv 2210.17011), and Qi et al., "Low-shot learning with imprinted weights" (CVPR 2018).
"""

import hashlib
import itertools
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from info_geometry.script import InputError

CACHE_BYTES = 1 << 29  # features kept between the two passes, such as ImageNet's 50,000 of 2048; others are made again


def assign_folds(labels, ids, classes, n_folds=10):
    """Stratified folds (N,) in [0, n_folds) for cross-fitted prototypes, fixed by the samples' ids alone.

    Each class is dealt out over the folds in an order that hashes its ids. Raises InputError for a class of one
    sample, whose own prototype could only be itself.
    """
    counts = np.bincount(labels)
    smallest = int(np.where(counts > 0, counts, counts.max()).argmin())
    if counts[smallest] < 2:
        raise InputError(f"class {classes[smallest]} has one sample to predict: cross-fitted prototypes need two")
    return _places(labels, ids) % min(n_folds, int(counts[smallest]))


def sample(labels, ids, n_each):
    """Indices, ascending, of `n_each` samples of each class or all that it has, fixed by the samples' ids alone."""
    return np.flatnonzero(_places(labels, ids) < n_each)


def _places(labels, ids):
    """The place of each sample among those of its class, in an order that hashes ids."""
    hashes = np.array([hashlib.sha256(i.encode()).hexdigest() for i in ids])
    order = np.lexsort((hashes, labels))
    first = np.searchsorted(labels[order], labels[order])
    places = np.empty(len(labels), dtype=np.int64)
    places[order] = np.arange(len(labels)) - first
    return places


def class_sums(batches, labels, folds, n_classes):
    """Sums (K, C, F) and counts (K, C) of the features of each class in each of K folds, in float64.

    `batches` yields features (B, F) in the order of `labels` and `folds` (N,).
    """
    n_folds = int(folds.max()) + 1
    key = folds * n_classes + labels
    sums, start = None, 0
    for features in batches:
        if sums is None:
            shape = (n_folds * n_classes, features.shape[1])
            sums = torch.zeros(shape, dtype=torch.float64, device=features.device)
        part = torch.as_tensor(key[start : start + len(features)], device=features.device)
        sums.index_add_(0, part, features.double())
        start += len(features)
    counts = torch.as_tensor(np.bincount(key, minlength=len(sums)), device=sums.device)
    return sums.view(n_folds, n_classes, -1), counts.view(n_folds, n_classes)


def prototypes(sums, counts):
    """Class means (K, C, F) from sums and counts; raises InputError for a class without a sample."""
    empty = (counts == 0).nonzero()
    if len(empty):
        raise InputError(f"class {int(empty[0, 1])} has no sample to make its prototype from")
    return sums / counts[..., None]


class Rule(NamedTuple):
    """How features become predictions: by `euclidean` distance or `cosine`, to prototypes from `crossfit` folds or all
    of the predicted samples (`val`), or from the training images (`train`)."""

    kind: str
    prototypes: str
    temperature: float = 1.0


def last_layer(means, rule):
    """Weights (K, C, F) and bias (K, C) of the last layers that prototypes (K, C, F) are imprinted as.

    euclidean: -||f - m_c||^2 / temperature, but for |f|^2, which is the same for all classes, so that softmax does not
    see it; cosine: <f, m_c> / (|f| |m_c|) / temperature, for features of length one.
    """
    if rule.kind == "cosine":
        return F.normalize(means, dim=-1) / rule.temperature, means.new_zeros(means.shape[:2])
    return 2 * means / rule.temperature, -means.square().sum(-1) / rule.temperature


def predict(features, weights, bias, folds, kind):
    """Log-probabilities (B, C) in float64 from features (B, F), last layers and each sample's fold (B,)."""
    features = features.double()
    if kind == "cosine":
        features = F.normalize(features, dim=-1)
    logits = torch.empty(len(features), weights.shape[1], dtype=torch.float64, device=features.device)
    for fold in folds.unique():
        inside = folds == fold
        logits[inside] = features[inside] @ weights[fold].T + bias[fold]
    return torch.log_softmax(logits, dim=-1)


def imprint(batches, labels, n_classes, rules, folds=None, source=None):
    """Yields {rule: log-probabilities (B, C)}, float64 tensors, for batch after batch of samples with these labels
    (N,).

    `batches(skip)` yields the samples' features (B, F) in order, without the first `skip` batches. It is called twice:
    features beyond half a gigabyte are computed again rather than kept, so that memory does not depend on N F.
    Cross-fitted prototypes need `folds` (N,) (see `assign_folds`); prototypes from training images `source`, a pair
    (batches, labels) of these. Raises InputError for a class without a sample.
    """
    kept, space = [], CACHE_BYTES

    def first_pass():
        nonlocal space
        for features in batches(0):
            space -= features.numel() * features.element_size()
            if space >= 0:
                kept.append(features)
            yield features

    one = np.zeros(len(labels), dtype=np.int64)  # a single fold
    fold_of, means = {"crossfit": folds, "val": one, "train": one}, {}
    wanted = {rule.prototypes for rule in rules}
    if "train" in wanted:
        images, image_labels = source
        means["train"] = prototypes(*class_sums(images(0), image_labels, np.zeros_like(image_labels), n_classes))
    if wanted != {"train"}:
        sums, counts = class_sums(first_pass(), labels, one if folds is None else folds, n_classes)
        if "crossfit" in wanted:
            means["crossfit"] = prototypes(sums.sum(0) - sums, counts.sum(0) - counts)
        if "val" in wanted:
            means["val"] = prototypes(sums.sum(0, keepdim=True), counts.sum(0, keepdim=True))
    layers, start = {rule: last_layer(means[rule.prototypes], rule) for rule in rules}, 0
    for features in itertools.chain(kept, batches(len(kept))):
        stop = start + len(features)
        parts = {name: torch.as_tensor(fold_of[name][start:stop], device=features.device) for name in wanted}
        yield {rule: predict(features, *layers[rule], parts[rule.prototypes], rule.kind) for rule in rules}
        start = stop


def imprinted(features, labels, n_classes, folds, kind="euclidean"):
    """Probabilities (N, C) in float64, a tensor, of features (N, F) in memory, with cross-fitted prototypes.

    `folds` (N,) are those of `assign_folds`, `kind` is a rule's; see `imprint`.
    """
    rule = Rule(kind, "crossfit")
    (log_p,) = imprint(lambda skip: [features][skip:], labels, n_classes, [rule], folds)
    return log_p[rule].exp()
