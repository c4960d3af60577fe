"""Imprinting: networks trained on different classes made to predict on the same ones.

The last layer is replaced by prototypes, the mean features of each class, and features become predictions by
their distance or angle to these. See Ramesh et al., "A picture of the space of typical learnable tasks"
(arXiv 2210.17011), and Qi et al., "Low-shot learning with imprinted weights" (CVPR 2018).
"""

import hashlib
import itertools

import numpy as np
import torch
import torch.nn.functional as F

from info_geometry.script import InputError

CACHE_BYTES = 1 << 28  # features kept between the two passes; those beyond are computed again


def assign_folds(labels, ids, classes, n_folds=10):
    """Stratified folds (N,) in [0, n_folds) for cross-fitted prototypes, fixed by the samples' ids alone.

    Each class is dealt out over the folds in an order that hashes its ids. Raises InputError for a class of one
    sample, whose own prototype could only be itself.
    """
    counts = np.bincount(labels)
    smallest = int(np.where(counts > 0, counts, counts.max()).argmin())
    if counts[smallest] < 2:
        raise InputError(f"class {classes[smallest]} has one sample to predict: cross-fitted prototypes need two")
    n_folds = min(n_folds, int(counts[smallest]))
    hashes = np.array([hashlib.sha256(i.encode()).hexdigest() for i in ids])
    folds = np.empty(len(labels), dtype=np.int64)
    for label in range(len(counts)):
        members = np.flatnonzero(labels == label)
        folds[members[np.argsort(hashes[members])]] = np.arange(len(members)) % n_folds
    return folds


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


def prototypes(sums, counts, crossfit):
    """Class means (K, C, F): for each fold the means over the other folds, or (1, C, F) over all without folds."""
    if crossfit:
        sums, counts = sums.sum(0) - sums, counts.sum(0) - counts
    empty = (counts == 0).nonzero()
    if len(empty):
        raise InputError(f"class {int(empty[0, 1])} has no sample to make its prototype from")
    return sums / counts[..., None]


def predict(features, means, folds, rule="euclidean", temperature=1.0):
    """Predictions (B, C) in float64 from features (B, F), prototypes (K, C, F) and each sample's fold (B,).

    euclidean: softmax_c(-||f - m_c||^2 / temperature); cosine: softmax_c(<f, m_c> / (|f| |m_c|) / temperature).
    """
    features = features.double()
    logits = torch.empty(len(features), means.shape[1], dtype=torch.float64, device=features.device)
    if rule == "cosine":
        features, means = F.normalize(features, dim=-1), F.normalize(means, dim=-1)
    for fold in folds.unique():
        inside, mean = folds == fold, means[fold]
        logits[inside] = features[inside] @ mean.T
        if rule == "euclidean":  # |f|^2 is the same for all classes, so that softmax does not see it
            logits[inside] = 2 * logits[inside] - mean.square().sum(-1)
    return torch.softmax(logits / temperature, dim=-1)


def imprint(batches, labels, n_classes, folds=None, source=None, rule="euclidean", temperature=1.0):
    """Predictions (N, C), float64 numpy, of samples with these labels (N,).

    `batches(skip)` yields their features (B, F) in order, without the first `skip` batches. It is called twice:
    features beyond 256 MiB are computed again rather than kept, so that memory does not depend on N F.
    Prototypes are cross-fitted over `folds` (N,) (see `assign_folds`); or they are made from `source`, a pair
    (batches, labels) of other samples; or, with neither, from the very samples predicted, which leaks.
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
    if source:
        other, other_labels = source
        sums = class_sums(other(0), other_labels, np.zeros_like(other_labels), n_classes)
    else:
        sums = class_sums(first_pass(), labels, one if folds is None else folds, n_classes)
    means = prototypes(*sums, crossfit=folds is not None)
    folds = one if folds is None else folds
    out, start = np.empty((len(labels), n_classes)), 0
    for features in itertools.chain(kept, batches(len(kept))):
        part = torch.as_tensor(folds[start : start + len(features)], device=features.device)
        out[start : start + len(features)] = predict(features, means, part, rule, temperature).cpu().numpy()
        start += len(features)
    return out
