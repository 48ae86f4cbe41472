"""Feature banks: rows come back as they went in, nothing is lost or doubled whatever interrupts, and damage is named."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxviz as ov
from onnxviz.disk import FileLock
from onnxviz.errors import InputError, LimitError
from onnxviz.inputs.image_set import Skipped
from onnxviz.results import Provenance


def rows(count: int, columns: int = 5, *, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, columns)).astype(dtype)


def made(value: str = "relu", **changed: object) -> Provenance:
    plain = {
        "method": "collect_features", "model": "m.onnx", "model_sha256": "0" * 64,
        "preprocess": {"size": [8, 8], "why": "said so"}, "output": {}, "parameters": {"value": value, "pool": False},
        "versions": {}, "provider": "CPUExecutionProvider",
    }  # fmt: skip
    return Provenance(**plain | changed)  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "bank"


def bank_of(place: Path, *blocks: np.ndarray, **options: object) -> ov.FeatureBank:
    """A bank with a shard for each block, closed."""
    with ov.FeatureBank.create(place, columns=blocks[0].shape[1], dtype=blocks[0].dtype, **options) as bank:  # type: ignore[arg-type]
        for block in blocks:
            bank.append(block)
    return bank


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# -- rows come back as they went in ----------------------------------------------------------------------------------


def arranged(block: np.ndarray, order: str) -> np.ndarray:
    """The same numbers in another memory order."""
    if order == "strided":
        return np.repeat(np.repeat(block, 2, axis=0), 3, axis=1)[::2, ::3]
    if order == "big-endian":
        return block.astype(block.dtype.newbyteorder(">"))
    return np.array(block, order=order)  # type: ignore[call-overload]


@settings(deadline=None, max_examples=60)
@given(data=st.data(), dtype=st.sampled_from(["float32", "float64"]), columns=st.integers(1, 9))
def test_any_rows_read_equal_the_same_rows_in_memory(data: st.DataObject, dtype: str, columns: int) -> None:
    counts = data.draw(st.lists(st.integers(0, 7), max_size=6))
    orders = st.sampled_from(["C", "F", "strided", "big-endian"])
    with tempfile.TemporaryDirectory() as folder:
        bank = ov.FeatureBank.create(Path(folder) / "b", columns=columns, dtype=dtype)
        whole = np.zeros((0, columns), dtype)
        for number, count in enumerate(counts):
            block = rows(count, columns, seed=number, dtype=dtype)
            bank.append(arranged(block, data.draw(orders)))
            whole = np.concatenate([whole, block])
        n = len(whole)
        ends = st.none() | st.integers(-n - 2, n + 2)
        for one in (bank, ov.FeatureBank.open(bank.folder)):
            assert (len(one), one.shape, one.dtype) == (n, (n, columns), np.dtype(dtype))
            start, stop, step = data.draw(ends), data.draw(ends), data.draw(st.sampled_from([None, 1, 2, 3, -1, -2]))
            chosen = data.draw(st.lists(st.integers(-n, n - 1), max_size=9)) if n else []
            for got, wanted in (
                (one[:], whole),
                (one[start:stop:step], whole[start:stop:step]),
                (one.rows(start or 0, stop), whole[start or 0 : stop]),
                (one[np.array(chosen, np.int64)], whole[np.array(chosen, np.int64)]),
                (one[chosen], whole[np.array(chosen, np.int64)]),
                *((one[row], whole[row]) for row in chosen[:1]),
            ):
                assert got.dtype == np.dtype(dtype)
                np.testing.assert_array_equal(got, wanted)
            size = data.draw(st.integers(1, n + 1))
            blocks = list(one.blocks(size))
            assert all(len(block) == size for block in blocks[:-1])
            np.testing.assert_array_equal(np.concatenate([whole[:0], *blocks]), whole)
            one.verify()


def test_the_shards_are_plain_npy_files_that_can_be_read_at_a_position(place: Path) -> None:
    blocks = [rows(3), rows(0), rows(4, seed=1)]
    bank = bank_of(place, *blocks)
    assert [(shard.start, shard.rows, shard.path.parent) for shard in bank.shards] == [(0, 3, place), (3, 4, place)]
    for shard, block in zip(bank.shards, [blocks[0], blocks[2]], strict=True):
        np.testing.assert_array_equal(np.load(shard.path), block)
        assert shard.path.read_bytes()[shard.offset :] == block.astype("<f4").tobytes()


def test_the_digest_is_that_of_the_files_and_of_their_order(tmp_path: Path) -> None:
    a, b = rows(3), rows(4, seed=1)
    bank = bank_of(tmp_path / "a", a, b)
    digests = "".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((tmp_path / "a").glob("*.npy")))
    assert bank.digest == hashlib.sha256(digests.encode()).hexdigest()
    assert bank_of(tmp_path / "same", np.asfortranarray(a), b).digest == bank.digest
    assert ov.FeatureBank.open(tmp_path / "a").digest == bank.digest
    others = {
        bank_of(tmp_path / "turned", b, a).digest,
        bank_of(tmp_path / "whole", np.concatenate([a, b])).digest,
        bank_of(tmp_path / "double", a.astype(np.float64), b.astype(np.float64)).digest,
    }
    assert len(others | {bank.digest}) == 4


def test_names_classes_and_places_come_back(place: Path) -> None:
    bank = ov.FeatureBank.create(place, columns=5, class_names=("ant", "bee"))
    assert (bank.names, bank.classes, bank.indices, bank.skipped, bank.reached) == (None, None, None, (), 0)
    bank.append(rows(2))
    assert (bank.names, bank.classes, bank.indices) == (None, None, None)
    hostile = ["a\udcff\n.png", 'ü"\\.png']
    bank.append(rows(2), hostile, [1, -1], indices=[4, 7], skipped=[Skipped("x", "torn")], provenance=made(), reached=8)
    bank.append(rows(0), skipped=[Skipped("y", "empty")], provenance=made(), reached=9)
    bank.append(rows(1), provenance=made("other"))
    for one in (bank, ov.FeatureBank.open(place)):
        assert one.names == ("row 0", "row 1", *hostile, "row 4")
        np.testing.assert_array_equal(one.classes, [-1, -1, 1, -1, -1])
        assert one.indices is None
        assert one.class_names == ("ant", "bee")
        assert one.skipped == (Skipped("x", "torn"), Skipped("y", "empty"))
        assert [(p.parameters["value"], p.preprocess["why"]) for p in one.provenance] == [
            ("relu", "said so"), ("other", "said so"),
        ]  # fmt: skip
        assert one.reached == 9
        assert [shard.rows for shard in one.shards] == [2, 2, 1]
        one.verify()


def test_a_bank_becomes_features(tmp_path: Path) -> None:
    block = rows(12)
    bank = ov.FeatureBank.create(tmp_path / "b", columns=5, class_names=("ant", "bee"))
    bank.append(block[:7], [f"{row}.png" for row in range(7)], [0] * 7, indices=range(7), provenance=made("pool"))
    bank.append(
        block[7:], [f"{row}.png" for row in range(8, 13)], [1] * 5, indices=range(8, 13), provenance=made("pool")
    )
    found = bank.features()
    np.testing.assert_array_equal(found.array, block)
    np.testing.assert_array_equal(found.indices, [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12])
    assert (found.value, found.pooled, found.names[7], found.class_names) == ("pool", False, "8.png", ("ant", "bee"))
    embedding = ov.embed(found, method="pca")
    assert embedding.names == found.names
    np.testing.assert_array_equal(embedding.classes, [0] * 7 + [1] * 5)
    plain = bank_of(tmp_path / "plain", block).features()
    assert (plain.names[11], plain.classes, plain.value) == ("row 11", None, "")


# -- what does not fit is refused in a sentence, and changes nothing -------------------------------------------------


@pytest.mark.parametrize(
    ("array", "options", "sentence"),
    [
        (rows(2, 4), {}, r"got shape \(2, 4\); allowed: \(n, 5\)"),
        (rows(1)[0], {}, r"got shape \(5,\)"),
        (rows(2, dtype="float64"), {}, r"wrong dtype; got float64; allowed: float32.*astype\('float32'\)"),
        (np.ones((2, 5), np.int32), {}, "wrong dtype; got int32"),
        (np.where(np.arange(4)[:, None] == 2, np.nan, rows(4)), {}, "row 2, and 0 more"),
        (np.where(np.arange(4)[:, None] % 2, -np.inf, rows(4)), {}, "row 1, and 1 more"),
        (rows(2), {"names": ["a"]}, "got 1 names; allowed: 2 strings"),
        (rows(2), {"names": "ab"}, "not one name for each row"),
        (rows(2), {"names": ["a", 3]}, "not one name for each row"),
        (rows(2), {"classes": [0, 2]}, "classes: .* got 0 to 2; allowed: -1 to 1"),
        (rows(2), {"classes": [0, -2]}, "got -2 to 0"),
        (rows(2), {"classes": [0.0, 1.0]}, "classes: not one whole number for each row"),
        (rows(2), {"indices": [0]}, "indices: not one whole number for each row"),
        (rows(2), {"indices": [0, -1]}, "indices: .*; allowed: 0 or more"),
        (rows(2), {"provenance": made(versions={"numpy": object()})}, "provenance: .*plain JSON types"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit(place: Path, array: np.ndarray, options: dict, sentence: str) -> None:
    bank = bank_of(place, rows(3), class_names=("ant", "bee"))
    before = files(place)
    with pytest.raises(InputError, match=sentence):
        bank.append(
            array.astype(np.float32) if array.dtype == np.float64 and "dtype" not in sentence else array, **options
        )
    assert files(place) == before
    bank.append(rows(1))
    assert len(bank) == len(ov.FeatureBank.open(place)) == 4


def test_no_such_rows(place: Path) -> None:
    bank = bank_of(place, rows(3))
    for wrong in (3, -4, [0, 3], np.array([-4])):
        with pytest.raises(IndexError, match="of a bank of 3 rows"):
            bank[wrong]
    for wrong in (1.0, [0.5], np.array([True, False, True]), [[0], [1]], "a", None):
        with pytest.raises(InputError, match="no choice of rows"):
            bank[wrong]  # type: ignore[index]
    with pytest.raises(InputError, match="size: a block holds at least one row"):
        next(bank.blocks(0))


def test_places_where_no_bank_can_be_made(tmp_path: Path) -> None:
    def refused(place: Path, sentence: str, **options: object) -> None:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InputError, match=sentence):
            ov.FeatureBank.create(place, **{"columns": 5, **options})  # type: ignore[arg-type]
        assert sorted(tmp_path.rglob("*")) == before

    bank_of(tmp_path / "bank", rows(1))
    (tmp_path / "file").write_text("x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("x")
    refused(tmp_path / "bank", r"holds a feature bank already\. Open it")
    refused(tmp_path / "file", "is a file")
    refused(tmp_path / "photos", "files that are no feature bank; got 'cat.jpg'")
    refused(tmp_path / "missing" / "bank", "does not exist")
    refused(tmp_path / "new", "columns: .* got 0", columns=0)
    refused(tmp_path / "new", "dtype: .* got float16; allowed: float32, float64", dtype="float16")
    refused(tmp_path / "new", "dtype: .* got 'nonsense'", dtype="nonsense")
    with pytest.raises(InputError, match=r"not a feature bank: bank\.json cannot be read"):
        ov.FeatureBank.open(tmp_path / "photos")


# -- merging ---------------------------------------------------------------------------------------------------------


def test_merging_is_associative(tmp_path: Path) -> None:
    """(a + b) + c and a + (b + c) are the same files, and both are what one writer of all rows makes."""
    block = rows(12)
    labelled = [
        (block[:4], ["a", "b", "c", "d"], [0, 1, 0, 1]), (block[4:9], None, None), (block[9:], ["e", "f", "g"], [1] * 3),
    ]  # fmt: skip

    def bank(name: str, *parts: int) -> ov.FeatureBank:
        one = ov.FeatureBank.create(tmp_path / name, columns=5, class_names=("ant", "bee"))
        for number in parts:
            array, names, classes = labelled[number]
            one.append(array, names, classes, provenance=made(parameters={"value": "relu", "part": number}))
        one.close()
        return one

    left, right = bank("left", 0), bank("right", 1)
    left.append_bank(bank("b", 1))
    left.append_bank(bank("c", 2))
    right.append_bank(bank("c2", 2))
    whole = bank("a", 0)
    whole.append_bank(right)
    assert files(left.folder) == files(whole.folder) == files(bank("one", 0, 1, 2).folder)
    np.testing.assert_array_equal(left[:], block)
    assert [p.parameters["part"] for p in left.provenance] == [0, 1, 2]
    assert [p["part"] for p in left.features().provenance.parameters["merged_with"]] == [1, 2]
    left.append_bank(left)
    np.testing.assert_array_equal(left[:], np.concatenate([block, block]))
    left.verify()


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    def bank(name: str, class_names: tuple[str, ...] | None, classes: list[int] | None) -> ov.FeatureBank:
        one = ov.FeatureBank.create(tmp_path / name, columns=5, class_names=class_names)
        one.append(rows(3), classes=classes)
        return one

    whole = bank("a", ("ant", "bee"), [0, 1, -1])
    whole.append_bank(bank("b", ("bee", "cat"), [0, 1, -1]))
    whole.append_bank(bank("c", None, None))
    assert whole.class_names == ("ant", "bee", "cat")
    np.testing.assert_array_equal(whole.classes, [0, 1, -1, 1, 2, -1, -1, -1, -1])
    whole.append(rows(1), classes=[2])
    with pytest.raises(InputError, match="classes without names"):
        whole.append_bank(bank("d", None, [0, 1, 2]))
    nameless = bank("e", None, None)
    nameless.append_bank(whole)
    assert nameless.class_names == ("ant", "bee", "cat")


def test_banks_that_cannot_be_merged(tmp_path: Path) -> None:
    a = ov.FeatureBank.create(tmp_path / "a", columns=5)
    a.append(rows(3), provenance=made())
    before = files(a.folder)

    def refused(sentence: str, other: ov.FeatureBank) -> None:
        with pytest.raises(InputError, match=sentence):
            a.append_bank(other)
        assert files(a.folder) == before

    refused("got 4 float32 columns; allowed: 5 float32 columns", bank_of(tmp_path / "b", rows(3, 4)))
    refused("got 5 float64 columns", bank_of(tmp_path / "c", rows(3, dtype="float64")))
    for number, (changed, named) in enumerate([
        ({"value": "conv"}, "another value"), ({"model_sha256": "1" * 64}, "another model"),
        ({"parameters": {"value": "relu", "pool": True}}, "another pool"), ({"preprocess": {"size": [9, 8]}}, "preprocess"),
    ]):  # fmt: skip
        other = ov.FeatureBank.create(tmp_path / f"other{number}", columns=5)
        other.append(rows(3), provenance=made(**changed))  # type: ignore[arg-type]
        refused(named, other)
    # Who said how images are prepared does not change what is computed.
    same = ov.FeatureBank.create(tmp_path / "same", columns=5)
    same.append(rows(3), provenance=made(preprocess={"size": [8, 8], "why": "guessed"}))
    a.append_bank(same)
    before = files(a.folder)
    # The second shard is damaged: the first, good one must not go in either.
    damaged = bank_of(tmp_path / "damaged", rows(2), rows(2, seed=1))
    overwrite(damaged.folder / "shard-000001.npy", -1, b"\x7e")
    refused(r"damaged/shard-000001\.npy: a file of the bank is not what was written", damaged)


# -- damage ----------------------------------------------------------------------------------------------------------


def overwrite(path: Path, position: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[position : position + len(data) or None] = data
    path.write_bytes(content)


def test_verify_names_every_damaged_file(place: Path) -> None:
    bank = ov.FeatureBank.create(place, columns=5)
    for number in range(5):
        bank.append(rows(3, seed=number), ["a", "b", "c"])
    bank.verify()
    overwrite(place / "shard-000000.npy", 130, b"\x01")
    with (place / "shard-000001.npy").open("r+b") as file:
        file.truncate(150)
    (place / "shard-000002.npy").unlink()
    overwrite(place / "shard-000003.json", 12, b"z")
    with pytest.raises(InputError) as error:
        bank.verify()
    assert str(error.value).startswith(
        f"{place}: the bank is damaged in 4 of its files; got shard-000000.npy is altered;"
        " shard-000001.npy is truncated to 150 of 188 bytes; shard-000002.npy is missing;"
        " shard-000003.json is altered."
    )
    # What is whole can still be read; what is not says so.
    np.testing.assert_array_equal(bank[12:], rows(3, seed=4))
    np.testing.assert_array_equal(bank[3], rows(3, seed=1)[0])
    with pytest.raises(InputError, match=r"shard-000001\.npy: a shard of the bank cannot be read; got it is shorter"):
        bank[:6]
    with pytest.raises(InputError, match=r"shard-000001\.npy: .* got it is shorter"):
        bank[[0, 5]]
    with pytest.raises(InputError, match=r"shard-000002\.npy: .* got No such file"):
        bank[7]


def change(place: Path, **changed: object) -> None:
    manifest = json.loads((place / "bank.json").read_bytes())
    (place / "bank.json").write_text(json.dumps(manifest | changed))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"schema_version": 2}, "written by a newer onnxviz; got schema version 2; allowed: up to 1"),
        ({"bank": "other"}, "not the manifest of a feature bank"),
        ({"columns": 0}, "0 where a whole number"),
        ({"columns": "5"}, "'5' where a whole number"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"shards": 3}, "TypeError"),
        ({"shards": [{}]}, "KeyError: 'file'"),
        ({"made_by": [{"model": "x"}]}, "TypeError"),
        (("file", "../secret.npy"), "file name of shard 0"),
        (("file", "/etc/passwd"), "file name of shard 0"),
        (("rows", -3), "-3 where a whole number"),
        (("offset", True), "True where a whole number"),
        (("sha256", "f"), "digest of shard 0"),
        (("made_by", 0), "maker of shard 0"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_none(place: Path, changed: dict | tuple, sentence: str) -> None:
    bank_of(place, rows(3))
    if isinstance(changed, tuple):
        (shard,) = json.loads((place / "bank.json").read_bytes())["shards"]
        changed = {"shards": [shard | {changed[0]: changed[1]}]}
    change(place, **changed)
    with pytest.raises(InputError, match=sentence):
        ov.FeatureBank.open(place)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 100_000])
def test_a_manifest_that_is_no_json(place: Path, data: bytes) -> None:
    bank = bank_of(place, rows(3))
    (place / "bank.json").write_bytes(data)
    with pytest.raises(InputError, match=r"bank\.json: not a manifest of a feature bank"):
        ov.FeatureBank.open(place)
    # An append that cannot know what the bank holds writes nothing, and leaves the lock to others.
    before = files(place)
    with pytest.raises(InputError, match="not a manifest"):
        bank.append(rows(3))
    assert files(place) == before
    FileLock(place / "bank.lock").release()


def test_names_that_are_not_those_that_were_written(place: Path) -> None:
    with ov.FeatureBank.create(place, columns=5) as bank:
        bank.append(rows(3), ["a", "b", "c"])
    overwrite(place / "shard-000000.json", 12, b"z")
    with pytest.raises(InputError, match=r"shard-000000\.json: a file of the bank is not what was written"):
        ov.FeatureBank.open(place).names  # noqa: B018


@pytest.mark.parametrize("data", [b"{", b'{"names": ["a"]}', b'{"classes": [0, 1, 2]}', b'{"skipped": [1]}'])
def test_names_that_do_not_fit_their_shard(place: Path, data: bytes) -> None:
    """Written by a stranger, with a digest that is right."""
    bank_of(place, rows(3), class_names=("ant", "bee"))
    (place / "shard-000000.json").write_bytes(data)
    (shard,) = json.loads((place / "bank.json").read_bytes())["shards"]
    change(place, shards=[shard | {"labels_sha256": hashlib.sha256(data).hexdigest()}])
    with pytest.raises(InputError):
        ov.FeatureBank.open(place).names  # noqa: B018
    with pytest.raises(InputError), ov.FeatureBank.create(place.parent / "whole", columns=5) as whole:
        whole.append_bank(ov.FeatureBank.open(place))


# -- one writer at a time --------------------------------------------------------------------------------------------

LOCKED = "somebody else is writing to this feature bank.*lock that another process.*Wait until it has ended"

HOLDS = """
import sys, numpy as np, onnxviz as ov
bank = ov.FeatureBank.open(sys.argv[1])
bank.append(np.ones((2, 5), np.float32))
print("holding", flush=True)
sys.stdin.read()
"""


def test_a_second_writer_is_refused_until_the_first_one_is_gone(place: Path) -> None:
    bank = bank_of(place, rows(3))
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "holding\n"
    with pytest.raises(InputError, match=LOCKED):
        bank.append(rows(1))
    with pytest.raises(InputError, match=LOCKED):
        ov.FeatureBank.open(place, lock=True)
    assert len(ov.FeatureBank.open(place)) == 5
    child.kill()
    child.communicate()
    # The dead process holds nothing, and what it appended is not lost though this object had not seen it.
    bank.append(rows(1, seed=9))
    np.testing.assert_array_equal(bank[:], np.concatenate([rows(3), np.ones((2, 5), np.float32), rows(1, seed=9)]))


def test_two_objects_of_one_process_are_two_writers(place: Path) -> None:
    first = ov.FeatureBank.create(place, columns=5)
    second = ov.FeatureBank.open(place)
    with pytest.raises(InputError, match=LOCKED):
        second.append(rows(1))
    first.append(rows(2))
    first.close()
    with second:
        second.append(rows(1))
        assert len(second) == 3
        with pytest.raises(InputError, match=LOCKED):
            first.append(rows(1))
    first.append(rows(1))
    del first
    second.append(rows(1))
    assert len(second) == 5


FORKS = """
import os, sys, time, numpy as np, onnxviz as ov
bank = ov.FeatureBank.create(sys.argv[1], columns=5)
bank.append(np.ones((2, 5), np.float32))
if os.fork() == 0:
    time.sleep(60)
