"""Figures and the page: that they show the data, that names find a place, and what trees and their tests make."""

import csv
import dataclasses
import http.server
import itertools
import json
import math
import queue
import re
import shutil
import subprocess
import threading

import h5py
import numpy as np
import pytest
from conftest import labels_of, trajectory, write_published
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from scipy.stats import pearsonr, spearmanr

from info_geometry import labels, page, plot, trees
from info_geometry.bhattacharyya import cross, pairwise
from info_geometry.geodesic import FromIgnoranceToTruth, interpolate, progress
from info_geometry.inpca import ALONG_GEODESIC, InPCA
from info_geometry.picture import Picture, mean_of_runs

INPCA, TRAJECTORY, PLOT = "info_geometry/inpca.py", "info_geometry/trajectory.py", "info_geometry/plot.py"
COMPARE = "supervised_imagenet/03_wordnet/compare_trees.py"
BROWSER = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)


def picture(n_tasks=3, lengths=(6, 6), k=5, seed=0, names=None, imaginary=(), **arrays):
    """A picture of tasks with a run of each of the lengths, at random places, all known of it."""
    rng = np.random.default_rng(seed)
    names = names or [f"task{i}" for i in range(n_tasks)]
    rows = [(task, s, i) for task in names for s, length in enumerate(lengths) for i in range(length)]
    task, number, checkpoint = (np.array(column) for column in zip(*rows, strict=True))
    turn = rng.normal(size=(len(names), k)).repeat(sum(lengths), axis=0)
    embedding = turn * (checkpoint / 10)[:, None] + 0.05 * rng.normal(size=(len(rows), k))
    eigenvalues = np.square(embedding).sum(axis=0)
    eigenvalues[list(imaginary)] *= -1
    known = {
        "epoch": checkpoint / 2,
        "progress": np.clip(checkpoint / 8 + 0.02 * rng.normal(size=len(rows)), 0, 1),
        "accuracy": checkpoint / max(lengths),
        "geodesic": np.linspace(0, 0.3, 11)[:, None] * np.ones(k),
    }
    stress = np.linspace(0.5, 1, k)
    return Picture("toy", embedding, eigenvalues, stress, task, number, checkpoint, **known | arrays)


@pytest.fixture
def figures(monkeypatch):
    """Figures are kept in this list instead of written."""
    kept = []
    monkeypatch.setattr(plot, "save", lambda figure, stem, formats, **how: kept.append(figure) or [])
    return kept


# --- names beside what they name


def boxes_of(corners, sizes):
    return [(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, sizes, strict=True)]


def overlapping(boxes):
    return [
        (a, b)
        for a, b in itertools.combinations(boxes, 2)
        if min(a[2], b[2]) - max(a[0], b[0]) > 1e-9 and min(a[3], b[3]) - max(a[1], b[1]) > 1e-9
    ]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [200, 20, 0])
def test_labels_do_not_overlap(seed, spread):
    rng = np.random.default_rng(seed)
    anchors = 200 + spread * rng.uniform(-1, 1, (40, 2))  # all in one place, even
    sizes = np.stack([rng.uniform(10, 60, 40), np.full(40, 9)], axis=1)
    corners = labels.place(anchors, sizes, (0, 0, 450, 400), avoid=anchors, gap=4)
    found = boxes_of(corners, sizes)
    assert not overlapping(found)
    assert all(x0 >= 0 and y0 >= 0 and x1 <= 450 and y1 <= 400 for x0, y0, x1, y1 in found)
    if spread:
        assert not [(b, a) for b in found for a in anchors if b[0] < a[0] < b[2] and b[1] < a[1] < b[3]]


def test_a_label_alone_is_beside_its_anchor():
    (corner,) = labels.place([(50, 50)], [(20, 8)], (0, 0, 100, 100), gap=4)
    near = np.clip((50, 50), corner, np.add(corner, (20, 8)))
    assert 0 < np.hypot(*(near - (50, 50))) <= 6


def test_labels_without_room_overlap_least():
    corners = labels.place([(0, 5), (20, 5), (10, 5)], [(8, 10)] * 3, (0, 0, 20, 12), gap=0)
    shared = [min(a[2], b[2]) - max(a[0], b[0]) for a, b in overlapping(boxes_of(corners, [(8, 10)] * 3))]
    assert sum(shared) < 8, "three of 8 in 20 have 4 too much, which the one placed last shares with the others"
    corners = labels.place([(5, 5)], [(50, 10)], (0, 0, 20, 12), gap=0)
    assert np.isfinite(corners).all(), "one larger than the figure"


def test_stacked_labels_move_as_little_as_possible():
    np.testing.assert_allclose(labels.stack([3, 1, 2], 0.5, 0, 4), [3, 1, 2])
    np.testing.assert_allclose(labels.stack([1, 1, 1], 0.5, 0, 4), [0.5, 1, 1.5])
    np.testing.assert_allclose(labels.stack([4, 3.9], 0.5, 0, 4), [4, 3.5])
    np.testing.assert_allclose(labels.stack([0, 0, 0], 9, 0, 4), [0, 2, 4])
    found = labels.stack(np.random.default_rng(0).uniform(0, 1, 40), 0.02, 0, 1)
    assert np.diff(np.sort(found)).min() > 0.02 - 1e-9
    assert 0 <= found.min() < found.max() <= 1


# --- figures show the data


