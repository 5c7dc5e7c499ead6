"""Which provider runs a graph, and what it says when it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from policy import onnx_session
from policy.onnx_session import OnnxSession, PolicyError, TensorSpec, cuda_is_usable
from robot.errors import BadInputError
from tests.tiny_bundle import tiny_graphs, tiny_manifest

INPUTS: dict[str, TensorSpec] = {"features": ((1, 6), np.float32), "proprio": ((1, 4), np.float32)}
OUTPUTS: dict[str, TensorSpec] = {"chunk": ((1, 4, 5), np.float32)}
ACT = tiny_graphs(tiny_manifest())["act"]


def test_auto_takes_cuda_exactly_where_it_is_usable() -> None:
    session = OnnxSession(ACT, "act.onnx", inputs=INPUTS, outputs=OUTPUTS)
    assert session.provider == ("CUDAExecutionProvider" if cuda_is_usable() else "CPUExecutionProvider")


def test_asking_for_an_absent_cuda_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_session, "cuda_is_usable", lambda: False)
    with pytest.raises(BadInputError) as caught:
        OnnxSession(ACT, "act.onnx", inputs=INPUTS, outputs=OUTPUTS, provider="cuda")
    assert str(caught.value) == "act.onnx: provider 'cuda' is not usable here; install its driver or use 'auto'"


def test_an_unexpected_output_is_refused() -> None:
    with pytest.raises(BadInputError) as caught:
        OnnxSession(ACT, "act.onnx", inputs=INPUTS, outputs={}, provider="cpu")
    assert str(caught.value) == "act.onnx: output 'chunk' is not in the manifest (allowed []); export the policy again"


def test_the_runtime_is_told_to_use_one_thread_and_not_to_spin() -> None:
    options = onnx_session._options(1)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_failing_runtime_is_a_typed_error() -> None:
    session = OnnxSession(ACT, "act.onnx", inputs=INPUTS, outputs=OUTPUTS, provider="cpu")

    class Broken:
        def run_with_iobinding(self, binding: object) -> None:
            raise RuntimeError("device lost\nat line 3")

    session._session = Broken()
    feeds = {name: np.zeros(shape, dtype) for name, (shape, dtype) in INPUTS.items()}
    with pytest.raises(PolicyError) as caught:
        session.run(feeds)
    assert str(caught.value) == "act.onnx: inference failed (device lost)"
