"""The residual head and its value gate, run in numpy: the robot side has no torch.

Tensors, named and shaped as torch has them (`Linear` weights are (out, in)):

    scale                           (A,)      bound of the residual per dimension
    normaliser.mean, .std           (N,)      over features and proprioception, one after another
    normaliser.clip                 (1,)      bound of a normalised input
    normaliser.mask                 (N,)      optional; 0 leaves an input out, 1 keeps it
    encoder...                                optional; of features that end with pictures, see `policy.picture_encoder`
    actor.<i>.weight, .bias                   hidden layer i: Linear -> LayerNorm (eps 1e-5) -> ReLU
    actor.<i>.norm.weight, .bias              absent in a layer without LayerNorm
    actor.out.weight, .bias                   (A, width), (A,); with a gripper head (A + 3, width), (A + 3,)
    gripper.dimension               (A,)      optional; 1 at the dimension that the gripper head decides, else 0
    spread.bounds                   (2,)      optional; bounds of the log of the actor's own spread, which its last
                                              A outputs then are: actor.out is (2 A, width), (2 A,)
    gate.<h>.<i>..., gate.<h>.out...          critic h of the gate, same layers; its output is (1,)

N is F + P, without the pictures at the end of the features where there are some. The actor sees `[normalised features
and proprio, base action, what the encoder makes of the pictures]`, a critic the action in the base's place and nothing
of the pictures.

No bounded sum takes a closing gripper across the threshold to open, so the gripper may have a discrete head instead:
the last three outputs of the actor are logits of keep (what the base does), open (+1) and close (-1). Open and close
count where they are more likely than the two others together.

An actor with a spread of its own is a squashed Gaussian: exploration moves it by so many of its spreads before the
`tanh`, and without exploration it gives its mean. One without is moved after the `tanh`, in units of the action.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from policy.aligned import aligned
from policy.picture_encoder import read_picture_encoder

Float = NDArray[np.float32]

_MOST_LOG_SPREAD = 20.0  # its exponential is far from what float32 cannot hold
LAYER_NORM_EPS = 1e-5
_EPS, _ZERO, _ONE = np.float32(LAYER_NORM_EPS), np.float32(0.0), np.float32(1.0)
_NO_VALUES = np.zeros((0, 2), np.float32)
GRIPPER_CHOICES = 3  # keep, open, close
OPEN, CLOSED = np.float32(1.0), np.float32(-1.0)


@dataclass(frozen=True, kw_only=True)
class Dims:
    """Sizes of what the head takes and gives: features F, proprioception P, actions A.

    F and P are of whole windows where it sees more than one tick (`policy.observation_history`).
    """

    features: int
    proprio: int
    action: int

    @property
    def observation(self) -> int:
        """Features and proprioception together."""
        return self.features + self.proprio


class ResidualHead:
    """A bounded correction of the base action, and two or more critics that judge it."""

    def __init__(self, dims: Dims, tensors: Mapping[str, Float]) -> None:
        """Check the tensors against `dims` and each other, and lay them out for speed.

        Raises:
            ValueError: a tensor is missing, unknown or of another shape.
        """
        self.dims = dims
        left = dict(tensors)
        self._scale = aligned(_take(left, "scale", (dims.action,)))
        self._least = aligned(-self._scale)
        self._encoder = read_picture_encoder(left, dims.features)
        pictures, seen = (self._encoder.values, self._encoder.outputs) if self._encoder else (0, 0)
        self._plain = dims.features - pictures  # features that are no pictures
        self._inputs = self._plain + dims.proprio
        self._mean = aligned(_take(left, "normaliser.mean", (self._inputs,)))
        std = _take(left, "normaliser.std", (self._inputs,))
        clip = _take(left, "normaliser.clip", (1,))
        mask = _take(left, "normaliser.mask", (self._inputs,)) if "normaliser.mask" in left else np.float32(1.0)
        self._factor = aligned(mask / std)
        self._clip = np.float32(clip[0])
        self.gripper = _gripper_dimension(left, dims, self._scale)
        width = self._inputs + dims.action
        self._spread = _spread_bounds(left)
        if self._spread is not None and self.gripper is not None:
            raise ValueError("'spread.bounds' and 'gripper.dimension' are of two kinds of actor; leave one out")
        outputs = dims.action * (1 if self._spread is None else 2)
        outputs += GRIPPER_CHOICES if self.gripper is not None else 0
        self._actor = _Networks([_read_network(left, "actor", width + seen, outputs)])
        heads = sorted({int(match[1]) for name in left if (match := re.match(r"gate\.([0-9]{1,3})\.", name))})
        if heads != list(range(len(heads))):
            raise ValueError(f"gate heads are numbered {heads}, must count up from 0")
        gates = [_read_network(left, f"gate.{head}", width, 1) for head in heads]
        self._gate = _Networks(gates) if gates else None
        if left:
            raise ValueError(f"unknown tensor '{min(left)}'")

    @classmethod
    def zero(cls, dims: Dims, scale: Float) -> Self:
        """Return a head without a hidden layer or a gate that gives exactly 0 whatever it sees."""
        return cls(dims, zero_tensors(dims, scale))

    @property
    def scale(self) -> Float:
        """Bound of the residual per dimension (A,), read-only."""
        return self._scale

    @property
    def heads(self) -> int:
        """Critics in the gate; 0 without one."""
        return 0 if self._gate is None else self._gate.count

    def residual(self, features: Float, proprio: Float, base_action: Float) -> Float:
        """Return `scale * tanh(head(obs, base action))`, and of the gripper what its head chose, (A,), read-only.

        Args:
            features: shape (F,), float32.
            proprio: shape (P,), float32.
            base_action: shape (A,), float32, normalised.
        """
        out = self._actor.one(self._seen(features, proprio, base_action))
        result: Float = self._scale * np.tanh(out[: self.dims.action])
        self._choose_gripper(out, base_action, result)
        result.setflags(write=False)
        return result

    def corrected(
        self, features: Float, proprio: Float, base_action: Float, noise: Float, *, judged: bool = True
    ) -> tuple[Float, Float]:
        """Return the residual (A,) with `noise` (A,) on it, within its bounds, and what the critics make of it.

        An actor with a spread of its own takes the noise in units of that, before the `tanh`.

        Their values (heads, 2), none where it need not be `judged`, are of the base action and of base + residual,
        each within [-1, 1]. The same bits as from `residual` and `values`, for less time: normalised once.
        """
        row, size = self._seen(features, proprio, base_action), self._inputs
        out = self._actor.one(row)
        residual = out if len(out) == self.dims.action else out[: self.dims.action].copy()
        if self._spread is not None:
            residual += noise * np.exp(out[self.dims.action :].clip(*self._spread))
        np.tanh(residual, out=residual)
        residual *= self._scale
        if self._spread is None:
            residual += noise
        _clip(residual, self._least, self._scale)
        self._choose_gripper(out, base_action, residual)
        if self._gate is None or not judged:
            return residual, _NO_VALUES
        rows = np.empty((1, 2, size + self.dims.action), np.float32)
        rows[0, 0] = row[: size + self.dims.action]
        rows[0, 1, :size] = row[:size]
        np.add(base_action, residual, out=rows[0, 1, size:])
        _clip(rows[0, :, size:], -_ONE, _ONE)
        return residual, self._gate(rows)[:, :, 0]

    def squashed(self, features: Float, proprio: Float, base_action: Float) -> Float:
        """Return `tanh(head(obs, base action))`, shape (A,); near 1 it no longer follows the observation."""
        out = self._actor.one(self._seen(features, proprio, base_action))
        result: Float = np.tanh(out[: self.dims.action])
        return result

    def values(self, features: Float, proprio: Float, actions: Float) -> Float:
        """Return what each critic thinks of each action, shape (heads, K), float32.

        Args:
            features: shape (F,), float32.
            proprio: shape (P,), float32.
            actions: shape (K, A), float32, normalised; all judged in this one observation.
        """
        if self._gate is None:
            return np.zeros((0, len(actions)), np.float32)
        rows = np.empty((1, len(actions), self._inputs + self.dims.action), np.float32)
        self._normalise(features, proprio, rows[0, 0])
        rows[0, 1:, : self._inputs] = rows[0, 0, : self._inputs]
        rows[0, :, self._inputs :] = actions
        return self._gate(rows)[:, :, 0]

    def _choose_gripper(self, out: Float, base_action: Float, residual: Float) -> None:
        """Write into `residual` what takes the base's gripper to the choice of the gripper head, where there is one."""
        if self.gripper is None:
            return
        choice = gripper_choice(*out[self.dims.action :].tolist())
        if choice is not None:
            residual[self.gripper] = choice - base_action[self.gripper]

    def _seen(self, features: Float, proprio: Float, base_action: Float) -> Float:
        """Return what the actor sees, a row that begins with what a critic sees of the base action."""
        end = self._inputs + self.dims.action
        row = np.empty(end + (self._encoder.outputs if self._encoder else 0), np.float32)
        self._normalise(features, proprio, row)
        row[self._inputs : end] = base_action
        if self._encoder is not None and self._encoder.outputs:
            row[end:] = self._encoder(features[self._plain :])
        return row

    def _normalise(self, features: Float, proprio: Float, row: Float) -> None:
        """Write the normalised features and proprioception to the start of `row`."""
        seen = row[: self._inputs]
        seen[: self._plain] = features[: self._plain]
        seen[self._plain :] = proprio
        np.subtract(seen, self._mean, out=seen)
        np.multiply(seen, self._factor, out=seen)
        _clip(seen, -self._clip, self._clip)


