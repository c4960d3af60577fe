"""Every figure: matplotlib for paper, plotly for a page to turn.

A task keeps its colour, by its place in the order of tasks, across figures. Widths are those of a column and
of a page of a two-column paper, so that fonts print at their size.
"""

import itertools

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from info_geometry.script import replacing

COLUMN, PAGE = 3.25, 6.75  # inches
PAGE_POINTS = 10_000  # which a browser still turns smoothly
STYLE = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "savefig.dpi": 300,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # a dollar in the name of a task is one
}
# Okabe and Ito's palette, which colour-blind readers can tell apart, without yellow, which pales on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
DASHES = ("-", (0, (4, 1.2)), (0, (1.2, 1)), (0, (4, 1, 1, 1)))


def looks(tasks):
    """{task: (colour, dash)}; dashes tell tasks apart once the colours have been used, for up to 28 tasks."""
    looks = itertools.cycle((colour, dash) for dash, colour in itertools.product(DASHES, COLOURS))
    return dict(zip(tasks, looks, strict=False))


def inpca_figures(folder, dataset, inpca, trajectories, suffix="", arrays=None):
    """Write inpca.html, inpca.png and explained_stress.png to `folder`, with a suffix to their names; yield their
    paths.

    `arrays` may hold what else is stored of the embedding and is to be seen: `landmarks`, and the intervals of
    `info_geometry.bootstrap.of_embedding`, as `embedding_interval` and `explained_stress_interval`.
    """
    arrays = arrays or {}
    coordinates = inpca.embedding_[:, :3]
    coordinates = np.pad(coordinates, ((0, 0), (0, 3 - coordinates.shape[1])))
    imaginary = [*inpca.imaginary_[:3], False, False]
    names = [f"InPCA {i + 1}, imaginary" if imaginary[i] else f"InPCA {i + 1}" for i in range(3)]
    stress = inpca.explained_stress_[:3][-1]
    title = f"{dataset}{suffix.replace('_', ', ')}: {len(coordinates)} models"
    if "landmarks" in arrays:
        title += f", {len(arrays['landmarks'])} of them landmarks"
    title += f", {100 * stress:.1f}% of the stress in three dimensions"
    ends = np.cumsum([len(t) for t in trajectories])
    tasks = {}
    for t, x in zip(trajectories, np.split(coordinates, ends[:-1]), strict=True):
        tasks.setdefault(t.task, []).append((t, x))
    spread = arrays.get("embedding_interval")
    bars = []
    if spread is not None and spread.shape[1] == 3:
        bars = [(t.task, coordinates[end], spread[end]) for t, end in zip(trajectories, ends - 1, strict=True)]
    yield _page(folder / f"inpca{suffix}.html", tasks, names, title)
    yield _picture(folder / f"inpca{suffix}.png", tasks, names, title, bars)
    yield _stress(folder / f"explained_stress{suffix}.png", inpca, arrays.get("explained_stress_interval"))


def _seed_mean(runs):
    """Mean coordinates (T, 3) over the seeds, as far as all have checkpoints."""
    length = min(len(x) for _, x in runs)
    return np.mean([x[:length] for _, x in runs], axis=0)


