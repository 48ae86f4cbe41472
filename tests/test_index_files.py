"""An index on disk: saved and opened, and of a bank that stays on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import onnxviz as ov
from onnxviz import backend, disk
from onnxviz.errors import InputError, LimitError
from onnxviz.methods import index_files, nearest_neighbors
from onnxviz.methods.index_training import train
from oracles import nearest_rows


def features(rows: int, columns: int = 600, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((rows, 24)) @ rng.standard_normal((24, columns))
    return np.maximum(mixed / 5 + rng.standard_normal((rows, columns)) / 2, 0).astype(np.float32)


def bank_on_disk(folder: Path, rows: np.ndarray, shard: int) -> ov.FeatureBank:
    with ov.FeatureBank.create(folder, columns=rows.shape[1], dtype=rows.dtype) as bank:
        for start in range(0, len(rows), shard):
            bank.append(rows[start : start + shard])
    return ov.FeatureBank.open(folder)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_bank_on_disk_gives_the_same_answers_as_in_memory(tmp_path: Path, metric: str, dtype: type) -> None:
    rows, queries = features(2600).astype(dtype), features(40, seed=1).astype(dtype)
    bank = bank_on_disk(tmp_path / "bank", rows, 700)
    told: list[tuple[int, int]] = []
    on_disk = ov.NearestNeighbors(6, metric=metric).fit(bank, progress=lambda done, of: told.append((done, of)))
    in_memory = ov.NearestNeighbors(6, metric=metric).fit(rows)
    assert told[0] == (0, 2600)
    assert told[-1] == (2600, 2600)
    starts = range(len(on_disk._index.setup.projected) + 2)
    assert len(starts) == 3
    for start in starts:
        on_disk._index.start = (start, start, start)
        for many in (queries, queries[:1]):
            for got, wanted in zip(on_disk.kneighbors(many), in_memory.kneighbors(many), strict=True):
                np.testing.assert_array_equal(got, wanted)
    for got, wanted in zip(on_disk.kneighbors(), in_memory.kneighbors(), strict=True):
        np.testing.assert_array_equal(got, wanted)
    radius = float(in_memory.kneighbors(queries)[0].mean())
    for got, wanted in zip(
        on_disk.radius_neighbors(queries, radius)[1], in_memory.radius_neighbors(queries, radius)[1], strict=True
    ):
        np.testing.assert_array_equal(got, wanted)
    if metric == "euclidean":
        np.testing.assert_array_equal(in_memory.kneighbors(queries)[1], nearest_rows(rows, queries, 6)[1])


def test_a_bank_on_disk_keeps_the_bytes_that_one_in_memory_can_do_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        nearest_neighbors, "train", lambda *given, **named: replace(train(*given, **named), bytes=False)
    )
    rows, queries = features(2300), features(30, seed=1)
    in_memory = ov.NearestNeighbors(4).fit(rows)
    on_disk = ov.NearestNeighbors(4).fit(bank_on_disk(tmp_path / "bank", rows, 1000))
    assert "bytes.codes" not in in_memory._index.arrays
    assert "bytes.codes" in on_disk._index.arrays
    in_memory.save(tmp_path / "index")
    again = ov.NearestNeighbors.open(tmp_path / "index")
    assert not again._index.setup.bytes
    for index in (on_disk, again):
        for got, expected in zip(index.kneighbors(queries), in_memory.kneighbors(queries), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_a_wrong_row_on_disk_is_named(tmp_path: Path) -> None:
    bank = bank_on_disk(tmp_path / "bank", features(300), 100)
    shard = bank.shards[1]
    with shard.path.open("r+b") as file:
        file.seek(shard.offset + 7 * 600 * 4)
        file.write(np.float32("nan").tobytes())
    with pytest.raises(InputError, match="row 107 of the bank"):
        ov.NearestNeighbors(1).fit(bank)


def test_a_bank_that_shrinks_is_an_error_and_no_crash(tmp_path: Path) -> None:
    bank = bank_on_disk(tmp_path / "bank", features(300), 100)
    index = ov.NearestNeighbors(3).fit(bank)
    bank.shards[2].path.write_bytes(bank.shards[2].path.read_bytes()[:5000])
    with pytest.raises(InputError, match="shorter"):
        index.kneighbors(features(5, seed=3), n_neighbors=300)
    with pytest.raises(InputError, match="shorter"):
        ov.NearestNeighbors(3).fit(bank)


def test_no_room_for_the_codes_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_on_disk(tmp_path / "bank", features(300), 100)

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index_files.os, "posix_fallocate", full, raising=False)
    with pytest.raises(LimitError, match="disk is full"):
        ov.NearestNeighbors(3).fit(bank)
    assert sorted(path.name for path in (tmp_path / "bank").iterdir()) == sorted(
        path.name for path in bank.folder.iterdir()
    )


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("kept", ["in memory", "on disk"])
def test_an_index_comes_back_without_its_build(
    tmp_path: Path, metric: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, queries = features(2300), features(30, seed=1)
    bank = rows if kept == "in memory" else bank_on_disk(tmp_path / "bank", rows, 1000)
    index = ov.NearestNeighbors(4, metric=metric, n_jobs=1).fit(bank)
    index.save(tmp_path / "index")
    wanted = index.kneighbors(queries)

    def build(*_: object, **__: object) -> None:
        raise AssertionError("it was built again")

    monkeypatch.setattr(backend.NeighborIndex, "__init__", build)
    again = ov.NearestNeighbors.open(tmp_path / "index")
    assert again.get_params() == index.get_params()
    assert (again.n_samples_fit_, again.n_features_in_) == (2300, 600)
    for got, expected in zip(again.kneighbors(queries), wanted, strict=True):
        np.testing.assert_array_equal(got, expected)
    for got, expected in zip(again.kneighbors(), index.kneighbors(), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_transformer_comes_back_as_one(tmp_path: Path) -> None:
    transformer = ov.KNeighborsTransformer(mode="connectivity", n_neighbors=3).fit(features(100))
    transformer.save(tmp_path / "index")
    again = ov.KNeighborsTransformer.open(tmp_path / "index")
    assert isinstance(again, ov.KNeighborsTransformer)
    assert (again.transform(features(5)) != transformer.transform(features(5))).nnz == 0


def test_an_altered_index_is_refused(tmp_path: Path) -> None:
    ov.NearestNeighbors(4).fit(features(300)).save(tmp_path / "index")
    files = sorted(path.name for path in (tmp_path / "index").glob("*.npy"))
    assert "bytes.codes.npy" in files
    for name in files:
        path = tmp_path / "index" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(InputError, match=f"{name}: was altered"):
            ov.NearestNeighbors.open(tmp_path / "index")
        path.unlink()
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            ov.NearestNeighbors.open(tmp_path / "index")
        path.write_bytes(whole)
    ov.NearestNeighbors.open(tmp_path / "index")
    about = json.loads((tmp_path / "index" / "index.json").read_text())
    (tmp_path / "index" / "index.json").write_text(json.dumps(about | {"schema_version": 99}))
    with pytest.raises(InputError, match="schema 99"):
        ov.NearestNeighbors.open(tmp_path / "index")
    with pytest.raises(InputError, match="holds no index"):
        ov.NearestNeighbors.open(tmp_path)


def test_an_index_of_a_bank_that_grew_is_refused(tmp_path: Path) -> None:
    bank = bank_on_disk(tmp_path / "bank", features(300), 100)
    ov.NearestNeighbors(4).fit(bank).save(tmp_path / "index")
    with ov.FeatureBank.open(tmp_path / "bank") as again:
        again.append(features(3))
    with pytest.raises(InputError, match="has changed since the index was made"):
        ov.NearestNeighbors.open(tmp_path / "index")


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = ov.NearestNeighbors(4).fit(features(300))
    before = set(disk.unfinished)  # what other tests broke off
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="is there already"):
        index.save(tmp_path / "there")
    with pytest.raises(InputError, match="does not exist"):
        index.save(tmp_path / "nowhere" / "index")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index_files, "write_synced", full)
    with pytest.raises(LimitError, match="disk is full"):
        index.save(tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert disk.unfinished == before


def test_an_index_of_a_bank_on_disk_does_not_pickle(tmp_path: Path) -> None:
    import pickle

    index = ov.NearestNeighbors(4).fit(bank_on_disk(tmp_path / "bank", features(50), 20))
    with pytest.raises(InputError, match="save"):
        pickle.dumps(index)
