"""A tick's pipeline on a tiny real policy with an arm that follows exactly, for tests of ticks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.observation import Observation, Verdict
from perception.proprioception import proprioception
from policy.bundle import Bundle, load_bundle
from policy.chunk_source import ChunkReply
from policy.observation_history import PRESENT, HistoryTicks
from policy.residual import Dims, ResidualHead
from robot.arm_state import ArmState
from robot.safety import SafetyFilter
from teleop.arbiter import Arbiter, ArbiterState
from teleop.chunk_plan import ChunkPlan
from teleop.human_input import AssistMode, HumanCommand, HumanEvent
from teleop.tick import TickInputs, TickOutputs, TickPipeline, TickState
from tests.filter_bench import KINEMATICS, LIMITS, PERIOD_S, T_HOME, arm_state
from tests.tiny_bundle import CAMERAS, PROPRIO, make_tiny_bundle
from tests.tiny_weights import DIMS, tiny_tensors

SCALE = np.array([0.4, 0.4, 0.3, 0.0, 0.0], np.float32)


def head(seed: int = 1, **changes: Any) -> ResidualHead:
    """A residual head that gives something else for each seed."""
    return ResidualHead(DIMS, tiny_tensors(DIMS, seed=seed, **changes) | {"scale": SCALE})


def zero_head() -> ResidualHead:
    """A residual of exactly 0, without a gate."""
    return ResidualHead.zero(Dims(features=6, proprio=4, action=5), SCALE)


class Bench:
    """Ticks one after another; what is not said stays as in a calm run."""

    def __init__(self, folder: Path, *, mode: AssistMode = AssistMode.TAKEOVER, gate: bool = True) -> None:
        self.bundle = load_bundle(make_tiny_bundle(folder, chunk_length=4, execute_steps=2), "cpu")
        self.make(self.bundle, mode=mode, gate=gate)

    def make(
        self,
        bundle: Bundle,
        *,
        mode: AssistMode = AssistMode.TAKEOVER,
        gate: bool = True,
        ahead: ChunkPlan | None = None,
        history: HistoryTicks = PRESENT,
    ) -> None:
        """Start again, disarmed, with another bundle or rule."""
        self.arm: ArmState = arm_state()
        self.safety = SafetyFilter(LIMITS, KINEMATICS, PERIOD_S, T_HOME[:3, :3])
        motion = np.array([name != "gripper" for name in bundle.manifest.action.dims])
        self.pipeline = TickPipeline(
            bundle=bundle,
            arbiter=Arbiter(mode=mode, silence_s=0.1, motion=motion),
            safety=self.safety,
            gate_enabled=gate,
            open_loop=False,
            ahead=ahead,
            history=history,
        )
        self.state = TickState(arbiter=ArbiterState(), filter=self.safety.start(self.arm))
        self.index = 0
        self.head = zero_head()
        self.inputs: TickInputs | None = None

    def tick(
        self,
        *,
        engaged: bool = False,
        events: HumanEvent = HumanEvent.NONE,
        twist: NDArray[np.float64] | None = None,
        verdict: Verdict = Verdict.FRESH,
        measured: ArmState | None = None,
        reset: NDArray[np.float32] | None = None,
        noise: NDArray[np.float32] | None = None,
        gate_forced: bool = False,
        overrun: bool = False,
        reply: ChunkReply | None = None,
    ) -> TickOutputs:
        """One tick; the arm then stands where it was commanded."""
        now_s = 10.0 + PERIOD_S * self.index
        state = measured or self.arm
        self.inputs = TickInputs(
            index=self.index,
            now_s=now_s,
            due_s=now_s + PERIOD_S,
            observation=observe(state, self.index, now_s, verdict),
            human=HumanCommand(
                twist=np.zeros(6) if twist is None else twist, engaged=engaged, events=events, polled_s=now_s
            ),
            reset=reset,
            noise=np.zeros(5, np.float32) if noise is None else noise,
            gate_forced=gate_forced,
            overrun=overrun,
            reply=reply,
        )
        self.state, outputs = self.pipeline.step(self.state, self.inputs, self.head)
        self.index += 1
        self.arm = dataclasses.replace(self.arm, T_base_tcp=self.state.filter.T_base_tcp, q_rad=self.state.filter.q_rad)
        return outputs

    def armed(self) -> TickOutputs:
        """The tick in which the person arms."""
        return self.tick(events=HumanEvent.ARM)


def observe(state: ArmState, index: int, now_s: float, verdict: Verdict) -> Observation:
    """Pictures that differ from tick to tick; without any where the verdict says so."""
    rng = np.random.default_rng(index)
    there = {} if verdict is Verdict.MISSING else CAMERAS
    return Observation(
        images={name: np.broadcast_to(rng.integers(0, 256, 3, np.uint8), (*size, 3)) for name, size in there.items()},
        proprio=proprioception(state, list(PROPRIO)),
        proprio_s=state.measured_s,
        around=None,
        state=state,
        captured_s={name: now_s - 0.01 if name in there else np.nan for name in CAMERAS},
        arrived_s={name: now_s if name in there else np.nan for name in CAMERAS},
        uncertainty_s={name: 0.0 if name in there else np.nan for name in CAMERAS},
        frame_ids={name: index if name in there else -1 for name in CAMERAS},
        skew_s=0.0 if there else np.nan,
        verdict=verdict,
    )
