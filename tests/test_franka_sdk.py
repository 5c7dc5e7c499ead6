"""The vendor's library: what it says about an arm that cannot be had, and what reaches the arm."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from robot import fr3, franka_stream
from robot.errors import BadInputError, HardwareError
from robot.franka_config import FrankaArmConfig, FrankaLoadConfig, FrankaToolConfig
from robot.franka_sdk import FrankyLink, connect_franka
from robot.franka_stream import FrankaStream
from tests.franka_bench import franka, free_address, stand_in

pytestmark = pytest.mark.xdist_group("franka")

PORT = 1337


@contextmanager
def listening(address: str, answer: bytes | None) -> Iterator[None]:
    """Something that is no arm: it answers the first request with `answer`, or never."""
    with closing(socket.create_server((address, PORT))) as server:
        if answer is not None:

            def serve() -> None:
                with closing(server.accept()[0]) as client:
                    _, number, _ = struct.unpack("<III", client.recv(100)[:12])
                    client.sendall(struct.pack("<III", 0, number, 12 + len(answer)) + answer)
                    client.recv(100)  # until it goes

            threading.Thread(target=serve, daemon=True).start()
        yield


def refusal(config: FrankaArmConfig) -> str:
    with pytest.raises(BadInputError) as caught:
        connect_franka(config)
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_an_address_where_nothing_listens_says_so() -> None:
    address = free_address()
    assert refusal(franka(address)) == (
        f"franka {address}: libfranka: Connection to FCI refused. Please install FCI feature or enable FCI mode in "
        "Desk; switch the arm on, unlock its brakes and activate FCI in Desk, or correct arm.address"
    )


def test_another_firmware_names_both_versions_and_the_cure() -> None:
    address = free_address()
    with listening(address, struct.pack("<BH5x", 1, 9)):
        said = refusal(franka(address))
    assert "Incompatible library version (server version: 9, library version: 10)" in said
    assert said.endswith("install the franky-control that fits its firmware, see docs/hardware.md")


def test_an_arm_behind_a_kernel_without_real_time_is_refused() -> None:
    has_it = Path("/sys/kernel/realtime").exists() and Path("/sys/kernel/realtime").read_text().strip() == "1"
    with stand_in() as arm:
        config = franka(arm.address, realtime_kernel=True)
        if has_it:
            connect_franka(config).close()
            return
        assert refusal(config) == (
            f"franka {arm.address}: libfranka: Running kernel does not have realtime capabilities; boot a PREEMPT_RT "
            "kernel, see docs/hardware.md (arm.realtime_kernel = false is for a simulator only)"
        )


def test_any_other_error_of_the_library_is_one_line_and_a_set_point_that_it_refuses_is_the_arms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import franky

    def refuse(*words: object, **more: object) -> None:
        raise RuntimeError("libfranka: strange\nthings")

    monkeypatch.setattr(franky, "Robot", refuse)
    assert refusal(franka("10.0.0.2")) == "franka 10.0.0.2: libfranka: strange things; look at Desk, cable and network"
    link = FrankyLink(franka("10.0.0.2"), franky, None, None)
    link._tracker = SimpleNamespace(set_target=refuse)
    with pytest.raises(HardwareError, match=r"franka 10.0.0.2: takes no set-point \(libfranka: strange things\)"):
        link.follow((0.0,) * 7, (0.0,) * 7)


def test_without_the_library_the_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "franky", None)
    said = refusal(franka("10.0.0.2"))
    assert said.startswith("franka 10.0.0.2: franky-control is not installed (")
    assert said.endswith('run `.venv/bin/python -m pip install -c constraints.txt -e ".[franka]"`')


def test_an_arm_that_never_answers_belongs_to_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(franka_stream, "_ANSWERS_S", 0.5)
    address = free_address()
    with (
        listening(address, None),
        FrankaStream(franka(address), connect_franka) as stream,
        pytest.raises(
            BadInputError,
            match=f"^franka {address}: no answer within 0.5 s; another program may hold it, one owner is allowed: end "
            "that one, or correct arm.address$",
        ),
    ):
        stream.open(lambda: True)


def test_two_runs_of_one_machine_cannot_have_one_arm() -> None:
    config = franka(free_address())
    with (
        FrankaStream(config, connect_franka),
        pytest.raises(BadInputError, match=rf"^arm 'franka-{config.address}': held by process \d+ .*one owner allowed"),
    ):
        FrankaStream(config, connect_franka).__enter__()


def test_the_stations_tool_and_load_reach_the_arm_and_its_pose_is_that_of_the_tool() -> None:
    with stand_in() as arm:
        tool = FrankaToolConfig(position_m=(0.01, -0.02, 0.15), rotation_vector_deg=(0.0, 20.0, -45.0))
        load = FrankaLoadConfig(mass_kg=0.4, centre_m=(0.0, 0.0, 0.05), inertia_kg_m2=(1e-3, 1e-3, 1e-3))
        link = connect_franka(franka(arm.address, tool=tool, load=load))
        for _ in range(5):
            sample = link.read()  # the pose follows the new tool from the next state on
        expected = fr3.FR3Kinematics(T_flange_tcp=tool.T_flange_tcp).forward(sample.q_rad)
        np.testing.assert_allclose(sample.T_base_tcp, expected, atol=1e-4)
        assert (sample.mode, sample.errors, sample.tracks) == ("Idle", (), False)
        state = link._robot.state
        assert state.m_load == pytest.approx(0.4)
        np.testing.assert_allclose(state.F_x_Cload, load.centre_m)
        link.close()
