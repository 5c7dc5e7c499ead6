"""The servo and the simulated hardware in their own processes: what each fault leads to, on the wall clock."""

from __future__ import annotations

import signal
from contextlib import closing

import numpy as np
import pytest

from robot.errors import HardwareError
from robot.servo import Cause, ServoMode
from robot.servo_process import ServoFault
from robot.simulation.world_process import WorldFault
from tests.servo_processes import AT_REST_RAD_S, PATIENT, SERVO, WORLD, Processes, running, until


def test_the_arm_follows_through_both_processes_and_the_loop_sees_every_state_once() -> None:
    with running() as both:
        count, before = both.rings.world.count, both.arm.state().T_base_tcp[2, 3]
        both.arm.history()
        both.drive(20)
        both.check_following()
        assert before - both.arm.state().T_base_tcp[2, 3] > 0.05
        times = [state.measured_s for state in both.arm.history()]
        assert len(times) > 50
        assert (np.diff(times) > 0.0).all()
        both.check_limits(count)


def test_a_servo_that_is_to_read_only_gives_states_and_moves_nothing_whatever_it_is_told() -> None:
    both = Processes(PATIENT.model_copy(update={"read_only": True}))
    with closing(both):
        both.start(WORLD)
        both.start(SERVO)
        before = both.arm.state()
        both.drive(8)
        both.arm.clear_fault()
        both.drive(8)
        after = both.arm.state()
        assert after.measured_s > before.measured_s + 0.5
        np.testing.assert_allclose(after.T_base_tcp, before.T_base_tcp, atol=1e-6)
        assert both.rings.set_points.count == 0
        both.process(SERVO).send_signal(signal.SIGTERM)
        assert both.process(SERVO).wait(timeout=20.0) == 0
        assert both.rings.set_points.count == 0


def test_when_the_loop_is_silent_the_servo_holds() -> None:
    with running() as both:
        count = both.rings.world.count
        both.drive(12)
        assert both.speed() > 0.05
        both.check_rests()
        assert (both.status.mode, both.status.cause) == (ServoMode.HELD, Cause.WATCHDOG)
        both.check_limits(count)
        both.drive(4)  # and goes on when the loop does
        both.check_following()


def test_when_the_servo_is_killed_in_motion_the_arm_stops_by_itself_and_its_successor_goes_on() -> None:
    with running() as both:
        count = both.rings.world.count
        both.drive(12)
        assert both.speed() > 0.05
        both.process(SERVO).send_signal(signal.SIGKILL)
        both.process(SERVO).wait()
        both.check_rests()
        both.check_limits(count)
        with pytest.raises(HardwareError, match=r"servo: arm state is \d+ ms old \(allowed 100 ms\)"):
            both.arm.state()
        stood, _ = both.in_force(both.rings.world.count - 1)
        both.start(SERVO)
        until(lambda: both.status.cause is Cause.IDLE, "the servo is idle")
        now, _ = both.in_force(both.rings.world.count - 1)
        np.testing.assert_allclose(now, stood, atol=1e-9)
        both.drive(6)
        both.check_following()
        both.check_limits(count)


def test_a_servo_that_stood_still_for_300_ms_recovers_within_the_limits() -> None:
    with running() as both:
        count = both.rings.world.count
        both.drive(12)
        assert both.speed() > 0.05
        both.process(SERVO).send_signal(signal.SIGSTOP)
        stopped = both.rings.world.count
        until(lambda: both.rings.world.count >= stopped + 60, "300 ms of the world")
        both.process(SERVO).send_signal(signal.SIGCONT)
        both.check_rests()
        until(lambda: both.status.mode is ServoMode.HELD, "the servo holds")
        both.drive(10)
        both.check_following()
        both.check_limits(count)


def test_when_the_arms_hardware_is_gone_the_servo_stops_and_the_loop_is_told() -> None:
    with running() as both:
        both.drive(12)
        both.process(WORLD).send_signal(signal.SIGKILL)
        both.process(WORLD).wait()
        until(lambda: both.status.mode is ServoMode.FAULT, "the servo stops")
        assert both.status.cause is Cause.STATE_OLD

        def told() -> bool:
            try:
                both.arm.state()
            except HardwareError:
                return True
            return False

        until(told, "there is no state any more")


def test_a_reflex_of_the_arm_is_latched_until_the_person_clears_it() -> None:
    with running() as both:
        count = both.rings.world.count
        both.drive(12)
        both.board.places["fault"][WORLD] = WorldFault.REFLEX
        until(lambda: both.arm.state().fault == "arm: reflex (injected)", "the loop sees the fault")
        both.check_rests()
        both.board.places["fault"][WORLD] = 0
        assert both.arm.state().fault is not None
        both.arm.clear_fault()
        until(lambda: both.status.cause is Cause.IDLE, "the servo is idle")
        assert both.arm.state().fault is None
        both.drive(6)
        both.check_following()
        both.check_limits(count)


def test_an_arm_that_says_nothing_any_more_is_stopped_and_latched() -> None:
    with running() as both:
        both.drive(12)
        both.board.places["fault"][WORLD] = WorldFault.SILENT
        until(lambda: both.status.cause is Cause.STATE_OLD, "the servo stops")
        both.board.places["fault"][WORLD] = 0
        until(lambda: both.speed() < AT_REST_RAD_S, "the arm is at rest")
        assert both.status.mode is ServoMode.FAULT


def test_an_injected_stall_of_the_servo_is_answered_by_the_arms_own_braking() -> None:
    with running() as both:
        count = both.rings.world.count
        both.drive(12)
        both.board.places["fault_value"][SERVO] = 0.3
        both.board.places["fault"][SERVO] = ServoFault.STALL
        both.check_rests()
        until(lambda: both.status.worst_late_s > 0.25, "the servo was late")
        both.check_limits(count)


def test_at_its_end_the_servo_brakes_and_leaves_the_arm_at_rest() -> None:
    with running() as both:
        count = both.rings.world.count
        both.drive(12)
        both.process(SERVO).send_signal(signal.SIGTERM)
        assert both.process(SERVO).wait(timeout=20.0) == 0
        both.check_rests()
        both.check_limits(count)
