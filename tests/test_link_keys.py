"""Keys that no one else can read, made once; who has none of them gets nothing from the learner and costs it little."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import zmq

from policy import learner_messages as wire
from policy.learner_link import LearnerLink
from policy.link_keys import learner_keys, make_keys, revoke, robot_keys, robots_in
from policy.link_security import HANDSHAKE_MS
from policy.robot_link import RobotLink
from robot.errors import BadInputError
from tests.learner_episodes import made_up
from tests.scripts import STATION, Scripts

ANYWHERE = "tcp://127.0.0.1:*"
WAIT_S = 30.0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys", ["left", "right"])
    return tmp_path / "keys"


@pytest.fixture
def learner(keys: Path, stack: ExitStack) -> LearnerLink:
    return stack.enter_context(LearnerLink(ANYWHERE, keys=learner_keys(keys)))


def robot(stack: ExitStack, learner: LearnerLink, keys: Path, name: str) -> RobotLink:
    return stack.enter_context(RobotLink(learner.endpoint, run_id=name, keys=robot_keys(keys / name)))


def serve(learner: LearnerLink, robots: list[RobotLink], done: Callable[[], bool]) -> list[str]:
    """Let all work until `done`; return the runs whose episodes came, which are acknowledged."""
    came = []
    until_s = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < until_s, [one.status for one in robots]
        for one in robots:
            one.poll()
        for received in learner.poll(0.01):
            came.append(received.episode.key.run_id)
            learner.acknowledge(received, "stored")
    return came


def stranger(stack: ExitStack, learner: LearnerLink) -> zmq.Socket[bytes]:
    context = stack.enter_context(zmq.Context())
    found: zmq.Socket[bytes] = stack.enter_context(context.socket(zmq.DEALER))
    found.linger, found.immediate = 0, True
    return found


def test_keys_are_for_their_owner_alone_and_fit_each_other(keys: Path) -> None:
    for path in [keys, *keys.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    learner = learner_keys(keys)
    assert learner_keys(keys / "learner").secret == learner.secret
    for name in ("left", "right"):
        found = robot_keys(keys / name)
        assert found.learner == learner.public
        assert learner.robots.name(found.public) == name
    assert learner.robots.name(b"x" * 40) is None


def test_keys_are_never_overwritten(keys: Path) -> None:
    before = {path: path.read_bytes() for path in keys.rglob("*.json")}
    with pytest.raises(BadInputError, match=r"left: robot 'left' has keys already; revoke it first"):
        make_keys(keys, ["third", "left"])
    make_keys(keys, ["third"])
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(robots_in(keys)) == ["left", "right", "third"]


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(BadInputError, match="holds other files and no keys"):
        make_keys(tmp_path, ["left"])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["learner", "robots", "../x", "Left", "", "a b"])
def test_odd_robot_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError, match="robot name"):
        make_keys(tmp_path / "keys", [name])
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda path: path.chmod(0o644), "mode 0644 lets others read the key"),
        (lambda path: path.unlink(), "make them with launch/make_keys.py"),
        (lambda path: path.write_text("{}"), "no keys of a robot"),
        (lambda path: path.write_text(path.read_text().replace('"secret": "', '"secret": "x')), "no keys of a robot"),
    ],
)
def test_keys_that_cannot_be_used_are_one_line(keys: Path, spoil: Callable[[Path], object], text: str) -> None:
    spoil(keys / "left" / "key.json")
    with pytest.raises(BadInputError, match=text) as caught:
        robot_keys(keys / "left")
    assert "\n" not in str(caught.value)


def test_keys_of_the_wrong_side_are_told_apart(keys: Path) -> None:
    with pytest.raises(BadInputError, match=r"name the robot's own folder in it \(left, right\)"):
        robot_keys(keys)
    with pytest.raises(BadInputError, match="no keys of a robot"):
        robot_keys(keys / "learner")
    with pytest.raises(BadInputError, match="no keys of a learner"):
        learner_keys(keys / "left")


def test_keys_that_are_no_pair_are_told(keys: Path) -> None:
    path = keys / "left" / "key.json"
    other = robot_keys(keys / "right").secret.decode()
    path.write_text(path.read_text().replace(robot_keys(keys / "left").secret.decode(), other))
    with pytest.raises(BadInputError, match="are no pair"):
        robot_keys(keys / "left")


def test_a_robot_added_later_is_let_in_by_a_running_learner(keys: Path, learner: LearnerLink, stack: ExitStack) -> None:
    left = robot(stack, learner, keys, "left")
    serve(learner, [left], lambda: left.status.connected)
    make_keys(keys, ["third"])
    third = robot(stack, learner, keys, "third")
    third.send_episode(made_up(0, run_id="third"))
    assert serve(learner, [left, third], lambda: third.status.stored == 1) == ["third"]


def test_a_robot_that_was_turned_away_is_told_and_gets_in_once_it_is_added(
    keys: Path, learner: LearnerLink, stack: ExitStack
) -> None:
    mine = keys / "learner" / "robots" / "left.json"
    allowed = mine.read_bytes()
    mine.unlink()
    left = robot(stack, learner, keys, "left")
    left.send_episode(made_up(0, run_id="left"))
    assert serve(learner, [left], lambda: "does not let this robot's key in" in left.status.problem) == []
    assert not left.status.connected
    mine.write_bytes(allowed)
    assert serve(learner, [left], lambda: left.status.stored == 1) == ["left"]


def test_a_robot_revoked_while_it_is_connected_is_heard_and_served_no_more(
    keys: Path, learner: LearnerLink, stack: ExitStack
) -> None:
    left, right = robot(stack, learner, keys, "left"), robot(stack, learner, keys, "right")
    serve(learner, [left, right], lambda: left.status.connected and right.status.connected and learner.robots == 2)
    revoke(keys, ["left"])
    learner.publish(1, b"new")
    left.send_episode(made_up(0, run_id="left"))
    right.send_episode(made_up(0, run_id="right"))
    came = serve(learner, [left, right], lambda: right.status.stored == 1 and learner.ignored > 0)
    assert came == ["right"]
    assert right.wait_weights(1, WAIT_S) == b"new"
    assert left.take_weights() is None
    assert left.status.waiting == 1
    assert not (keys / "left").exists()


def test_revoking_whom_nobody_knows_changes_nothing(keys: Path) -> None:
    with pytest.raises(BadInputError, match=r"robot 'other' has no keys here \(there are: left, right\)"):
        revoke(keys, ["left", "other"])
    assert sorted(robots_in(keys)) == ["left", "right"]


@pytest.mark.parametrize("removing", ["pathlib.Path.unlink", "shutil.rmtree"])
def test_keys_that_cannot_be_removed_are_one_line(keys: Path, monkeypatch: pytest.MonkeyPatch, removing: str) -> None:
    def refused(path: Path, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path.name)

    with monkeypatch.context() as patch:
        patch.setattr(removing, refused)
        told = "keys of robot 'left' cannot be removed (Permission denied); mend that and revoke left right again"
        with pytest.raises(BadInputError, match=re.escape(f"{keys}: {told}")):
            revoke(keys, ["left", "right"])
    revoke(keys, ["left", "right"])
    assert list(robots_in(keys)) == []


def without_keys(socket: zmq.Socket[bytes], learner: bytes) -> None:
    """Plain NULL."""


def with_a_key_of_its_own(socket: zmq.Socket[bytes], learner: bytes) -> None:
    """The learner's public key is known, the own one is not allowed."""
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.curve_serverkey = learner


