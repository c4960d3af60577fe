"""Every figure of a paper, and the script that draws a stored embedding anew.

    python info_geometry/plot.py predictions/embedding/digits_inpca.npz --format pdf svg
    python info_geometry/plot.py predictions/embedding/digits_inpca.npz --task all even odd --view 20 40

A task keeps its colour, by its place in the order of tasks, across figures. Widths are those of a column and of a page
of a two-column paper, so that fonts print at their size; `paper.mplstyle` has fonts and colours. Each function draws to
`<stem>.<format>` for each of the formats, and returns the paths.
"""

import argparse
import contextlib
import itertools
from pathlib import Path

import matplotlib
import matplotlib.font_manager
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox
from scipy.spatial.distance import pdist

from info_geometry import labels
from info_geometry.bootstrap import mean_and_error
from info_geometry.picture import Picture, mean_of_runs
from info_geometry.predictions import add_format
from info_geometry.script import replacing, run, shown

COLUMN, PAGE = 3.25, 6.75  # inches
STYLE = Path(__file__).with_name("paper.mplstyle")
DASHES = ("-", (0, (4, 1.2)), (0, (1.2, 1)), (0, (4, 1, 1, 1)), (0, (8, 1.5)))
GREY = "#777777"
OTHER_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans", "SimHei")
N_PAIRED = 5  # coordinates whose pairs are drawn
N_SCREE = 30  # eigenvalues
SIDE_BY_SIDE = 24  # tasks
VALUES_BELOW = 13  # tasks: matrices of more have no room for numbers
N_AVOIDED = 3000  # points that names do not cover, if they can


@contextlib.contextmanager
def style():
    """The look of figures; letters that its font lacks are of others that are installed."""
    installed = {font.name for font in matplotlib.font_manager.fontManager.ttflist}
    fonts = {"font.family": ["DejaVu Sans", *(name for name in OTHER_FONTS if name in installed)]}
    with matplotlib.style.context([STYLE, fonts]):
        yield


def colours():
    with style():
        return [f"#{c.lstrip('#')}" for c in matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]]


def looks(tasks):
    """{task: (colour, dash)}; dashes tell tasks apart once the colours have been used, for up to 40 tasks."""
    looks = itertools.cycle((colour, dash) for dash, colour in itertools.product(DASHES, colours()))
    return dict(zip(tasks, looks, strict=False))


def look_of(picture):
    """The looks of a picture's tasks, which those of a part of a picture keep."""
    look = looks(picture.every_task)
    return {task: look[task] for task in picture.tasks}


def ink(colour):
    """A colour as text has it: dark enough to be read on white."""
    red, green, blue = matplotlib.colors.to_rgb(colour)
    lightness = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return tuple(min(1, 0.42 / lightness) * part for part in (red, green, blue)) if lightness > 0 else colour


def save(figure, stem, formats, **how):
    """Write a figure to `<stem>.<format>` for each of the formats; returns the paths."""
    paths = [Path(f"{stem}.{kind}") for kind in formats]
    for path in paths:
        # without its time, so that the same figure makes the same bytes
        metadata = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[path.suffix[1:]]
        with replacing(path) as partial:
            figure.savefig(partial, metadata=metadata, **how)
    return paths


# --- the embedding


def inpca_figures(folder, picture, suffix="", formats=("png",), view=None):
    """Draw inpca, inpca_2d, inpca_pairs and explained_stress in `folder`; returns the paths."""
    folder = Path(folder)
    return [
        *three_dimensions(folder / f"inpca{suffix}", picture, formats, view=view),
        *two_dimensions(folder / f"inpca_2d{suffix}", picture, formats),
        *pairs(folder / f"inpca_pairs{suffix}", picture, formats),
        *explained_stress(folder / f"explained_stress{suffix}", picture, formats),
    ]


