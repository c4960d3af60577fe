"""Files that are not to be trusted: each is refused in one sentence that names it, in bounded memory, and nothing is
written."""

import contextlib
import io
import multiprocessing
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
import zipfile

import h5py
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, labels_of, trajectory, write_published

from info_geometry import Recorder, ranks
from info_geometry.importing import Source, import_runs
from info_geometry.predictions import Trajectory
from info_geometry.script import InputError, held, replacing

PREDICTIONS = "info_geometry/predictions.py"
INPCA = "info_geometry/inpca.py"
PLOT = "info_geometry/plot.py"
STORE = "supervised_imagenet/02_imprinting/store_predictions.py"
TRAIN = "supervised_imagenet/01_training/train.py"
TRAJECTORY = "info_geometry/trajectory.py"
MEMORY = 2 << 30  # beyond what the process has: less than any of these files would take
P = trajectory(4, 12, 3)


class Malicious:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(autouse=True)
def bounded():
    """Addresses for little more memory than there is in use: whoever asks for all that a file claims gets none."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


# --- makers of files: each takes the path


def of_bytes(content):
    return lambda path: path.write_bytes(content)


def npy(array):
    return lambda path: np.save(path, array, allow_pickle=True)


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npy_header(text, version=1):
    """A file of nothing but a header, and some bytes."""
    header = text.encode().ljust(118 - 10) + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return of_bytes(b"\x93NUMPY" + bytes([version, 0]) + size + header + b"\0" * 64)


def claiming(shape, descr="<f4"):
    return npy_header(str({"descr": descr, "fortran_order": False, "shape": shape}))


def npz(**members):
    """An archive of members: arrays, or bytes as they are."""

    def make(path, compression=zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, member in members.items():
                archive.writestr(f"{name}.npy", member if isinstance(member, bytes) else npy_bytes(member))

    return make


def npz_claiming(path):
    maker = claiming((10**12, 4))
    maker(path)
    npz(data=path.read_bytes())(path)


def bomb(path, name="data"):
    """A gigabyte of zeros in some megabytes, which are two as float64."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 26, 4)}
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_2_0(file, header)
        for _ in range(1 << 4):
            file.write(bytes(1 << 26))


def flipped(maker, place, value):
    """What a maker makes, with one byte changed; from the end, if the place is negative."""

    def make(path):
        maker(path)
        content = bytearray(path.read_bytes())
        content[place] ^= value
        path.write_bytes(content)

    return make


def cut(maker, part):
    def make(path):
        maker(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(part * len(content))])

    return make


def h5(fill):
    """An HDF5 file that a function of the open file fills."""

    def make(path):
        path.unlink(missing_ok=True)
        with h5py.File(path, "w") as file:
            fill(file, path)

    return make


def pickled(path):
    path.write_bytes(pickle.dumps(Malicious(path.parent / "unpickled")))


def pt(content):
    return lambda path: torch.save(content, path)


def virtual(file, path):
    other = path.with_name("elsewhere.h5")
    with h5py.File(other, "w") as source:
        source["data"] = P
    layout = h5py.VirtualLayout(P.shape, P.dtype)
    layout[:] = h5py.VirtualSource(other, "data", P.shape)
    file.create_virtual_dataset("data", layout)


def external(file, path):
    other = path.with_name("values.bin")
    other.write_bytes(P.tobytes())
    file.create_dataset("data", P.shape, P.dtype, external=[(str(other), 0, P.nbytes)])


def linked(file, path):
    with h5py.File(path.with_name("linked.h5"), "w") as source:
        source["data"] = P
    file["data"] = h5py.ExternalLink("linked.h5", "/data")


def soft(file, path):
    file["other"] = P
    file["data"] = h5py.SoftLink("/other")


def circle(file, path):
    file["data"] = h5py.SoftLink("/data")


def with_attribute(value):
    def fill(file, path):
        file["data"] = P
        file.attrs["record"] = value

    return h5(fill)


