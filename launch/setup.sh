#!/usr/bin/env bash
# Makes .venv with everything that demo, tests and scripts need; returns at once when it is current.
# demo.sh and test.sh call it. HANDRAIL_PYTHON names the Python to build from, if it must be a certain one.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

readonly stamp=.venv/handrail-setup
say() { printf '[set-up] %s\n' "$*" >&2; }
fail() {
    printf '[set-up] %s\n' "$@" >&2
    exit 1
}

# What the environment depends on; the folder too, as an environment holds absolute paths.
fingerprint() {
    .venv/bin/python - 2>/dev/null <<'PYTHON'
import hashlib, pathlib, sys
digest = hashlib.sha256(f"{sys.version}\0{pathlib.Path.cwd()}".encode())
for name in ("pyproject.toml", "constraints.txt", "launch/setup.sh"):
    digest.update(pathlib.Path(name).read_bytes())
print(digest.hexdigest())
PYTHON
}

is_current() { [[ -f $stamp && "$(<"$stamp")" == "$(fingerprint)" ]]; }

# Runs, as a version manager's stand-in for a Python that is not there does not, and is new enough.
is_usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local python
    for python in ${HANDRAIL_PYTHON:+"$HANDRAIL_PYTHON"} python3.11 python3.12 python3.13 python3; do
        if is_usable "$python"; then
            printf '%s' "$python"
            return
        elif [[ $python == "${HANDRAIL_PYTHON:-}" ]]; then
            fail "HANDRAIL_PYTHON=$python is no Python 3.11 or newer; correct or unset it"
        fi
    done
    fail "no Python 3.11 or newer found (looked for python3.11, python3.12, python3.13, python3)" \
        "install one (Debian, Ubuntu: sudo apt install python3.11 python3.11-venv), or set HANDRAIL_PYTHON to its path"
}

make_venv() {
    local python
    [[ -w . && (! -e .venv || -w .venv) ]] ||
        fail "$PWD: .venv is not current and you may not write here; run ./launch/setup.sh as the folder's owner, or clone it"
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv or pip of its own; install them (Debian, Ubuntu: sudo apt install python3-venv)"
    say "1/2 making .venv with $("$python" -V)"
    rm -rf .venv
    mkdir .venv
    printf unfinished >"$stamp"
    "$python" -m venv .venv || fail "cannot make .venv; see the lines above"
}

# pip with its output in a log, and a line of progress on a terminal or every 10 s.
pip_install() {
    local log=.venv/setup.log begun=$SECONDS pip_id line
    .venv/bin/python -m pip --no-input --disable-pip-version-check install --progress-bar off -c constraints.txt "$@" \
        >>"$log" 2>&1 &
    pip_id=$!
    trap 'kill "$pip_id" 2>/dev/null; fail "interrupted; start again, it begins anew"' INT TERM
    while kill -0 "$pip_id" 2>/dev/null; do
        sleep 0.5
        line=$(grep -E '^(Collecting|Building|Installing|Successfully)' "$log" | tail -n 1 | cut -c 1-60) || true
        if [[ -t 2 ]]; then
            printf '\r\033[K[set-up] %3d s  %s' "$((SECONDS - begun))" "$line" >&2
        elif ((SECONDS - begun >= ${next_s:=10})); then
            say "$((SECONDS - begun)) s  $line"
            next_s=$((next_s + 10))
        fi
    done
    trap - INT TERM
    [[ -t 2 ]] && printf '\r\033[K' >&2
    if ! wait "$pip_id"; then
        tail -n 15 "$log" >&2
        fail "pip failed (whole log: $log). Needed: network or a pip index, and 3 GB on this disk." \
            "Behind a mirror or proxy set PIP_INDEX_URL or HTTPS_PROXY; no build for this machine: see README, Set-up."
    fi
}

# A moved or copied clone brings an environment whose scripts point at the old folder.
is_sound() {
    [[ ! -f $stamp || "$(<"$stamp")" != unfinished ]] && is_usable .venv/bin/python &&
        .venv/bin/python -m pip -V >/dev/null 2>&1 && grep -qF "$PWD/.venv" .venv/bin/activate
}

is_current && exit 0
# Two set-ups at once would write over each other. The lock is this file's own, so none is left behind.
if command -v flock >/dev/null; then
    exec 9<launch/setup.sh
    flock -n 9 || { say "waiting for another set-up in this folder" && flock 9; }
    is_current && exit 0
fi

begun=$SECONDS
# New pins go into an environment that is sound; an interrupted, broken or moved one is made anew.
is_sound || make_venv
printf unfinished >"$stamp"
say "2/2 installing about $(grep -c == constraints.txt) packages; this takes a minute or two the first time"
pip_install setuptools
# without isolation, so that the build uses the setuptools of constraints.txt and no other
pip_install --no-build-isolation -e '.[simulation,gymnasium,franka,realsense,calibration,learner,dev]'
fingerprint >"$stamp"
say "done in $((SECONDS - begun)) s"
