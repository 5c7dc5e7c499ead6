"""One tick to one row of the log, and back to what a replay needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.arm_history import Around
from perception.cloud_ring import StampedCloud
from perception.observation import Observation, Verdict
from policy.chunk_source import ChunkReply, ReplyKind
from policy.episode_schema import STAGES, EpisodeSpec, Row
from robot.arm_state import ArmState
from robot.command import Hold, Reason
from robot.filter_state import FilterState
from teleop.arbiter import ArbiterState
from teleop.chunk_plan import NOTHING_ASKED, Asking, Chunk
from teleop.human_input import HumanCommand, HumanEvent
from teleop.tick import TickInputs, TickOutputs, TickState

Views = Mapping[str, NDArray[Any]]


def views(row: Row) -> Views:
    """Return a view of each field of a row (a zero-dimensional structured array), to fill it again and again."""
    return {name: row[name] for name in row.dtype.names or ()}


def fill_row(
    row: Views,
    spec: EpisodeSpec,
    *,
    inputs: TickInputs,
    outputs: TickOutputs,
    after: TickState,
    residual_version: int,
    end_s: float,
    deadline_missed: bool,
    stages_ms: Mapping[str, float] | None,
) -> None:
    """Write one tick into the `views` of a row. Reward and ends of it come later.

    What is absent is NaN, or -1 for an identity; an image that is missing stays zero beside its frame id of -1.
    Single values are written with `[()]`, half the time of `[...]`.
    `stages_ms` None (lock-step) leaves the stage times NaN, since the log must not depend on the machine's speed.
    """
    _fill_inputs(row, spec, inputs)
    fill_outputs(row, outputs, after)
    row["tick/residual_version"][()] = residual_version
    row["tick/end_s"][()] = end_s
    row["tick/deadline_missed"][()] = deadline_missed
    _fill_or_nan(row["tick/stage_ms"], None if stages_ms is None else [stages_ms.get(s, 0.0) for s in STAGES])
    if spec.task_reward:
        row["tick/task_reward"][()] = math.nan
    row["rewards"][()] = 0.0
    row["dones"][()] = row["terminated"][()] = row["truncated"][()] = 0


def _fill_inputs(row: Views, spec: EpisodeSpec, inputs: TickInputs) -> None:
    look, state, human = inputs.observation, inputs.observation.state, inputs.human
    captured_s, arrived_s = row["tick/captured_s"], row["tick/arrived_s"]
    uncertainty_s, frame_ids = row["tick/uncertainty_s"], row["tick/frame_id"]
    for i, (name, _, _) in enumerate(spec.cameras):
        image = look.images.get(name)
        row[f"obs/{name}_image"][...] = 0 if image is None else image
        captured_s[i], arrived_s[i] = look.captured_s[name], look.arrived_s[name]
        uncertainty_s[i], frame_ids[i] = look.uncertainty_s[name], look.frame_ids[name]
    start = 0
    for key, size in spec.proprio:
        row[f"obs/{key}"][...] = look.proprio[start : start + size]
        start += size
    row["tick/index"][()], row["tick/start_s"][()], row["tick/due_s"][()] = inputs.index, inputs.now_s, inputs.due_s
    row["tick/overrun"][()] = inputs.overrun
    row["tick/skew_s"][()], row["tick/verdict"][()] = look.skew_s, int(look.verdict)
    row["tick/state_s"][()] = state.measured_s
    row["tick/q_rad"][...], row["tick/dq_rad_s"][...] = state.q_rad, state.dq_rad_s
    row["tick/T_base_tcp"][...], row["tick/tcp_velocity"][...] = state.T_base_tcp, state.tcp_velocity
    row["tick/gripper_width_m"][()] = state.gripper_width_m
    row["tick/force_n"][()] = _force(state.force_n)
    if spec.wrench:
        _fill_or_nan(row["tick/wrench"], state.wrench)
    row["tick/arm_fault"][()] = state.fault is not None
    for name, _ in spec.readings:
        row[f"tick/reading_{name}"][...] = state.readings[name]
    row["tick/proprio_s"][()] = look.proprio_s
    _fill_or_nan(row["tick/arm_around"], None if look.around is None else pack_around(look.around, spec.joint_count))
    row["tick/human_twist"][...] = human.twist
    row["tick/human_gripper"][()] = math.nan if human.gripper is None else human.gripper
    row["tick/engaged"][()], row["tick/events"][()] = human.engaged, int(human.events)
    row["tick/polled_s"][()], row["tick/connected"][()] = human.polled_s, human.connected
    row["tick/noise"][...] = inputs.noise
    row["tick/gate_forced"][()] = inputs.gate_forced
    _fill_or_nan(row["tick/reset"], inputs.reset)
    if spec.asynchronous:
        _fill_reply(row, inputs.reply)
    if spec.cloud_points:
        cloud = look.cloud
        _fill_or_nan(row["obs/point_cloud"], None if cloud is None else cloud.points)
        row["tick/cloud_count"][()] = -1 if cloud is None else cloud.count
        _fill_or_nan(row["tick/cloud_s"], None if cloud is None else [cloud.captured_s, cloud.newest_s, cloud.made_s])


def _force(force_n: float | None) -> float:
    """Return what a row says of a force; NaN is the word for none, so one that is no number is beyond all limits."""
    if force_n is None:
        return math.nan
    return math.inf if math.isnan(force_n) else force_n


def _fill_or_nan(field: NDArray[Any], values: NDArray[Any] | list[float] | None) -> None:
    if values is None:
        field.fill(math.nan)
    else:
        field[...] = values


def _fill_reply(row: Views, reply: ChunkReply | None) -> None:
    row["tick/reply"][()] = 0 if reply is None else int(reply.kind)
    row["tick/reply_tick"][()] = -1 if reply is None else reply.tick
    row["tick/reply_s"][()] = math.nan if reply is None else reply.arrived_s
    _fill_or_nan(row["tick/reply_chunk"], None if reply is None else reply.actions)


def fill_outputs(row: Views, outputs: TickOutputs, after: TickState) -> None:
    """Write what the stages gave; the replay fills a second row with these and compares."""
    _fill_or_nan(row["tick/features"], outputs.features)
    _fill_or_nan(row["tick/chunk"], None if after.chunk is None else after.chunk.actions)
    row["tick/chunk_tick"][()] = -1 if after.chunk is None else after.chunk.requested
    row["tick/policy_failed"][()] = outputs.policy_failure is not None
    _fill_or_nan(row["tick/base"], outputs.base)
    row["tick/residual"][...], row["tick/gate"][...] = outputs.residual, outputs.gate
    row["tick/gate_open"][()] = outputs.gate_open
    _fill_or_nan(row["tick/human"], outputs.human)
    decision, command = outputs.decision, outputs.command
    # On a hold nobody decides; the braking move that was executed stands there, so that readers find a number.
    row["actions"][...] = outputs.commanded if decision.action is None else decision.action
    row["tick/source"][()], row["tick/hold_reason"][()] = int(decision.source), int(decision.reason)
    row["tick/arbiter"][()] = after.arbiter.packed()
    row["tick/commanded"][...] = outputs.commanded
    row["tick/commanded_T"][...], row["tick/commanded_q"][...] = after.filter.T_base_tcp, after.filter.q_rad
    row["tick/commanded_gripper_m"][()] = after.filter.gripper_width_m
    row["tick/filter_velocity"][...], row["tick/filter_due_s"][()] = after.filter.velocity, after.filter.due_s
    row["tick/rejections"][()] = after.filter.rejections
    row["tick/safety"][()] = int(after.filter.reasons)
    row["tick/held"][()], row["tick/latched"][()] = isinstance(command, Hold), after.filter.latched
    if "tick/chunk_event" in row:
        _fill_asking(row, outputs, after.asking)


def _fill_asking(row: Views, outputs: TickOutputs, asking: Asking) -> None:
    row["tick/chunk_event"][()], row["tick/chunk_delay_s"][()] = int(outputs.chunk_events), outputs.chunk_delay_s
    row["tick/chunk_delays_s"][...] = math.nan
    if asking.delays_s:
        row["tick/chunk_delays_s"][-len(asking.delays_s) :] = asking.delays_s
    row["tick/chunk_rejected"][()] = asking.rejected
    row["tick/asked_tick"][()], row["tick/asked_s"][()] = asking.tick, asking.asked_s


OUTPUT_FIELDS = (
    "actions", "tick/features", "tick/chunk", "tick/chunk_tick", "tick/policy_failed", "tick/base", "tick/residual",
    "tick/gate", "tick/gate_open", "tick/human", "tick/source", "tick/hold_reason", "tick/arbiter", "tick/commanded",
    "tick/commanded_T", "tick/commanded_q", "tick/commanded_gripper_m", "tick/filter_velocity", "tick/filter_due_s",
    "tick/rejections", "tick/safety", "tick/held", "tick/latched",
)  # fmt: skip
_ASKING_FIELDS = (
    "tick/chunk_event", "tick/chunk_delay_s", "tick/chunk_delays_s", "tick/chunk_rejected", "tick/asked_tick",
    "tick/asked_s",
)  # fmt: skip


def output_fields(spec: EpisodeSpec) -> tuple[str, ...]:
    """Return the fields of a row that `fill_outputs` writes."""
    return OUTPUT_FIELDS + (_ASKING_FIELDS if spec.asynchronous else ())


def read_inputs(row: Row, spec: EpisodeSpec) -> TickInputs:
    """Return the inputs of a logged tick, bit for bit."""
    names = [name for name, _, _ in spec.cameras]
    ids = dict(zip(names, row["tick/frame_id"].tolist(), strict=True))
    force_n = float(row["tick/force_n"])
    state = ArmState(
        measured_s=float(row["tick/state_s"]),
        q_rad=row["tick/q_rad"],
        dq_rad_s=row["tick/dq_rad_s"],
        T_base_tcp=row["tick/T_base_tcp"],
        tcp_velocity=row["tick/tcp_velocity"],
        gripper_width_m=float(row["tick/gripper_width_m"]),
        force_n=None if math.isnan(force_n) else force_n,
        fault="logged" if row["tick/arm_fault"] else None,
        wrench=_wrench(row) if spec.wrench else None,
        readings={name: row[f"tick/reading_{name}"] for name, _ in spec.readings},
    )
    proprio = [row[f"obs/{key}"] for key, _ in spec.proprio]
    gripper = float(row["tick/human_gripper"])
    return TickInputs(
        index=int(row["tick/index"]),
        now_s=float(row["tick/start_s"]),
        due_s=float(row["tick/due_s"]),
        observation=Observation(
            images={name: row[f"obs/{name}_image"] for name in names if ids[name] >= 0},
            proprio=np.concatenate(proprio) if proprio else np.zeros(0, np.float32),
            proprio_s=float(row["tick/proprio_s"]),
            around=_unpack_around(row["tick/arm_around"], spec.joint_count),
            state=state,
            captured_s=dict(zip(names, row["tick/captured_s"].tolist(), strict=True)),
            arrived_s=dict(zip(names, row["tick/arrived_s"].tolist(), strict=True)),
            uncertainty_s=dict(zip(names, row["tick/uncertainty_s"].tolist(), strict=True)),
            frame_ids=ids,
            skew_s=float(row["tick/skew_s"]),
            verdict=Verdict(int(row["tick/verdict"])),
            cloud=_read_cloud(row) if spec.cloud_points else None,
        ),
        human=HumanCommand(
            twist=row["tick/human_twist"],
            gripper=None if math.isnan(gripper) else gripper,
            engaged=bool(row["tick/engaged"]),
            events=HumanEvent(int(row["tick/events"])),
            polled_s=float(row["tick/polled_s"]),
            connected=bool(row["tick/connected"]),
        ),
        reset=None if np.isnan(row["tick/reset"]).all() else row["tick/reset"],
        noise=row["tick/noise"],
        gate_forced=bool(row["tick/gate_forced"]),
        overrun=bool(row["tick/overrun"]),
        policy_failed=bool(row["tick/policy_failed"]),
        reply=_read_reply(row) if spec.asynchronous else None,
    )


def _wrench(row: Row) -> NDArray[np.float64] | None:
    wrench: NDArray[np.float64] = row["tick/wrench"]
    return None if np.isnan(wrench).all() else wrench


def _read_cloud(row: Row) -> StampedCloud | None:
    count = int(row["tick/cloud_count"])
    if count < 0:
        return None
    captured_s, newest_s, made_s = row["tick/cloud_s"].tolist()
    points = row["obs/point_cloud"]
    return StampedCloud(points=points, count=count, captured_s=captured_s, newest_s=newest_s, made_s=made_s)


def _read_reply(row: Row) -> ChunkReply | None:
    if not row["tick/reply"]:
        return None
    kind = ReplyKind(int(row["tick/reply"]))
    return ChunkReply(
        tick=int(row["tick/reply_tick"]),
        arrived_s=float(row["tick/reply_s"]),
        kind=kind,
        actions=row["tick/reply_chunk"].copy() if kind is ReplyKind.CHUNK else None,
    )


def pack_arm(state: ArmState) -> NDArray[np.float64]:
    """Return what an interpolation needs of a state, shape (24 + 2N,): the order is that of `tick/arm_around`."""
    return np.concatenate(
        [
            [state.measured_s],
            state.T_base_tcp.reshape(-1),
            state.q_rad,
            state.dq_rad_s,
            state.tcp_velocity,
            [state.gripper_width_m],
        ]
    )


def pack_around(around: Around | None, joint_count: int) -> NDArray[np.float64]:
    """Return `tick/arm_around`, shape (2, 24 + 2N), NaN for None."""
    if around is None:
        return np.full((2, 24 + 2 * joint_count), np.nan)
    return np.stack([pack_arm(around.before), pack_arm(around.after)])


def _unpack_around(packed: NDArray[np.float64], joint_count: int) -> Around | None:
    if np.isnan(packed).all():
        return None
    before, after = (
        ArmState(
            measured_s=float(values[0]),
            T_base_tcp=values[1:17].reshape(4, 4),
            q_rad=values[17 : 17 + joint_count],
            dq_rad_s=values[17 + joint_count : 17 + 2 * joint_count],
            tcp_velocity=values[-7:-1],
            gripper_width_m=float(values[-1]),
        )
        for values in packed
    )
    return Around(before=before, after=after)


def read_state(row: Row) -> TickState:
    """Return the state after a logged tick; the chunk is left out where none was in force."""
    requested = int(row["tick/chunk_tick"])
    return TickState(
        arbiter=ArbiterState.unpacked(int(row["tick/arbiter"])),
        filter=FilterState(
            T_base_tcp=row["tick/commanded_T"].copy(),
            q_rad=row["tick/commanded_q"].copy(),
            velocity=row["tick/filter_velocity"].copy(),
            gripper_width_m=float(row["tick/commanded_gripper_m"]),
            due_s=float(row["tick/filter_due_s"]),
            rejections=int(row["tick/rejections"]),
            latched=bool(row["tick/latched"]),
            reasons=Reason(int(row["tick/safety"])),
        ),
        chunk=None if requested < 0 else Chunk(actions=row["tick/chunk"].copy(), requested=requested),
        asking=_read_asking(row) if "tick/asked_tick" in (row.dtype.names or ()) else NOTHING_ASKED,
    )


def _read_asking(row: Row) -> Asking:
    delays_s = row["tick/chunk_delays_s"]
    return Asking(
        tick=int(row["tick/asked_tick"]),
        asked_s=float(row["tick/asked_s"]),
        delays_s=tuple(delays_s[~np.isnan(delays_s)].tolist()),
        rejected=int(row["tick/chunk_rejected"]),
    )