elif os.fork() == 0:
    try:
        bank.append(np.ones((2, 5), np.float32))
    except ov.InputError as error:
        bank.close()
        print(error, flush=True)
    time.sleep(60)
else:
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_neither_writes_nor_keeps_the_lock_of_a_dead_parent(place: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", FORKS, str(place)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert "somebody else is writing" in parent.stdout.readline()
    with pytest.raises(InputError, match=LOCKED):
        ov.FeatureBank.open(place, lock=True)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    orphans = [int(child) for child in children.read_text().split()]
    parent.kill()
    parent.wait()
    try:
        with ov.FeatureBank.open(place) as bank:
            bank.append(rows(1))
        assert len(bank) == 3
    finally:
        for child in orphans:
            os.kill(child, 9)
        parent.stdout.close()


def test_threads_read_while_one_appends(place: Path) -> None:
    block = rows(600)
    bank = bank_of(place, block[:300])
    wrong: list[str] = []

    def read(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(60):
            chosen = random.integers(0, len(bank), 8)
            if not np.array_equal(bank[chosen], block[chosen]):
                wrong.append(f"{chosen}")

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for start in range(300, 600, 50):
        bank.append(block[start : start + 50])
    for thread in threads:
        thread.join()
    assert not wrong
    np.testing.assert_array_equal(bank[:], block)


# -- whole or not at all ---------------------------------------------------------------------------------------------

STEPS = ("open", "fsync", "replace", "mkdir", "unlink", "chmod")


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing that costs nothing: only a power cut, which no test can make, tells the difference."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Interrupted(BaseException):
    """What ends a process in the middle, for a test that goes on."""


def interrupt(
    patch: pytest.MonkeyPatch, at: int, stop: Callable[[], None], *, after: bool = False, ever: bool = False
) -> list[str]:
    """Call ``stop`` before, or right after, the file-system step number ``at``, or at each step from then on.

    Returns the names of the steps, which grow while they are taken.
    """
    taken: list[str] = []

    def hit(number: int) -> bool:
        return number >= at if ever else number == at

    def wrapped(name: str, plainly: Callable) -> Callable:
        def step(*arguments: object, **options: object) -> object:
            number = len(taken)
            taken.append(name)
            if hit(number) and not after:
                stop()
            result = None
            try:
                result = plainly(*arguments, **options)
            finally:
                if hit(number) and after:
                    if hasattr(result, "close"):
                        result.close()
                    stop()
            return result

        return step

    for name in STEPS:
        patch.setattr(os, name, wrapped(name, getattr(os, name)))
    # Path.open
    patch.setattr(io, "open", wrapped("io.open", io.open))
    return taken


def grow(place: Path) -> None:
    """What the tests below interrupt: create, append, merge two shards in."""
    with ov.FeatureBank.create(place, columns=5, class_names=("ant", "bee")) as bank:
        bank.append(rows(3), ["a", "b", "c"], [0, 1, 0])
        bank.append_bank(ov.FeatureBank.open(place.parent / "other"))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    with ov.FeatureBank.create(tmp_path / "other", columns=5, class_names=("bee", "cat")) as bank:
        bank.append(rows(2, seed=1), classes=[0, 1])
        bank.append(rows(4, seed=2), ["u", "v", "w", "x"])
    return tmp_path / "other"


def go_on(place: Path) -> None:
    """Finish what ``grow`` began, from whatever it left, and append one row more."""
    if not (place / "bank.json").exists():
        grow(place)
    bank = ov.FeatureBank.open(place)
    bank.verify()
    assert len(bank) in (0, 3, 9)
    np.testing.assert_array_equal(bank[:], np.concatenate([rows(3), rows(2, seed=1), rows(4, seed=2)])[: len(bank)])
    with bank:
        if len(bank) == 0:
            bank.append(rows(3), ["a", "b", "c"], [0, 1, 0])
        if len(bank) == 3:
            bank.append_bank(ov.FeatureBank.open(place.parent / "other"))
        bank.append(rows(1))


def undisturbed(folder: Path, other: Path) -> dict[str, bytes]:
    folder.mkdir()
    (folder / "other").symlink_to(other)
    grow(folder / "bank")
    with ov.FeatureBank.open(folder / "bank") as bank:
        bank.append(rows(1))
    return files(folder / "bank")


KILLED = """
import os, signal, sys
from pathlib import Path
import pytest
sys.path.insert(0, sys.argv[1])
from test_feature_bank import go_on, grow, interrupt
place, after = Path(sys.argv[2]), sys.argv[3] == "after"
os.fsync = lambda descriptor: None
at = 0
while True:
    folder = place / f"{at}"
    folder.mkdir()
    (folder / "other").symlink_to(place / "other")
    child = os.fork()
    if child == 0:
        interrupt(pytest.MonkeyPatch(), at, lambda: os.kill(os.getpid(), signal.SIGKILL), after=after)
        grow(folder / "bank")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status == 0:
        print(at)
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    at += 1
"""


@pytest.mark.usefixtures("unsynced")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_between_any_two_steps_loses_and_doubles_nothing(when: str, tmp_path: Path, other: Path) -> None:
    """Each step in a process of its own that is killed there, so that no clean-up of Python's can help."""
    wanted = undisturbed(tmp_path / "undisturbed", other)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path), when],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = int(done.stdout)
    assert steps > 30
    lengths = set()
    for at in range(steps):
        place = tmp_path / str(at) / "bank"
        if (place / "bank.json").exists():
            lengths.add(len(ov.FeatureBank.open(place)))
        go_on(place)
        # Byte for byte what an undisturbed run leaves, and no file beside it.
        assert files(place) == wanted, at
    assert lengths == {0, 3, 9}


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_step_leaves_the_bank_as_it_was(number: int, tmp_path: Path, other: Path) -> None:
    """The same object goes on after the error: what it says went in is in, once; what it refused is not."""
    wanted = undisturbed(tmp_path / "undisturbed", other)

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    for at in itertools.count():
        folder = tmp_path / str(at)
        folder.mkdir()
        (folder / "other").symlink_to(other)
        second = ov.FeatureBank.open(folder / "other")
        assert second.names is not None
        bank = ov.FeatureBank.create(folder / "bank", columns=5, class_names=("ant", "bee"))
        bank.append(rows(3), ["a", "b", "c"], [0, 1, 0])
        before = files(folder / "bank")
        with pytest.MonkeyPatch.context() as patch:
            taken = interrupt(patch, at, fail)
            error = attempt(lambda: bank.append_bank(second))  # noqa: B023
        if error is not None:
            full = number == errno.ENOSPC and "cannot be read" not in str(error)
            assert isinstance(error, LimitError if full else InputError)
            assert one_sentence(str(error))
            assert files(folder / "bank") == before, (at, taken)
            assert len(bank) == 3
            bank.append_bank(second)
        bank.append(rows(1))
        bank.verify()
        assert files(folder / "bank") == wanted, (at, taken)
        if at >= len(taken):
            break
    assert at > 20


