# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: -all
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A picture of the space of typical learnable tasks: a tutorial
#
# [![Open in Colab][badge]][colab]
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: https://colab.research.google.com/github/grasp-lyrl/picture_of_space_of_tasks/blob/main/picture_of_tasks_tutorial.ipynb
#
# Two networks are trained, perhaps on different tasks, perhaps by different methods. Have they learned the same? Did
# they learn it in the same order? This notebook builds, step by step, the tools with which
# [Ramesh et al. (ICML 2023)](https://arxiv.org/abs/2210.17011) answer such questions: a distance between networks
# (sections 1-3), networks trained on different tasks that can be compared (4), a map of them (5-6), how far they have
# come and by which way (7-10), and the picture of six tasks (11).
#
# It runs in three minutes on two cores, without a GPU. You should know what a softmax and an eigenvalue are, and be
# able to read NumPy. What is computed `by_hand`, from its formula, is asserted to equal what the library computes.
# **Cells that begin with `# draw` only make the figure below them: to read on, skip their code.**
#
# On Colab, the first cell downloads the repository and installs it, which takes a minute; in a clone it does nothing.

# %%
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = "grasp-lyrl/picture_of_space_of_tasks"

if not Path("info_geometry").is_dir():
    folder = REPOSITORY.partition("/")[2]
    if not Path(folder).is_dir():
        subprocess.run(["git", "clone", "--quiet", "--depth=1", f"https://github.com/{REPOSITORY}"], check=True)
    os.chdir(folder)
try:
    importlib.metadata.version("picture-of-tasks")
except importlib.metadata.PackageNotFoundError:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--editable", "."], check=True)
sys.path.insert(0, os.getcwd())  # what has just been installed, a running kernel does not see

# %%
import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import torch
from IPython.display import Image, display
from torch import nn

from info_geometry import plot

plt.style.use(plot.STYLE)
plt.rcParams["figure.dpi"] = 150
BLUE, ORANGE, *_, GREY = plot.colours()

# %% [markdown]
# ## 1. Why predictions, and not weights?
#
# A small problem shows it: points in the plane, on three noisy arms of a spiral. The task is to tell which arm a point
# is on. Networks with two hidden layers learn it, of three widths and from three seeds each. As they learn, we note
# their weights, and what they predict for 300 points that they are not trained on.


# %%
def spirals(n, seed):
    """Points (n, 2) on three noisy arms of a spiral, and the number of the arm that each is on."""
    rng = np.random.default_rng(seed)
    arm, radius = np.arange(n) % 3, rng.uniform(0.1, 1, n)
    angle = 2 * np.pi * arm / 3 + 4 * radius + rng.normal(0, 0.3, n)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return torch.tensor(points, dtype=torch.float32), torch.tensor(arm)


x_train, y_train = spirals(300, seed=0)
x_test, y_test = spirals(300, seed=1)
STEPS = [0, 1, 2, 4, 7, 10, 14, 19, 25, 32, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300]


def learn(width, seed):
    """Weights (T, W) and predictions (T, 300, 3) of a network at the T steps of training in STEPS."""
    torch.manual_seed(seed)
    layers = nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
    network = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    weights, predictions = [], []
    for step in range(STEPS[-1] + 1):
        if step in STEPS:
            with torch.no_grad():
                weights.append(nn.utils.parameters_to_vector(network.parameters()).numpy().copy())
                predictions.append(network(x_test).softmax(dim=1).double().numpy())
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x_train), y_train).backward()
        optimizer.step()
    return np.array(weights), np.array(predictions)


torch.use_deterministic_algorithms(True)
WIDTHS, SEEDS = (8, 32, 128), (0, 1, 2)
toys = {(width, seed): learn(width, seed) for width in WIDTHS for seed in SEEDS}

# %% [markdown]
# Networks of different width do not even have the same number of weights: nothing can be said about how far one is from
# another. For those of one width, principal component analysis (PCA) gives the plane in which their weights vary most.
# The same can be done for predictions, and for all widths together, since each network is now a list of 300 × 3
# probabilities.

# %%
from sklearn.decomposition import PCA

of_weights, of_predictions = PCA(2), PCA(2)
weights = of_weights.fit_transform(np.concatenate([toys[32, seed][0] for seed in SEEDS]))
predictions = of_predictions.fit_transform(np.concatenate([p.reshape(len(p), -1) for _, p in toys.values()]))

# %%
# draw
colour_of = dict(zip(WIDTHS, (BLUE, ORANGE, GREY), strict=True))
figure, (data, left, right) = plt.subplots(1, 3, figsize=(6.75, 2.4))
for arm, marker in enumerate("o^s"):
    colour = plot.colours()[3 + arm]
    data.plot(*x_test[y_test == arm].T, marker, markersize=2.5, color=colour, label=f"class {arm}")
data.set(title="the problem", aspect="equal")
data.set_axis_off()
data.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, columnspacing=0.5, handletextpad=0)
for panel, planes, pca, keys in (
    (left, weights, of_weights, [(32, seed) for seed in SEEDS]),
    (right, predictions, of_predictions, list(toys)),
):
    for (width, seed), run in zip(keys, np.split(planes, len(keys)), strict=True):
        colour = colour_of[width]
        panel.plot(*run.T, color=colour, linewidth=0.8, label=f"width {width}" if seed == 0 else None)
        panel.plot(*run[0], "o", color=colour, markersize=3, markerfacecolor="white")
        panel.plot(*run[-1], "o", color=colour, markersize=3)
    share = 100 * pca.explained_variance_ratio_.sum()
    panel.set(xlabel="PC 1", ylabel="PC 2")
    panel.set_title(f"{'weights' if panel is left else 'predictions'} ({share:.0f}% of the variance)")
    panel.legend()
