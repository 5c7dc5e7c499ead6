"""One ONNX graph with fixed shapes, run from preallocated buffers, the same bits every time."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from robot.errors import BadInputError, HandrailError

# A robot tells nobody what it does: without this ONNX Runtime keeps a thread, writes to the home and temporary folders
# and reports to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
ort: Any = importlib.import_module("onnxruntime")  # its annotations do not pass a strict check

Provider = Literal["auto", "cpu", "cuda"]
Tensor = NDArray[Any]
TensorSpec = tuple[tuple[int, ...], type[np.generic]]  # shape, dtype

_TYPE_NAMES: dict[type[np.generic], str] = {np.uint8: "tensor(uint8)", np.float32: "tensor(float)"}
_SEVERITY_ERROR = 3


class PolicyError(HandrailError):
    """A policy could not be run on this input: wrong shape or type, or the runtime failed."""


def cuda_is_usable() -> bool:
    """Return whether ONNX Runtime can really run on CUDA here.

    Asking ONNX Runtime for a CUDA that is not there prints errors to stderr, so the driver, its device
    count and the provider's own libraries are tried first.
    """
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return False
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
            return False
        # finds CUDA and cuDNN where they came as wheels; prints what it cannot find
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
        ctypes.CDLL("libcudnn.so.9")
        folder = Path(ort.__file__).parent / "capi"
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
    except OSError:
        return False
    return True


class OnnxSession:
    """Runs one graph whose inputs and outputs are all known beforehand."""

    def __init__(
        self,
        model: bytes,
        where: str,
        *,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
        provider: Provider = "auto",
        threads: int = 1,
        again: str = "export the policy again",
    ) -> None:
        """Load the graph and compare it with what is expected of it.

        Args:
            model: the whole ONNX file.
            where: the file's name in error lines.
            inputs: name to (shape, dtype) of every input.
            outputs: name to (shape, dtype) of every output.
            provider: `auto` takes CUDA where it works and the CPU elsewhere.
            threads: threads inside one operator; 1 keeps results equal bit for bit and the other cores free.
            again: what to do about a graph that is not as expected, for messages.

        Raises:
            BadInputError: not a graph, needs a second file, other inputs or outputs, CUDA asked for but absent.
        """
        if b"\x0a\x08location\x12" in model:
            # a tensor's StringStringEntryProto: weights beside the file would be covered by no hash
            raise BadInputError(f"{where}: keeps weights in a second file; export it with the weights inside")
        if provider == "cuda" and not cuda_is_usable():
            raise BadInputError(f"{where}: provider 'cuda' is not usable here; install its driver or use 'auto'")
        cuda = provider == "cuda" or (provider == "auto" and cuda_is_usable())
        try:
            self._session = ort.InferenceSession(model, _options(threads), providers=_providers(cuda))
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise BadInputError(f"{where}: not a usable ONNX graph ({_first_line(error)}); export it again") from error
        self.provider: str = self._session.get_providers()[0]
        self._where = where
        _compare(where, "input", inputs, self._session.get_inputs(), again)
        _compare(where, "output", outputs, self._session.get_outputs(), again)
        self._binding = self._session.io_binding()
        self._inputs = {name: np.zeros(shape, dtype) for name, (shape, dtype) in inputs.items()}
        self._outputs = {name: np.zeros(shape, dtype) for name, (shape, dtype) in outputs.items()}
        on_cuda = self.provider == "CUDAExecutionProvider"
        # On the CPU an OrtValue is a view of the numpy buffer; on CUDA it is a copy, renewed before each run.
        self._device = {
            name: ort.OrtValue.ortvalue_from_numpy(buffer, "cuda" if on_cuda else "cpu", 0)
            for name, buffer in self._inputs.items()
        }
        self._on_cuda = on_cuda
        for name, value in self._device.items():
            self._binding.bind_ortvalue_input(name, value)
        self._results = {
            name: ort.OrtValue.ortvalue_from_numpy(buffer, "cpu", 0) for name, buffer in self._outputs.items()
        }
        for name, value in self._results.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs for `inputs`; fresh read-only arrays.

        Raises:
            PolicyError: an input is missing, of another shape or type, or the runtime failed.
        """
        for name, buffer in self._inputs.items():
            got = inputs.get(name)
            if got is None:
                raise PolicyError(f"{self._where}: no value for input '{name}'")
            if got.shape != buffer.shape or got.dtype != buffer.dtype:
                raise PolicyError(
                    f"{self._where}: input '{name}' is {got.shape} {got.dtype}, must be {buffer.shape} {buffer.dtype}"
                )
            np.copyto(buffer, got)
            if self._on_cuda:
                self._device[name].update_inplace(buffer)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise PolicyError(f"{self._where}: inference failed ({_first_line(error)})") from error
        results = {}
        for name, buffer in self._outputs.items():
            copy = buffer.copy()
            copy.setflags(write=False)
            results[name] = copy
        return results


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # a spinning worker takes a core from the camera and learner processes for nothing
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.use_deterministic_compute = True
    options.log_severity_level = _SEVERITY_ERROR
    return options


def _providers(cuda: bool) -> list[Any]:
    if not cuda:
        return ["CPUExecutionProvider"]
    # the exhaustive search picks by timing, so that two runs may differ in their bits; TF32 rounds to 10 bits
    return [
        ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}),
        "CPUExecutionProvider",
    ]


def _compare(where: str, kind: str, expected: Mapping[str, TensorSpec], nodes: list[Any], again: str) -> None:
    """Raise BadInputError unless the graph's inputs or outputs are exactly the expected ones."""
    got = {node.name: (tuple(node.shape), node.type) for node in nodes}
    for name in expected.keys() - got.keys():
        raise BadInputError(f"{where}: {kind} '{name}' is missing (it has {sorted(got)}); {again}")
    for name in got.keys() - expected.keys():
        raise BadInputError(f"{where}: {kind} '{name}' is not in the manifest (allowed {sorted(expected)}); {again}")
    for name, (shape, dtype) in expected.items():
        wanted = (shape, _TYPE_NAMES[dtype])
        if got[name] != wanted:
            raise BadInputError(
                f"{where}: {kind} '{name}' is {got[name][0]} {got[name][1]}, the manifest says "
                f"{wanted[0]} {wanted[1]}; {again}"
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