def with_another_learners_key(socket: zmq.Socket[bytes], learner: bytes) -> None:
    """All keys are made up."""
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.curve_serverkey = zmq.curve_keypair()[0]


def with_a_password(socket: zmq.Socket[bytes], learner: bytes) -> None:
    """Another mechanism."""
    socket.plain_username, socket.plain_password = b"robot", b"secret"


@pytest.mark.parametrize("arm", [without_keys, with_a_key_of_its_own, with_another_learners_key, with_a_password])
def test_a_stranger_gets_nothing_and_is_not_heard(
    keys: Path, learner: LearnerLink, stack: ExitStack, arm: Callable[[zmq.Socket[bytes], bytes], None]
) -> None:
    learner.publish(1, b"weights")
    unknown = stranger(stack, learner)
    arm(unknown, learner_keys(keys).public)
    monitor = unknown.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECTED)
    stack.callback(monitor.close, 0)
    stack.callback(unknown.disable_monitor)
    unknown.connect(learner.endpoint)
    hello = wire.pack(wire.Hello(run_id="run-1", received=0, answered=0, in_force=0))
    episode = wire.pack(wire.episode_message(made_up(0)))
    known = robot(stack, learner, keys, "left")
    events: list[int] = []

    def turned_away() -> bool:
        for message in (hello, episode):
            with suppress(zmq.Again):  # where there is no connection to send it on
                unknown.send(message, zmq.NOBLOCK)
        while monitor.poll(0):
            events.append(int.from_bytes(monitor.recv_multipart()[0][:2], "little"))
        return zmq.EVENT_DISCONNECTED in events and known.status.connected

    assert serve(learner, [known], turned_away) == []
    assert zmq.EVENT_HANDSHAKE_SUCCEEDED not in events
    assert unknown.poll(0) == 0  # neither welcome nor weights
    assert learner.robots == 1
    assert learner.malformed == 0
    assert (learner.denied > 0) == (arm is with_a_key_of_its_own)


def test_silent_connections_are_cut_off_and_keep_no_robot_out(
    keys: Path, learner: LearnerLink, stack: ExitStack
) -> None:
    host, _, port = learner.endpoint.removeprefix("tcp://").rpartition(":")
    before = open_files()
    silent = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(200)]
    for one in silent:
        one.setblocking(False)
    known = robot(stack, learner, keys, "left")
    known.send_episode(made_up(0, run_id="left"))
    assert serve(learner, [known], lambda: known.status.stored == 1) == ["left"]

    def closed() -> bool:
        return all(ended(one) for one in silent)

    serve(learner, [known], closed)
    # what is left of them is on this side: the learner's own ends are gone
    assert open_files() - before <= len(silent) + 20


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def ended(connection: socket.socket) -> bool:
    """Read away what the other side sent, and tell whether it has closed."""
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return True