def gripper_choice(keep: float, opened: float, closed: float) -> np.float32 | None:
    """Return the gripper's action that the logits choose, None for the base's own; NaN where one is not finite."""
    if not math.isfinite(keep + opened + closed):
        return np.float32(math.nan)
    if opened > _either(keep, closed):
        return OPEN
    if closed > _either(keep, opened):
        return CLOSED
    return None


def _either(a: float, b: float) -> float:
    """Logit of one choice or the other, log(exp a + exp b)."""
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def _clip(values: Float, least: Float | np.float32, greatest: Float | np.float32) -> None:
    """Bound `values` in place; np.clip takes several times as long."""
    np.minimum(values, greatest, out=values)
    np.maximum(values, least, out=values)


def zero_tensors(dims: Dims, scale: Float) -> dict[str, Float]:
    """Return the tensors of a head that gives exactly 0: no hidden layer, no gate, nothing normalised."""
    return {
        "scale": np.array(scale, np.float32),
        "normaliser.mean": np.zeros(dims.observation, np.float32),
        "normaliser.std": np.ones(dims.observation, np.float32),
        "normaliser.clip": np.full(1, 10.0, np.float32),
        "actor.out.weight": np.zeros((dims.action, dims.observation + dims.action), np.float32),
        "actor.out.bias": np.zeros(dims.action, np.float32),
    }


