"""Class names from files, sequences and mappings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnxviz.errors import ContractError
from onnxviz.runtime.labels import fit_labels, read_labels


def test_text_json_list_and_json_object_say_the_same(tmp_path: Path) -> None:
    text, listed, mapped = tmp_path / "a.txt", tmp_path / "b.json", tmp_path / "c.json"
    text.write_text("cat\ndog\n\n", encoding="utf-8")
    listed.write_text(json.dumps(["cat", "dog"]))
    mapped.write_text(json.dumps({"1": ["n02", "dog"], "0": ["n01", "cat"]}))
    assert read_labels(text) == read_labels(listed) == read_labels(mapped) == ("cat", "dog")


def test_a_background_class_gets_its_name() -> None:
    assert fit_labels(("cat", "dog"), 3) == ("background", "cat", "dog")


@pytest.mark.parametrize("count", [1, 4])
def test_labels_of_another_model_are_refused(count: int) -> None:
    with pytest.raises(ContractError, match=rf"got {count} names"):
        fit_labels(("x",) * count, 3)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[1, ", "not valid JSON"),
        (b'{"0": "a", "2": "b"}', "leave out"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'{"a": "b"}', "indices"),
    ],
)
def test_broken_files_are_told_in_a_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    file = tmp_path / "labels.json"
    file.write_bytes(content)
    with pytest.raises(ContractError, match=sentence):
        read_labels(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"no\.txt"):
        read_labels(tmp_path / "no.txt")