def three_dimensions(stem, picture, formats=("png",), *, view=None, tree=None):
    """The picture: trajectories in the first three coordinates, with the tree of the tasks beside it if there is one.

    `view` is elevation and azimuth in degrees, by default those from which ends of trajectories are farthest apart;
    `tree` maps each task that has a place in it to its parent, or None, and to a number of classes.
    """
    with style():
        figure = Figure((PAGE, 4.2) if tree else (0.75 * PAGE, 4.2))
        figure.set_layout_engine("none")
        width = 0.68 if tree else 1
        if tree:
            draw_tree(figure.add_axes((0.7, 0.15, 0.29, 0.7)), tree, look_of(picture))
        panel = figure.add_axes((0, 0, width, 1), projection="3d")
        panel.set_proj_type("persp", 0.6)
        named, avoid = _trajectories(panel, picture, (0, 1, 2))
        panel.set_box_aspect(_box(panel))
        panel.view_init(*(view or _telling_view(panel, [end for _, _, end in named])))
        for axis, number in zip((panel.xaxis, panel.yaxis, panel.zaxis), range(3), strict=True):
            axis.set_label_text(picture.axis(number))
            axis.set_pane_color("white")
            axis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
            axis._axinfo["grid"].update(color="#E6E6E6", linewidth=0.5)
        panel.tick_params(pad=-2)
        _fit(panel, Bbox.from_bounds(0.01, 0.01, width - 0.02, 0.98))
        _name(panel, named, avoid, lambda points: _projected(panel, points))
        # as wide as it is to be, and as high as it needs to be
        low, high = Bbox.union([_extent(panel), *(t.get_window_extent() for t in figure.texts)]).intervaly / figure.dpi
        if tree:
            low, high = min(low, 0.14 * figure.get_figheight()), max(high, 0.9 * figure.get_figheight())
        figure.text(0.5, (high + 0.08) / figure.get_figheight(), picture.title(3), ha="center", fontsize=8)
        trimmed = Bbox([[0, low - 0.03], [figure.get_figwidth(), high + 0.25]])
        return save(figure, stem, formats, bbox_inches=trimmed)


def _box(panel):
    """Lengths of the three axes as they are in data, so that squared differences are seen as they are; but a flat one
    is stretched to a quarter of the longest."""
    lengths = np.ptp([panel.get_xlim(), panel.get_ylim(), panel.get_zlim()], axis=1)
    return np.maximum(lengths, lengths.max() / 4)


def _extent(panel):
    """What three axes with their labels and grid cover, in pixels."""
    corners = list(itertools.product(panel.get_xlim(), panel.get_ylim(), panel.get_zlim()))
    box = Bbox.null()
    box.update_from_data_xy(_projected(panel, corners))
    return Bbox.union([box, *(axis.get_tightbbox() for axis in (panel.xaxis, panel.yaxis, panel.zaxis))])


def _fit(panel, room):
    """Make three axes with their labels fill a part of the figure."""
    figure, zoom = panel.figure, 1.0
    room = room.transformed(figure.transFigure)
    for _ in range(4):  # labels do not grow with the axes
        figure.draw_without_rendering()
        extent = _extent(panel)
        zoom *= min(room.width / extent.width, room.height / extent.height)
        panel.set_box_aspect(_box(panel), zoom=zoom)
        figure.draw_without_rendering()
        extent, place = _extent(panel), panel.get_position()
        left = room.x0 - extent.x0 + (room.width - extent.width) / 2
        low = room.y0 - extent.y0 + (room.height - extent.height) / 2
        panel.set_position(place.translated(*figure.transFigure.inverted().transform((left, low))))
    figure.draw_without_rendering()


def _telling_view(panel, ends):
    """Elevation and azimuth from which points are seen farthest apart, by the geometric mean of their distances."""
    best = None, -np.inf
    for view in itertools.product((15, 25, 35), range(-180, 180, 15)):
        panel.view_init(*view)
        apart = pdist(_projected(panel, ends))
        score = np.log(np.maximum(apart, 1)).sum()
        if score > best[1]:
            best = view, score
    return best[0]


def _projected(panel, points):
    from mpl_toolkits.mplot3d.proj3d import proj_transform

    x, y, _ = proj_transform(*np.asarray(points).T, panel.get_proj())
    return panel.transData.transform(np.stack([x, y], axis=1))