plt.show()

# %% [markdown]
# In weight space (middle; from open to full dots) each seed goes its own way, away from the others, though all of them
# come to solve the same problem: to exchange or rescale neurons changes the weights, and not what the network does. In
# prediction space (right) they start together and follow nearly the same path, whatever their width; narrow ones stop a
# little earlier.
#
# **From now on a network is what it predicts**, a point of *prediction space*: a table $P$ of $N$ samples and $C$
# classes, whose rows $p_n$ are probabilities. Training moves the point along a *trajectory*, an array `(T, N, C)` of
# $T$ checkpoints. What we need next is the right distance.

# %% [markdown]
# ## 2. Square roots, and the sphere
#
# Take one sample and three classes. Predictions $p = (p_0, p_1, p_2)$ fill a triangle, but Euclidean distance in the
# triangle is not what we want. Whether a network gives a class 50% or 51% hardly matters; whether it gives 0.01% or
# 1.01% does, as this makes the class a hundred times as likely. Information theory measures a small step $dp$ by the
# Kullback-Leibler divergence,
#
# $$\mathrm{KL}(p, p + dp) \approx \tfrac12 \sum_c \frac{dp_c^2}{p_c} = 2 \sum_c dr_c^2 \quad\text{with}\quad
# r_c = \sqrt{p_c},$$
#
# since $dr = dp / (2 \sqrt p)$. In terms of *square roots* $r$, it is Euclidean distance after all. And since
# $\sum_c r_c^2 = \sum_c p_c = 1$, square roots lie on a sphere; for three classes, on an eighth of the one that we can
# see. The shortest paths, *geodesics*, are arcs of great circles.
#
# Here is how our networks' predictions move for one of the 300 points, one on which they are first wrong.

# %%
from info_geometry import geodesic

SAMPLE = 4
paths = {key: np.sqrt(p[:, SAMPLE]) for key, (_, p) in toys.items()}  # (T, 3) each, points on the sphere
assert all(np.allclose(np.linalg.norm(path, axis=1), 1) for path in paths.values())

true_class = int(y_test[SAMPLE])
ignorance = np.full((1, 3), 1 / 3)  # models of one sample, (1, 3)
truth = np.eye(3)[[true_class]]
fractions = np.linspace(0, 1, 30)[:, None]  # of the way from one to the other
shortest = np.sqrt(geodesic.interpolate(ignorance, truth, fractions)[:, 0])  # (30, 3)

# %%
# draw
angle = np.linspace(0, np.pi / 2, 19)
around, up = np.meshgrid(angle, angle)
sphere = np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)

figure = plt.figure(figsize=(6.75, 3.1))
flat, globe = figure.add_subplot(121), figure.add_subplot(122, projection="3d")
corners = np.array([[0, 0], [1, 0], [0.5, np.sqrt(3) / 2]])
flat.fill(*corners.T, facecolor="none", edgecolor="#AAAAAA")
globe.plot_surface(*sphere, color="#EEEEEE", alpha=0.4, linewidth=0)
globe.plot_wireframe(*sphere, color="#BBBBBB", linewidth=0.4, rstride=6, cstride=6)
for (width, seed), r in paths.items():
    how = {"color": colour_of[width], "linewidth": 0.8}
    flat.plot(*(r**2 @ corners).T, **how, label=f"width {width}" if seed == 0 else None)
    globe.plot(*r.T, **how)
flat.plot(*(shortest**2 @ corners).T, ":", color="black", label="geodesic")
globe.plot(*shortest.T, ":", color="black")
for c, corner in enumerate(corners):
    name = f"class {c}, truth" if c == true_class else f"class {c}"
    flat.annotate(name, corner, (0, 4 if c == 2 else -10), textcoords="offset points", ha="center")
    globe.text(*1.1 * np.eye(3)[c], f"class {c}", ha="center", va="center")
flat.plot(*(ignorance @ corners).T, "s", color="black", markersize=4, markerfacecolor="white")
flat.annotate("ignorance", (ignorance @ corners)[0], (8, 6), textcoords="offset points")
flat.set(title="probabilities: a triangle", aspect="equal")
flat.set_axis_off()
flat.legend(loc="upper left", bbox_to_anchor=(-0.1, 1))
globe.set_title("square roots: an eighth of a sphere", pad=16)
globe.set_axis_off()
globe.view_init(25, 70)
globe.set_box_aspect((1, 1, 1), zoom=1.15)
plt.show()

# %% [markdown]
# The same sphere, to be turned with the mouse (in Jupyter or on Colab; where a notebook is only shown, it is missing):

# %%
# draw
x, y, z = sphere
turned = go.Figure(layout={"height": 500, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}})
turned.add_surface(x=x, y=y, z=z, opacity=0.3, showscale=False, colorscale=["#DDDDDD"] * 2, hoverinfo="skip")
for (width, seed), r in paths.items():
    x, y, z = r.T
    how = {"mode": "lines+markers", "marker": {"size": 2}, "line": {"color": colour_of[width], "width": 3}}
    named = {"name": f"width {width}", "legendgroup": width, "showlegend": seed == 0}
    turned.add_scatter3d(x=x, y=y, z=z, **how, **named, hovertext=[f"step {step}" for step in STEPS])