def attempt(act: Callable[[], None]) -> BaseException | None:
    """What it raised."""
    try:
        act()
    except BaseException as error:
        return error
    return None


def one_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text and "Traceback" not in text


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("ever", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_at_any_step_leaves_an_object_that_goes_on(
    after: bool, ever: bool, tmp_path: Path, other: Path
) -> None:
    """Interrupted once, or again and again while it cleans up."""
    wanted = undisturbed(tmp_path / "undisturbed", other)

    def stop() -> None:
        raise Interrupted

    found = set()
    for at in itertools.count():
        folder = tmp_path / str(at)
        folder.mkdir()
        second = ov.FeatureBank.open(other)
        assert second.names is not None
        bank = ov.FeatureBank.create(folder / "bank", columns=5, class_names=("ant", "bee"))
        bank.append(rows(3), ["a", "b", "c"], [0, 1, 0])
        with pytest.MonkeyPatch.context() as patch:
            taken = interrupt(patch, at, stop, after=after, ever=ever)
            error = attempt(lambda: bank.append_bank(second))  # noqa: B023
        assert isinstance(error, Interrupted) == (at < len(taken))
        count = len(ov.FeatureBank.open(folder / "bank"))
        found.add(count)
        if not ever:
            assert len(bank) == count
        if count == 3:
            bank.append_bank(second)
        bank.append(rows(1))
        bank.verify()
        assert files(folder / "bank") == wanted, (at, taken)
        if at >= len(taken):
            break
    assert found == {3, 9}


def test_names_are_on_disk_before_what_relies_on_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut needs: each file is synced before it is renamed, and the folder before the manifest is."""
    bank = ov.FeatureBank.create(place, columns=5)
    happened: list[tuple[str, str]] = []
    synced: set[int] = set()
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        synced.add(status.st_ino)
        if status.st_ino == place.stat().st_ino:
            happened.append(("sync", "folder"))

    def noted_replace(source: str, target: str) -> None:
        assert Path(source).stat().st_ino in synced
        replace(source, target)
        happened.append(("rename", Path(target).name))

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    bank.append(rows(3), ["a", "b", "c"])
    assert happened == [
        ("rename", "shard-000000.npy"), ("rename", "shard-000000.json"), ("sync", "folder"),
        ("rename", "bank.json"), ("sync", "folder"),
    ]  # fmt: skip


def test_leftovers_of_a_kill_are_ignored_and_swept_away(place: Path) -> None:
    bank_of(place, rows(3))
    for name in (".onnxviz-abc", "shard-000001.npy", "shard-000001.json", "shard-000007.npy"):
        (place / name).write_bytes(b"torn")
    (place / "notes.txt").write_text("mine")
    bank = ov.FeatureBank.open(place)
    np.testing.assert_array_equal(bank[:], rows(3))
    bank.verify()
    bank.append(rows(2, seed=1))
    assert set(files(place)) == {"bank.json", "bank.lock", "shard-000000.npy", "shard-000001.npy", "notes.txt"}
    np.testing.assert_array_equal(bank[:], np.concatenate([rows(3), rows(2, seed=1)]))


def test_a_disk_that_is_full(small_disk: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = small_disk or tmp_path / "limited"
    if small_disk is None:
        place.mkdir()
        room = [1 << 20]
        plainly = os.fsync

        def limited(descriptor: int) -> None:
            room[0] -= os.fstat(descriptor).st_size
            if room[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            plainly(descriptor)

        monkeypatch.setattr(os, "fsync", limited)
    block = rows(1000, 64)
    bank = ov.FeatureBank.create(place / "bank", columns=64)
    appended = 0
    while (error := attempt(lambda: bank.append(block))) is None:
        appended += 1
    assert isinstance(error, LimitError)
    assert "bank: the disk is full; what was there before is unchanged. Free some" in str(error)
    assert 1 <= appended <= 4
    assert len(bank) == len(ov.FeatureBank.open(place / "bank")) == 1000 * appended
    assert len(files(place / "bank")) == 2 + appended
    bank.verify()
    if small_disk is not None:
        # A smaller block fits: the disk was given back what the torn shard took.
        bank.append(block[:10])
        np.testing.assert_array_equal(bank[-10:], block[:10])
    bank.close()


# -- memory and time -------------------------------------------------------------------------------------------------

READS = """
import sys, numpy as np, onnxviz as ov
def peak():
    # Not getrusage: it begins with what the parent had.
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
bank = ov.FeatureBank.open(sys.argv[1])
before = peak()
chosen = np.arange(7, len(bank), 1999)
found = np.concatenate([bank[chosen], bank[20000:20003]])
for block in bank.blocks(500):
    found = np.concatenate([found, block[:1]])
print(peak() - before, float(found.sum()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc here")
def test_reading_some_rows_of_a_large_bank_does_not_load_it(place: Path) -> None:
    block = rows(12_500, 1024)
    with ov.FeatureBank.create(place, columns=1024) as bank:
        for number in range(4):
            bank.append(block + np.float32(number))
    assert len(bank) * 4096 > 200e6
    read = subprocess.run([sys.executable, "-c", READS, str(place)], capture_output=True, text=True, check=True)
    growth, total = (float(word) for word in read.stdout.split())
    assert growth < 20_000  # kB; one shard has 51,200
    chosen = np.concatenate([np.arange(7, 50_000, 1999), [20000, 20001, 20002], np.arange(0, 50_000, 500)])
    wanted = block[chosen % 12_500] + (chosen // 12_500).astype(np.float32)[:, None]
    assert total == float(wanted.sum())


def test_an_append_costs_the_same_however_many_rows_there_are(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text that is written anew with each append grows by one line for each shard, not with the rows."""
    bank = ov.FeatureBank.create(place, columns=1)
    sizes = []
    for number in range(20):
        bank.append(rows(500, 1), [f"{number}/{row}.png" for row in range(500)], provenance=made())
        sizes.append((place / "bank.json").stat().st_size)
    growth = set(np.diff(sizes).tolist())
    assert max(growth) < 320
    written: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (written.append(os.fstat(descriptor).st_size), fsync(descriptor))
    )
    bank.append(rows(1, 1), ["x"])
    assert sum(written) < sizes[-1] + 10_000


def test_a_bank_says_what_it_is(place: Path) -> None:
    bank = bank_of(place, rows(3))
    assert repr(bank) == f"FeatureBank({str(place)!r}: 3 rows of 5 float32 columns)"
    assert dataclasses.is_dataclass(bank.shards[0])