def two_dimensions(stem, picture, formats=("png",)):
    """Trajectories in the first two coordinates."""
    with style():
        figure = Figure((COLUMN, 3.1))
        figure.suptitle(picture.title(2).replace(": ", ":\n", 1))
        panel = figure.subplots()
        named, avoid = _trajectories(panel, picture, (0, 1))
        shape = np.diff(panel.get_ylim())[0] / np.diff(panel.get_xlim())[0]
        figure.set_figheight(0.8 + (COLUMN - 0.6) * min(1.2, max(0.5, shape)))
        panel.set(xlabel=picture.axis(0), ylabel=picture.axis(1), aspect="equal", adjustable="datalim")
        panel.margins(0.12)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        _name(panel, named, avoid, panel.transData.transform)
        return save(figure, stem, formats)


def pairs(stem, picture, formats=("png",)):
    """All pairs of the first five coordinates; panels with an imaginary one are shaded."""
    size = max(2, min(N_PAIRED, picture.embedding.shape[1]))
    with style():
        figure = Figure((PAGE, 0.92 * PAGE))
        figure.suptitle(picture.title(size))
        panels = figure.subplots(size - 1, size - 1, sharex="col", sharey="row", squeeze=False)
        for row, column in np.ndindex(panels.shape):
            panel, axes = panels[row, column], (column, row + 1)
            if column > row:
                panel.remove()
                continue
            _trajectories(panel, picture, axes, thin=True)
            if any(axis < len(picture.imaginary) and picture.imaginary[axis] for axis in axes):
                panel.set_facecolor("#F3F0EA")
            panel.label_outer()
            if row == size - 2:
                panel.set_xlabel(picture.axis(column).replace(", ", ",\n"))
            if column == 0:
                panel.set_ylabel(picture.axis(row + 1).replace(", ", ",\n"))
        handles = [Line2D([], [], color=c, linestyle=d, label=_plain(t)) for t, (c, d) in look_of(picture).items()]
        if picture.geodesic is not None:
            handles += _ends_of_geodesic()
        if picture.imaginary[:size].any():
            handles.append(matplotlib.patches.Patch(color="#F3F0EA", label="with an imaginary coordinate"))
        columns = 1 + len(handles) // 22
        figure.legend(handles=handles, loc="upper right", ncols=columns, bbox_to_anchor=(0.99, 0.95), title="task")
        return save(figure, stem, formats)


def _ends_of_geodesic():
    return [
        Line2D([], [], color="black", linestyle=":", label="geodesic"),
        Line2D(
            [], [], color="black", marker="s", linestyle="", markersize=4, markerfacecolor="white", label="ignorance"
        ),
        Line2D([], [], color="black", marker="*", linestyle="", markersize=7, label="truth"),
    ]