x, y, z = shortest.T
turned.add_scatter3d(x=x, y=y, z=z, mode="lines", line={"color": "black", "dash": "dot"}, name="geodesic")
turned.update_scenes(xaxis_title="√p₀", yaxis_title="√p₁", zaxis_title="√p₂")
turned.show()

# %% [markdown]
# Untrained networks are near *ignorance*: all classes equally probable. Most lean towards class 0, a wrong one, while
# they exclude class 2, and only then turn to the *truth*. Prediction space has such a sphere for each of the $N$
# samples, and a network is a point on each.

# %% [markdown]
# ## 3. The Bhattacharyya distance
#
# How far apart are two networks $P$ and $Q$? On one sample, the *affinity*
# $\sum_c \sqrt{p_c q_c} = \langle r_P, r_Q \rangle$ is the cosine of the angle between their points on the sphere: 1
# where they predict the same, 0 where they share nothing. The Bhattacharyya distance is the mean over samples of its
# negative logarithm,
#
# $$d_B(P, Q) = -\frac1N \sum_n \log \sum_c \sqrt{p_{nc}\, q_{nc}}.$$
#
# Why the logarithm? Together, $N$ predictions give a probability to each of the $C^N$ ways to label all the samples.
# The affinity of two such distributions, summed over all labellings, is the product of the samples' affinities,
#
# $$\sum_{c_1 \ldots c_N} \sqrt{\prod_n p_{n c_n} q_{n c_n}} = \prod_n \sum_c \sqrt{p_{nc}\, q_{nc}},$$
#
# and the logarithm makes this a sum, so that it can be told per sample. (It is the natural one, so the unit is called
# *nat*.) For small steps, the affinity is $1 - \tfrac12 |dr|^2$, so that $d_B \approx \tfrac12 |dr|^2$ in the mean over
# samples: **$d_B$ is the square of a distance.**

# %%
from info_geometry.bhattacharyya import aligned, pairwise

P = np.array([[0.8, 0.1, 0.1], [1 / 3, 1 / 3, 1 / 3]])  # two networks, which predict two samples
Q = np.array([[0.1, 0.8, 0.1], [0.6, 0.2, 0.2]])

affinities = np.sqrt(P * Q).sum(axis=1)
by_hand = -np.log(affinities).mean()

print("affinities:", affinities.round(4), " distance:", by_hand.round(4))
assert np.isclose(pairwise(np.stack([P, Q]))[0, 1], by_hand)

# %% [markdown]
# They disagree about the first sample, and little about the second. `pairwise` takes a stack of models `(M, N, C)` and
# gives all distances `(M, M)`; `aligned` takes two stacks, and gives those of each model of one to the same one of the
# other. Some of the networks of section 1:

# %%
narrow, wide, other = toys[8, 0][1], toys[128, 0][1], toys[128, 1][1]
for what, a, b in (
    ("wide and narrow, both untrained", wide[0], narrow[0]),
    ("wide, untrained and trained", wide[0], wide[-1]),
    ("wide and narrow, both trained", wide[-1], narrow[-1]),
    ("wide, two seeds, both trained", wide[-1], other[-1]),
):
    print(f"{what:<34}{aligned(a[None], b[None])[0]:.4f}")

# %% [markdown]
# Trained networks are nearer to each other than to where they began.
#
# Two details, for those who compute this themselves. Where one network gives no probability to the only class that the
# other believes in, the affinity is 0, and the distance would be infinite: affinities below a floor of $10^{-6}$ are
# replaced by it, and a `FloorWarning` says how many were. (It comes up below, with few, and is switched off here.) And
# the logarithm of an affinity near 1 loses the digits of small distances, so the library computes these from
# differences $\sqrt p - \sqrt q$.

# %%
import warnings

from info_geometry.bhattacharyya import FloorWarning

warnings.simplefilter("ignore", FloorWarning)

# %% [markdown]
# ## 4. Imprinting: different tasks, one space
#
# Networks trained on *different tasks* predict different classes. One that tells even digits apart has five outputs,
# one for odd digits has five others: they are not points of the same space. We train such networks on six tasks made
# from scikit-learn's handwritten digits of 8 × 8 pixels: all ten classes (`all`), `even`, `odd`, 0-4 (`low`), 5-9
# (`high`), and all with labels shuffled among the training images (`randomlab`), so that these can only be learned by
# heart.
#
# From here on we use the repository's scripts as on a command line. This one trains three seeds of each task, and
# stores checkpoints: five in each of the first five epochs, when networks move fastest, then one an epoch.


