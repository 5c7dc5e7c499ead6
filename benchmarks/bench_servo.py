"""How punctual the servo is, how well it interpolates and whether its limits hold; one JSON line.

    .venv/bin/python benchmarks/bench_servo.py --seconds 10 --repetitions 3

Servo and simulated hardware run in their own processes, as in a run, while targets come at 20 Hz. Loaded means two busy
processes and a learner that trains. SCHED_FIFO is tried where the system allows it (root, or `ulimit -r`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine_load import loaded
from robot.arm_state import ArmState
from robot.fr3 import HOME_Q_RAD
from robot.joint_path import MotionLimits, PathPlanner
from robot.joint_stream import Reading
from robot.message_ring import MessageRing
from robot.process_board import ProcessBoard
from robot.servo import Cause, JointTarget, Servo, ServoLimits, ServoMode
from robot.servo_config import ServoConfig, motion_limits
from robot.servo_orders import ServoOrder, new_order_ring, pack_target
from robot.servo_process import ServoProcessConfig
from robot.servo_record import ServoRecord, ServoStep
from robot.shared_ring import SharedRing
from robot.simulation.world_process import WorldProcessConfig
from robot.simulation.world_record import new_world_orders, new_world_ring
from robot.simulation.world_stream import new_set_point_ring

Array = NDArray[np.float64]
ROOT = Path(__file__).parents[1]
LOOP_S = 0.05
FIFO = 40
HOME = np.array(HOME_Q_RAD)
READY_S = 60.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[200.0, 500.0], help="[Hz]")
    options = parser.parse_args()
    result: dict[str, object] = {
        "benchmark": "servo",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seconds": options.seconds,
        "repetitions": options.repetitions,
        "fifo_allowed": _fifo_allowed(),
    }
    for rate_hz in options.rates:
        for load in ("idle", "loaded"):
            for priority in (0, FIFO) if _fifo_allowed() else (0,):
                name = f"{rate_hz:g}_hz_{load}{'_fifo' if priority else ''}"
                print(f"{name} ...", file=sys.stderr, flush=True)
                with loaded() if load == "loaded" else nullcontext():
                    runs = [lateness(rate_hz, priority, options.seconds) for _ in range(options.repetitions)]
                result[name] = merged(runs)
    result["interpolation"] = {f"{wish_hz:g}_hz": interpolation(wish_hz) for wish_hz in (0.25, 0.5, 1.0)}
    result["step_us"] = step_us()
    print(json.dumps(result))
    return 0


def servo_config(rate_hz: float) -> ServoConfig:
    """The simulated station's section at another rate."""
    return ServoConfig(
        rate_hz=rate_hz,
        watchdog_s=0.15,
        max_state_age_s=0.02,
        velocity_share=0.9,
        acceleration_share=1.0,
        jerk_share=1.0,
        max_tracking_rad=0.3,
    )


def wish(at_s: float, wish_hz: float) -> Array:
    """A smooth way of all joints, shape (7,) [rad]."""
    turn = 2.0 * math.pi * wish_hz * at_s
    return HOME + 0.12 * np.array([math.sin(turn + 0.7 * joint) - math.sin(0.7 * joint) for joint in range(7)])


def lateness(rate_hz: float, priority: int, seconds: float) -> dict[str, object]:
    """Run both processes with targets of a moving loop; what the servo says of each of its steps."""
    layout = ServoRecord(7)
    board = ProcessBoard.new(2)
    world, set_points, servo = new_world_ring(), new_set_point_ring(), layout.new_ring(int(rate_hz * (seconds + 5)))
    orders, world_orders = new_order_ring(), new_world_orders()
    process_config = ServoProcessConfig(servo=servo_config(rate_hz), loop_period_s=LOOP_S)
    children = [
        _start(
            board, 0, "robot.simulation.world_process", WorldProcessConfig().model_dump_json(),
            {"world": world, "set-points": set_points, "world-orders": world_orders},
        ),
        _start(
            board, 1, "robot.servo_process", process_config.model_dump_json(),
            {"world": world, "set-points": set_points, "servo": servo, "servo-orders": orders},
        ),
    ]  # fmt: skip
    try:
        _until_ready(board, children)
        if priority:
            for child in children:
                os.sched_setscheduler(child.pid, os.SCHED_FIFO, os.sched_param(priority))
        time.sleep(0.5)
        first = servo.count
        _send(orders, seconds)
        steps = list(_steps(servo, layout, first))
        _check_alive(children)
    finally:
        for child in children:
            child.kill()
            child.wait()
    return _figures(steps, motion_limits(servo_config(rate_hz)))


