from robot.arm import Arm
from robot.arm_state import ArmState
from robot.clock import VirtualClock
from robot.fr3 import FR3Kinematics
from robot.safety import SafetyFilter
from robot.simulation.simulated_arm import SimulatedArm
from robot.simulation.world import TIMESTEP_S, SimulatedWorld
from tests.contracts import FollowingArmContract
from tests.filter_bench import LIMITS


class TestSimulatedArm(FollowingArmContract):
    ahead_s = 0.5 * TIMESTEP_S + 1e-9  # the world stands at the physics step nearest to the clock

    def make(self, clock: VirtualClock) -> Arm:
        return SimulatedArm(SimulatedWorld(start_s=clock.now_s()), clock)

    def make_filter(self, state: ArmState) -> SafetyFilter:
        return SafetyFilter(LIMITS, FR3Kinematics(), self.period_s, state.T_base_tcp[:3, :3])

    def fail(self, arm: Arm) -> None:
        assert isinstance(arm, SimulatedArm)
        arm.fail("reflex: contact")