# %%
def script(command):
    """Run a script of the repository, and print what it prints."""
    command = [sys.executable, "-u", *command.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(line, end="")
    assert process.returncode == 0, "see what the script said above"


TASKS = ("all", "even", "odd", "low", "high", "randomlab")
chosen = f"--dataset digits --task {' '.join(TASKS)} --seed 0 1 2"
script(f"supervised_imagenet/01_training/train.py {chosen}")
script("supervised_imagenet/02_imprinting/store_labels.py --dataset digits")

# %% [markdown]
# Here is what the last checkpoints of `even` and `odd` predict for an image of a 3, one of the 797 images that were
# kept for validation:

# %%
from info_geometry import imprinting
from supervised_imagenet import batches, checkpoints, datasets, networks

digits = datasets.digits()
labels = digits.val.labels
images = torch.cat(list(batches.InMemory(digits.val, digits.statistics, "cpu").ordered(batch_size=500)))
three = int(np.flatnonzero(labels == 3)[0])


def trained(task):
    """The network of the last checkpoint of a task of five classes, seed 0."""
    path = checkpoints.listed(Path("checkpoints", f"digits_{task}", "0"))[-1]
    network = networks.create("cnn", n_classes=5, in_channels=1).eval()
    network.load_state_dict(checkpoints.weights(checkpoints.load(path), path))
    return network


for task, classes in (("even", [0, 2, 4, 6, 8]), ("odd", [1, 3, 5, 7, 9])):
    with torch.no_grad():
        p = trained(task)(images[[three]]).softmax(dim=1)[0]
    print(f"{task:<5}", "  ".join(f"{c}: {value:.3f}" for c, value in zip(classes, p, strict=True)))

# %% [markdown]
# The network for even digits has no output for a 3, and yet it is certain. But all of it up to the last layer may
# serve: that turns an image $x$ into features $\varphi(x)$. *Imprinting* replaces the last layer by one that knows all
# ten classes, without any training. The *prototype* $\mu_c$ of a class is the mean feature of its samples, and the
# imprinted network predicts
#
# $$p_c(x) \propto \exp\left(-\lVert \varphi(x) - \mu_c \rVert^2\right).$$
#
# Which samples make the prototypes? If they are the very ones that are then predicted, as in the published code, each
# draws the prototype of its own class towards itself, and even features of pure noise look as if something had been
# learned. The default here is to *cross-fit*: the validation samples are dealt into ten folds, and each fold is
# predicted with prototypes made from the nine others.

# %%
with torch.no_grad():
    features = networks.features(trained("even"), images).double()  # (N, F)

folds = imprinting.assign_folds(labels, digits.val.ids, digits.classes)
others = folds != folds[three]  # prototypes for our 3 are made without its fold
means = torch.stack([features[others & (labels == c)].mean(dim=0) for c in range(10)])
by_hand = (-(features[three] - means).square().sum(dim=1)).softmax(dim=0)

imprinted = imprinting.imprinted(features, labels, 10, folds)  # of all samples, (N, 10)
assert torch.allclose(imprinted[three], by_hand)
print("even, imprinted:", "  ".join(f"{c}: {value:.2f}" for c, value in enumerate(by_hand)))
print(f"accuracy on all ten classes: {(imprinted.argmax(dim=1).numpy() == labels).mean():.3f}")

# %% [markdown]
# It has never been told about a 3, but finds it most like other threes, and is right about four in five images of all
# ten digits: what it learned for one task serves another. An untrained network's features are nearly the same for all
# images, so that it is imprinted near ignorance; and a network trained on shuffled labels still has features that tell
# images apart, to which imprinting then gives the true labels.
#
# Now all networks predict the same samples and classes. The script does this for every checkpoint:

# %%
script(f"supervised_imagenet/02_imprinting/store_predictions.py {chosen}")

# %% [markdown]
# From here on, nothing knows of networks or images any more. These files, one `(T, N, C)` array a run, are all that
# comes in, and yours may come from elsewhere: from other data, other libraries, other ways of learning.

# %%
from info_geometry.predictions import Models, read

trajectories = {task: read([f"predictions/digits_{task}"]) for task in TASKS}  # of each task one a seed
print("even:", [t.shape for t in trajectories["even"]])
N, C = trajectories["even"][0].shape[1:]

# %% [markdown]
# ## 5. InPCA: a map, with imaginary coordinates
#
# Given distances between *models* (points of prediction space, that is: checkpoints), we want a map: coordinates, as
# few as possible, whose squared differences add up to $d_B$, the squared distance. But no map of the usual kind can
# show it. Take one sample, two classes, and three models; here are their distances, $\sqrt{d_B}$:

# %%
trio = np.array([[[1 - 1e-6, 1e-6]], [[0.5, 0.5]], [[1e-6, 1 - 1e-6]]])  # sure of one, undecided, sure of the other
D = pairwise(trio)
print(np.sqrt(D).round(3))

# %% [markdown]
# From end to end it is 2.49, but only 0.59 + 0.59 by way of the undecided model: no three points of a plane, or of any
# space of the usual kind, are that far from each other. Intensive principal component analysis, InPCA ([Quinn et al.,
# PNAS 2019](https://arxiv.org/abs/1810.02877)), keeps every distance exactly all the same. As classical
# multidimensional scaling does, it centres the matrix $D$ of all $d_B$ between $M$ models,
#
# $$W = -\tfrac12 L D L, \qquad L = I - \tfrac1M \mathbf 1 \mathbf 1^\top,$$
#
# and takes its eigenvalues $\lambda_i$ and eigenvectors $v_i$, the largest $|\lambda_i|$ first. Coordinate $i$ of model
# $m$ is $\sqrt{|\lambda_i|}\, v_{im}$. Where $\lambda_i < 0$ the coordinate is *imaginary*: its squared differences are
# subtracted. All coordinates together give back
#
# $$d_B(a, b) = \sum_i \operatorname{sign}(\lambda_i)\, (x_{ai} - x_{bi})^2.$$

# %%
from info_geometry.inpca import InPCA

L = np.eye(3) - 1 / 3
values, vectors = np.linalg.eigh(-L @ D @ L / 2)
order = np.argsort(-np.abs(values))[:2]  # the third is zero
by_hand = vectors[:, order] * np.sqrt(np.abs(values[order]))

inpca = InPCA(n_components=2).fit(D)
assert np.allclose(inpca.eigenvalues_, values[order])
assert np.allclose(np.abs(inpca.embedding_), np.abs(by_hand)), "but for the signs, which are arbitrary"
print("eigenvalues:", inpca.eigenvalues_.round(3), " imaginary:", inpca.imaginary_)

x, y = inpca.embedding_.T  # the second coordinate is imaginary
assert np.allclose((x[:, None] - x) ** 2 - (y[:, None] - y) ** 2, D)

# %%
# draw
figure, panel = plt.subplots(figsize=(3.6, 2))
panel.plot(x[[0, 1, 2, 0]], y[[0, 1, 2, 0]], color="#BBBBBB", linewidth=0.8)
panel.plot(x, y, "o", color=BLUE, markersize=4)
for point, name, side in zip(
    inpca.embedding_, ("sure of one", "undecided", "sure of the other"), (-1, 1, -1), strict=True
):
    panel.annotate(name, point, (0, 6 * side), textcoords="offset points", ha="center", va="center_baseline")
for a, b in ((0, 2), (0, 1), (1, 2)):
    middle = (inpca.embedding_[a] + inpca.embedding_[b]) / 2
    panel.text(*middle, f"{np.sqrt(D[a, b]):.2f}", color=GREY, backgroundcolor="white", ha="center", va="center")
panel.set(xlabel="InPCA 1 (√nat)", ylabel="InPCA 2\n(√nat, imaginary)")
panel.set(aspect="equal", xlim=(-2, 2), ylim=(-0.9, 1.2))
plt.show()

# %% [markdown]
# The undecided model is off the line between the others, in an imaginary direction, which makes it *nearer* to both
# than it looks (grey: true distances). So read an axis that says "imaginary" with care: the farther apart along it, the
# smaller the distance. (Special relativity has the same geometry, in which time is subtracted from space.)
#
# Now the networks of `even` and `odd`:

# %%
pair = Models(trajectories["even"] + trajectories["odd"])
D = pairwise(pair, dtype=np.float64)
inpca = InPCA(n_components=None).fit(D)

X, signs = inpca.embedding_, np.sign(inpca.eigenvalues_)
products = (X * signs) @ X.T  # so that |a - b|² = <a, a> + <b, b> - 2 <a, b>, with signs
squares = np.diag(products)
assert np.allclose(squares[:, None] + squares - 2 * products, D, atol=1e-9), "every distance is there"

# %%
# draw
figure, (left, right) = plt.subplots(1, 2, figsize=(6.75, 2.6))
first = 0
for t in pair.trajectories:
    x, y = X[first : first + len(t), :2].T
    first += len(t)
    colour = BLUE if t.task == "even" else ORANGE
    left.plot(x, y, color=colour, linewidth=0.8, label=t.task if t.seed == 0 else None)
    left.plot(x[-1], y[-1], "o", color=colour, markersize=4)
    left.plot(x[0], y[0], "o", color="black", markersize=4, markerfacecolor="white")
left.set(xlabel="InPCA 1 (√nat)", ylabel="InPCA 2 (√nat)", aspect="equal", adjustable="datalim")
left.legend(loc="center left")
number = np.arange(1, 21)
for which, marker, colour, name in (
    (~inpca.imaginary_, "o", BLUE, "real"),
    (inpca.imaginary_, "x", ORANGE, "imaginary"),
):
    some = which[:20]
    right.semilogy(number[some], np.abs(inpca.eigenvalues_[:20][some]), marker, color=colour, markersize=4, label=name)
right.set(xlabel="number of the coordinate", ylabel="size of the eigenvalue (nat)", xticks=[1, 5, 10, 15, 20])
right.yaxis.set_major_formatter("{x:g}")
right.legend(title="coordinate")
plt.show()

# %% [markdown]
# Each line is a run. They set out from nearly the same place (open dots), and part: the task decides where they go, the
# seed hardly. Two bundles of lines from one point need two dimensions. That so little else is needed is the paper's
# surprise: prediction space has thousands of dimensions, here 797 × 9. Section 11 asks again with six tasks.

# %% [markdown]
# ## 6. Explained stress: may the picture be believed?
#
# Two coordinates of many were drawn. How well do the first $k$ reproduce all the distances, or rather the centred
# matrix $W$? The *explained stress* is one minus the relative error,
#
# $$\chi_k = 1 - \sqrt{1 - \frac{\sum_{i \le k} \lambda_i^2}{\sum_i \lambda_i^2}}.$$
#
# It is 1 where nothing is missing. The square root makes it strict: with 75% of the sum of squares it is 50%.

# %%
squares = inpca.eigenvalues_**2
by_hand = 1 - np.sqrt(np.maximum(1 - np.cumsum(squares) / squares.sum(), 0))
assert np.allclose(by_hand, inpca.explained_stress_, atol=1e-6)
for k in (1, 2, 3, 5, 10):
    print(f"{k:>2} coordinates explain {100 * by_hand[k - 1]:.1f}% of the stress")

# %% [markdown]
# ## 7. Ignorance, truth, and progress
#
# How far has a network come? Accuracy ignores how sure a network is, and in the loss a few samples on which it is sure
# and wrong outweigh many others. But two points of prediction space mean something for any network: ignorance $P_0$,
# with $1/C$ everywhere, and truth $P_\ast$, with all probability on the true classes. The geodesic between them is a
# great circle on every sample's sphere. With the angle $g$ between its ends, $\cos g = 1/\sqrt C$, the point at a
# fraction $s$ of the way is
#
# $$r(s) = \frac{\sin((1 - s) g)\; r_0 + \sin(s g)\; r_\ast}{\sin g}.$$
#
# The **progress** of a network is the $s$ at which this is nearest to it: the one that minimises
#
# $$f(s) = -\frac1N \sum_n \log \frac{a_n \sin((1 - s) g) + b_n \sin(s g)}{\sin g},$$
#
# its distance from the point at $s$, where $a_n$ and $b_n$ are its affinities with ignorance and with truth on sample
# $n$. This $f$ is convex, so that there is one minimum.

# %%
from scipy.optimize import minimize_scalar

run = trajectories["all"][0]
some = [0, 2, 3, 4, 50]  # checkpoints
P = run[some].astype(float)
P /= P.sum(axis=-1, keepdims=True)  # files are in half precision, whose rows do not quite sum to one

a, b = np.sqrt(P).sum(axis=-1) / np.sqrt(C), np.sqrt(P[:, np.arange(N), labels])
g = np.arccos(1 / np.sqrt(C))


def f(s, m):
    return -np.log((a[m] * np.sin((1 - s) * g) + b[m] * np.sin(s * g)) / np.sin(g)).mean()


by_hand = [minimize_scalar(f, bounds=(0, 1), args=(m,), options={"xatol": 1e-9}).x for m in range(len(P))]
assert np.allclose(by_hand, geodesic.progress(P, labels), atol=1e-6)

# %%
# draw
figure, panel = plt.subplots(figsize=(4.5, 2.6))
at = np.linspace(0, 0.999, 200)
for m, colour in enumerate(plt.cm.cividis(np.linspace(0, 0.9, len(P)))):
    panel.plot(at, [f(s, m) for s in at], color=colour, label=f"epoch {run.epochs[some[m]]:.3g}")
    panel.plot(by_hand[m], f(by_hand[m], m), "o", color=colour, markersize=4)
panel.set(xlabel="fraction s of the way from ignorance to truth", ylabel="f, distance to the network (nat)")
panel.set_ylim(-0.05, 1.6)
panel.legend(title="network at (dot: progress)", loc="upper center", ncols=2)
plt.show()

# %% [markdown]
# As it learns, the lowest point of the curve moves from ignorance towards truth. In between the minimum is not 0:
# networks do not follow the geodesic.

# %% [markdown]
# ## 8. Progress takes the place of time
#
# When are two networks to be compared? At the same epoch, one that learns more slowly, with a smaller learning rate
# say, is elsewhere, though it may go the same way. So trajectories are *reindexed* by progress: at progress $s$ a run
# is the point between the two checkpoints around $s$, on the geodesic between these. Checkpoints that fall back behind
# an earlier one are passed over: what follows is about the way to where a network got farthest.

# %%
from info_geometry.trajectory import common_range, new_maxima, reindex

progress = {task: [geodesic.progress(t, labels) for t in runs] for task, runs in trajectories.items()}
run, its_progress = trajectories["all"][0], progress["all"][0]

s = 0.3
kept = new_maxima(its_progress)  # the checkpoints that set a new maximum
place = np.searchsorted(its_progress[kept], s)
before, after = kept[place - 1], kept[place]  # the two around s
part = (s - its_progress[before]) / (its_progress[after] - its_progress[before])
by_hand = geodesic.interpolate(run[before], run[after], part)
assert np.allclose(reindex(run, its_progress, s)[0], by_hand)
print(f"all, seed 0, is at progress {s} between epochs {run.epochs[before]:.2f} and {run.epochs[after]:.2f}")

# %%
# draw
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(6.75, 2.4))
for task, colour in (("all", BLUE), ("randomlab", ORANGE)):
    for t, at in zip(trajectories[task], progress[task], strict=True):
        left.plot(t.epochs, at, color=colour, linewidth=0.8, label=task if t.seed == 0 else None)
