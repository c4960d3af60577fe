"""Prediction files: reading by block, checks, and writing that survives a kill."""

import h5py
import numpy as np
import pytest
from conftest import labels_of, models, trajectory, write_published

from info_geometry import samples
from info_geometry.bhattacharyya import pairwise
from info_geometry.predictions import Models, Trajectory, digest, read, read_labels
from info_geometry.samples import square_roots
from info_geometry.script import InputError, replacing, unknown
from info_geometry.writer import Writer

RECORD = {"task": "a", "imprinting": {"rule": "euclidean"}, "versions": {"numpy": "1"}}


IDS = "abcdefgh"


def written(path, P, record=RECORD, ids=None):
    """A writer of the checkpoints `ids`, by default as many as in P, of which those in P have been written."""
    writer = Writer(path, record, ids or IDS[: len(P)], samples=[f"sample {n}" for n in range(P.shape[1])])
    writer.begin()
    for index in set(writer.missing) & set(range(len(P))):
        writer.write(index, P[index].astype(np.float16), epoch=float(ord(IDS[index])), accuracy=0.5)
    return writer


def contents(path):
    with h5py.File(path) as file:
        return {k: file[k][:].tobytes() if k != "id" else list(file[k][:]) for k in file}, dict(file.attrs)


def test_what_is_written_is_read(tmp_path):
    P = models(8, 50, 4)
    path = tmp_path / "toy_a" / "preds_3.h5"
    written(path, P).finish()
    t = Trajectory(path)
    assert (t.dataset, t.task, t.seed, t.shape, t.dtype) == ("toy", "a", 3, (8, 50, 4), np.float16)
    assert t.record == RECORD
    assert t.epochs.tolist() == [float(ord(c)) for c in "abcdefgh"]
    np.testing.assert_array_equal(t[:, 10:20], P.astype(np.float16)[:, 10:20])
    assert [p.name for p in path.parent.iterdir()] == ["preds_3.h5"]


def test_chunks_suit_both_blocks_of_samples_and_checkpoints(tmp_path):
    path = tmp_path / "toy_a" / "preds_0.h5"
    written(path, models(2, 5000, 10)).finish()
    with h5py.File(path) as file:
        assert file["data"].chunks == (1, 3276, 10)
        assert "32004" in file["data"]._filters, "LZ4"


def test_distances_from_files_equal_those_of_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "READ_BYTES", 9000)
    monkeypatch.setattr(samples, "CACHE_BYTES", 4000)
    runs = [trajectory(5, seed=s) for s in (0, 10, 2)]
    for seed, P in zip((0, 10, 2), runs, strict=True):
        write_published(tmp_path / "toy_a" / f"preds_{seed}.h5", P, decimals=8)
    stack = Models(read([tmp_path / "toy_a"]))
    assert [t.seed for t in stack.trajectories] == [0, 2, 10]
    assert stack.shape == (15, 60, 5)
    P = np.concatenate([runs[0], runs[2], runs[1]]).astype(np.float16)
    np.testing.assert_array_equal(pairwise(stack), pairwise(P))


def test_a_writer_goes_on_where_another_was_killed(tmp_path):
    P = models(8, 50, 4)
    whole, broken = tmp_path / "toy_a" / "preds_0.h5", tmp_path / "toy_b" / "preds_0.h5"
    written(whole, P).finish()
    written(broken, P[:3], ids=IDS)  # and no finish: killed
    assert not broken.exists()
    assert Writer(broken, RECORD, IDS).missing == [3, 4, 5, 6, 7]
    written(broken, P[:6]).finish()
    writer = written(broken, P)  # more checkpoints have come since
    assert (writer.n_joined, writer.missing) == (6, [6, 7])
    assert len(Trajectory(broken)) == 6, "the old file stays until the new one is whole"
    writer.finish()
    assert contents(whole) == contents(broken)
    assert [p.name for p in broken.parent.iterdir()] == ["preds_0.h5"]


def test_a_damaged_part_is_made_again(tmp_path):
    path = tmp_path / "toy_a" / "preds_0.h5"
    written(path, models(4))
    part = tmp_path / "toy_a" / ".preds_0.parts" / "00002.npz"
    for content in (b"", part.read_bytes()[:200], b"text"):
        part.write_bytes(content)
        assert Writer(path, RECORD, "abcd").missing == [2]
    written(path, models(4)).finish()
    np.testing.assert_array_equal(Trajectory(path)[:, :], models(4).astype(np.float16))


@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused_and_versions_are_not(tmp_path, finished):
    path = tmp_path / "toy_a" / "preds_0.h5"
    writer = written(path, models(2))
    if finished:
        writer.finish()
    assert Writer(path, RECORD | {"versions": {"numpy": "2"}}, "abc").missing == [2]
    other = RECORD | {"imprinting": {"rule": "cosine"}}
    with pytest.raises(InputError, match=r"rule: euclidean there, cosine wanted.*--overwrite"):
        Writer(path, other, IDS)
    assert Writer(path, other, "ab", overwrite=True).missing == [0, 1]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("ids", ["axcdefgh", "a", ""])
