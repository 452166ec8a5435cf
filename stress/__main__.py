"""The command line: ``python -m stress run --threads 4 --seconds 10 --scenario all --seed 1``."""

import argparse
import os
import random
import subprocess
import sys

from .harness import LOOPS, Settings, attempt
from .scenarios import SCENARIOS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m stress", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the scenarios")
    run = commands.add_parser("run", help="run one scenario, or each in a process of its own")
    run.add_argument("--threads", type=int, default=max(2, os.cpu_count() or 2), help="how many at once")
    run.add_argument("--seconds", type=float, default=5.0, help="for each scenario")
    run.add_argument("--scenario", default="all", choices=["all", *SCENARIOS])
    run.add_argument("--seed", type=int, default=None, help="of the random choices; shown when left out")
    run.add_argument("--loop", default="tokioloop", choices=LOOPS)
    options = parser.parse_args()
    if options.command == "list":
        for name, scenario in SCENARIOS.items():
            print(f"{name:10} {(sys.modules[scenario.__module__].__doc__ or '').strip().splitlines()[0]}")
        return 0
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    if options.scenario == "all":
        return run_all(options, seed)
    settings = Settings(options.loop, options.threads, options.seconds, seed)
    return attempt(options.scenario, SCENARIOS[options.scenario], settings)


def run_all(options: argparse.Namespace, seed: int) -> int:
    """Run every scenario in a process of its own, so that a crash costs one."""
    failed = []
    for name in SCENARIOS:
        command = [sys.executable, "-X", "faulthandler", "-m", "stress", "run", "--scenario", name]
        command += ["--threads", str(options.threads), "--seconds", str(options.seconds)]
        command += ["--seed", str(seed), "--loop", options.loop]
        code = subprocess.run(command, check=False).returncode
        if code:
            print(f"{name}: exit code {code}; again with: {' '.join(command[3:])}", flush=True)
            failed.append(name)
    print("failed: " + ", ".join(failed) if failed else "all scenarios passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