def test_the_picture_shows_seeds_means_and_the_geodesic(figures):
    p = picture(lengths=(6, 5))
    plot.three_dimensions("f", p)
    plot.two_dimensions("f", p)
    for figure, axes in zip(figures, ((0, 1, 2), (0, 1)), strict=True):
        panel = figure.axes[0]
        lines = [np.stack(line.get_data_3d() if len(axes) == 3 else line.get_data(), axis=1) for line in panel.lines]
        for i, (task, runs) in enumerate(p.tasks.items()):
            points = panel.collections[i]
            shown = np.stack(points._offsets3d, axis=1) if len(axes) == 3 else points.get_offsets()
            np.testing.assert_allclose(shown, p.embedding[p.task == task][:, axes])
            mean = np.mean([p.embedding[run.models[:5]][:, axes] for run in runs], axis=0)
            np.testing.assert_allclose(lines[2 * i], mean)
            np.testing.assert_allclose(lines[2 * i + 1], mean[-1:])
        np.testing.assert_allclose(lines[-3], p.geodesic[:, axes])
        texts = [text.get_text() for text in figure.texts]
        assert {*p.tasks, "ignorance", "truth"} <= set(texts)


def test_names_in_the_picture_do_not_overlap_for_40_tasks(figures):
    p = picture(40, lengths=(5,))
    plot.three_dimensions("f", p)
    plot.two_dimensions("f", p)
    for figure in figures:
        boxes = [tuple(t.get_window_extent().extents) for t in figure.texts if t.get_text() in [*p.tasks, "truth"]]
        assert len(boxes) == 41
        assert not overlapping(boxes)


def test_imaginary_coordinates_are_marked(figures):
    p = picture(imaginary=(0, 3))
    for draw in (plot.three_dimensions, plot.two_dimensions, plot.pairs, plot.explained_stress):
        draw("f", p)
    three, two, pairs, stress = figures
    assert three.axes[0].get_xlabel() == "InPCA 1 (√nat, imaginary)"
    assert two.axes[0].get_ylabel() == "InPCA 2 (√nat)"
    shaded = [panel.get_facecolor()[:3] != (1, 1, 1) for panel in pairs.axes]
    assert len(shaded) == 10
    assert sum(shaded) == 7, "4 panels of the first coordinate, 4 of the fourth, one of both"
    left, right = stress.axes
    imaginary = {
        marks.get_label(): marks.get_offsets() for marks in right.collections if "coordinate" in marks.get_label()
    }
    np.testing.assert_allclose(imaginary["imaginary coordinate"], [[1, p.eigenvalues[0]], [4, p.eigenvalues[3]]])
    np.testing.assert_allclose(imaginary["real coordinate"][:, 1], p.eigenvalues[[1, 2, 4]])
    assert [text.get_text() for text in left.texts] == [f"{100 * p.explained_stress[2]:.1f}%"]


def test_what_rounding_leaves_of_a_zero_is_not_imaginary():
    inpca = InPCA(3).fit(pairwise(np.full((4, 3, 2), 0.5)))
    grid = np.array(["a"] * 4), np.zeros(4, int), np.arange(4)
    p = Picture("toy", inpca.embedding_, inpca.eigenvalues_, inpca.explained_stress_, *grid)
    assert not p.imaginary.any()
    assert not p.real.any()


@pytest.mark.parametrize("k", [1, 2, 4])
def test_fewer_coordinates_than_are_drawn(tmp_path, k):
    p = picture(k=k)
    assert len(list(plot.inpca_figures(tmp_path, p))) == 4
    page.write(tmp_path / "inpca.html", p)


def test_tasks_keep_their_colour_and_40_are_told_apart():
    names = [f"t{i}" for i in range(40)]
    look = plot.looks(names)
    assert len(set(look.values())) == 40
    assert plot.looks(names[:5]) == {name: look[name] for name in names[:5]}


def test_progress_shows_means_and_the_range_of_seeds(figures):
    p, q = np.linspace(0, 0.5, 6), np.linspace(0, 0.7, 6)
    columns = {"epoch": np.arange(6) / 2, "step": 10 * np.arange(6)}
    plot.progress("f", {"a": [(columns, p), (columns, q)], "b": [(columns, p)]})
    plot.progress("f", {"a": [(columns, p), (columns, q)], "b": [({}, p)]})
    known, unknown = figures
    assert [panel.get_xlabel() for panel in known.axes] == ["epoch", "training step"]
    assert [panel.get_xlabel() for panel in unknown.axes] == ["checkpoint"]
    for panel, x in zip(known.axes, columns.values(), strict=True):
        np.testing.assert_allclose(panel.lines[0].get_xydata(), np.stack([x, (p + q) / 2], axis=1))
        band = panel.collections[0].get_paths()[0].vertices
        for i in range(6):
            assert {p[i], q[i]} <= set(band[band[:, 0] == x[i], 1].tolist())