def test_other_checkpoints_are_refused(tmp_path, finished, ids):
    path = tmp_path / "toy_a" / "preds_0.h5"
    writer = written(path, models(2))
    if finished:
        writer.finish()
    with pytest.raises(InputError, match="made from other checkpoints"):
        Writer(path, RECORD, ids)
    writer = Writer(path, RECORD, ids, overwrite=True)
    assert writer.missing == list(range(len(ids)))
    if ids:
        writer.begin()
        writer.write(0, models(1)[0], epoch=0.0, accuracy=0.5)
        writer = Writer(path, RECORD, ids[:1], overwrite=True)
        assert not writer.missing, "what a killed run has made anew is not made again"
        writer.finish()
        assert len(Trajectory(path)) == 1
        assert not Writer(path, RECORD, ids[:1]).missing


def test_checkpoints_are_written_in_any_order_and_sample_ids_are_kept(tmp_path):
    P = models(4, 50, 3)
    path = tmp_path / "toy_a" / "preds_0.h5"
    written(tmp_path / "toy_b" / "preds_0.h5", P).finish()
    one, other = (Writer(path, RECORD, "abcd", samples=[f"sample {n}" for n in range(50)]) for _ in range(2))
    one.begin()
    for writer, index in ((one, 3), (other, 0), (other, 2), (one, 1)):
        writer.write(index, P[index].astype(np.float16), epoch=float(ord(IDS[index])), accuracy=0.5)
    one.finish()
    assert contents(path) == contents(tmp_path / "toy_b" / "preds_0.h5")
    with h5py.File(path) as file:
        assert file["samples"][:2].tolist() == [b"sample 0", b"sample 1"]


def test_a_file_without_a_record_is_not_overwritten(tmp_path):
    path = tmp_path / "toy_a" / "preds_0.h5"
    write_published(path, models(2))
    with pytest.raises(InputError, match="overwrite"):
        Writer(path, RECORD, IDS)


def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail_halfway():
        with replacing(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file/x/y"), replacing(tmp_path / "file" / "x" / "y"):
        pass


def test_rows_of_float16_are_renormalised():
    P = models(3, 20, 7).astype(np.float16)
    r = square_roots(P)
    np.testing.assert_allclose((r**2).sum(-1), 1, atol=1e-15)
    p = P.astype(float)
    np.testing.assert_allclose(r**2, p / p.sum(-1, keepdims=True), atol=1e-15)


def test_blocks_cover_all_samples_once(monkeypatch):
    P, Q = models(3, 47, 4), models(2, 47, 4)
    for block_bytes in (1, 2000, 1 << 20):
        monkeypatch.setattr(samples, "READ_BYTES", block_bytes)
        monkeypatch.setattr(samples, "CACHE_BYTES", block_bytes // 3)
        blocks = list(samples.sample_blocks(P, Q))
        for which, stack in enumerate((P, Q)):
            joined = np.concatenate([block[which] for block in blocks], axis=1)
            np.testing.assert_allclose(joined, square_roots(stack), rtol=1e-15)  # rows are summed in another order


def test_labels_are_checked_against_the_hash_in_the_files(tmp_path):
    path = tmp_path / "toy_a" / "preds_0.h5"
    written(path, models(2), record={"labels_sha256": digest(labels_of(40))}).finish()
    np.save(tmp_path / "right.npy", labels_of(40).astype(np.int32))
    np.save(tmp_path / "wrong.npy", (labels_of(40) + 1) % 5)
    t = read([path.parent])
    assert read_labels(tmp_path / "right.npy", t).dtype == np.int64
    with pytest.raises(InputError, match=r"wrong.npy: not the labels that .*preds_0.h5"):
        read_labels(tmp_path / "wrong.npy", t)


def test_runs_made_with_other_labels_or_samples_are_not_compared(tmp_path):
    for seed, key in ((0, "x"), (1, "y")):
        record = {"labels_sha256": "same", "samples_sha256": key}
        written(tmp_path / "toy_a" / f"preds_{seed}.h5", models(2), record=record).finish()
    with pytest.raises(InputError, match="predicts other samples"):
        read([tmp_path / "toy_a"])


def test_digests_tell_values_apart_and_not_types():
    assert digest([1, 2]) == digest(np.array([1, 2], np.uint8)) != digest([2, 1])
    assert digest(["a", "b"]) != digest(["b", "a"])


def test_unknown_names_come_with_the_nearest():
    assert "did you mean animals?" in str(unknown("task", "animal", ["all", "animals", "vehicles"]))
    assert "known are all, animals" in str(unknown("task", "zzz", ["all", "animals"]))