def _until_ready(board: ProcessBoard, children: list[subprocess.Popen[bytes]]) -> None:
    ends_s = time.monotonic() + READY_S
    while not board.places["ready"].all():
        _check_alive(children)
        if time.monotonic() > ends_s:
            raise RuntimeError(f"servo and hardware are not ready within {READY_S:g} s")
        time.sleep(0.01)


def _check_alive(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is not None:
            raise RuntimeError(f"a process ended with status {child.returncode}: {child.args!r}")


def _start(
    board: ProcessBoard, place: int, module: str, config: str, rings: dict[str, SharedRing | MessageRing]
) -> subprocess.Popen[bytes]:
    files = {name: (ring.file,) if isinstance(ring, SharedRing) else ring.files for name, ring in rings.items()}
    words = [word for name, numbers in files.items() for word in (f"--{name}", *map(str, numbers))]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", module, "--config", config, *words),
            *("--board", str(board.file), "--place", str(place), "--parent", str(os.getpid())),
        ],
        cwd=ROOT,
        pass_fds=[board.file, *(number for numbers in files.values() for number in numbers)],
    )


def _send(orders: MessageRing, seconds: float) -> None:
    """Send targets as a loop does; each is due one period after its tick, however late this process runs."""
    begin_s = tick_s = time.monotonic()
    while tick_s < begin_s + seconds:
        due_s = tick_s + LOOP_S
        # the way grows from rest, or the first targets would ask for a jump of the velocity
        target = HOME + min(1.0, (due_s - begin_s) / 1.0) * (wish(due_s - begin_s, 0.5) - HOME)
        order = JointTarget(q_rad=tuple(target.tolist()), gripper_width_m=0.08, due_s=due_s, sent_s=time.monotonic())
        if orders.has_room(256):
            orders.put(ServoOrder.TARGET, pack_target(order))
        tick_s += LOOP_S
        time.sleep(max(0.0, tick_s - time.monotonic()))


def _steps(ring: SharedRing, layout: ServoRecord, first: int) -> Iterator[ServoStep]:
    record = bytearray(layout.size)
    for number in range(first, ring.count):
        if ring.read(number, record):
            yield layout.unpack(record)


def _figures(steps: list[ServoStep], limits: MotionLimits) -> dict[str, object]:
    late_ms = 1e3 * np.array([step.status.late_s for step in steps])
    times_s = np.array([step.status.time_s for step in steps])
    ddq = np.array([step.ddq_rad_s2 for step in steps])
    # a stream that begins anew, after the arm's controller has stopped by itself, is no motion
    streams = np.array([step.status.cause is not Cause.CONTROLLER for step in steps])
    jerk = (np.diff(ddq, axis=0) / np.diff(times_s)[:, None])[streams[1:] & streams[:-1]]
    ratios = [
        np.abs([step.dq_rad_s for step in steps]) / limits.dq_rad_s,
        np.abs(ddq) / limits.ddq_rad_s2,
        np.abs(jerk) / limits.dddq_rad_s3,
    ]
    modes = [step.status.mode for step in steps]
    return {
        "late_ms": late_ms,
        "missed": steps[-1].status.missed - steps[0].status.missed,
        "steps": len(steps),
        "ratio": [float(ratio.max()) for ratio in ratios],
        "following": sum(mode is ServoMode.FOLLOWING for mode in modes),
        "fault": sum(mode is ServoMode.FAULT for mode in modes),
    }


def merged(runs: list[dict[str, object]]) -> dict[str, object]:
    """Percentiles over all repetitions and, for the spread, the worst repetition's p99."""
    late_ms = [np.asarray(run["late_ms"]) for run in runs]
    together = np.concatenate(late_ms)

    def total(key: str) -> int:
        return sum(int(str(run[key])) for run in runs)

    steps = total("steps")
    all_ratios = [run["ratio"] for run in runs]
    return {
        "late_ms": {
            **{name: round(float(np.percentile(together, share)), 3) for name, share in _SHARES.items()},
            "max": round(float(together.max()), 3),
            "p99_worst_repetition": round(max(float(np.percentile(late, 99)) for late in late_ms), 3),
        },
        "steps": steps,
        "missed": total("missed"),
        "following_share": round(total("following") / steps, 4),
        "runs_with_fault": sum(int(str(run["fault"])) > 0 for run in runs),
        "limits_ratio_velocity_acceleration_jerk": [round(max(ratios), 4) for ratios in zip(*all_ratios, strict=True)],
    }


