"""The verdict's rules: thresholds from both sides, what is not checked and why, and broken networks that must be found."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from graphs import save, tiny_network
from onnxviz.disk import write_file
from onnxviz.embedded import embedded_sets
from onnxviz.errors import InputError, LimitError
from onnxviz.report import AuditResult, audit, writer
from onnxviz.report.rules import RULES, ChannelCount, Difference, Duplicates, Facts, Scores, evaluate
from onnxviz.report.writer import ReportFolder
from onnxviz.runtime.opening import load


def scores(**changed: Any) -> Scores:
    known: dict[str, Any] = {
        "images": 40, "classes": 10, "spread": 0.9, "one_class_share": 0.2, "one_class": "cat", "saturated_share": 0.1,
        "median_confidence": 0.8, "normalised": True,
    }  # fmt: skip
    return Scores(**(known | changed))


@pytest.mark.parametrize(
    ("rule", "facts", "status"),
    [
        ("preprocess_known", Facts(preprocess={"guessed": True, "why": "w"}), "finding"),
        ("preprocess_known", Facts(preprocess={"guessed": False, "why": "w", "source": "sidecar"}), "passed"),
        ("preprocess_known", Facts(), "not checked"),
        ("output_known", Facts(output={"guessed": True, "why": "w"}), "finding"),
        ("output_known", Facts(output={}, has_output=False), "not checked"),
        ("weights_finite", Facts(weights={"w": 2}, weights_scanned=3), "finding"),
        ("weights_finite", Facts(weights={}, weights_scanned=3), "passed"),
        ("values_finite", Facts(values_scanned=2, non_finite_values={"a": 0, "b": 1}), "finding"),
        ("values_finite", Facts(values_scanned=2, non_finite_values={"a": 0}), "passed"),
        ("predictions_vary", Facts(scores=scores(one_class_share=0.95)), "finding"),
        ("predictions_vary", Facts(scores=scores(one_class_share=0.94)), "passed"),
        # Photographs that all show one thing get one class from a good network.
        ("predictions_vary", Facts(scores=scores(one_class_share=0.97), largest_class_share=0.99), "passed"),
        ("predictions_vary", Facts(scores=scores(images=19, one_class_share=1.0)), "passed"),
        ("predictions_vary", Facts(scores=scores(spread=9e-5)), "finding"),
        ("predictions_vary", Facts(scores=scores(images=1)), "not checked"),
        ("confidence_plausible", Facts(scores=scores(saturated_share=0.9)), "finding"),
        ("confidence_plausible", Facts(scores=scores(saturated_share=0.89)), "passed"),
        ("confidence_plausible", Facts(scores=scores(median_confidence=0.19)), "finding"),
        ("confidence_plausible", Facts(scores=scores(median_confidence=0.21)), "passed"),
        ("confidence_plausible", Facts(scores=scores(normalised=False)), "not checked"),
        # Twice the chance of two classes is certainty, which no network has to reach.
        ("confidence_plausible", Facts(scores=scores(classes=2, median_confidence=0.55)), "finding"),
        ("confidence_plausible", Facts(scores=scores(classes=2, median_confidence=0.57)), "passed"),
        ("confidence_plausible", Facts(scores=scores(classes=1, median_confidence=0.3)), "not checked"),
        ("predictions_vary", Facts(scores=scores(classes=1, one_class_share=1.0)), "passed"),
        ("predictions_vary", Facts(scores=scores(classes=1, spread=9e-5)), "finding"),
        ("channels_alive", Facts(images=40, channels=[ChannelCount("v", 10, 6, 0)]), "finding"),
        ("channels_alive", Facts(images=40, channels=[ChannelCount("v", 10, 5, 0)]), "passed"),
        # Few images may simply not hold what a channel looks for, but a whole value that is silent is dead.
        ("channels_alive", Facts(images=19, channels=[ChannelCount("v", 10, 9, 0)]), "not checked"),
        ("channels_alive", Facts(images=19, channels=[ChannelCount("v", 10, 10, 0)]), "finding"),
        ("channels_alive", Facts(images=1, channels=[ChannelCount("v", 10, 10, 0)]), "not checked"),
        ("channels_unsaturated", Facts(images=40, channels=[ChannelCount("v", 10, 0, 2)]), "finding"),
        ("channels_unsaturated", Facts(images=40, channels=[ChannelCount("v", 10, 0, 1)]), "passed"),
        ("accuracy", Facts(scores=scores(), accuracy=0.29, labelled=40), "finding"),
        ("accuracy", Facts(scores=scores(), accuracy=0.31, labelled=40), "passed"),
        ("accuracy", Facts(scores=scores(classes=1000), accuracy=0.24, labelled=40), "finding"),
        ("accuracy", Facts(scores=scores(), accuracy=0.1, labelled=19), "not checked"),
        ("accuracy", Facts(scores=scores()), "not checked"),
        ("features_beat_pixels", Facts(feature_accuracy=0.3, pixel_accuracy=0.4, compared=40), "finding"),
        ("features_beat_pixels", Facts(feature_accuracy=0.4, pixel_accuracy=0.4, compared=40), "passed"),
        ("features_beat_pixels", Facts(feature_accuracy=0.3, pixel_accuracy=0.4, compared=19), "not checked"),
        ("images_distinct", Facts(duplicates=Duplicates(200, 2, 1, 0, ())), "passed"),
        ("images_distinct", Facts(duplicates=Duplicates(200, 3, 2, 0, ())), "finding"),
        # One pair with two labels is a contradiction however many images there are.
        ("images_distinct", Facts(duplicates=Duplicates(2000, 2, 1, 1, ("a (cat) and b (dog)",))), "finding"),
        ("images_distinct", Facts(duplicates=Duplicates(20, 0, 0, 0, ())), "passed"),
        ("images_distinct", Facts(duplicates=Duplicates(19, 19, 40, 3, ("a and b",))), "not checked"),
        ("images_distinct", Facts(), "not checked"),
        ("batch_equals_single", Facts(batch=Difference(1.1e-4, 1.0, 0.0, "x")), "finding"),
        ("batch_equals_single", Facts(batch=Difference(0.9e-4, 1.0, 0.0, "x")), "passed"),
        ("batch_equals_single", Facts(batch=Difference(float("inf"), 1.0, 0.0, "x")), "finding"),
        ("batch_equals_single", Facts(batch=Difference(float("nan"), 1.0, 0.0, "x")), "finding"),
        # One step of an integer output may fall either way.
        ("batch_equals_single", Facts(batch=Difference(1.0, 255.0, 1.0, "x")), "passed"),
        ("taps_change_nothing", Facts(taps=Difference(2e-4, 1.0, 0.0, "x")), "finding"),
        ("images_read", Facts(images=3, skipped=[("a", "b")]), "finding"),
        ("images_read", Facts(images=3), "passed"),
        ("images_read", Facts(unused_images="the model takes no image: it has no input"), "finding"),
        ("images_read", Facts(), "not checked"),
        ("sections_complete", Facts(failed=[("Filters", "boom")]), "finding"),
    ],
)  # fmt: skip
def test_thresholds(rule: str, facts: Facts, status: str) -> None:
    line = next(line for line in evaluate(facts) if line.rule == rule)
    assert line.status == status
    assert line.found if status != "not checked" else line.why
    assert line.why if status == "finding" else True


def test_every_rule_answers_on_nothing_with_a_reason() -> None:
    lines = evaluate(Facts(missing={"accuracy": "no images were given"}))
    assert [line.rule for line in lines] == [rule.name for rule in RULES]
    assert len({line.rule for line in lines}) == len(lines)
    for line in lines:
        assert line.threshold
        assert line.status == "not checked" or line.rule in ("output_known", "sections_complete"), line
        assert line.status == "passed" or line.why
    assert next(line.why for line in lines if line.rule == "accuracy") == "no images were given"


# -- Networks that are broken on purpose --------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(1)
    for index in range(6):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def statuses(result: AuditResult) -> dict[str, str]:
    return {line.rule: line.status for line in result.verdicts["model"]}


def test_a_dead_network_is_found(images: Path, tmp_path: Path) -> None:
    network = tiny_network()
    for tensor in network.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))
    path = save(network, tmp_path / "dead.onnx")
    found = statuses(audit(path, images, out=tmp_path / "report", preprocess="unit", occlusion_budget=0))
    assert found["predictions_vary"] == "finding"
    assert found["channels_alive"] == "finding"
    assert found["confidence_plausible"] == "finding"
    assert found["weights_finite"] == found["values_finite"] == found["sections_complete"] == "passed"


def test_a_batch_that_mixes_its_images_is_found(images: Path, tmp_path: Path) -> None:
    network = tiny_network()
    # Centred on the mean of the batch: what a normalisation exported in training mode does.
    nodes = list(network.graph.node)
    nodes[4].input[0] = "centred"
    mean = helper.make_node("ReduceMean", ["features"], ["mean"], axes=[0], keepdims=1)
    centred = helper.make_node("Sub", ["features", "mean"], ["centred"])
    del network.graph.node[:]
    network.graph.node.extend([*nodes[:4], mean, centred, *nodes[4:]])
    path = save(network, tmp_path / "mixing.onnx")
    result = audit(path, images, out=tmp_path / "report", preprocess="unit", occlusion_budget=0)
    assert statuses(result)["batch_equals_single"] == "finding"
    assert result.exit_code == 1


def test_wrong_preprocessing_is_found(tmp_path: Path) -> None:
    """The embedded network's own images at 255 times their scale: its confidence saturates, its accuracy falls."""
    chosen = next(one for one in embedded_sets() if one.name == "fashion_7x7_4096")
    right = load(chosen.model, device="cpu")
    assert right.preprocess is not None
    contract = right.preprocess.to_json()
    wrong = load(chosen.model, device="cpu", preprocess=contract | {"scale": 255 * contract["scale"]})
    result = audit(wrong, chosen.load_images(wrong).sample(24, 0), out=tmp_path / "report", occlusion_budget=0)
    assert statuses(result)["confidence_plausible"] == "finding"
    assert statuses(result)["preprocess_known"] == "passed"