def _spread_bounds(left: dict[str, Float]) -> tuple[float, float] | None:
    """Bounds of the logarithm of the actor's own spread; None of an actor without one."""
    if "spread.bounds" not in left:
        return None
    least, greatest = _take(left, "spread.bounds", (2,)).tolist()
    if not -_MOST_LOG_SPREAD <= least <= greatest <= _MOST_LOG_SPREAD:
        raise ValueError(
            f"'spread.bounds' is {least:g} to {greatest:g} (allowed from {-_MOST_LOG_SPREAD:g} to "
            f"{_MOST_LOG_SPREAD:g}, in this order)"
        )
    return least, greatest


def _gripper_dimension(left: dict[str, Float], dims: Dims, scale: Float) -> int | None:
    """Take the gripper's dimension out of `left`; None without a gripper head."""
    if "gripper.dimension" not in left:
        return None
    marked = _take(left, "gripper.dimension", (dims.action,))
    if sorted(marked.tolist()) != [0.0] * (dims.action - 1) + [1.0]:
        raise ValueError("'gripper.dimension' must be 1 in one dimension and 0 in the others")
    dimension = int(np.argmax(marked))
    if scale[dimension] != 0.0:
        raise ValueError(f"scale is {scale[dimension]:g} in the dimension of the gripper head (must be 0)")
    return dimension


@dataclass(frozen=True, kw_only=True)
class _Layer:
    weight: Float  # (out, in)
    bias: Float
    gain: Float | None = None  # of the LayerNorm, with shift
    shift: Float | None = None


