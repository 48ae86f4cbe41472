"""Every real model and every light architecture through ``audit`` with 24 photographs: which sections stand, and why not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image, ImageOps

from graphs import save
from light_models import LIGHT, with_random_weights
from onnxviz.report import AuditResult, audit
from zoo_models import ZOO, ZooModel

PHOTOS = Path(__file__).parents[1] / "models" / "photos"
COUNT = 24

SECTIONS = (
    "model", "images", "predictions", "filters", "activations", "patches", "occlusion", "explanations", "trust",
    "neighbors", "near_duplicates", "label_suspects", "hubness", "embedding", "grid", "class_pictures", "provenance",
)  # fmt: skip
FIGURES = {
    "predictions": 1, "filters": 1, "activations": 2, "patches": 1, "occlusion": 1, "explanations": 1, "neighbors": 1,
    "near_duplicates": 1, "label_suspects": 2, "embedding": 2, "grid": 1,
    "class_pictures": 1, "trust": 1,
}  # fmt: skip
"""At least so many pictures in a section that was made."""

# Occlusion costs at least fifty runs: what is dearer than four times the small budget here says so with its arithmetic.
TOO_COSTLY = r"skipped: too costly: One run costs .*MAC; .* makes 0 of 24 images\. A larger budget can be set\."
TOO_COSTLY_TO_DERIVE = r"skipped: too costly: One pass, .*MAC; .* makes 0 of 3 images\. A larger budget can be set\."
TOO_COSTLY_TO_TRUST = r"skipped: too costly: One trial .*MAC; .* makes 0 trials\. A larger budget can be set\."
TOO_COSTLY_TO_DRAW = r"skipped: too costly: One step, .*MAC; .* makes 0 of 1,000 classes\. A larger budget can be set\."

EXPECTED: dict[str, dict[str, str]] = {
    "squeezenet1.1-imagenet": {},
    "efficientnet-lite0-torchscript-op13": {},
    "efficientnet-lite0-dynamo-op20": {},
    "mobilenet_v2_tflite_float_op13": {},
    "mobilenet_v2_tflite_qdq_op13": {},
    "mobilenet_v1_05_160_float_op13": {},
    "mobilenet_v1_025_128_qdq_op13": {},
    "mlperf_tiny_resnet8_keras": {},
    "mlperf_tiny_resnet_large": {},
    "mlperf_tiny_resnet8_qdq": {},
    "vnn_cifar10_resnet4b": {},
    "vnn_marabou_cifar10_large": {},
    "cifar10_7x7_4096": {},
    "light_bvlc_alexnet": {"class_pictures": TOO_COSTLY_TO_DRAW},
    "light_densenet121": {"class_pictures": TOO_COSTLY_TO_DRAW},
    "light_inception_v1": {"class_pictures": TOO_COSTLY_TO_DRAW},
    "light_inception_v2": {"class_pictures": TOO_COSTLY_TO_DRAW},
    "light_resnet50": {"class_pictures": TOO_COSTLY_TO_DRAW},
    "light_shufflenet": {},
    "light_squeezenet": {},
    "light_vgg19": {
        "occlusion": TOO_COSTLY,
        "explanations": TOO_COSTLY_TO_DERIVE,
        "class_pictures": TOO_COSTLY_TO_DRAW,
    },
    "light_zfnet512": {"class_pictures": TOO_COSTLY_TO_DRAW},
}
"""For each model the sections that it cannot have, with the reason that the report must show; all others are made."""

QUICK = {"mobilenet_v1_05_160_float_op13", "mlperf_tiny_resnet8_qdq", "cifar10_7x7_4096", "light_squeezenet"}
"""The default run: float and QDQ, uint8 and float input, NCHW and NHWC, a fixed batch of one."""


TRIED = {"mlperf_tiny_resnet8_qdq", "cifar10_7x7_4096"}
"""Those whose maps are tested within the budget at any rate."""


def cases(names: list[str]) -> list[object]:
    return [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in names]


FEW = {"hubness": "skipped: 24 images; at least 50 are needed"}
UNLABELLED = {"label_suspects": "skipped: no image has a label; .*"}
"""The CIFAR images lie in class folders, the photographs do not."""


def check(result: AuditResult, name: str, *, labelled: bool = False) -> dict[str, object]:
    # Four trials cost as much as some 340 runs: only small networks have them within these budgets.
    trust = {} if name in TRIED else {"trust": f"made|{TOO_COSTLY_TO_TRUST}"}
    expected = EXPECTED[name] | FEW | ({} if labelled else UNLABELLED) | trust
    states = result.sections["model"]
    assert tuple(states) == SECTIONS
    for section, state in states.items():
        assert re.fullmatch(expected.get(section, "made"), state, re.DOTALL), f"{section}: {state}"
    document = json.loads((result.path / "results.json").read_bytes())
    (model,) = document["models"]
    page = (result.path / "index.html").read_text(encoding="utf-8")
    for section, content in model["sections"].items():
        if content["status"] == "made":
            assert len(content["figures"]) >= FIGURES.get(section, 0), section
            for figure in content["figures"]:
                with Image.open(result.path / figure["file"]) as picture:
                    assert np.ptp(np.asarray(picture.convert("L"))) > 100, figure["file"]
        else:
            # The page escapes what the reason quotes.
            assert content["reason"].split("'")[0] in page
    assert page.count("<img ") == sum(len(content["figures"]) for content in model["sections"].values())
    assert "Traceback" not in page
    statuses = {line["rule"]: line["status"] for line in model["verdict"]}
    assert statuses["sections_complete"] == "passed"
    for rule in ("weights_finite", "values_finite", "images_read"):
        assert statuses[rule] == "passed", rule
    return {line["rule"]: line for line in model["verdict"]}


def test_the_table_names_every_model() -> None:
    light = {path for path in EXPECTED if path.startswith("light_")}
    assert set(EXPECTED) - light == {entry.name for entry in ZOO}
    assert len(light) == 9


@pytest.mark.parametrize("name", cases([entry.name for entry in ZOO]))
def test_zoo_model(name: str, zoo: Path, tmp_path: Path) -> None:
    entry: ZooModel = next(entry for entry in ZOO if entry.name == name)
    result = audit(
        entry.path(zoo), zoo / "images" / entry.images, out=tmp_path / "report", preprocess=entry.preprocess,
        labels=entry.labels(zoo), limit=COUNT, device="cpu", occlusion_budget=20 * 10**9 if name in QUICK else 10**11,
    )  # fmt: skip
    verdict = check(result, name, labelled=entry.images == "cifar10")
    for rule in ("preprocess_known", "predictions_vary", "confidence_plausible", "batch_equals_single"):
        assert verdict[rule]["status"] == "passed", verdict[rule]
    # 24 images are enough to know whether a network of this accuracy sees what it was trained on.
    assert verdict["accuracy"]["status"] == ("passed" if entry.images == "cifar10" else "not checked")


def photographs() -> list[Image.Image]:
    photos = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    return [*photos, *(ImageOps.mirror(photo) for photo in photos)][:COUNT]


@pytest.mark.parametrize("name", cases([name for name in EXPECTED if name.startswith("light_")]))
def test_light_model(name: str, tmp_path: Path) -> None:
    number = sorted(other for other in EXPECTED if other.startswith("light_")).index(name)
    model = save(with_random_weights(onnx.load(LIGHT / f"{name}.onnx"), seed=number), tmp_path / f"{name}.onnx")
    result = audit(
        model, photographs(), out=tmp_path / "report", preprocess="imagenet", device="cpu",
        occlusion_budget=55 * 10**9,
    )  # fmt: skip
    verdict = check(result, name)
    assert verdict["preprocess_known"]["status"] == "passed"
    assert verdict["taps_change_nothing"]["status"] == "passed", verdict["taps_change_nothing"]