# -- Writing ------------------------------------------------------------------------------------------------------


def publish(out: Path, content: str) -> None:
    with ReportFolder(out) as folder:
        folder.add("figures/a.png", content.encode())
        folder.add("results.json", b'{"report": "onnxviz"}')
        folder.publish()


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ENOSPC, LimitError, "disk is full"),
        (errno.EDQUOT, LimitError, "disk is full"),
        (errno.EROFS, InputError, "no permission"),
        (errno.EIO, InputError, "cannot be written"),
    ],
)
@pytest.mark.parametrize("failing", range(1, 5))
def test_whatever_the_disk_refuses_leaves_the_old_report(
    number: int, kind: type[Exception], text: str, failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files and two folders are synced before the exchange; each of the four may be what fails."""
    out = tmp_path / "report"
    publish(out, "old")
    synced = 0
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        if synced == failing:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(kind, match=text):
        publish(out, "new")
    assert (out / "figures" / "a.png").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    synced = failing - 1
    with pytest.raises(kind, match=text):
        write_file(tmp_path / "picture.png", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_two_renames_do_where_the_system_knows_no_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "report"
    publish(out, "old")
    monkeypatch.setattr(writer.sys, "platform", "elsewhere")
    publish(out, "new")
    assert (out / "figures" / "a.png").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_link_to_a_report_stays_a_link(tmp_path: Path) -> None:
    publish(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    publish(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "figures" / "a.png").read_text() == "new"