def _trajectories(panel, picture, axes, thin=False):
    """Draw trajectories in some coordinates: seeds as faint points, lines of their means, and the geodesic.

    Returns what is to be named, [(name, colour, end (len(axes),))], and points that names should leave free.
    """
    points, named = picture.coordinates(axes), []
    avoid = [points[:: 1 + len(points) // N_AVOIDED]]
    flat = {"depthshade": False} if len(axes) == 3 else {}
    for (task, runs), (colour, dash) in zip(picture.tasks.items(), look_of(picture).values(), strict=True):
        each = points[np.concatenate([run.models for run in runs])]
        panel.scatter(*each.T, s=1.5 if thin else 3, color=colour, alpha=0.3, linewidths=0, **flat)
        mean = mean_of_runs(points, runs)
        panel.plot(*mean.T, color=colour, linestyle=dash, linewidth=0.8 if thin else None)
        panel.plot(*mean[-1:].T, "o", color=colour, markersize=2 if thin else 4)
        if (
            picture.embedding_interval is not None
            and len(axes) == 2
            and max(axes) < picture.embedding_interval.shape[1]
        ):
            for model in [run.models[-1] for run in runs]:
                (x, y), spread = points[model], picture.embedding_interval[model, list(axes)]
                panel.plot(spread[0], [y, y], color=colour, linewidth=0.8)
                panel.plot([x, x], spread[1], color=colour, linewidth=0.8)
        named.append((task, colour, mean[-1]))
        avoid.append(mean)
    if picture.geodesic is not None:
        way, reached = picture.way_to_truth(axes)
        panel.plot(*way.T, ":", color="black", linewidth=0.8)
        panel.plot(
            *way[:1].T, "s", color="black", markersize=2.5 if thin else 4, markerfacecolor="white", markeredgewidth=0.8
        )
        if reached:
            panel.plot(*way[-1:].T, "*", color="black", markersize=4 if thin else 7, markeredgewidth=0)
        named += [("ignorance", "black", way[0]), ("truth" if reached else "to truth", "black", way[-1])]
        avoid.append(way)
    return named, np.concatenate(avoid)


def _name(panel, named, avoid, to_pixels):
    """Write names beside ends of trajectories, with a line to those that found no place nearby."""
    figure = panel.figure
    texts = [figure.text(0, 0, _plain(name), color=ink(colour), fontsize=7) for name, colour, _ in named]
    for text in texts:  # to be read over points, too
        text.set_bbox({"facecolor": "white", "alpha": 0.6, "linewidth": 0, "pad": 0})
    sizes = [(box.width, box.height) for box in (text.get_window_extent() for text in texts)]
    anchors = to_pixels(np.stack([end for _, _, end in named]))
    box = (_extent(panel) if panel.name == "3d" else panel.get_window_extent()).extents
    corners = labels.place(anchors, sizes, box, to_pixels(avoid), gap=figure.dpi / 72 * 4)
    to_figure = figure.transFigure.inverted().transform
    for text, corner, size, anchor in zip(texts, corners, sizes, anchors, strict=True):
        # of the text's own box, which begins below its baseline
        text.set(position=to_figure(corner), verticalalignment="bottom")
        near = np.clip(anchor, corner, corner + size)
        if np.linalg.norm(near - anchor) > figure.dpi / 72 * 8:
            x, y = to_figure([anchor, near]).T
            figure.add_artist(Line2D(x, y, color=text.get_color(), linewidth=0.4))


def _footnote(figure, text):
    figure.supxlabel(text, x=0.01, horizontalalignment="left", fontsize=6, color=GREY)


def _plain(name):
    """A name that legends show: they leave out what begins with an underscore."""
    return f"\N{ZERO WIDTH SPACE}{name}" if name.startswith("_") else name


def explained_stress(stem, picture, formats=("png",)):
    """Explained stress against the number of coordinates, and the eigenvalues with their signs."""
    k = np.arange(1, len(picture.eigenvalues) + 1)
    stress, interval = 100 * picture.explained_stress, picture.explained_stress_interval
    kinds = (
        (picture.real, {"marker": "o", "s": 12, "label": "real coordinate"}),
        (picture.imaginary, {"marker": "x", "s": 14, "label": "imaginary coordinate"}),
    )
    with style():
        first, second = colours()[:2]
        figure = Figure((PAGE, 2.3))
        figure.suptitle(picture.name)
        left, right = figure.subplots(1, 2)
        left.plot(k, stress, color="#999999", zorder=1)
        if interval is not None:
            low, high = 100 * interval[: len(k)].T
            left.vlines(k[: len(low)], low, high, color="black", linewidth=1, label="95% interval (bootstrap)")
        scree = k <= N_SCREE
        for (which, how), colour in zip(kinds, (first, second), strict=True):
            if which.any():
                left.scatter(k[which], stress[which], color=colour, **how)
                right.scatter(k[which & scree], picture.eigenvalues[which & scree], color=colour, **how)
        if len(k) >= 3:
            left.annotate(f"{stress[2]:.1f}%", (3, stress[2]), (6, -12), textcoords="offset points")
        left.set(xlabel="number of coordinates", ylabel="explained stress (%)", ylim=(0, 103), xscale="log")
        left.set_xlim(0.9, 1.1 * len(k))
        left.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.xaxis.set_major_formatter("{x:.0f}")
        left.xaxis.set_minor_formatter(NullFormatter())
        if left.get_legend_handles_labels()[0]:  # none, where all models are the same
            left.legend(loc="lower right")
        smallest = np.abs(picture.eigenvalues[scree & (picture.real | picture.imaginary)]).min(initial=1)
        right.axhline(0, color="#999999", linewidth=0.6)
        right.vlines(k[scree], 0, picture.eigenvalues[scree], color="#999999", linewidth=0.6, zorder=1)
        right.set_yscale("symlog", linthresh=10.0 ** np.floor(np.log10(smallest)))
        right.yaxis.get_major_locator().set_params(numticks=9)
        right.yaxis.set_major_formatter("{x:g}")
        right.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)))
        right.set_xlim(0.3, scree.sum() + 0.7)
        right.set(xlabel="number of the coordinate", ylabel=f"eigenvalue{picture.unit(1)}")
        return save(figure, stem, formats)


