"""A learner as a child of the robot's process: started, found and ended here, never waited for in a tick."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Self

from policy.learner_settings import LearnerSettings
from robot.errors import BadInputError

STOP_TIMEOUT_S = 20.0
LOG_TAIL_LINES = 3


class LearnerChild:
    """Runs `policy.learner_process` on a machine where both fit; it ends when this process does, however that is.

    What it prints goes to learner.log in its folder.
    """

    def __init__(self, settings: LearnerSettings, *, module: str = "policy.learner_process") -> None:
        """Prepare; entering starts the process and returns at once, while it still loads torch."""
        self._settings, self._module = settings, module
        self._log = settings.state_dir / "learner.log"
        self._status = settings.state_dir / "status.json"
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        folder = self._settings.state_dir
        path = folder / "settings.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._status.unlink(missing_ok=True)
            path.write_text(self._settings.model_dump_json(indent=2))
            log = self._log.open("ab")
        except OSError as error:
            raise BadInputError(f"{folder}: cannot be written to ({error.strerror}); choose another folder") from error
        with log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", self._module, "--settings", str(path), "--parent-pid", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                # before numpy loads: a BLAS with a thread per core would fight the control loop
                env=os.environ | {"OMP_NUM_THREADS": str(self._settings.threads)},
                start_new_session=True,  # Ctrl-C is ours to handle; the learner is told when the run is over
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._child is not None and self._child.poll() is None

    def endpoint(self) -> str:
        """Return where it listens, waiting for it to bind: well under a second, for it binds before it loads torch.

        Raises:
            BadInputError: it ended instead; the text is what it said.
        """
        assert self._child is not None
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._child.wait(STOP_TIMEOUT_S)
            said = self._log.read_text(errors="replace").strip().splitlines()[-LOG_TAIL_LINES:]
            raise BadInputError(f"learner did not start: {' '.join(said) or f'see {self._log}'}")
        return str(json.loads(line)["endpoint"])

    def status(self) -> dict[str, object]:
        """Return the latest `LearnerStatus` as a dict, about a second old while it runs; empty before the first."""
        try:
            found: dict[str, object] = json.loads(self._status.read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def stop(self) -> int | None:
        """Let it write its checkpoint and end; return its exit status, None when it never ran."""
        if self._child is None:
            return None
        if self.alive:
            self._child.terminate()
        try:
            self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # what it acknowledged is on the disk, so nothing is lost
            self._child.kill()
            self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()
        return self._child.returncode
