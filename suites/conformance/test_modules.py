"""The laws of torch modules hold for every deep reference model: modes, graphs, saving, devices, dtypes."""

from __future__ import annotations

import pytest

from harness import check_model
from harness.evidence import Verdict
from reference_impls import (
    coupling,
    dequantisation,
    diffusion,
    flows,
    made,
    masked_flows,
    nade,
    palette,
    planar,
    rnade,
    splines,
    transformer,
    vae,
)

MODELS = (
    coupling.class_conditional,
    coupling.realnvp,
    dequantisation.variational_pair,
    diffusion.untrained,
    flows.affine,
    made.labelled_bits,
    made.eight_bits,
    masked_flows.iaf_triple,
    masked_flows.maf_pair,
    nade.eight_bits,
    palette.learnt_inpainting,
    planar.folded,
    rnade.three_numbers,
    splines.spline_coupling,
    transformer.four_tokens,
    vae.nine_pixels,
    vae.six_pixels,
)


@pytest.mark.parametrize("make", MODELS, ids=lambda make: f"{make.__module__.split('.')[-1]}.{make.__name__}")
def test_a_reference_module_passes_or_says_why_not(make):
    records = check_model(make(), effort="quick", only=["module"]).records
    verdicts = {each.check: (each.verdict, each.message) for each in records if each.check.startswith("module.")}
    assert {verdict for verdict, _ in verdicts.values()} <= {Verdict.PASS, Verdict.SKIP}, verdicts
    for law in ("module.saved_and_loaded", "module.in_evaluation_mode", "module.calls_leave_mode"):
        assert verdicts[law][0] is Verdict.PASS, verdicts[law]