_SHARES = {"p50": 50.0, "p99": 99.0, "p99_9": 99.9}


def interpolation(wish_hz: float, rate_hz: float = 500.0, seconds: float = 20.0) -> dict[str, float]:
    """Distance of the set-points from the smooth way that the 20 Hz targets were taken from, delayed as configured."""
    config = servo_config(rate_hz)
    delay_s = config.delay_for_s(LOOP_S)
    limits = ServoLimits(
        loop_period_s=LOOP_S,
        delay_s=delay_s,
        watchdog_s=config.watchdog_for_s(LOOP_S),
        max_state_age_s=0.02,
        max_tracking_rad=0.3,
    )
    servo, step_s = Servo(PathPlanner(motion_limits(config)), limits, _reading(HOME, 0.0), 0.0), 1.0 / rate_hz
    off, accelerations = [], []
    q, sent = HOME, 0
    for step in range(round(seconds * rate_hz)):
        now_s = step * step_s
        while sent * LOOP_S <= now_s + 1e-9:
            due_s = (sent + 1) * LOOP_S
            target = HOME + min(1.0, due_s / 2.0) * (wish(due_s, wish_hz) - HOME)
            servo.target(
                JointTarget(q_rad=tuple(target.tolist()), gripper_width_m=0.08, due_s=due_s, sent_s=now_s), now_s
            )
            sent += 1
        point = servo.step(now_s, _reading(q, now_s))
        q = np.array(point.q_rad)
        if now_s > 3.0:
            off.append(q - wish(now_s - delay_s, wish_hz))
            accelerations.append(point.ddq_rad_s2)
    turn = 2.0 * math.pi * wish_hz
    return {
        "rms_mrad": round(1e3 * float(np.sqrt(np.mean(np.square(off)))), 4),
        "max_mrad": round(1e3 * float(np.abs(off).max()), 4),
        "travel_mrad": 240.0,
        "greatest_acceleration_over_the_ways_own": round(float(np.abs(accelerations).max()) / (0.12 * turn**2), 3),
    }


def step_us(rate_hz: float = 500.0) -> dict[str, float]:
    """What a step costs, and one with a new target [us]."""
    servo = Servo(
        PathPlanner(motion_limits(servo_config(rate_hz))),
        ServoLimits(loop_period_s=LOOP_S, delay_s=0.025, watchdog_s=0.125, max_state_age_s=0.02, max_tracking_rad=0.3),
        _reading(HOME, 0.0),
        0.0,
    )
    now_s = 0.0
    taken: list[float] = []
    with_target: list[float] = []
    servo.step(now_s, _reading(HOME, now_s))
    for step in range(20_000):
        now_s = step / rate_hz
        reading = _reading(HOME, now_s)
        begin_ns = time.perf_counter_ns()
        if step % 25 == 0:
            q = (HOME + 0.1 * math.sin(now_s)).tolist()
            servo.target(JointTarget(q_rad=tuple(q), gripper_width_m=0.08, due_s=now_s + LOOP_S, sent_s=now_s), now_s)
        servo.step(now_s, reading)
        (with_target if step % 25 == 0 else taken).append(1e-3 * (time.perf_counter_ns() - begin_ns))
    return {"step_p50": round(float(np.median(taken)), 1), "with_target_p50": round(float(np.median(with_target)), 1)}


def _reading(q_rad: Array, now_s: float) -> Reading:
    zeros = np.zeros(7)
    arm = ArmState(
        measured_s=now_s, q_rad=q_rad, dq_rad_s=zeros, T_base_tcp=np.eye(4), tcp_velocity=np.zeros(6),
        gripper_width_m=0.08,
    )  # fmt: skip
    return Reading(arm=arm, following=True, q_set_rad=tuple(q_rad.tolist()), gripper_set_m=0.08, clears=0)


def _fifo_allowed() -> bool:
    code = f"import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param({FIFO}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
