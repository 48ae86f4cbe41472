"""The report's section that tests its own maps, and the command that does the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from typer.testing import CliRunner

import onnxviz as ov
from embedded_cifar import cifar_model, pictures
from graphs import build, save
from onnxviz.cli.app import app
from onnxviz.report.budget import plan_trust
from onnxviz.report.examination import Examination, Options
from onnxviz.report.section import Section, SectionSkipped
from onnxviz.report.sections import SECTIONS
from onnxviz.report.sections.trust import make

GIGA = 10**9


@pytest.mark.parametrize(
    ("budget", "trials"),
    [
        # A trial is 28 passes of three runs; the share is a quarter.
        pytest.param(4 * 84 * 10, 10, id="ten"),
        pytest.param(4 * 84 * 10 - 1, 9, id="not-quite-ten"),
        pytest.param(4 * 84 * 1000, 40, id="most"),
        pytest.param(4 * 84, 4, id="four-at-any-rate"),
        pytest.param(4 * 84 - 4, 0, id="too-costly"),
    ],
)
def test_the_budget_follows_from_counted_work(budget: int, trials: int) -> None:
    plan = plan_trust(GIGA, budget=budget * GIGA)
    assert plan.trials == trials
    assert plan.macs == trials * 84 * GIGA
    assert f"{trials} trials" in plan.text


def filled(model: ov.Model, budget: int = 10**12) -> Section:
    side = model.preprocess.size[0]
    images = ov.load_images(pictures(3)[:, :side, :side], model)
    section = next(outline for outline in SECTIONS if outline.name == "trust").empty()
    make(Examination(model, images, "", Options(occlusion_budget=budget)), section)
    return section


def test_a_section_on_a_real_network() -> None:
    model = cifar_model()
    section = filled(model, 4 * 84 * 6 * model.macs)
    assert [figure.name for figure in section.figures] == ["planted-cause", "randomisation"]
    planted = section.numbers["planted_cause"]
    assert planted["trials"] == 6
    rates = dict(zip(planted["methods"], planted["rates"], strict=True))
    assert all(rates[name] == 1 for name in ("saliency", "gradient-x-input", "integrated-gradients"))
    assert max(rates["random"], rates["edges"]) < 0.6
    check = section.numbers["randomization_check"]
    assert check["correlations"][-1] == [1, 1, 1]
    assert check["shuffled"][-1] == len(check["layers"])
    json.dumps(section.numbers)
    assert section.tables[0].rows[0][1] == "6 of 6"


def test_a_network_without_a_derivative_is_told_so(tmp_path: Path) -> None:
    proto = build(
        [
            helper.make_node("GridSample", ["image", "grid"], ["sampled"]),
            helper.make_node("Flatten", ["sampled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        ],
        inputs={"image": ("float", [1, 3, 16, 16])},
        outputs={"logits": ("float", [1, 5])},
        weights={
            "w": np.random.default_rng(0).standard_normal((48, 5)).astype(np.float32),
            "grid": np.random.default_rng(1).uniform(-1, 1, (1, 4, 4, 2)).astype(np.float32),
        },
    )
    model = ov.load(save(proto, tmp_path / "net.onnx"), preprocess="unit", device="cpu")
    with pytest.raises(SectionSkipped, match="GridSample"):
        filled(model)


def test_the_command(tmp_path: Path) -> None:
    from PIL import Image

    model = cifar_model()
    for number in range(2):
        view = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(view).save(tmp_path / f"{number}.png")
    runner = CliRunner()
    for check in ("planted-cause", "randomization"):
        out, numbers = tmp_path / "out" / f"{check}.png", tmp_path / "out" / f"{check}.json"
        out.parent.mkdir(exist_ok=True)
        done = runner.invoke(
            app,
            ["trust", str(model.path), str(tmp_path), "--check", check, "--method", "saliency", "--trials", "3", "-q",
             "-o", str(out), "--json", str(numbers)],
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert out.stat().st_size > 10_000
        assert json.loads(numbers.read_text())
    refused = runner.invoke(app, ["trust", str(model.path), str(tmp_path), "--check", "planted", "-q"])
    assert refused.exit_code == 2