left.set(xlabel="epoch", ylabel="progress", ylim=(0, 1), title="progress")
left.legend()
for task, seed, line, label in (("randomlab", 0, "-", "randomlab"), ("all", 1, ":", "another seed of all")):
    t, at = trajectories[task][seed], progress[task][seed]
    middle.plot(run.epochs, aligned(run, t), line, color="black", label=label)
    grid = np.linspace(*common_range([its_progress, progress["randomlab"][0]], ["all", "randomlab"]), 100)
    grid = grid[grid >= at[0]]
    right.plot(grid, aligned(reindex(run, its_progress, grid), reindex(t, at, grid)), line, color="black")
middle.set(xlabel="epoch of both", ylabel="distance from all (nat)", title="at equal epochs", ylim=(0, 0.72))
middle.legend(loc="upper left")
right.set(xlabel="progress of both", ylabel="distance from all (nat)", title="at equal progress", ylim=(0, 0.72))
plt.show()

# %% [markdown]
# A network trained on shuffled labels comes half-way, and then loses progress again (left). At equal epochs it is soon
# far from one that learns the true labels (middle). At equal progress, as far as it gets, it is hardly farther from it
# than another seed is (right): what both learn first is much the same.

# %% [markdown]
# ## 9. The distance between trajectories
#
# The area under a curve at equal progress is one number for two trajectories. For two *tasks* one takes, at each
# progress, the mean of the predictions over seeds. The range of progress is the same for all pairs: the one in which
# all runs are defined.

