"""Feature banks: rows come back as they went in, what does not fit is refused, and damage is named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxviz as ov
from feature_bank_cases import bank_of, files, made, rows
from onnxviz.disk import FileLock
from onnxviz.errors import InputError
from onnxviz.inputs.image_set import Skipped


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "bank"


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