class _Networks:
    """Equally built networks, stacked so that numpy is called once per layer and not once per network."""

    def __init__(self, networks: list[list[_Layer]]) -> None:
        self.count = len(networks)
        self._layers: list[tuple[Float, Float, tuple[Float, Float] | None]] = []
        for layers in zip(*networks, strict=True):
            if len({(layer.weight.shape, layer.gain is None) for layer in layers}) != 1:
                raise ValueError("the gate's heads are built differently")
            weight = np.stack([layer.weight.T for layer in layers]).astype(np.float64)
            bias = np.stack([layer.bias[None] for layer in layers]).astype(np.float64)
            norm = None
            gains = [layer.gain for layer in layers if layer.gain is not None]
            shifts = [layer.shift for layer in layers if layer.shift is not None]
            if gains:
                # LayerNorm takes the mean of `x W + b` away and divides by the root of the mean square. With the mean
                # taken from W and b here, and both divided by the root of the width, a tick only sums squares.
                root = math.sqrt(weight.shape[2])
                weight = (weight - weight.mean(axis=2, keepdims=True)) / root
                bias = (bias - bias.mean(axis=2, keepdims=True)) / root
                norm = (aligned(np.stack(gains)[:, None] * np.float32(root)), aligned(np.stack(shifts)[:, None]))
            self._layers.append((aligned(weight.astype(np.float32)), aligned(bias.astype(np.float32)), norm))
        # the same memory, seen once and not in every tick
        self._first = [
            (weight[0], bias[0, 0], None if norm is None else (norm[0][0, 0], norm[1][0, 0]))
            for weight, bias, norm in self._layers
        ]

    def one(self, x: Float) -> Float:
        """Map (in,) to (out,) by the first network, for half the time of `__call__`."""
        *hidden, (out_weight, out_bias, _) = self._first
        for weight, bias, norm in hidden:
            x = np.dot(x, weight)
            x += bias
            if norm is not None:
                gain, shift = norm
                x *= np.float32(1.0 / math.sqrt(float(np.dot(x, x)) + LAYER_NORM_EPS))
                x *= gain
                x += shift
            np.maximum(x, _ZERO, out=x)
        result: Float = np.dot(x, out_weight)
        result += out_bias
        return result

    def __call__(self, x: Float) -> Float:
        """Map (1, K, in) to (networks, K, out)."""
        *hidden, (out_weight, out_bias, _) = self._layers
        for weight, bias, norm in hidden:
            x = np.matmul(x, weight)
            x += bias
            if norm is not None:
                gain, shift = norm
                spread = np.vecdot(x, x)[..., None]
                spread += _EPS
                np.sqrt(spread, out=spread)
                x /= spread
                x *= gain
                x += shift
            np.maximum(x, _ZERO, out=x)
        result: Float = np.matmul(x, out_weight)
        result += out_bias
        return result


def _read_network(left: dict[str, Float], prefix: str, width: int, outputs: int) -> list[_Layer]:
    """Take the layers named `prefix` out of `left`."""
    layers: list[_Layer] = []
    while (name := f"{prefix}.{len(layers)}") + ".weight" in left:
        size = left[f"{name}.weight"].shape[0] if left[f"{name}.weight"].ndim == 2 else 0
        weight, bias = _take(left, f"{name}.weight", (size, width)), _take(left, f"{name}.bias", (size,))
        gain = shift = None
        if f"{name}.norm.weight" in left:
            gain, shift = _take(left, f"{name}.norm.weight", (size,)), _take(left, f"{name}.norm.bias", (size,))
        layers.append(_Layer(weight=weight, bias=bias, gain=gain, shift=shift))
        width = size
    out = f"{prefix}.out"
    last = _Layer(weight=_take(left, f"{out}.weight", (outputs, width)), bias=_take(left, f"{out}.bias", (outputs,)))
    return [*layers, last]


def _take(left: dict[str, Float], name: str, shape: Iterable[int]) -> Float:
    tensor = left.pop(name, None)
    if tensor is None:
        raise ValueError(f"tensor '{name}' is missing")
    if tensor.shape != tuple(shape) or tensor.dtype != np.float32 or 0 in tensor.shape:
        raise ValueError(f"tensor '{name}' is {tensor.shape} {tensor.dtype}, must be {tuple(shape)} float32")
    return tensor