def in_one_piece(file, path):
    # 600 MB of zeros to be unpacked for each row that is read
    file.create_dataset("data", (150, 1000, 1000), "f4", chunks=(150, 1000, 1000), compression="gzip")[:1, :1] = 0.001


def filtered(file, path):
    """By a filter that nobody has."""
    kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    kind.set_chunk((1, 12, 3))
    kind.set_filter(32000, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple(P.shape)
    data = h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_DOUBLE, space, kind)
    for t in range(len(P)):
        data.write_direct_chunk((t, 0, 0), P[t].tobytes())


def text(content):
    return lambda path: path.write_text(content)


def changed(place, value):
    array = P.copy()
    array[place] = value
    return array


TABLE = "0.5,0.5\n0.2,0.8\n"
SOURCES = {
    "empty.npy": (of_bytes(b""), ""),
    "text.npy": (text("hello"), ""),
    "cut_header.npy": (cut(npy(P), 0.1), ""),
    "cut.npy": (cut(npy(P), 0.7), ""),
    "rows_1e12.npy": (claiming((10**12, 4)), ""),
    "rows_overflow.npy": (claiming((2**62, 2**62)), ""),
    "rows_negative.npy": (claiming((-4, 4)), ""),
    "no_dictionary.npy": (npy_header("[1, 2, 3]"), ""),
    "code.npy": (npy_header("__import__('os').system('true')"), ""),
    "unknown_type.npy": (npy_header("{'descr': 'nonsense', 'fortran_order': False, 'shape': (4, 4)}"), ""),
    "version_9.npy": (flipped(npy(P), 6, 8), ""),
    "objects.npy": (npy(np.array([{"a": 1}], dtype=object)), ""),
    "pickle.npy": (pickled, ""),
    "archive.npy": (npz(data=P), ""),
    "strings.npy": (npy(np.array([["a", "b"]])), "not one to five axes of numbers"),
    "complex.npy": (npy(P.astype(complex)), "complex128"),
    "records.npy": (npy(np.zeros(4, [("a", "f4")])), ""),
    "scalar.npy": (npy(np.array(1.0)), "not one to five axes"),
    "five_axes.npy": (npy(np.zeros((2,) * 5)), "neither (samples, classes)"),
    "six_axes.npy": (npy(np.zeros((2,) * 6)), "not one to five axes"),
    "none.npy": (npy(np.zeros((0, 4))), "empty"),
    "one_axis.npy": (npy(P[0, :, 0]), "neither (samples, classes)"),
    "one_class.npy": (npy(P[..., :1]), "has one class"),
    "nan.npy": (npy(changed((2, 5, 1), np.nan)), "[2, 5, :] holds a value that is not finite"),
    "infinite.npy": (npy(changed((2, 5, 1), np.inf)), "[2, 5, :] holds a value that is not finite"),
    "all_nan.npy": (npy(np.full((3, 4, 2), np.nan)), "none of the rows looked at is finite"),
    "negative.npy": (npy(changed((2, 5), [-0.2, 0.6, 0.6])), "--kind says"),
    "unnormalised.npy": (npy(3 * P), "its rows sum to 3"),
    "one_row_off.npy": (npy(changed((3, 11), [0.1, 0.1, 0.1])), ""),
    "transposed.npy": (npy(P.transpose(0, 2, 1)), "its rows sum to"),
    "no_zip.npz": (text("hello"), ""),
    "empty.npz": (npz(), "holds no arrays"),
    "two.npz": (npz(a=P, b=P), "holds a, b, none of them called data; --key names one"),
    "cut.npz": (cut(npz(data=P), 0.6), ""),
    "wrong_sum.npz": (flipped(lambda p: npz(data=P)(p, zipfile.ZIP_STORED), 300, 1), ""),
    "objects.npz": (npz(data=np.array([{}], dtype=object)), ""),
    "no_array.npz": (npz(data=b"hello"), ""),
    "rows_1e12.npz": (npz_claiming, "is said to be"),
    "bomb.npz": (bomb, "sum to 0"),
    "text.h5": (text("hello"), ""),
    "cut.h5": (cut(h5(lambda file, path: file.update({"data": P})), 0.6), ""),
    "nothing.h5": (h5(lambda file, path: None), "holds no arrays"),
    "group.h5": (h5(lambda file, path: file.create_group("data")), ""),
    "strings.h5": (h5(lambda file, path: file.update({"data": ["a", "b"]})), ""),
    "virtual.h5": (h5(virtual), "in another file"),
    "external.h5": (h5(external), "in another file"),
    "linked.h5.h5": (h5(linked), "link to somewhere else"),
    "soft.h5": (h5(soft), "link to somewhere else"),
    "rows_1e12.h5": (
        h5(lambda file, path: file.create_dataset("data", (10**12, 10, 3), "f4", chunks=(1, 10, 3))),
        "not all of that is there",
    ),
    "contiguous_1e12.h5": (h5(lambda file, path: file.create_dataset("data", (10**12, 10, 3), "f4")), "not all of"),
    "one_piece.h5": (h5(in_one_piece), "in pieces of shape"),
    "filter.h5": (h5(filtered), ""),
    "pickle.pt": (pickled, ""),
    "malicious.pt": (lambda path: torch.save(Malicious(path.parent / "unpickled"), path), ""),
    "module.pt": (pt(torch.nn.Linear(2, 2)), ""),
    "numbers.pt": (pt({"a": 1, "b": [2]}), "holds no arrays"),
    "weights.pt": (
        pt(torch.nn.Linear(2, 2).state_dict()),
        "holds weight, bias, none of them called data",
    ),
    "cut.pt": (cut(pt(torch.tensor(P)), 0.7), ""),
    "expanded.pt": (pt(torch.zeros(1, 1, 1).expand(10**6, 10**6, 3)), "not all of that is there"),
    "sparse.pt": (pt(torch.eye(3).to_sparse()), "no dense tensor"),
    "complex.pt": (pt(torch.zeros(3, 3, dtype=torch.complex64)), "complex64"),
    "empty.csv": (text(""), "is empty"),
    "only_names.csv": (text("a,b\n"), "no numbers"),
    "word.csv": (text(TABLE + "0.1,x\n"), "line 3, cell 2: 'x' is no number"),
    "short.csv": (text("a,b\n" + TABLE + "0.1\n"), "line 4 has 1 cells, not 2"),
    "long.csv": (text(TABLE + "0.1,0.2,0.7\n"), "line 3 has 3 cells, not 2"),
    "bytes.csv": (of_bytes(bytes(range(128, 256)) * 9), ""),
    "nan.csv": (text(TABLE + "nan,0.5\n"), "[2, :] holds a value that is not finite"),
    "no_end.csv": (of_bytes(b"0.1," * (1 << 25)), "line of more than"),
    "gap.csv": (text("0.5,,0.5\n0.2,0.4,0.4\n"), "line 1, cell 2: '' is no number"),
    "names_or_a_sample.csv": (text("0,1\n" + TABLE), "line 1 may be the numbers of classes, as pandas"),
    "few_names.csv": (text("a,b\n0.1,0.2,0.3,0.4\n"), "line 1 has 2 names, for 4 columns"),
    "series.csv": (text("0\n0.25\n0.75\n"), "line 1 may be the numbers of classes, as pandas"),
    "comment.csv": (text("# two words\n0.1,0.2,x\n"), "line 2, cell 3: 'x' is no number"),
    "labelled.csv": (
        text("label,cat,dog\n" + "".join(f"{n % 2},{n}.5,-{n}.25\n" for n in range(1, 12))),
        "column 1 holds whole numbers, like labels",
    ),
    "labelled.npy": (
        npy(np.stack([np.sin(np.arange(12)), np.arange(12) % 3, np.cos(np.arange(12))], axis=1)),
        "column 2 holds whole numbers, like labels",
    ),
    "format.json": (text("[1, 2]"), "unknown format"),
}
INPUTS = {
    "a folder without files": (lambda path: path.mkdir(), "holds no files"),
    "files of two formats": (lambda path: folder_of(path, a=npy(P[0]), **{"b.csv": text(TABLE)}), "several formats"),
    "files of two shapes": (lambda path: folder_of(path, a0=npy(P[0]), a1=npy(P[0, :5])), "does not go with"),
    "files of two kinds": (
        lambda path: folder_of(path, a0=npy(P[0]), a1=npy(np.log(P[0]))),
        "looks like probabilities, but",
    ),
    "files beside folders": (
        lambda path: (folder_of(path, a=npy(P[0])), folder_of(path / "seed1", b=npy(P[0]))),
        "lies in a folder within",
    ),
    "names with decimals": (
        lambda path: folder_of(path, **{"step_0.25.npy": npy(P[0]), "step_0.5.npy": npy(P[1])}),
        "step_0.5.npy and step_0.25.npy do not tell the files' order",
    ),
    "a last one without a number": (
        lambda path: folder_of(path, step1=npy(P[0]), step2=npy(P[1]), last=npy(P[2])),
        "last.npy and step2.npy do not tell the files' order",
    ),
    "nothing": (lambda path: None, "no such file"),
}
RUNS = {
    "virtual": (h5(virtual), "in another file"),
    "external": (h5(external), "in another file"),
    "link": (h5(linked), "link to somewhere else"),
    "link to itself": (h5(circle), "link to somewhere else"),
    "10^12 checkpoints": (SOURCES["rows_1e12.h5"][0], "not all of that is there"),
    "10^12 checkpoints in one": (SOURCES["contiguous_1e12.h5"][0], "not all of that is there"),
    "one piece": (h5(in_one_piece), "in pieces of shape"),
    "10^12 epochs": (
        h5(lambda file, path: (file.update({"data": P}), file.create_dataset("epoch", (4,), "f8", chunks=(4,)))),
        "'epoch' is said to be of shape (4,), but not all",
    ),
    "a filter": (h5(filtered), "not a readable"),
    "a record that is a list": (with_attribute("[1]"), "not a JSON object"),
    "a record that is no JSON": (with_attribute("{"), "not a JSON object"),
    "a record of numbers": (with_attribute(np.arange(3)), "not a JSON object"),
    "a deep record": (with_attribute("[" * 50_000), ""),
    "a pickle": (pickled, "not a readable HDF5 file"),
    "an archive": (npz(data=P), "not a readable HDF5 file"),
    "a folder": (lambda path: path.mkdir(), "not a readable HDF5 file"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "no such file"),
}
LABELS = {
    "10^12 labels": (claiming((10**12,), "<i8"), "not a readable .npy array"),
    "labels that are a pickle": (pickled, "not a readable .npy array"),
    "labels in an archive": (npz(data=labels_of(12, 3)), "not a readable .npy array"),
}
EMBEDDINGS = {
    "no zip": text("hello"),
    "a pickle": pickled,
    "objects": npz(embedding=np.array([{}], dtype=object)),
    "a bomb": lambda path: bomb(path, "embedding"),
    "arrays that lack others": npz(embedding=np.zeros((4, 3))),
    "10^12 models": npz_claiming,
    "members of other names": npz(**{"../embedding": np.zeros((4, 3))}),
}