def test_lengths_show_each_seed_and_their_mean(figures):
    plot.lengths("f", {"a": [[1.0, 2.0, 4.5], [0.5, 0.6, 0.7]], "b": [[3.0], [0.2]]})
    left, right = figures[0].axes
    assert left.lines[0].get_xdata().tolist() == [1.0, 2.0, 4.5]
    assert left.lines[1].get_xdata().tolist() == [2.5]
    error = np.std([1, 2, 4.5], ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(left.lines[2].get_xdata(), [2.5 - error, 2.5 + error])
    assert len(left.lines) == len(right.lines) == 5, "one seed has no error"


def test_distances_are_in_the_order_of_their_tree(figures):
    D = np.array([[9, 1, 5, 2], [1, 8, 4, 3], [5, 4, 7, 6], [2, 3, 6, 5]]) / 1000
    names = ["a", "b", "c", "d"]
    plot.distances("f", names, {"one": D, "two": 2 * D}, plot.looks(names))
    one, two = figures[0].axes[:2]
    order = [names.index(text.get_text()) for text in one.get_yticklabels()]
    tree = hierarchy.linkage(squareform(D - np.diag(np.diag(D))), "average", optimal_ordering=True)
    assert order == hierarchy.leaves_list(tree).tolist()
    for panel, values in ((one, D), (two, 2 * D)):
        np.testing.assert_allclose(panel.images[0].get_array(), 1000 * values[np.ix_(order, order)])
        assert [text.get_text() for text in panel.texts][:4] == [f"{1000 * v:.3g}" for v in values[order[0]][order]]


def test_a_tree_has_parents_above_their_children(figures):
    tree = {"all": (None, 9), "vert": ("all", 4), "dog": ("vert", 2), "instr": ("all", 5)}
    plot.three_dimensions("f", picture(names=list(tree)), tree=tree)
    panel = figures[0].axes[0]
    places = {text.get_text(): text.get_position() for text in panel.texts}
    assert set(places) == {"all (9)", "vert (4)", "dog (2)", "instr (5)"}
    assert [name for name, _ in sorted(places.items(), key=lambda item: item[1][1])][:2] == ["all (9)", "instr (5)"]
    assert places["all (9)"][0] < places["vert (4)"][0] == places["instr (5)"][0] < places["dog (2)"][0]


ODD = ["with space", "_hidden", "$x^2$", "名前", "Ελληνικά", "<b>&amp;", "a" * 40]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_odd_names_are_drawn(figures, tmp_path):
    p = picture(names=ODD)
    for draw in (plot.three_dimensions, plot.two_dimensions, plot.pairs):
        draw("f", p)
    for figure in figures[:2]:
        assert set(ODD) <= {text.get_text().removeprefix("\u200b") for text in figure.texts}
    in_legend = [text.get_text().removeprefix("\u200b") for text in figures[2].legends[0].get_texts()]
    assert in_legend[: len(ODD)] == ODD
    figures[1].savefig(tmp_path / "f.png")


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("lengths", [(61, 62), (3,)])
def test_all_figures_of_odd_runs(tmp_path, call, lengths):
    (tmp_path / "labels").mkdir()
    np.save(tmp_path / "labels" / "toy_val_labels.npy", labels_of())
    folders = [tmp_path / f"toy_{name}" for name in ("with space", "_hidden", "名前")]
    for i, folder in enumerate(folders):
        for s, length in enumerate(lengths):
            write_published(folder / f"preds_{s}.h5", trajectory(length, seed=10 * i + s, end=12.0 + i))
    for script in (INPCA, TRAJECTORY):
        status, _, err = call(script, *folders, "--format", "png", "svg")
        assert status == 0, err
    for kind in ("png", "svg"):
        made = {path.stem for path in (tmp_path / "plots" / "toy").glob(f"*.{kind}")}
        names = {"inpca", "inpca_2d", "inpca_pairs", "explained_stress", "progress", "lengths", "distances"}
        assert made == names | {"trajectories_compare"}
    assert "名前" in (tmp_path / "plots" / "toy" / "inpca.svg").read_text()


def test_figures_have_the_same_bytes_in_every_format(tmp_path):
    for folder in ("a", "b"):
        list(plot.inpca_figures(tmp_path / folder, picture(), formats=("png", "pdf", "svg")))
    made = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(made) == 12
    for name in made:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_truth_that_is_far_does_not_make_all_else_a_dot(figures):
    p = picture(lengths=(5,))
    near = plot.three_dimensions("f", p)
    far = dataclasses.replace(p, geodesic=np.linspace(0, 100, 11)[:, None] * np.ones(5))
    plot.three_dimensions("f", far)
    plot.two_dimensions("f", far)
    first, second, flat = figures
    names = [{t.get_text() for t in f.texts} & {"truth", "to truth", "ignorance"} for f in figures]
    assert near == []
    assert names == [{"truth", "ignorance"}, {"to truth", "ignorance"}, {"to truth", "ignorance"}]
    span = np.ptp(p.embedding[:, :3], axis=0).max()
    x, y = flat.axes[0].lines[-2].get_data()
    assert np.ptp(x) == pytest.approx(np.ptp(y)), "still on the straight line"
    edge = np.max(p.embedding[:, :2], axis=0) + np.ptp(p.embedding[:, :2], axis=0).max() / 5
    assert min(edge - [x[-1], y[-1]]) == pytest.approx(0, abs=1e-9)
    assert np.ptp(second.axes[0].get_xlim()) < 4 * span
    assert first.axes[0].get_xlim() != second.axes[0].get_xlim()
    assert (page.content(p)["geodesic"]["near"], page.content(far)["geodesic"]["near"]) == (True, False)


# --- the geodesic and what is stored


def test_the_geodesic_to_truth_is_made_block_by_block():
    t, truth = np.array([0, 0.3, 1]), np.array([2, 0, 1, 1])
    path = FromIgnoranceToTruth(truth, 3, t)
    expected = [interpolate(np.full((4, 3), 1 / 3), np.eye(3)[truth], fraction) for fraction in t]
    np.testing.assert_allclose(path[:, 1:3], np.stack(expected)[:, 1:3], atol=1e-15)
    np.testing.assert_allclose(progress(path, truth), t, atol=1e-10)
    np.testing.assert_array_equal(FromIgnoranceToTruth(np.zeros(2, int), 1, t)[:, :], np.ones((3, 2, 1)))


@pytest.mark.parametrize("how", [[], ["--landmarks", 20]])
def test_the_picture_is_stored_with_all_that_is_seen(folders, call, how):
    assert call(INPCA, *folders, *how)[0] == 0
    path = folders[0].parent / "embedding" / "toy_inpca.npz"
    P = np.concatenate([h5py.File(f / f"preds_{s}.h5")["data"][:] for f in folders for s in (0, 1)])
    with np.load(path) as found:
        np.testing.assert_allclose(found["progress"], progress(P, labels_of()), atol=1e-12)
        np.testing.assert_array_equal(found["accuracy"], (P.argmax(-1) == labels_of()).mean(-1))
        if not how:
            way = FromIgnoranceToTruth(labels_of(), 5, ALONG_GEODESIC)
            expected = InPCA(50).fit(pairwise(P)).transform(cross(way, P))
            np.testing.assert_allclose(found["geodesic"], expected, atol=1e-9)
        assert found["geodesic"].shape == (51, found["embedding"].shape[1])
    assert Picture.load(path).name == "toy"
    (folders[0].parent / "labels" / "toy_val_labels.npy").unlink()
    assert call(INPCA, *folders, *how)[0] == 0
    assert Picture.load(path).progress is None


def test_a_stored_picture_is_drawn_anew(folders, call, refused, tmp_path):
    assert call(INPCA, *folders)[0] == 0
    path = tmp_path / "embedding" / "toy_inpca.npz"
    status, _, err = call(PLOT, path, "--plots", tmp_path / "again", "--format", "png", "pdf")
    assert (status, err) == (0, "")
    for name in ("inpca.png", "inpca_2d.png", "inpca_pairs.png", "explained_stress.png", "inpca.html"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "plots" / "toy" / name).read_bytes()
    assert call(PLOT, path, "--plots", tmp_path / "one", "--task", "b", "--view", 10, 20)[0] == 0
    assert "unknown task 'c'" in refused(PLOT, path, "--task", "c")
    assert "no such file" in refused(PLOT, tmp_path / "no.npz")
    (tmp_path / "text.npz").write_text("no")
    assert "text.npz: holds no embedding" in refused(PLOT, tmp_path / "text.npz")
    np.savez(tmp_path / "short.npz", embedding=np.ones((2, 3)), eigenvalues=np.ones(2), explained_stress=np.ones(3))
    assert "short.npz: holds no embedding" in refused(PLOT, tmp_path / "short.npz")
    with np.load(path) as found:
        arrays = dict(found)
    faults = {
        "seed": arrays["seed"].astype(str),
        "task": np.zeros(36, int),
        "geodesic": np.ones((5, 2)),
        "epoch": np.full(36, np.nan),
        "eigenvalues": arrays["eigenvalues"] * np.nan,
        "embedding_interval": np.ones((3, 3, 2)),
        "explained_stress_interval": np.ones(4),
    }
    for name, value in faults.items():
        np.savez(tmp_path / "bad.npz", **arrays | {name: value})
        assert f"({name} " in refused(PLOT, tmp_path / "bad.npz", "--plots", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_part_of_a_picture_keeps_its_colours(figures):
    p = picture(5)
    part = p.only(["task3", "task1", "task3"])
    assert list(part.tasks) == ["task3", "task1"]
    np.testing.assert_array_equal(part.embedding[:12], p.embedding[p.task == "task3"])
    assert plot.look_of(part) == {name: plot.look_of(p)[name] for name in ("task3", "task1")}
    assert page.content(part)["tasks"][0]["colour"] == plot.look_of(p)["task3"][0]
    marked = dataclasses.replace(p, landmarks=np.array([0, 37, 39])).only(["task3"])
    assert marked.landmarks.tolist() == [1, 3]
    assert marked.title(3).startswith("toy: 12 models, 2 of them landmarks")


def test_units_are_those_of_the_divergence(folders, call):
    for divergence, labels_ in (("kl", "InPCA 1 (√nat)"), ("hellinger", "InPCA 1")):
        assert call(INPCA, *folders, "--divergence", divergence)[0] == 0
        p = Picture.load(folders[0].parent / "embedding" / f"toy_inpca_{divergence}.npz")
        assert (p.name, p.divergence, p.axis(0)) == (f"toy, {divergence}", divergence, labels_)
    assert picture(k=1).title(3).endswith("stress in one dimension")


def test_seeds_at_other_times_are_brought_to_the_same(figures):
    slow, fast = {"epoch": np.array([0.0, 2, 4])}, {"epoch": np.array([0.0, 1, 2, 3])}
    runs = [(slow, np.array([0.0, 0.2, 0.4])), (fast, np.array([0.0, 0.2, 0.4, 0.6]))]
    plot.progress("f", {"a": runs})
    np.testing.assert_allclose(figures[0].axes[0].lines[0].get_xydata(), [[0, 0], [2, 0.3]])


def test_the_published_embedding_is_drawn_by_the_same_functions(shared, figures):
    with np.load(shared / "published_imagenet_inpca.npz") as found:
        points, eigenvalues, names = found["inpca_embedding"], found["eigen_values"][:3], found["tasks"].tolist()
        stress = 1 - np.sqrt(1 - np.cumsum(found["eigen_values"] ** 2)[:3] / (found["eigen_values"] ** 2).sum())
    task, seed, checkpoint = (grid.ravel() for grid in np.meshgrid(*map(np.arange, points.shape[:3]), indexing="ij"))
    p = Picture("imagenet", points.reshape(-1, 3), eigenvalues, stress, np.array(names)[task], seed, checkpoint)
    for draw in (plot.three_dimensions, plot.two_dimensions, plot.pairs):
        draw("f", p)
    line = np.stack(figures[0].axes[0].lines[0].get_data_3d(), axis=1)
    np.testing.assert_allclose(line, points[0].mean(axis=0))
    assert "1220 models, 71.2% of the stress" in figures[0].texts[-1].get_text()


# --- the page


def visited(path, code, tmp_path):
    """What `code`, the body of an asynchronous function, returns in a page in a real browser."""
    if not BROWSER:
        pytest.skip("needs a browser: chromium")
    watch = (
        "<script>const faults = []; addEventListener('error', e => faults.push(e.message));"
        "addEventListener('unhandledrejection', e => faults.push(String(e.reason)));"
        "console.error = (...all) => faults.push(all.join(' '));</script>"
    )
    tell = (
        "<script>(async () => { let found; const wait = ms => new Promise(done => setTimeout(done, ms));"
        f"try {{ await drawing; found = await (async () => {{ {code} }})(); }} catch (e) {{ faults.push(String(e)); }}"
        "await fetch('/', {method: 'POST', body: JSON.stringify({found, faults})}); })()</script>"
    )
    text = path.read_text().replace("<head>", "<head>" + watch, 1) + tell
    answers = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode() if self.path == "/" else b"")

        def do_POST(self):
            answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--enable-logging=stderr"]
        command += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,800"]
        with open(tmp_path / "log", "wb") as log:
            browser = subprocess.Popen([*command, f"http://127.0.0.1:{server.server_port}/"], stderr=log, stdout=log)
            try:
                answer = answers.get(timeout=240)
            except queue.Empty:
                answer = {"faults": [f"no answer: {(tmp_path / 'log').read_text()[-2000:]}"]}
            finally:
                browser.terminate()
                browser.wait(timeout=60)
                server.shutdown()
    assert answer["faults"] == []
    assert not re.findall(r"ERROR:CONSOLE.*", (tmp_path / "log").read_text())
    return answer.get("found")


def test_the_page_shows_all_runs_and_does_what_its_controls_say(tmp_path):
    p = picture(names=["plain", "<b>&amp;", "名前"], lengths=(6, 5), imaginary=(3,))
    path = page.write(tmp_path / "inpca.html", p)
    assert "<script src" not in path.read_text()
    assert not re.findall(r"""(?:src|href)=["']https?:""", path.read_text().partition("<script>")[0])
    found = visited(
        path,
        """
        const shown = () => picture.data.map(t => ({name: t.name, visible: t.visible, mode: t.mode,
            x: [...(t.x || [])], y: [...(t.y || [])], z: [...(t.z || [])], text: t.text, dash: t.line && t.line.dash}));
        const found = {first: shown(), title: document.querySelector("h1").textContent, clocks: data.clocks};
        clock.selectedIndex = data.clocks.indexOf("progress"); clock.dispatchEvent(new Event("change")); await drawing;
        time.value = 400; time.dispatchEvent(new Event("input")); await drawing;
        found.value = valueAt(0.4); found.slid = shown(); found.now = document.getElementById("now").textContent;
        selects[0].selectedIndex = 3; selects[0].dispatchEvent(new Event("change")); await drawing;
        found.axes = shown(); found.axis = picture.layout.scene.xaxis.title.text;
        const legend = n => picture.querySelectorAll(".legendtoggle")[n];
        const click = n => ["mousedown", "mouseup"].forEach(kind => legend(n).dispatchEvent(new MouseEvent(kind)));
        click(0); await wait(1000); found.hidden = shown();
        click(0); await wait(1000); found.back = shown();
        click(1); click(1); await wait(1000); found.alone = shown();
        click(1); click(1); await wait(1000);
        clock.selectedIndex = 0; clock.dispatchEvent(new Event("change")); await drawing;
        time.value = 850; play.click(); await wait(700); found.playing = Number(time.value);
        await wait(6000); found.played = Number(time.value); found.stopped = playing === null;
        return found;
        """,
        tmp_path,
    )
    assert found["title"] == p.title(3)
    assert found["clocks"] == ["epoch", "progress"]
    assert found["axis"] == "InPCA 4 (√nat, imaginary)"
    for i, (task, runs) in enumerate(p.tasks.items()):
        mean, dots, now = found["first"][3 * i : 3 * i + 3]
        expected = mean_of_runs(p.embedding, runs)
        np.testing.assert_allclose(np.stack([mean[c] for c in "xyz"], 1), expected[:, :3], atol=6e-5)
        all_points = p.embedding[p.task == task][:, :3]
        np.testing.assert_allclose(np.stack([dots[c] for c in "xyz"], 1), all_points, atol=6e-5)
        ends = [p.embedding[run.models[-1], :3] for run in runs]
        np.testing.assert_allclose(np.stack([now[c] for c in "xyz"], 1), ends, atol=6e-5)
        shown = task.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        row = runs[1].models[3]
        assert dots["text"][6 + 3].split("<br>")[:2] == [f"{shown}, seed 1", "checkpoint 3"]
        assert f"{p.progress[row]:.3g}"[:4] in dots["text"][6 + 3]
    geodesic = found["first"][-3:]
    assert [trace["name"] for trace in geodesic] == ["geodesic", "ignorance", "truth"]
    np.testing.assert_allclose(geodesic[0]["x"], p.geodesic[:, 0], atol=6e-5)

    # the slider: on the line between two checkpoints that set new maxima of progress
    for i, runs in enumerate(p.tasks.values()):
        expected = []
        for run in runs:
            at, s = p.embedding[run.models, :3], p.progress[run.models]
            kept = np.flatnonzero(s > np.maximum.accumulate([-1, *s[:-1]]))
            if s[kept[0]] <= found["value"] <= s[kept[-1]]:
                expected.append([np.interp(found["value"], s[kept], at[kept, c]) for c in range(3)])
        now = found["slid"][3 * i + 2]
        got = np.stack([now[c] for c in "xyz"], 1) if expected else []
        np.testing.assert_allclose(got, expected, atol=5e-5)
        np.testing.assert_allclose(found["axes"][3 * i]["x"], mean_of_runs(p.embedding, runs)[:, 3], atol=6e-5)
    assert found["now"].startswith("progress ")

    def visible(step):
        return [trace.get("visible") in (None, True) for trace in found[step]]

    assert visible("hidden") == [False] * 3 + [True] * 9
    assert visible("back") == [True] * 12
    assert visible("alone") == [False] * 3 + [True] * 3 + [False] * 6
    assert 850 < found["playing"] < 1000
    assert (found["played"], found["stopped"]) == (1000, True)


def test_the_page_of_2000_models_is_small(tmp_path):
    p = picture(40, lengths=(25, 25))
    path = page.write(tmp_path / "inpca.html", p)
    assert len(p.embedding) == 2000
    assert path.stat().st_size < 6e6
    content = page.content(p)
    assert len({(task["colour"], task["dash"]) for task in content["tasks"]}) == 40


def test_a_page_of_very_many_models_shows_some_of_them(tmp_path):
    p = picture(2, lengths=(6001, 6000))
    text = page.write(tmp_path / "inpca.html", p).read_text()
    assert "one of 3 models shown" in text
    run = json.loads(text.partition('id="data">')[2].partition("</script>")[0])["tasks"][0]["runs"][0]
    assert run["checkpoint"][:3] + run["checkpoint"][-2:] == [0, 3, 6, 5997, 6000]


def test_names_cannot_end_the_script_that_holds_them(tmp_path):
    p = picture(names=["</script><script>alert(1)</script>", "PLOTLY", "DATA"])
    p = dataclasses.replace(p, name="<i>PLOTLY DATA TITLE")
    text = page.write(tmp_path / "inpca.html", p).read_text()
    assert text.count("&lt;i&gt;PLOTLY DATA TITLE: 36 models") == 2
    assert "alert(1)</script>" not in text
    assert text.count("</script>") == 3


# --- trees


def random_distances(T, seed):
    D = np.random.default_rng(seed).uniform(1, 2, (T, T))
    D = D + D.T
    np.fill_diagonal(D, 0)
    return D


# four tasks on a line at 0, 1, 3, 7, and the same tasks elsewhere: worked out by hand
X = np.abs(np.subtract.outer([0, 1, 3, 7], [0, 1, 3, 7])).astype(float)
Y = np.abs(np.subtract.outer([0, 2, 3, 5], [0, 2, 3, 5])).astype(float)


def test_mantel_of_a_worked_example():
    # pairs 12 13 14 23 24 34: x = 1 3 7 2 6 4, y = 2 3 5 1 3 2
    x, y = np.array([1, 3, 7, 2, 6, 4]), np.array([2, 3, 5, 1, 3, 2])
    # means 23/6 and 16/6: sum xy = 2+9+35+2+18+8 = 74, minus 6 * 23/6 * 16/6; squares 115 - 529/6, 52 - 256/6
    r = (74 - 23 * 16 / 6) / math.sqrt((115 - 529 / 6) * (52 - 256 / 6))
    found = trees.mantel(X, Y)
    assert found.correlation == pytest.approx(r, rel=1e-12)
    assert found.correlation == pytest.approx(pearsonr(x, y).statistic, rel=1e-12)
    # of the 24 orders of the tasks, those that correlate as much: counted by going through them
    as_large = 0
    for order in itertools.permutations(range(4)):
        turned = [X[order[i], order[j]] for i, j in itertools.combinations(range(4), 2)]
        as_large += pearsonr(turned, y).statistic >= r - 1e-9
    assert found == (pytest.approx(r), as_large / 24, 24)


def test_mantel_equals_that_of_scikit_bio():
    mantel = pytest.importorskip("skbio.stats.distance", reason="compared with scikit-bio where it is installed").mantel
    A, B = random_distances(12, 1), random_distances(12, 2)
    A += B
    expected, p, _ = mantel(A, B, permutations=4999, alternative="greater", seed=0)
    found = trees.mantel(A, B, n_permutations=4999)
    assert found.correlation == pytest.approx(expected, rel=1e-9)
    assert found.p_value == pytest.approx(p, abs=0.02)


def test_mantel_finds_no_relation_where_there_is_none():
    p = [
        trees.mantel(random_distances(9, i), random_distances(9, 100 + i), n_permutations=199).p_value
        for i in range(60)
    ]
    assert 0.35 < np.mean(p) < 0.65, "uniform on 0 to 1"
    assert np.mean(np.array(p) <= 0.05) < 0.15


def test_a_partial_correlation_is_that_of_residuals():
    A, B, Z = (random_distances(8, i) for i in range(3))
    A, B = A + Z, B + Z
    a, b, z = map(trees.condensed, (A, B, Z))
    rest = [v - np.polyval(np.polyfit(z, v, 1), z) for v in (a, b)]
    assert trees.partial_correlation(A, B, Z) == pytest.approx(pearsonr(*rest).statistic, rel=1e-9)
    assert trees.mantel(A, B, Z, n_permutations=99).correlation == pytest.approx(pearsonr(*rest).statistic, rel=1e-9)


@pytest.mark.parametrize("T", [5, 6, 7, 9])
def test_distances_that_do_not_vary_correlate_with_nothing(T):
    D, same = random_distances(T, 0), np.full((T, T), 0.1)
    assert np.isnan(trees.correlation(same, D))
    assert np.isnan(trees.mantel(same, D)).tolist() == [True, True, False]
    assert np.isnan(trees.partial_correlation(random_distances(T, 1), D, 3 * D + 0.1)), "nothing is left of D"
    assert np.isnan(trees.mantel(random_distances(T, 1), D, 3 * D + 0.1).p_value)


def test_cophenetic_distances_of_a_worked_example():
    # average linkage of 0, 1, 3, 7: {0, 1} at 1; with 3 at (3 + 2) / 2; with 7 at (7 + 6 + 4) / 3
    expected = np.array([[0, 1, 2.5, 17 / 3], [1, 0, 2.5, 17 / 3], [2.5, 2.5, 0, 17 / 3], [17 / 3, 17 / 3, 17 / 3, 0]])
    np.testing.assert_allclose(trees.cophenetic(X), expected, atol=1e-12)
    D = random_distances(9, 3)
    r, heights = hierarchy.cophenet(hierarchy.linkage(squareform(D), "average"), squareform(D))
    np.testing.assert_allclose(squareform(trees.cophenetic(D)), heights)
    assert trees.correlation(D, trees.cophenetic(D)) == pytest.approx(r)


def test_a_dendrogram_is_drawn_as_scipy_draws_it():
    D = random_distances(9, 4)
    tree = trees.dendrogram(D)
    expected = hierarchy.dendrogram(tree.joined, no_plot=True)
    assert tree.order == expected["leaves"]
    drawn = sorted((tuple(x), tuple((np.array(y) * 10 + 5).tolist())) for x, y in tree.lines)
    as_scipy = zip(expected["dcoord"], expected["icoord"], strict=True)
    assert {tuple(sorted(np.round(x + y, 9))) for x, y in drawn} == {
        tuple(sorted(np.round(x + y, 9))) for x, y in as_scipy
    }


@pytest.mark.parametrize("T", [1, 2, 3])
def test_trees_of_few_tasks(T, figures):
    D = random_distances(T, 0)
    tree = trees.dendrogram(D)
    assert sorted(tree.order) == list(range(T))
    assert len(list(tree.lines)) == T - 1
    names = [f"t{i}" for i in range(T)]
    plot.distances("f", names, {"one": D, "two": D}, plot.looks(names))
    plot.tanglegram("f", plot.looks(names), tree, tree, ("a", "b"))


def test_trees_face_to_face_are_untangled():
    assert trees.crossings([0, 1, 2, 3], [3, 2, 1, 0]) == 6
    D = random_distances(12, 5)
    left = trees.dendrogram(D)
    # the same tree with every branch turned
    right = left
    for node in range(0, 11, 2):
        right = trees._turned(right, node)
    assert trees.crossings(left.order, right.order) > 0
    one, two = trees.untangled(left, right)
    assert trees.crossings(one.order, two.order) == 0
    other = trees.dendrogram(random_distances(12, 6))
    one, two = trees.untangled(left, other)
    assert trees.crossings(one.order, two.order) <= trees.crossings(left.order, other.order)
    for before, after in ((left, one), (other, two)):
        # a turned tree still has its branches side by side: no two lines of the drawing cross
        np.testing.assert_array_equal(before.joined, after.joined)
        spans = {i: {task} for i, task in enumerate(range(12))}
        for i, (a, b, *_) in enumerate(after.joined):
            spans[12 + i] = spans[int(a)] | spans[int(b)]
            places = sorted(after.order.index(task) for task in spans[12 + i])
            assert places == list(range(places[0], places[0] + len(places)))


# --- tasks and WordNet


SYNSETS = {
    "all": range(8),
    "vert": range(4),
    "mammal": range(2),
    "bird": [2, 3],
    "instr": range(4, 8),
    "device": [4, 5],
    "container": [6, 7],
}
RANDOM = {
    "random-4": [0, 2, 4, 6],
    "random-4-1": [1, 3, 5, 7],
    "random-2": [0, 7],
    "random-2-1": [1, 6],
    "random-2-2": [2, 5],
    "random-2-3": [3, 4],
}


@pytest.fixture
def synsets(tmp_path):
    """Predictions of networks on tasks of WordNet with a few classes, two seeds each, whose classes the files say."""
    (tmp_path / "labels").mkdir()
    truth = labels_of(80, 8)
    np.save(tmp_path / "labels" / "toy_val_labels.npy", truth)
    for i, (task, classes) in enumerate((SYNSETS | RANDOM).items()):
        for seed in (0, 1):
            P = trajectory(6, 80, 8, seed=10 * i + seed, end=3.0, noise=0.5)
            sharper = np.isin(truth, list(classes))[None, :, None]
            P = np.where(sharper, P**2 / (P**2).sum(axis=-1, keepdims=True), P)
            path = tmp_path / f"toy_{task}" / f"preds_{seed}.h5"
            path.parent.mkdir(exist_ok=True)
            with h5py.File(path, "w") as file:
                file["data"] = P
                file.attrs["record"] = json.dumps({"training": {"labels": list(classes)}})
    return [tmp_path / f"toy_{task}" for task in SYNSETS | RANDOM]


def test_wordnet_is_compared(synsets, call, refused, tmp_path):
    assert "toy_comparison.json: no such file" in refused(COMPARE, *synsets)
    assert call(INPCA, *synsets)[0] == call(TRAJECTORY, *synsets)[0] == 0
    status, out, err = call(COMPARE, *synsets, "--permutations", 99)
    assert (status, err) == (0, "")
    assert "no random subsets" not in out
    content = json.loads((tmp_path / "embedding" / "toy_wordnet.json").read_text())
    tests = {(t["distances"], t["given"], t["wordnet"]): t for t in content["tests"]}
    between = json.loads((tmp_path / "embedding" / "toy_comparison.json").read_text())["between"]
    from supervised_imagenet import tasks, wordnet

    hierarchy_, names = wordnet.load(), list(SYNSETS)
    pairs = list(itertools.combinations(names, 2))
    values = {(pair["task_a"], pair["task_b"]): pair for pair in between}
    steps = [hierarchy_.path_length(tasks.synset_of(a), tasks.synset_of(b)) for a, b in pairs]
    found = tests["trajectories", None, "path length"]
    assert found["correlation"] == pytest.approx(pearsonr([values[p]["integral"] for p in pairs], steps).statistic)
    each = [pearsonr([values[p]["integral_without"][s] for p in pairs], steps).statistic for s in "01"]
    assert found["standard_error"] == pytest.approx(abs(each[0] - each[1]) / 2), "of two: half of their difference"
    assert found["n_permutations"] == 5040
    twins = ["all", "random-4", "random-2", "random-2-1", "random-4-1", "random-2-2", "random-2-3"]
    ends = [values[p if p in values else p[::-1]]["integral"] for p in itertools.combinations(twins, 2)]
    found = tests["random subsets", None, "path length"]
    assert found["correlation"] == pytest.approx(pearsonr(ends, steps).statistic)
    counts = [abs(math.log(len(SYNSETS[a]) / len(SYNSETS[b]))) for a, b in pairs]
    assert tests["number of classes", None, "path length"]["correlation"] == pytest.approx(
        pearsonr(counts, steps).statistic
    )
    overlap = [1 - len({*SYNSETS[a]} & {*SYNSETS[b]}) / len({*SYNSETS[a]} | {*SYNSETS[b]}) for a, b in pairs]
    assert tests["overlap of classes", None, "path length"]["correlation"] == pytest.approx(
        pearsonr(overlap, steps).statistic
    )
    first = h5py.File(synsets[0] / "preds_0.h5")["data"][0], h5py.File(synsets[0] / "preds_1.h5")["data"][0]
    own = [np.isin(labels_of(80, 8), list(SYNSETS[name])) for name in names]
    D = np.mean([pairwise(np.stack([P[which].mean(0, keepdims=True) for which in own])) for P in first], axis=0)
    found = tests["untrained network", None, "path length"]
    assert found["correlation"] == pytest.approx(pearsonr(trees.condensed(D), steps).statistic, rel=1e-6)
    for name in ("tree.png", "tanglegram.png"):
        assert (tmp_path / "plots" / "toy" / name).exists()
    # without the random subsets, and with too few synsets
    status, out, _ = call(COMPARE, *synsets[:7], "--permutations", 99)
    assert status == 0
    assert "no random subsets" in out
    assert "a comparison takes 4" in refused(COMPARE, *synsets[:3])
    (tmp_path / "embedding" / "toy_comparison.json").write_text("[]")
    assert "toy_comparison.json: not as" in refused(COMPARE, *synsets)


def test_tasks_that_were_not_compared_are_named(synsets, call, refused, tmp_path):
    assert call(TRAJECTORY, *synsets[:4])[0] == call(INPCA, *synsets[:4])[0] == 0
    assert "toy_inpca.npz: lacks task instr" in refused(COMPARE, *synsets[:5])
    assert call(INPCA, *synsets[:5])[0] == 0
    assert "toy_comparison.json: lacks task instr" in refused(COMPARE, *synsets[:5])


def test_progress_on_the_classes_of_others(synsets, call, tmp_path):
    assert call(TRAJECTORY, *synsets[:7])[0] == 0
    with open(tmp_path / "embedding" / "toy_transfer.csv", newline="") as file:
        rows = {(row["trained_on"], row["classes_of"]): row for row in csv.DictReader(file)}
    assert len(rows) == 49
    truth = labels_of(80, 8)
    which = np.isin(truth, list(SYNSETS["bird"]))
    expected = []
    for seed in (0, 1):
        P = h5py.File(tmp_path / "toy_instr" / f"preds_{seed}.h5")["data"][-1:]
        expected.append(progress(P[:, which], truth[which])[0])
    assert float(rows["instr", "bird"]["progress"]) == pytest.approx(np.mean(expected), abs=1e-9)
    assert float(rows["instr", "bird"]["standard_error"]) == pytest.approx(abs(expected[0] - expected[1]) / 2, abs=1e-9)
    found = json.loads((tmp_path / "embedding" / "toy_diversity.json").read_text())["diversity"]
    counts = {name: len(list(classes)) for name, classes in SYNSETS.items()}
    assert found["tasks"] == counts
    assert found["spearman"] > 0.8, "networks are sharper on their own classes"
    for seed in (0, 1):
        ends = [
            progress(h5py.File(tmp_path / f"toy_{name}" / f"preds_{seed}.h5")["data"][-1:], truth)[0]
            for name in SYNSETS
        ]
        assert found["seeds"][str(seed)] == pytest.approx(spearmanr(ends, list(counts.values())).statistic)
    assert (tmp_path / "plots" / "toy" / "transfer.png").exists()
    # files that do not say their classes leave nothing of it
    for file in tmp_path.glob("toy_*/*.h5"):
        with h5py.File(file, "a") as opened:
            del opened.attrs["record"]
    assert call(TRAJECTORY, *synsets[:7])[0] == 0
    for name in ("embedding/toy_transfer.csv", "embedding/toy_diversity.json", "plots/toy/transfer.png"):
        assert not (tmp_path / name).exists()
