"""The tutorial runs, links lead somewhere, and every command of the documentation that can run here does.

Commands run in a copy of the repository, in a home folder with what they name: small trees of images, predictions.
"""

import ast
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, labels_of, trajectory, write_published

from info_geometry.predictions import read

TUTORIAL = "picture_of_tasks_tutorial"
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "predictions/README.md",
    "examples/README.md",
    "supervised_imagenet/README.md",
    "representation_learning/README.md",
    "benchmarks/README.md",
]
# why a command of the documentation is not run by these tests
ELSEWHERE = {
    r"make ": "sets up what runs these tests, or is run by a test of its own",
    r"python3 -m venv |\.venv/bin/pip ": "needs a network; make sets the same up",
    r".*cifar10": "needs CIFAR-10, which torchvision downloads",
    r"python -m supervised_imagenet\.wordnet ": "needs WordNet's own files",
}
# those on images in folders, and those that train by other methods
NEEDED = {r".*lightning": "pytorch_lightning", r".*(transformers|manual_)": "transformers"}
ELSEWHERE |= {command: f"needs {name}" for command, name in NEEDED.items() if importlib.util.find_spec(name) is None}
OF_SCRIPTS = r"(info_geometry|supervised_imagenet)/.*\.py"  # whose own examples are much like the README's
SLOW = re.compile("~/|imagenet_|dataset (imagenet|pets)|benchmarks/|representation_learning/")


def tracked():
    """The files of the repository as a clone has them, new ones included."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("needs git, and the repository's own .git")
    return [REPOSITORY / name for name in listed.stdout.splitlines() if (REPOSITORY / name).is_file()]


def clone(place):
    for path in tracked():
        target = place / path.relative_to(REPOSITORY)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return place


# --- the tutorial


@pytest.fixture(scope="module")
def notebook():
    return json.loads((REPOSITORY / f"{TUTORIAL}.ipynb").read_text())


def test_the_notebook_is_what_its_script_makes(notebook):
    import jupytext

    script = jupytext.read(REPOSITORY / f"{TUTORIAL}.py")
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert cells == [(cell.cell_type, cell.source) for cell in script.cells], "`make tutorial` makes it anew"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "run from top to bottom"
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    assert {output["name"] for output in outputs if output["output_type"] == "stream"} == {"stdout"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 9
    assert str(REPOSITORY) not in json.dumps(notebook)


def test_the_notebook_installs_the_project_from_one_address(notebook):
    first = "".join(next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")["source"])
    address = re.search(r'REPOSITORY = "(.*)"', first)[1]
    assert (
        f"colab.research.google.com/github/{address}/blob/main/{TUTORIAL}.ipynb"
        in (REPOSITORY / "README.md").read_text()
    )
    assert f"github/{address}/blob/main/{TUTORIAL}.ipynb" in "".join(notebook["cells"][0]["source"])
    assert f"github.com/{address}" in (REPOSITORY / "CITATION.cff").read_text()
    assert not re.search(r"\w==\d", first), "no version is pinned"


def test_the_tutorial_runs(tmp_path):
    place = clone(tmp_path / "clone")
    (place / f"{TUTORIAL}.ipynb").unlink()
    environment = os.environ | {"PYTHONPATH": str(place), "PIP_NO_INDEX": "1"}
    command = ["jupytext", "--to", "ipynb", "--execute", f"{TUTORIAL}.py"]
    subprocess.run(
        [sys.executable, "-m", *command], cwd=place, env=environment, check=True, capture_output=True, timeout=600
    )
    found = json.loads((place / f"{TUTORIAL}.ipynb").read_text())
    assert not [o for cell in found["cells"] for o in cell.get("outputs", ()) if o["output_type"] == "error"]
    assert (place / "plots" / "digits" / "inpca.html").is_file(), "in the checkout that it stands in"


# --- links


def anchors(text):
    """What headings of a document are called in links, as code hosts derive it."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    text = (REPOSITORY / document).read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = ((REPOSITORY / document).parent / path).resolve() if path else REPOSITORY / document
        assert target.exists(), link
        assert any(file.is_relative_to(target) for file in tracked()), f"{link} is not part of a clone"
        if anchor:
            target = target / "README.md" if target.is_dir() else target
            assert anchor in anchors(target.read_text()), link