def folder_of(path, **files):
    path.mkdir()
    for name, maker in files.items():
        maker(path / (name if "." in name else f"{name}.npy"))


def names_in(folder):
    return sorted(
        os.path.relpath(os.path.join(root, name), folder) for root, _, names in os.walk(folder) for name in names
    )


@pytest.mark.parametrize("name", SOURCES)
def test_sources(tmp_path, refused, name):
    maker, sentence = SOURCES[name]
    path = tmp_path / name
    maker(path)
    before = names_in(tmp_path)
    found = refused(PREDICTIONS, "import", path, tmp_path / "toy_all")
    assert name in found
    assert sentence in found
    assert names_in(tmp_path) == before
    assert not (tmp_path / "toy_all").exists()


def test_what_lies_beside_an_array_is_not_opened(tmp_path, call):
    """Were the link followed, the reader would wait for ever."""
    os.mkfifo(tmp_path / "pipe.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["deep/preds"] = P
        file["deep/other"] = h5py.ExternalLink("pipe.h5", "/data")
        file["other"] = h5py.ExternalLink("pipe.h5", "/data")
    arguments = ["info", tmp_path / "a.h5", "--key"]
    assert call(PREDICTIONS, *arguments, "deep/preds")[0] == 0
    for key in ("other", "deep/other"):
        assert call(PREDICTIONS, *arguments, key)[0] == 2


@pytest.mark.parametrize("name", INPUTS)
def test_folders_of_sources(tmp_path, refused, name):
    maker, sentence = INPUTS[name]
    maker(tmp_path / "source")
    for arguments in (("import", tmp_path / "source", tmp_path / "toy_all"), ("info", tmp_path / "source")):
        if name != "files of two kinds" or arguments[0] == "import":
            assert sentence in refused(PREDICTIONS, *arguments)


@pytest.mark.parametrize("name", RUNS)
def test_prediction_files(tmp_path, refused, name):
    maker, sentence = RUNS[name]
    write_published(tmp_path / "toy_a" / "preds_0.h5", P)
    maker(tmp_path / "toy_a" / "preds_1.h5")
    before = names_in(tmp_path)
    for command in ((INPCA,), (PREDICTIONS, "check")):
        found = refused(*command, tmp_path / "toy_a")
        assert "preds_1.h5: " in found
        assert sentence in found
    assert names_in(tmp_path) == before


@pytest.mark.parametrize("name", LABELS)
def test_labels(tmp_path, refused, name):
    maker, sentence = LABELS[name]
    write_published(tmp_path / "toy_a" / "preds_0.h5", P)
    maker(tmp_path / "labels.npy")
    found = refused(TRAJECTORY, tmp_path / "toy_a", "--labels", tmp_path / "labels.npy")
    assert "labels.npy: " in found
    assert sentence in found
    refused(
        PREDICTIONS, "import", tmp_path / "toy_a" / "preds_0.h5", tmp_path / "b_a", "--labels", tmp_path / "labels.npy"
    )
    assert not (tmp_path / "b_a").exists()


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embeddings(tmp_path, refused, name):
    path = tmp_path / "toy_inpca.npz"
    EMBEDDINGS[name](path)
    assert "toy_inpca.npz: holds no embedding" in refused(PLOT, path, "--plots", tmp_path / "plots")
    assert not (tmp_path / "plots").exists()


# --- what happens while files are read and written


def write(path, content):
    """The content, over and over, for as long as the process lives."""
    while True:
        with replacing(path) as partial:
            partial.write_text(content)


def test_of_many_writers_each_leaves_a_whole_file(tmp_path):
    path = tmp_path / "file.txt"
    contents = [letter * 50_000 for letter in "abc"]
    processes = [multiprocessing.get_context("fork").Process(target=write, args=(path, c)) for c in contents]
    for process in processes:
        process.start()
    while not path.exists():
        time.sleep(0.01)
    found = {path.read_text() for _ in range(500)}
    for process in processes:
        process.kill()
        process.join()
    assert found <= set(contents)
    with replacing(path) as partial:  # what the killed ones held is free
        partial.write_text("after")
    assert path.read_text() == "after"
    assert names_in(tmp_path) == ["file.txt"]


def test_a_lock_is_for_one_and_is_gone_afterwards(tmp_path):
    with held(tmp_path / "lock"), pytest.raises(BlockingIOError), held(tmp_path / "lock", wait=False):
        pass
    assert names_in(tmp_path) == []


def test_a_copy_of_the_process_takes_no_lock_away(tmp_path):
    with contextlib.ExitStack() as stack:
        stack.enter_context(held(tmp_path / "lock"))
        child = multiprocessing.get_context("fork").Process(target=stack.close)
        child.start()
        child.join()
        assert child.exitcode == 0
        with pytest.raises(BlockingIOError), held(tmp_path / "lock", wait=False):
            pass
    assert names_in(tmp_path) == []


def test_a_run_is_written_by_one(tmp_path, refused):
    np.save(tmp_path / "a.npy", P)
    with ranks.alone(tmp_path / "toy_a" / "preds_0.h5"):
        sentence = refused(PREDICTIONS, "import", tmp_path / "a.npy", tmp_path / "toy_a")
        assert "toy_a/preds_0.h5: another process is writing it" in sentence
    for script, folder in ((TRAIN, "checkpoints/digits_all/0"), (STORE, "predictions/digits_all/preds_0.h5")):
        arguments = ["--checkpoints", tmp_path / "checkpoints", "--dataset", "digits"]
        arguments += ["--epochs", 0] if script == TRAIN else ["--predictions", tmp_path / "predictions"]
        with ranks.alone(tmp_path / folder):
            assert f"{folder}: another process is writing it" in refused(script, *arguments)
        if script == TRAIN:
            subprocess.run([sys.executable, REPOSITORY / script, *map(str, arguments)], check=True, capture_output=True)


def test_a_file_that_is_being_written_is_not_read(tmp_path, refused):
    path = tmp_path / "toy_a" / "preds_0.h5"
    write_published(path, P)
    code = "import h5py, sys; file = h5py.File(sys.argv[1], 'a'); print('open', flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"open\n"
    assert "preds_0.h5: another process is writing it" in refused(INPCA, path.parent)
    process.communicate(b"\n")


@pytest.mark.parametrize("how", ["grows", "is another", "is cut", "is gone"])
def test_a_file_that_changes_while_it_is_read(tmp_path, how):
    path = tmp_path / "toy_a" / "preds_0.h5"
    write_published(path, P)
    t = Trajectory(path)
    t[:, :5]
    if how == "grows":
        with h5py.File(path, "a") as file:
            file["more"] = np.zeros(1000)
    elif how == "is another":
        write_published(path, P[::-1])
    elif how == "is cut":
        os.truncate(path, 100)
    else:
        path.unlink()
    with pytest.raises(InputError, match=r"changed while it was read|not a readable|no such file"):
        t[:, 5:]


@pytest.mark.parametrize("size", [1 << 21, 100])
def test_a_source_that_grows_or_is_cut_while_it_is_read(tmp_path, size):
    np.save(tmp_path / "a.npy", np.tile(P, (1, 1000, 1)))
    with Source(tmp_path / "a.npy") as source:
        read = source.checkpoint(source.runs[0][0], np.float32)
        read[0:5]
        os.truncate(tmp_path / "a.npy", size)
        with pytest.raises(InputError, match=r"a\.npy: was changed while it was read"):
            read[5:12_000]


def test_a_folder_that_changes_while_it_is_read(tmp_path):
    folder_of(tmp_path / "run", a0=npy(P[0]), a1=npy(P[1]), a2=npy(P[2]))
    with Source(tmp_path / "run") as source:
        np.save(tmp_path / "run" / "a1.npy", P[3])
        with pytest.raises(InputError, match=r"a1\.npy: was changed while it was read"):
            import_runs(source, tmp_path / "toy_a")
    assert not (tmp_path / "toy_a").exists()


def test_a_run_is_not_written_over_its_source(tmp_path, refused):
    for seed in (0, 1):
        write_published(tmp_path / "toy_a" / f"preds_{seed}.h5", P[seed:])
    whole = {path: path.read_bytes() for path in (tmp_path / "toy_a").iterdir()}
    for folder in (tmp_path / "toy_a", tmp_path / "toy_link"):
        (tmp_path / "toy_link").unlink(missing_ok=True)
        (tmp_path / "toy_link").symlink_to("toy_a")
        arguments = ["import", tmp_path / "toy_a", folder, "--seed", 1, "--overwrite"]
        assert "preds_1.h5: is itself part of what is imported" in refused(PREDICTIONS, *arguments)
    assert {path: path.read_bytes() for path in (tmp_path / "toy_a").iterdir()} == whole


def test_a_bad_run_keeps_the_others_from_being_written(tmp_path, refused):
    np.save(tmp_path / "a.npy", np.stack([P, changed((2, 5, 1), np.nan)]))
    np.save(tmp_path / "good.npy", P)
    assert "[1, 2, 5, :] holds a value" in refused(PREDICTIONS, "import", tmp_path / "a.npy", tmp_path / "toy_a")
    assert not (tmp_path / "toy_a").exists()


def test_folders_that_cannot_be_written(tmp_path, call, refused):
    """Not even by root."""
    np.save(tmp_path / "a.npy", P)
    write_published(tmp_path / "toy_a" / "preds_0.h5", P)
    for folder in ("/proc/toy_a", tmp_path / "a.npy" / "toy_a"):
        assert "cannot write" in refused(PREDICTIONS, "import", tmp_path / "a.npy", folder)
        status, _, err = call(INPCA, tmp_path / "toy_a", "--results", folder)
        assert (status, err.count("\n"), "cannot write" in err) == (2, 1, True)
        with pytest.raises(InputError, match="cannot write"):
            Recorder(folder, P[0], kind="probabilities").record(lambda x: x, 0)


@pytest.mark.parametrize("size", [10_000, 2_000_000])
def test_no_room_for_what_is_imported_or_recorded(tmp_path, refused, size):
    """The second is room for single checkpoints, but not for all. When there is more, the same import goes on."""
    big = np.tile(P, (1, 2000, 1))
    np.save(tmp_path / "a.npy", big)
    done = []
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        sentence = refused(PREDICTIONS, "import", tmp_path / "a.npy", tmp_path / "toy_a")
        with pytest.raises(InputError, match="cannot write"):
            record_until_it_fails(tmp_path / "toy_b", big[0], done)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "cannot write" in sentence
    assert not list((tmp_path / "toy_a").glob("preds_*"))
    parts = len(list((tmp_path / "toy_a").glob(".preds_0.parts/[0-9]*.npz")))
    assert bool(parts) == (size > 1_000_000)
    with Source(tmp_path / "a.npy") as source:
        (path,) = import_runs(source, tmp_path / "toy_a")
    np.testing.assert_array_equal(Trajectory(path)[:], big.astype(np.float32))
    assert [p.name for p in (tmp_path / "toy_a").iterdir()] == ["preds_0.h5"]
    with Recorder(tmp_path / "toy_b", big[0], kind="probabilities", resume=True) as recorder:
        # the last may have been stored, when there was no room to join it to the others
        assert recorder.steps in (done, [*done, len(done)])
        assert bool(done) == (size > 1_000_000)


def record_until_it_fails(folder, samples, done):
    with Recorder(folder, samples, kind="probabilities") as recorder:
        for step in range(9):
            recorder.record(lambda x: x, step)
            done.append(step)


def test_nothing_was_unpickled(tmp_path):
    """What the pickles of these tests would do is seen where it is done."""
    pickle.loads(pickle.dumps(Malicious(tmp_path / "unpickled"))).close()
    assert (tmp_path / "unpickled").exists()
