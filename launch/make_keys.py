#!/usr/bin/env python3
"""Makes the keys by which a learner on another machine and its robots know each other, and revokes them."""

from __future__ import annotations

from pathlib import Path

from environment import cli

from policy.link_keys import LEARNER, make_keys, revoke, robots_in


def main() -> int:
    """Make or revoke keys, and list which robots may connect."""
    args = _parser().read()
    made = make_keys(args.folder, args.robots) if args.robots else []
    gone = revoke(args.folder, args.revoke) if args.revoke else []
    for path in made:
        what = "the learner's" if path.name == LEARNER else "a robot's"
        print(f"made {path}: {what} keys, secret; copy the folder to that machine and nowhere else")
    for path in gone:
        print(f"removed {path}")
    robots = sorted(robots_in(args.folder))
    print(f"robots that may connect: {', '.join(robots) or 'none'}")
    if made or gone:
        print(
            f"{args.folder / LEARNER / 'robots'} says so; a learner that has its own copy gets a change once that "
            "folder is copied, and need not be started again"
        )
    cli.write_json(args.json, {"made": made, "removed": gone, "robots": robots})
    return cli.OK


def _parser() -> cli.ScriptParser:
    parser = cli.script(
        __doc__ or "",
        [
            "make_keys.py keys left right        # a learner and two robots",
            "make_keys.py keys third             # one robot more, later",
            "make_keys.py keys --revoke left     # it may connect no more",
            "make_keys.py keys                   # who may connect",
        ],
    )
    parser.add_argument("folder", type=Path, metavar="KEYS", help="folder of all keys; made when missing")
    parser.add_argument("robots", nargs="*", metavar="ROBOT", help="names of robots to make keys for")
    parser.add_argument("--revoke", nargs="+", default=[], metavar="ROBOT", help="robots that may connect no more")
    return parser


if __name__ == "__main__":
    cli.run(main)