# %%
from info_geometry.trajectory import compare

names = [f"{task}, seed {t.seed}" for task in TASKS for t in trajectories[task]]
start, end = common_range([at for task in TASKS for at in progress[task]], names)
grid = np.linspace(start, end, 100)


def mean(task):
    """The mean over seeds of a task's reindexed trajectories, (100, N, C)."""
    return np.mean([reindex(t, at, grid) for t, at in zip(trajectories[task], progress[task], strict=True)], axis=0)


by_hand = np.trapezoid(aligned(mean("even"), mean("odd")), grid)

found = compare(trajectories, progress, grid)
integral = {pair: np.trapezoid(distances, grid) for pair, distances in found.distances.items()}
assert np.isclose(integral["even", "odd"], by_hand)
print(f"from progress {start:.3f} to {end:.3f}, times 1000:")
for pair in (("even", "odd"), ("low", "high"), ("all", "even"), ("all", "randomlab"), ("all", "all"), ("even", "even")):
    name = " and ".join(pair) if len(set(pair)) == 2 else f"{pair[0]}, between its seeds"
    print(f"  {name:<26}{1000 * integral[pair]:6.1f}")

# %% [markdown]
# What is far, and what is near? The distance between seeds of one task is the scale. (It is one between single
# networks, which lie farther apart than means over three do.) Tasks without a common class are farthest apart; `all` is
# near `even`, and, as far as `randomlab` gets, nearer still to that.