def _page(path, tasks, names, title):
    import plotly.graph_objects as go

    figure = go.Figure()
    every = -(-sum(len(x) for runs in tasks.values() for _, x in runs) // PAGE_POINTS)
    if every > 1:
        title += f"; one of {every} models shown"
    for task, (colour, _) in looks(tasks).items():
        runs = tasks[task]
        x, y, z = np.concatenate([x for _, x in runs])[::every].T
        hover = [
            f"{task}, seed {t.seed}<br>checkpoint {i}" + f", epoch {epoch:.4g}" * ("epoch" in t.columns)
            for t, _ in runs
            for i, epoch in enumerate(t.epochs)
        ][::every]
        points = {"size": 2.5, "color": colour, "opacity": 0.5}
        line = {"color": colour, "width": 5}
        group = {"name": task, "legendgroup": task}
        figure.add_scatter3d(
            x=x,
            y=y,
            z=z,
            mode="markers",
            marker=points,
            text=hover,
            hoverinfo="text",
            showlegend=False,
            **group,
        )
        x, y, z = _seed_mean(runs).T
        figure.add_scatter3d(x=x, y=y, z=z, mode="lines", line=line, hoverinfo="name", **group)
    axes = dict(zip(("xaxis_title", "yaxis_title", "zaxis_title"), names, strict=True))
    figure.update_layout(
        title=title,
        template="plotly_white",
        scene={**axes, "aspectmode": "data", "camera_eye": {"x": 1.4, "y": 1.4, "z": 0.8}},
        legend={"title": "task (line: mean over seeds)", "itemsizing": "constant"},
        margin={"l": 0, "r": 0, "b": 0, "t": 50},
    )
    with replacing(path) as partial:
        figure.write_html(partial, include_plotlyjs=True, div_id="inpca", default_height="96vh")
    return path


def _picture(path, tasks, names, title, bars):
    with matplotlib.rc_context(STYLE):
        figure = Figure((PAGE, 2.9))
        figure.suptitle(title, fontsize=8)
        panels = figure.subplots(1, 2)
        for panel, (i, j) in zip(panels, ((0, 1), (0, 2)), strict=True):
            for task, (colour, dash) in looks(tasks).items():
                for _, x in tasks[task]:
                    panel.plot(x[:, i], x[:, j], ".", color=colour, markersize=3, alpha=0.35, markeredgewidth=0)
                mean = _seed_mean(tasks[task])
                panel.plot(mean[:, i], mean[:, j], color=colour, linestyle=dash, label=task)
                panel.plot(*mean[-1, [i, j]], "o", color=colour, markersize=4)
            for task, x, spread in bars:  # of the last checkpoint of each run
                panel.plot(spread[i], [x[j]] * 2, color=looks(tasks)[task][0], linewidth=0.8)
                panel.plot([x[i]] * 2, spread[j], color=looks(tasks)[task][0], linewidth=0.8)
            panel.set(xlabel=names[i], ylabel=names[j], aspect="equal", adjustable="datalim")
        if bars:
            panels[0].plot([], [], "+", color="black", label="95% interval of a\nrun's end (bootstrap)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", title="task")
        return _save(figure, path)


def _stress(path, inpca, spread):
    with matplotlib.rc_context(STYLE):
        figure = Figure((COLUMN, 2.3))
        panel = figure.subplots()
        stress = 100 * inpca.explained_stress_
        k = np.arange(1, len(stress) + 1)
        real = ~inpca.imaginary_
        panel.plot(k, stress, color="#999999", zorder=1)
        if spread is not None:
            low, high = 100 * spread.T
            panel.vlines(k[: len(low)], low, high, color="black", linewidth=1, label="95% interval (bootstrap)")
        panel.scatter(k[real], stress[real], s=12, color=COLOURS[0], label="real coordinate")
        if not real.all():
            panel.scatter(k[~real], stress[~real], s=14, color=COLOURS[1], marker="x", label="imaginary coordinate")
        if len(k) >= 3:
            panel.annotate(f"{stress[2]:.1f}%", (3, stress[2]), (6, -12), textcoords="offset points", fontsize=7)
        panel.set(xlabel="number of coordinates", ylabel="explained stress (%)", ylim=(0, 103), xscale="log")
        panel.xaxis.set_major_formatter("{x:.0f}")
        panel.legend(loc="lower right")
        return _save(figure, path)


def progress_figure(path, tasks, progress):
    """Progress against epoch: seeds thin, their mean thick. `progress` maps each trajectory to its (T,)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((COLUMN, 2.4))
        panel = figure.subplots()
        for task, (colour, dash) in looks(tasks).items():
            runs = tasks[task]
            for t in runs:
                panel.plot(t.epochs, progress[t], color=colour, linewidth=0.5, alpha=0.5)
            length = min(map(len, runs))
            mean = np.mean([progress[t][:length] for t in runs], axis=0)
            panel.plot(runs[0].epochs[:length], mean, color=colour, linestyle=dash, label=task)
            if length == 1:
                panel.plot(runs[0].epochs[:1], mean, "o", color=colour, markersize=3)
        # most of the way is made in the first epochs
        panel.set_xscale("symlog", linthresh=1)
        panel.xaxis.set_major_formatter("{x:.0f}")
        known = all("epoch" in t.columns for t in progress)
        panel.set(xlabel="epoch" if known else "checkpoint", ylabel="progress", xlim=(0, None))
        # near uniform predictions make little progress, which is to be seen all the same
        panel.set_ylim(0, 1 if max(map(np.max, progress.values())) > 0.25 else None)
        figure.legend(loc="outside right center", title="task")
        return _save(figure, path)


def comparison_figure(path, tasks, grid, distances, intervals=None):
    """Distance against progress, a panel for each task: to the other tasks, and dotted between its seeds.

    `tasks` are all tasks, those without distances too, so that colours stay. `intervals`, (S, 2) for each pair, are
    drawn as bands.
    """
    look = looks(tasks)
    shown = [task for task in tasks if any(task in pair for pair in distances)]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure((PAGE, 0.4 + 1.7 * rows))
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
        handles = {}
        for task, panel in zip(shown, panels, strict=False):
            for pair, values in distances.items():
                if task not in pair:
                    continue
                other = pair[1] if pair[0] == task else pair[0]
                if intervals:
                    colour = "black" if other == task else look[other][0]
                    band = panel.fill_between(grid, *intervals[pair].T, color=colour, alpha=0.2, linewidth=0)
                    handles["95% interval\n(bootstrap)"] = band
                if other == task:
                    (line,) = panel.plot(grid, values, color="black", linestyle=(0, (1, 1)), linewidth=1)
                    handles["between seeds\nof one task"] = line
                else:
                    (line,) = panel.plot(grid, values, color=look[other][0], linestyle=look[other][1])
                    handles[other] = line
            panel.set_title(f"from {task}", color=look[task][0])
        for panel in panels:  # those without a task
            panel.set_axis_off()
        figure.axes[0].set_ylim(bottom=0)
        figure.supxlabel("progress", fontsize=8)
        figure.supylabel(r"$d_B$ per sample (nats)", fontsize=8, parse_math=True)
        order = [*tasks, "between seeds\nof one task", "95% interval\n(bootstrap)"]
        order = [name for name in order if name in handles]
        figure.legend([handles[name] for name in order], order, loc="outside right center", title="to")
        return _save(figure, path)


def _save(figure, path):
    with replacing(path) as partial:
        figure.savefig(partial)
    return path