# --- trajectories


def progress(stem, runs, formats=("png",)):
    """Progress against the epoch and against the step, on axes that are logarithmic from 1 on: means over seeds, and
    bands from the lowest to the highest seed, at the times of the first one as far as all go.

    `runs` maps tasks to lists of (columns, progress): {name: (T,)} with `epoch` and `step` where these are known, and
    (T,). Without either, the number of the checkpoint takes their place.
    """
    every = [columns for these in runs.values() for columns, _ in these]
    known = [name for name in ("epoch", "step") if all(_ascending(columns.get(name)) for columns in every)]
    with style():
        figure = Figure((PAGE if len(known) > 1 else 0.62 * PAGE, max(2.6, 0.6 + 0.105 * len(runs))))
        panels = figure.subplots(1, max(1, len(known)), sharey=True, squeeze=False)[0]
        ends = {}
        for panel, name in zip(panels, known or ["checkpoint"], strict=True):
            for (task, these), (colour, dash) in zip(runs.items(), looks(runs).values(), strict=True):
                times = [columns.get(name, np.arange(len(values))) for columns, values in these]
                at = times[0][times[0] <= min(time[-1] for time in times)]
                values = np.stack([np.interp(at, time, v) for time, (_, v) in zip(times, these, strict=True)])
                panel.fill_between(at, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)
                panel.plot(at, values.mean(axis=0), color=colour, linestyle=dash)
                if len(at) == 1:
                    panel.plot(at, values.mean(axis=0), "o", color=colour, markersize=3)
                ends[task] = at[-1], values.mean(axis=0)[-1]
            # most of the way is made in the first epochs
            panel.set_xscale("symlog", linthresh=1)
            panel.xaxis.set_major_formatter("{x:,.0f}")
            panel.set(xlabel={"step": "training step"}.get(name, name), xlim=(0, None))
        panels[0].set_ylabel("progress")
        # near uniform predictions make little progress, which is to be seen all the same
        highest = max(np.max(values) for these in runs.values() for _, values in these)
        panels[0].set_ylim(0, 1 if highest > 0.5 else None)
        _name_ends(panels[-1], ends, looks(runs))
        _footnote(figure, "band: lowest to highest seed")
        return save(figure, stem, formats)


def _ascending(times):
    return times is not None and np.isfinite(times).all() and (np.diff(times) > 0).all()


def _name_ends(panel, ends, look):
    """Names at the right of lines, at {task: (x, y)}, stacked where they would overlap."""
    low, high = panel.get_ylim()
    height = panel.figure.get_figheight() - 0.5  # inches, about
    places = labels.stack([y for _, y in ends.values()], 0.105 * (high - low) / height, low, high)
    for (task, (_, y)), place in zip(ends.items(), places, strict=True):
        panel.annotate(
            _plain(task),
            (1, y),
            (1.04, place),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            verticalalignment="center",
            color=ink(look[task][0]),
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": look[task][0],
                "linewidth": 0.4,
                "relpos": (0, 0.5),
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )


def comparison(stem, tasks, grid, distances, bands, formats=("png",), band="± standard error\nover seeds"):
    """Distance against progress, a panel for each task: to the other tasks, and dotted between its seeds.

    `tasks` are all tasks, those without distances too, so that colours stay. `distances` (S,) and `bands` (S, 2), where
    there are any, are for pairs of tasks; `band` says what these are.
    """
    look = looks(tasks)
    compared = [task for task in tasks if any(task in pair for pair in distances)]
    columns = min(4 if len(compared) > 9 else 3, len(compared))
    rows = -(-len(compared) // columns)
    with style():
        figure = Figure((PAGE, 0.5 + 1.6 * rows))
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
        for panel in panels[: len(compared)][-columns:]:  # below which there is none
            panel.tick_params(labelbottom=True)
        handles = {}
        for task, panel in zip(compared, panels, strict=False):
            for pair, values in distances.items():
                if task not in pair:
                    continue
                other = pair[1] if pair[0] == task else pair[0]
                colour, dash = ("black", (0, (1, 1))) if other == task else look[other]
                if pair in bands:
                    handles[band] = panel.fill_between(grid, *bands[pair].T, color=colour, alpha=0.2, linewidth=0)
                (line,) = panel.plot(grid, values, color=colour, linestyle=dash, linewidth=1)
                handles["between seeds\nof the task" if other == task else other] = line
            panel.set_title(f"from {task}", color=ink(look[task][0]))
        for panel in panels:  # those without a task
            panel.set_axis_off()
        figure.axes[0].set_ylim(bottom=0)
        figure.supxlabel("progress")
        figure.supylabel(r"$d_B$ per sample (nat)", parse_math=True)
        order = [name for name in [*tasks, "between seeds\nof the task", band] if name in handles]
        figure.legend([handles[n] for n in order], map(_plain, order), loc="outside right center", title="to")
        return save(figure, stem, formats)


def methods(stem, reference, found, look, formats=("png",)):
    """Distances of several methods to a reference at equal progress, `found` {method: object with `grid`, `distances`
    and `seeds` (S,)}, where `seeds` are those between seeds of the reference, or None."""
    with style():
        figure = Figure((PAGE, 2.6))
        panel = figure.subplots()
        longest = max(found.values(), key=lambda beside: np.ptp(beside.grid))
        if longest.seeds is not None:
            panel.plot(longest.grid, longest.seeds, ":", color="black", label=f"{reference},\nbetween seeds")
        for method, beside in found.items():
            colour, dash = look[method]
            panel.plot(beside.grid, beside.distances, color=colour, linestyle=dash, label=_plain(method))
        panel.set(xlabel="progress", ylabel=f"distance to {reference} (nat)", yscale="log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter(NullFormatter())
        figure.legend(loc="outside right upper")
        return save(figure, stem, formats)


def finetuning(stem, reference, starts, formats=("png",)):
    """What fine-tuning does, against the checkpoint that it starts from: how far it moves and how far from the ends of
    `reference` it ends, and progress where it starts and where it ends.

    `starts` {run: [(number of the checkpoint, row), ...]}; rows have the keys moved, moved_error, ends,
    progress_at_first and progress.
    """
    with style():
        figure = Figure((PAGE, 2.3))
        panels = figure.subplots(1, 2)
        for (run, rows), (colour, _) in zip(starts.items(), looks(starts).values(), strict=True):
            numbers = [number for number, _ in rows]
            of = {key: [row[key] for _, row in rows] for key in ("moved", "ends", "progress_at_first", "progress")}
            errors = [row["moved_error"] or 0 for _, row in rows]
            how = {"color": colour, "marker": "o", "markersize": 3, "linewidth": 1}
            panels[0].errorbar(numbers, of["moved"], errors, label=_plain(run), **how)
            panels[0].plot(numbers, of["ends"], "--", **how)
            panels[1].plot(numbers, of["progress"], **how)
            panels[1].plot(numbers, of["progress_at_first"], ":", **how)
        ticks = []
        for number in sorted({number for rows in starts.values() for number, _ in rows}):
            ticks += [number] * (not ticks or number >= 1.5 * ticks[-1])  # beside which there is room
        for panel, name in zip(panels, (r"$d_B$ (nat)", "progress"), strict=True):
            panel.set_xscale("symlog", linthresh=1)
            panel.set_xticks(ticks, ticks)
            panel.set_xticks([], minor=True)
            panel.set_xlabel("starts from checkpoint")
            panel.set_ylabel(name, parse_math=True)
            panel.set_ylim(0, 1.04 * panel.get_ylim()[1])
        named = {"moved; at the end": "-", f"to ends of {_plain(reference)}": "--", "at the start": ":"}
        handles = [
            *panels[0].get_legend_handles_labels()[0],
            *(Line2D([], [], color="black", linestyle=d) for d in named.values()),
        ]
        figure.legend(handles, [*map(_plain, starts), *named], loc="outside right upper", title="fine-tuned from")
        return save(figure, stem, formats)


def lengths(stem, measured, formats=("png",)):
    """Riemann length and straightness: a dot for each seed, a line for their mean, and a bar of its standard error.

    `measured` maps tasks to two lists of numbers, one a seed.
    """
    titles = (r"Riemann length $2\sum\sqrt{d_B}$ ($\sqrt{\mathrm{nat}}$)", "straightness (geodesic over length)")
    with style():
        figure = Figure((PAGE, 0.7 + 0.17 * max(4, len(measured))))
        for panel, title, number in zip(figure.subplots(1, 2, sharey=True), titles, (0, 1), strict=True):
            for place, (task, (colour, _)) in enumerate(looks(measured).items()):
                values = np.array(measured[task][number], dtype=float)
                panel.plot(
                    values, np.full(len(values), place), "o", color=colour, markersize=3, alpha=0.6, markeredgewidth=0
                )
                mean, error = mean_and_error(values)
                panel.plot([mean], [place], "|", color=colour, markersize=9)
                if error is not None:
                    panel.plot([mean - error, mean + error], [place, place], color=colour, linewidth=1)
            panel.set_xlabel(title, parse_math=True)
            panel.set_xlim(left=0)
            panel.grid(axis="y")
            panel.set_yticks(range(len(measured)), map(_plain, measured))
        panel.invert_yaxis()
        for text, (colour, _) in zip(figure.axes[0].get_yticklabels(), looks(measured).values(), strict=True):
            text.set_color(ink(colour))
        _footnote(figure, "dot: a seed; line: mean; bar: ± standard error")
        return save(figure, stem, formats)


# --- tasks


def distances(stem, tasks, matrices, look, formats=("png",)):
    """Matrices (T, T) of distances between tasks, {title: matrix}, in the order of the dendrogram of the first one,
    which is drawn beside it. Diagonals have the distance between seeds; numbers are times 1000. `look` is that of all
    tasks, see `looks`."""
    from info_geometry import trees

    joined = trees.dendrogram(next(iter(matrices.values())))
    order = joined.order
    with style():
        below = len(tasks) > SIDE_BY_SIDE  # where one page is too narrow for two matrices
        side = 0.13 * len(tasks) + 1.5 if below else min(0.25 * len(tasks) + 0.8, 3.0)
        figure = Figure((PAGE, (side + 0.5) * len(matrices) + 0.3 if below else side + 1.0))
        panels = figure.subplots(*((len(matrices), 1) if below else (1, len(matrices))))
        for panel, (title, matrix) in zip(panels, matrices.items(), strict=True):
            _matrix(panel, 1000 * matrix[np.ix_(order, order)], [tasks[i] for i in order], look)
            panel.set_title(title, y=1.2)
        above = panels[0].inset_axes((0, 1.02, 1, 0.17))
        for y, x in joined.lines:
            above.plot(x, y, color=GREY, linewidth=0.8, solid_joinstyle="miter")
        above.set(xlim=(-0.5, len(tasks) - 0.5), ylim=(0, joined.height * 1.03))
        above.set_axis_off()
        blank = any(np.isnan(np.diagonal(matrix)).any() for matrix in matrices.values())
        _footnote(figure, "10⁻³ nat; on the diagonal: between seeds of the task" + "; blank: one seed" * blank)
        return save(figure, stem, formats)


def transfer(stem, rows, columns, values, formats=("png",)):
    """Progress (R, K) on the classes of each of K tasks, by networks trained on each of R tasks."""
    with style():
        side = min(0.28 * max(len(rows), len(columns)) + 1.2, 5.0)
        figure = Figure((min(PAGE, side + 1.3), side))
        panel = figure.subplots()
        _matrix(panel, values, rows, looks(rows), columns, "{:.2f}")
        panel.set(xlabel="progress on the classes of", ylabel="trained on")
        return save(figure, stem, formats)


def _matrix(panel, values, rows, look, columns=None, form="{:.3g}"):
    columns = columns or rows
    image = panel.imshow(values, cmap="cividis", vmin=0)
    panel.set_xticks(range(len(columns)), columns, rotation=90)
    panel.set_yticks(range(len(rows)), rows)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    for text in (*panel.get_xticklabels(), *panel.get_yticklabels()):
        text.set_color(ink(look[text.get_text()][0]) if text.get_text() in look else "black")
    if max(len(rows), len(columns)) < VALUES_BELOW:
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                dark = image.norm(value) < 0.55
                panel.text(
                    j, i, form.format(value), ha="center", va="center", fontsize=5.5, color="white" if dark else "black"
                )
    else:
        panel.figure.colorbar(image, ax=panel, shrink=0.7)


def tanglegram(stem, look, left, right, titles, formats=("png",)):
    """Two trees of the same tasks face to face, `info_geometry.trees.Dendrogram` both; lines join a task to itself.

    `look` has the tasks in the order of their numbers in both, see `looks`.
    """
    tasks = list(look)
    with style():
        figure = Figure((PAGE, 0.6 + 0.19 * len(left.order)))
        panels = figure.subplots(1, 3, width_ratios=(1, 0.9, 1))
        for panel, joined, title in zip(panels[::2], (left, right), titles, strict=True):
            for x, y in joined.lines:
                panel.plot(x, y, color="black", linewidth=0.8, solid_joinstyle="miter")
            panel.set(title=title, xlabel="distance (nat)", yticks=[], ylim=(len(joined.order) - 0.5, -0.5))
            panel.set_xlim(0, joined.height * 1.03)
            panel.spines["left"].set_visible(False)
        panels[0].invert_xaxis()
        middle = panels[1]
        for place, task in enumerate(left.order):
            name, (colour, dash) = tasks[task], look[tasks[task]]
            other = right.order.index(task)
            middle.plot([0.36, 0.64], [place, other], color=colour, linestyle=dash)
            middle.text(0.34, place, _plain(name), color=ink(colour), ha="right", va="center")
            middle.text(0.66, other, _plain(name), color=ink(colour), ha="left", va="center")
        middle.set(xlim=(0, 1), ylim=panels[0].get_ylim())
        middle.set_axis_off()
        return save(figure, stem, formats)


def draw_tree(panel, tree, look):
    """The tree of tasks, {task: (parent or None, number of classes)}: one below the other, parents to the left."""
    children = {}
    for task, (parent, _) in tree.items():
        children.setdefault(parent, []).append(task)
    places, rows = {}, itertools.count()

    def visit(task, depth):
        below = sorted(children.get(task, []), key=lambda child: -tree[child][1])
        places[task] = depth, next(rows)
        for child in below:
            visit(child, depth + 1)

    for root in sorted(children[None], key=lambda task: -tree[task][1]):
        visit(root, 0)
    for task, (parent, _) in tree.items():
        x, y = places[task]
        if parent is not None:
            above, top = places[parent]
            panel.plot([above + 0.15, above + 0.15, x], [top + 0.25, y, y], color=GREY, linewidth=0.7)
    for task, (x, y) in places.items():
        panel.plot([x + 0.15], [y], "o", color=look[task][0], markersize=4)
        panel.text(x + 0.4, y, f"{task} ({tree[task][1]})", color=ink(look[task][0]), va="center")
    deepest = max(x for x, _ in places.values())
    panel.set(xlim=(-0.1, deepest + 3.2), ylim=(len(places) - 0.4, -0.6), title="WordNet (number of classes)")
    panel.set_axis_off()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="<dataset>_inpca.npz, as info_geometry/inpca.py writes it")
    parser.add_argument("--task", nargs="+", metavar="TASK", help="draw these alone (default: all), in this order")
    parser.add_argument("--view", nargs=2, type=float, metavar=("ELEVATION", "AZIMUTH"), help="in degrees")
    parser.add_argument("--plots", type=Path, default=Path(), help="folder of the figures (default: here)")
    add_format(parser)
    args = parser.parse_args()
    picture = Picture.load(args.file)
    if args.task:
        picture = picture.only(args.task)
    from info_geometry import page

    print(shown(page.write(args.plots / "inpca.html", picture)))
    for path in inpca_figures(args.plots, picture, "", args.format, args.view):
        print(shown(path))


if __name__ == "__main__":
    run(main)