# %% [markdown]
# ## 10. The length of a trajectory
#
# How long is the way that a network takes? The lengths of its steps add up; and since $d_B$ is a *squared* distance,
# these are square roots. The factor 2 is the paper's convention:
#
# $$\text{Riemann length} = 2 \sum_t \sqrt{d_B(P_t, P_{t+1})}.$$
#
# *Straightness* is the length of the geodesic from the first to the last checkpoint, in the same units, over that of
# the way: $\sqrt{2 \cdot \text{mean of } \theta_n^2}$ with the angle $\theta_n$ between the two on sample $n$'s sphere.

# %%
from info_geometry.bhattacharyya import steps
from info_geometry.samples import square_roots
from info_geometry.trajectory import riemann_length, straightness

for task in ("all", "even", "randomlab"):
    t = trajectories[task][0]
    length = 2 * np.sqrt(steps(t)).sum()
    angles = np.arccos(np.minimum((square_roots(t[0]) * square_roots(t[-1])).sum(axis=-1), 1))
    straight = np.sqrt(2 * (angles**2).mean()) / length
    assert np.isclose(length, riemann_length(t))
    assert np.isclose(straight, straightness(t), atol=1e-6)
    print(f"{task:<10} length {length:5.2f}   straightness {straight:.2f}")

# %% [markdown]
# To learn shuffled labels, image by image, is a long and winding way that hardly leads anywhere.

# %% [markdown]
# ## 11. The picture
#
# Six tasks, three seeds, 51 checkpoints: 918 models. Two scripts do all that we did, for all of them. The first one
# makes the picture:

# %%
folders = " ".join(f"predictions/digits_{task}" for task in TASKS)
script(f"info_geometry/inpca.py {folders}")
display(Image("plots/digits/inpca.png", width=700))

# %% [markdown]
# Three coordinates explain 87% of the stress. All networks begin near ignorance (the square). `all` goes farthest, next
# to the truth, which is placed into the map of the networks. Those that learned five classes stop where these are
# known, tasks without a common class on opposite sides: `even` and `odd`, `low` and `high`. And `randomlab` sets out
# with `all`, and turns back. For tasks of ImageNet, the paper finds this too: tasks of more classes lead further, and
# related ones run side by side.
#
# (A still picture of three dimensions misleads about depth: `low` seems to run beside `odd`, but is far before or
# behind it. Turn it! `plots/digits/inpca.html` is a page that also hides tasks and plays the training. A simple one,
# here:)

# %%
from info_geometry.picture import Picture, mean_of_runs

picture = Picture.load("predictions/embedding/digits_inpca.npz")
lines = {task: mean_of_runs(picture.coordinates((0, 1, 2)), runs) for task, runs in picture.tasks.items()}
colours = {task: colour for task, (colour, _) in plot.look_of(picture).items()}

# %%
# draw
turned = go.Figure(layout={"height": 600, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}})
for task, line in lines.items():
    x, y, z = line.T
    turned.add_scatter3d(x=x, y=y, z=z, mode="lines", line={"color": colours[task], "width": 5}, name=task)
x, y, z = picture.geodesic[:, :3].T
turned.add_scatter3d(x=x, y=y, z=z, mode="lines", line={"color": "black", "dash": "dot"}, name="geodesic to truth")
axes = {f"{axis}axis_title": picture.axis(i) for i, axis in enumerate("xyz")}
turned.update_scenes(**axes, aspectmode="data")
turned.show()

# %% [markdown]
# The second script prints tables, for each task (the first of them), and for pairs of tasks (± standard errors over
# seeds), and draws these:

# %%
script(f"info_geometry/trajectory.py {folders}")
display(Image("plots/digits/distances.png", width=700))

# %% [markdown]
# Left are the distances between trajectories, as in section 9, in the order of the tree that joins the nearest tasks
# first; right, those between the ends. For ImageNet's tasks, the paper finds a tree much like WordNet's in such
# distances, although no network was told about words. How to make that picture, what the other figures are, and how to
# use all this on networks of your own, is in the repository's
# [README](https://github.com/grasp-lyrl/picture_of_space_of_tasks#readme).

# %% [markdown]
# ## 12. Exercises
#
# Answers follow.
#
# 1. How far is ignorance from truth, for $C$ classes? Does it matter how many samples there are?
# 2. Of ten classes, one network says the truth about half of the samples, and ignorance about the others. Another one
#    says the truth about a tenth of them. What is the progress of each? Guess before you compute.
# 3. Train a network of your own on digits (fewer classes, another architecture, no training at all), imprint it, and
#    place it into the picture.
# 4. With a GPU: do networks for even and for odd classes of CIFAR-100 go the same way?

# %% [markdown]
# ### Answers
#
# **1.** The affinity is $\sqrt{1/C}$ on each sample, so that $d_B = \tfrac12 \log C$, however many samples there are.

# %%
truth = np.eye(C)[labels]
ignorance = np.full((N, C), 1 / C)
assert np.isclose(aligned(ignorance[None], truth[None])[0], np.log(C) / 2)

# %% [markdown]
# **2.** One half, by symmetry (here a little more, since 797 is odd); but the truth about a tenth makes more than a
# tenth. At $s$, samples with the truth pull forwards with a force $\tan((1 - s) g)$, the others back with $\tan(s g)$:
# those that are farther away pull harder. Progress is where the forces, each times its number of samples, are equal.

# %%
for every in (2, 10):
    some = np.where(np.arange(N)[:, None] % every == 0, truth, ignorance)
    print(f"the truth about one sample in {every:>2}: progress {geodesic.progress(some[None], labels)[0]:.4f}")

# %% [markdown]
# **3.** For instance, a perceptron that has only ever seen zeros and ones. `InPCA.transform` places models into an
# embedding that was made without them, given their distances to those that it was made from. (Here predictions stay in
# memory; `info_geometry.Recorder` takes and stores them in any training loop.)

# %%
from info_geometry.bhattacharyya import cross

pixels, to_predict = (torch.tensor(split.images).flatten(1) / 255 for split in (digits.train, digits.val))
two = torch.tensor(digits.train.labels < 2)
torch.manual_seed(0)
perceptron = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
optimizer = torch.optim.Adam(perceptron.parameters(), lr=0.001)
mine = []
for step in range(101):
    if step % 5 == 0:
        with torch.no_grad():
            features = perceptron[:2](to_predict)
        mine.append(imprinting.imprinted(features, labels, 10, folds).numpy())
    optimizer.zero_grad()
    nn.functional.cross_entropy(perceptron(pixels[two]), torch.tensor(digits.train.labels)[two]).backward()
    optimizer.step()
mine = np.array(mine)  # (T, N, C)

everyone = Models([t for task in TASKS for t in trajectories[task]])
placed = InPCA(n_components=3).fit(pairwise(everyone)).transform(cross(mine, everyone))
print("progress:", geodesic.progress(mine, labels)[::4].round(2))

# %%
# draw
figure, panel = plt.subplots(figsize=(4.5, 2.8))
for task, line in lines.items():
    panel.plot(*line[:, :2].T, color=colours[task], linewidth=0.8)
    panel.annotate(task, line[-1, :2], (-3, 0), textcoords="offset points", ha="right", va="center")
panel.plot(*placed[:, :2].T, color="black", label="mine")
panel.plot(*placed[-1, :2], "o", color="black", markersize=4)
panel.annotate("mine (0 and 1)", placed[-1, :2], (0, -9), textcoords="offset points", ha="center")
panel.set(xlabel=picture.axis(0), ylabel=picture.axis(1), aspect="equal", adjustable="datalim")
panel.set_xlim(-0.45, 0.75)
plt.show()

# %% [markdown]
# An untrained perceptron already knows a little: its features, unlike those of the convolutional networks, are not
# nearly the same for all images. What tells a zero from a one then serves for other digits too, and it comes as far as
# `randomlab`.

# %% [markdown]
# **4.** This trains Wide-ResNets for 25 epochs, on images that are downloaded, as the tutorial does that was published
# with the paper. Set `CIFAR100 = True` where there is a GPU; it was not run for this page. The published tutorial,
# whose prototypes are not cross-fitted, reports progress up to 0.50, and about 85% of the stress in five dimensions.

# %%
CIFAR100 = False

if CIFAR100:
    script("supervised_imagenet/01_training/train.py --dataset cifar100 --task A B --seed 0 1 2")  # even, odd
    script("supervised_imagenet/02_imprinting/store_labels.py --dataset cifar100")
    script("supervised_imagenet/02_imprinting/store_predictions.py --dataset cifar100 --task A B")
    script("info_geometry/inpca.py predictions/cifar100_A predictions/cifar100_B")
    script("info_geometry/trajectory.py predictions/cifar100_A predictions/cifar100_B")
    display(Image("plots/cifar100/inpca.png", width=700))