def test_options_that_the_documentation_names_are_there():
    sources = "".join(path.read_text() for path in tracked() if path.suffix == ".py")
    known = set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', sources))
    from supervised_imagenet.recipes import OPTIONS

    known |= {f"--{key.replace('_', '-')}" for key in OPTIONS}
    for method in ("fixmatch", "protonets", "maml", "finetune"):
        recipes = importlib.import_module(f"representation_learning.{method}").RECIPES
        known |= {f"--{key.replace('_', '-')}" for key in recipes["digits"]}
    known |= {"--help", "--smoke", "--editable", "--index-url"}  # of argparse, of a recipe, of pip
    known |= {"--standalone", "--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint"}  # of torchrun
    for document in DOCUMENTS:
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", (REPOSITORY / document).read_text()))
        assert named <= known, document


def test_the_functions_are_documented_without_warnings(tmp_path):
    makefile = (REPOSITORY / "Makefile").read_text().replace("\\\n", "")
    command = re.search(r"^docs:.*\n\t(.*)$", makefile, re.MULTILINE)[1]
    command = command.replace(".venv/bin/pdoc", f"{shlex.quote(sys.executable)} -m pdoc")
    command = command.replace("--output-directory docs", f"--output-directory {shlex.quote(str(tmp_path))}")
    done = subprocess.run(command, shell=True, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not done.stdout + done.stderr
    assert "InPCA" in (tmp_path / "info_geometry" / "inpca.html").read_text()


def test_the_licence_and_the_version_are_the_same_everywhere():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation
    assert f"## {project['version']}" in (REPOSITORY / "CHANGELOG.md").read_text()


# --- commands

# Stands in for python and torchrun where commands of the documentation run: fewer seeds, networks that are trained for
# seconds, two processes on one machine. Such networks need not have learned anything; what the geometry is given in
# place of their predictions are trajectories that make progress.
STAND_IN = """
import os, subprocess, sys, zlib
from pathlib import Path

import h5py, hdf5plugin
import numpy as np

sys.path.insert(0, {tests!r})
from conftest import trajectory

program, *arguments = sys.argv[1:]
script = next(Path(a).name for a in arguments if a.endswith(".py"))
third = arguments.index("--seed") + 3 if "--seed" in arguments else len(arguments)
while third < len(arguments) and arguments[third].isdigit():
    del arguments[third]
if script == "train.py" and not {{"imagenet", "imagefolder"}} & {{*arguments}}:
    arguments += ["--epochs", "5"]
elif script == "train.py" and "imagenet" in arguments:
    arguments += ["--smoke", "--arch", "resnet10t", "--epochs", "1", "--dense-epochs", "0"]
    arguments += ["--checkpoints", "checkpoints"]
elif "representation_learning/" in arguments[0] and script != "compare.py":
    arguments += ["--epochs", "2", "--dense-epochs", "1"]
elif script == "trajectory.py":
    arguments += ["--points", "10"]
if "--device" in arguments:
    del arguments[arguments.index("--device") : arguments.index("--device") + 2]
started = [[sys.executable, *arguments]]
if program == "torchrun":
    processes = "1" if "--nnodes=2" in arguments else "2"
    arguments = [a if "--nproc" not in a else f"--nproc-per-node={{processes}}" for a in arguments]
    started = [[sys.executable, "-m", "torch.distributed.run", *arguments]] * (3 - int(processes))
running = [subprocess.Popen(command) for command in started]
status = max(process.wait() for process in running)
if script == "store_predictions.py" and status == 0 and "digits" not in arguments:
    for path in Path("predictions").glob("**/preds_*.h5"):
        with h5py.File(path, "r+") as file:
            _, n_samples, n_classes = file["data"].shape
            seed = zlib.crc32(str(path).encode())
            P = trajectory(4, n_samples, n_classes, seed, 14 + seed % 7)
            in_order = np.argsort(np.arange(n_samples) % n_classes, kind="stable")
            file["data"].resize(4, axis=0)
            file["data"][...] = P[:, in_order]
sys.exit(status)
"""


def blocks(text):
    """Fenced blocks without a language that hold commands: (line, [command, ...])."""
    for found in re.finditer(r"^( *)```\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        lines = found[2].replace(f"\n{found[1]}", "\n").removeprefix(found[1])
        commands = lines.replace("\\\n", " ").splitlines()
        if re.match(r"(make|python3?|torchrun|\. |\w+=|\.venv/)", commands[0]):
            yield text[: found.start()].count("\n") + 1, commands


def documented():
    """All blocks of commands, of documents and then of scripts' docstrings: (place, [command, ...])."""
    for document in DOCUMENTS:
        for line, commands in blocks((REPOSITORY / document).read_text()):
            yield f"{document}, line {line}", commands
    for path in sorted(p for p in tracked() if p.suffix == ".py" and p.parts[-2] != "tests"):
        text = (ast.get_docstring(ast.parse(path.read_text())) or "").replace("\\\n", " ")
        commands = re.findall(r"^    ((?:python|torchrun) .*)$", text, re.MULTILINE)
        if commands:
            yield str(path.relative_to(REPOSITORY)), commands


def runnable(slow):
    """The commands that can run here: those that take long, or the others, one by one unless they belong together."""
    seen = []
    for place, commands in documented():
        commands = [re.sub(r"\s+#.*| (?= )", "", c) for c in commands]
        commands = [c for c in commands if c not in seen and not any(re.match(pattern, c) for pattern in ELSEWHERE)]
        seen += commands
        in_turn = ".md" in place and any(SLOW.search(c) for c in commands)
        together = in_turn or any(re.match(r"\w+=|cd ", c) for c in commands)
        for some in [commands] if together else [[c] for c in commands]:
            if slow == any(SLOW.search(c) for c in some):
                yield place, some


def in_sequence():
    """The README's scripts in sequence, without the environment."""
    found = blocks((REPOSITORY / "README.md").read_text())
    return next(commands[1:] for _, commands in found if "activate" in commands[0])


class Home:
    """A clone in a home folder, in which commands of the documentation run."""

    def __init__(self, place):
        self.place = clone(place / "clone")
        (self.place / ".venv" / "bin").mkdir(parents=True)
        (self.place / ".venv" / "bin" / "activate").touch()
        np.save(self.place / "preds.npy", trajectory())
        np.save(self.place / "labels.npy", labels_of())
        stand_in, programs = place / "stand_in.py", place / "bin"
        stand_in.write_text(STAND_IN.format(tests=str(REPOSITORY / "tests")))
        programs.mkdir()
        for program in ("python", "torchrun"):
            (programs / program).write_text(f'#!/bin/sh\nexec {sys.executable} {stand_in} {program} "$@"\n')
            (programs / program).chmod(0o755)
        self.environment = os.environ | {
            "HOME": str(place),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.place),
        }

    def run(self, place, commands):
        script = "\n".join(["set -eu", *commands]).replace("gpu-node-1", "localhost")
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.place, env=self.environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{place}:\n{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_the_scripts_in_sequence_are_what_make_picture_runs(tmp_path):
    if not shutil.which("make"):
        pytest.skip("needs make")
    told = subprocess.run(
        ["bash", "-c", "\n".join(f"echo {command}" for command in in_sequence())],
        capture_output=True,
        text=True,
        check=True,
    )
    made = subprocess.run(["make", "-n", "picture"], cwd=clone(tmp_path), capture_output=True, text=True, check=True)
    made = [line for line in made.stdout.splitlines() if re.match(r"\.venv/bin/python (super|info)", line)]
    made = [line.replace(".venv/bin/", "").replace(" --data-dir data", "") for line in made]
    assert made == told.stdout.splitlines()


def test_commands_on_digits_run(tmp_path):
    home = Home(tmp_path)
    for place, commands in runnable(slow=False):
        if not re.match(OF_SCRIPTS, place):
            home.run(place, commands)
    assert (home.place / "plots" / "digits" / "trajectories_compare.png").is_file()


@pytest.mark.slow
def test_commands_of_scripts_on_digits_run(tmp_path):
    home = Home(tmp_path)
    home.run("README.md", in_sequence())
    for place, commands in runnable(slow=False):
        if re.match(OF_SCRIPTS, place):
            home.run(place, commands)


@pytest.mark.slow
def test_the_way_from_the_published_trajectories(tmp_path):
    home, n_samples = Home(tmp_path), 300
    for task in ("all", "3rd", "vert", "instr"):
        for seed in (0, 10):
            P = trajectory(6, n_samples, 1000, seed + len(task), 12 + len(task))
            write_published(home.place / "predictions" / f"imagenet_{task}" / f"preds_{seed}.h5", P)
    (home.place / "predictions" / "labels").mkdir()
    np.save(home.place / "predictions" / "labels" / "imagenet_val_labels.npy", labels_of(n_samples, 1000))
    text = (home.place / "predictions" / "README.md").read_text()
    place, commands = next(found for found in blocks(text) if "imagenet" in found[1][0])
    home.run(place, commands)
    assert (home.place / "plots" / "imagenet" / "inpca.html").is_file()


@pytest.mark.slow
def test_commands_that_take_long_run(tmp_path):
    home = Home(tmp_path)
    from supervised_imagenet import wordnet

    classes = wordnet.load().classes
    tree(tmp_path / "ILSVRC2012", classes)
    tree(tmp_path / "tiny", classes[::5])
    tree(tmp_path / "pets", ["cat", "dog", "fox", "owl"], 6)
    (home.place / "mammals.json").write_text('{"labels": [0, 1, 2]}')
    home.run("README.md", in_sequence())
    for place, commands in runnable(slow=True):
        home.run(place, commands)


def tree(place, classes, n_each=2):
    """Images of 64 pixels in folders, each of a colour of its own."""
    from PIL import Image

    for split in ("train", "val"):
        for number, name in enumerate(classes):
            (place / split / name).mkdir(parents=True)
            for i in range(n_each):
                colour = tuple(np.random.default_rng([number, i]).integers(256, size=3).tolist())
                Image.new("RGB", (64, 64), colour).save(place / split / name / f"{name}_{i}.JPEG")


# --- Python


def snippets(document):
    text = (REPOSITORY / document).read_text()
    return [
        found[2].replace(f"\n{found[1]}", "\n").removeprefix(found[1])
        for found in re.finditer(r"^( *)```python\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    ]


def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    P = trajectory()
    np.save("preds.npy", P)
    np.save("labels.npy", labels_of())
    record, embed = snippets("README.md")
    assert len(record.splitlines()) <= 10
    assert len(embed.splitlines()) <= 10
    seen = iter(P)
    exec(
        record,
        {
            "probe": np.arange(60),
            "probe_labels": labels_of(),
            "batches": [(0, 0)] * 5,
            "model": lambda x: np.log(next(seen)),
            "train_on": lambda x, y: None,
        },
    )
    np.testing.assert_allclose(read(["predictions/mine_all"])[0][:], P[:6], rtol=1e-3)
    Path("predictions/mine_all/preds_0.h5").unlink()
    exec(embed, {})
    assert "0." in capsys.readouterr().out
    assert Path("figures/inpca.png").exists()
    write, labels = snippets("predictions/README.md")
    exec(write, {"predictions": P, "labels": labels_of()})
    (found,) = read(["predictions/mine_all"])
    np.testing.assert_array_equal(found[:], P)
    np.testing.assert_array_equal(np.load("predictions/labels/mine_val_labels.npy"), labels_of())
    exec(labels, {})
    assert np.load("predictions/labels/imagenet_val_labels.npy").shape == (50_000,)