def test_a_greeting_that_announces_a_giant_message_takes_no_memory(
    keys: Path, learner: LearnerLink, stack: ExitStack
) -> None:
    host, _, port = learner.endpoint.removeprefix("tcp://").rpartition(":")
    greeting = b"\xff" + b"\0" * 8 + b"\x7f" + b"\3\0" + b"CURVE".ljust(20, b"\0") + b"\0" * 32
    liar = stack.enter_context(socket.create_connection((host, int(port)), timeout=WAIT_S))
    liar.sendall(greeting + b"\6" + (2**62).to_bytes(8, "big") + b"x" * 1000)
    said = b""
    try:
        while more := liar.recv(4096):
            said += more
    except ConnectionResetError:
        pass
    assert len(said) < 100  # its own greeting, and no answer to the command
    known = robot(stack, learner, keys, "left")
    serve(learner, [known], lambda: known.status.connected)


def test_the_wait_for_a_handshake_is_short() -> None:
    assert HANDSHAKE_MS <= 10_000


@pytest.fixture
def scripts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Scripts:
    return Scripts(capsys, monkeypatch)


def test_the_script_makes_adds_revokes_and_lists(scripts: Scripts, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    made = scripts("make_keys", keys, "left", "right", "--json", tmp_path / "made.json")
    assert made.code == 0
    assert made.out.splitlines()[-2] == "robots that may connect: left, right"
    document = json.loads((tmp_path / "made.json").read_text())
    assert document["robots"] == ["left", "right"]
    assert document["made"] == [str(keys / name) for name in ("learner", "left", "right")]
    assert robot_keys(keys / "left").secret.decode() not in made.out
    assert scripts("make_keys", keys, "third").code == 0
    assert scripts("make_keys", keys, "--revoke", "left").code == 0
    assert scripts("make_keys", keys).out == "robots that may connect: right, third\n"
    assert "has keys already" in scripts.refused("make_keys", keys, "third")
    assert "no keys" in scripts.refused("make_keys", tmp_path / "nothing")
    assert "make_keys.py keys left right" in scripts("make_keys", "--help").out


def test_scripts_listen_and_connect_beyond_this_machine_with_keys_only(scripts: Scripts, keys: Path) -> None:
    everywhere, rig = "tcp://0.0.0.0:*", "tcp://192.0.2.1:5701"
    for name, words in (
        ("run_learner", ("--endpoint", everywhere)),
        ("run_robot", ("--learner", rig)),
        ("run_learner", ("--learner.endpoint", f'"{everywhere}"')),
    ):
        assert "without CURVE keys" in scripts.refused(name, STATION, *words)
    assert "no keys of a learner" in scripts.refused(
        "run_learner", STATION, "--endpoint", everywhere, "--keys", keys / "left"
    )
    assert "name the robot's own folder" in scripts.refused(
        "run_robot", STATION, "--learner", rig, "--learner.keys", f'"{keys}"'
    )


def test_going_back_where_there_is_nothing_to_go_back_to_is_one_line(scripts: Scripts, tmp_path: Path) -> None:
    nowhere = ("run_learner", STATION, "--state", tmp_path / "none", "--rollback", "4")
    assert "has no learner; name its --state" in scripts.refused(*nowhere)
    assert "add --out RUN --resume" in scripts.refused("run_robot", STATION, "--weights", "4")
    lost = ("run_robot", STATION, "--weights", "4", "--out", tmp_path / "none", "--resume")
    assert "no run here" in scripts.refused(*lost)


@pytest.mark.parametrize("key", ["#" * 40, "\u00e9" * 40, "~" * 40])
def test_a_mistyped_key_keeps_out_its_robot_alone(keys: Path, key: str) -> None:
    (keys / "learner" / "robots" / "left.json").write_text(json.dumps({"public": key}))
    assert list(robots_in(keys)) == ["right"]
    assert revoke(keys, ["left"]) == [keys / "learner" / "robots" / "left.json", keys / "left"]


@pytest.mark.parametrize("missing", ["allowed", "key", "folder"])
def test_a_half_made_robot_can_be_revoked_and_made_again(keys: Path, missing: str) -> None:
    if missing == "folder":
        shutil.rmtree(keys / "left")
    else:
        (keys / "learner" / "robots" / "left.json").unlink()
    if missing == "key":
        (keys / "left" / "key.json").rename(keys / "left" / ".key.json.1")
    revoke(keys, ["left"])
    make_keys(keys, ["left"])
    assert sorted(robots_in(keys)) == ["left", "right"]


def test_a_folder_of_other_things_among_the_keys_is_not_revoked(keys: Path) -> None:
    (keys / "notes").mkdir()
    (keys / "notes" / "mine").write_text("x")
    with pytest.raises(BadInputError, match="'notes' has no keys here"):
        revoke(keys, ["notes"])
    assert (keys / "notes" / "mine").exists()
