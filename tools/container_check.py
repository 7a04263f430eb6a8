"""Checks the container files without Docker: `python tools/container_check.py`, with `--build` by a build, too.

The first part reads docker/Dockerfile and the compose files: paths that are copied exist and are sent to the builder,
stages and arguments are declared, programs and launch arguments that are named exist, the release of PyTorch is the
locked one, the last stages run as a user that is not root and have a check of the node.

With `--build`, exactly the files that the Dockerfile copies are copied into a new folder and built there with colcon, a
node is started from the result, and docker/healthcheck.sh is run against it. That shows whether a file is missing in
the image; base image, apt and pip lines are not tried.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ("compose.yaml", "compose.cuda.yaml")
_START_S = 120.0


@dataclass
class Stage:
    """One stage of a Dockerfile.

    Attributes:
        name: Its name.
        base: What it starts from.
        instructions: (keyword, rest) of each line.
    """

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def values(self, keyword: str) -> list[str]:
        """Return the rest of each line that begins with a keyword."""
        return [rest for word, rest in self.instructions if word == keyword]


def read_stages(text: str) -> tuple[list[str], list[Stage]]:
    """Return the arguments before the first stage, and the stages."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    before: list[str] = []
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, lines)):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(name or base, base))
        elif stages:
            stages[-1].instructions.append((word, rest.strip()))
        else:
            before.append(rest)
    return before, stages


def copied(stages: list[Stage]) -> list[str]:
    """Return the paths of the repository that the stages copy."""
    lines = [shlex.split(rest) for stage in stages for rest in stage.values("COPY")]
    return [path for words in lines if not words[0].startswith("--from") for path in words[:-1]]


def dockerfile_problems(text: str, ignored: list[str]) -> Iterator[str]:
    """Yield one sentence for each thing that is wrong with a Dockerfile.

    Args:
        text: Its content.
        ignored: Patterns of paths that are not sent to the builder.
    """
    before, stages = read_stages(text)
    names = {stage.name: stage for stage in stages}
    for path in copied(stages):
        if not (ROOT / path).exists():
            yield f"COPY {path}: there is no such file"
        for pattern in ignored:
            if any(fnmatch.fnmatch(part, pattern.removeprefix("**/")) for part in Path(path).parts):
                yield f"COPY {path}: {pattern} in Dockerfile.dockerignore leaves it out"
    for stage in stages:
        if stage.base not in names and not stage.base.startswith("ros:${ROS_DISTRO}"):
            yield f"FROM {stage.base}: neither a stage nor a ROS image"
        for rest in stage.values("COPY"):
            source = re.match(r"--from=(\S+)", rest)
            if source and source[1] not in names:
                yield f"COPY {rest}: there is no stage {source[1]}"
        yield from _undeclared(stage, before)
    if f"TORCH_VERSION={_locked('torch')}" not in text:
        yield f"TORCH_VERSION is not {_locked('torch')}, the release in requirements/core.txt"
    for target in ("cpu", "cuda"):
        yield from _target_problems(target, names)


def _undeclared(stage: Stage, before: list[str]) -> Iterator[str]:
    """Yield the variables that a stage uses without declaring them: they would be empty."""
    declared = {argument.partition("=")[0] for argument in stage.values("ARG")} | {"PATH"}
    if stage.base.startswith("ros:") and "ROS_DISTRO=jazzy" not in before:
        yield "ROS_DISTRO has no default before the first stage"
    for word, rest in stage.instructions:
        if word in ("RUN", "ENV", "COPY"):
            for name in re.findall(r"\$\{?([A-Z_]+)", rest):
                if name not in declared:
                    yield f"stage {stage.name} uses {name} without ARG {name}"


def _target_problems(target: str, names: dict[str, Stage]) -> Iterator[str]:
    found: list[tuple[str, str]] = []
    stage = names.get(target)
    while stage is not None:
        found += reversed(stage.instructions)
        stage = names.get(stage.base)
    last: dict[str, str] = {}
    for word, rest in found:  # the newest first
        last.setdefault(word, rest)
    if not found and target not in names:
        yield f"there is no target {target}"
    if last.get("USER", "root") in ("root", "0"):
        yield f"target {target} runs as root"
    copied_names = {Path(path).name for path in copied(list(names.values()))}
    for word in ("ENTRYPOINT", "HEALTHCHECK"):
        script = re.search(r'"/opt/elysium/([\w.]+)"', last.get(word, ""))
        if script is None or script[1] not in copied_names:
            yield f"target {target} has no {word} that is copied into it"
        elif not os.access(ROOT / "docker" / script[1], os.X_OK):
            yield f"docker/{script[1]} is not executable"


def _locked(name: str) -> str:
    text = (ROOT / "requirements" / "core.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{name}==(\S+)$", text, flags=re.MULTILINE)
    return found[1] if found else ""


def compose_problems(texts: list[str], stages: list[Stage]) -> Iterator[str]:
    """Yield one sentence for each thing that is wrong with the compose files.

    Args:
        texts: Their contents, the first one complete.
        stages: Of the Dockerfile.
    """
    targets = {stage.name for stage in stages}
    arguments = {name for stage in stages for name in (rest.partition("=")[0] for rest in stage.values("ARG"))}
    files: list[dict[str, Any]] = [yaml.safe_load(text) for text in texts]
    services = set(files[0]["services"])
    for content in files:
        for name, service in content["services"].items():
            if name not in services:
                yield f"service {name} is only in the second file"
            build = service.get("build", {})
            if build.get("target", "cpu") not in targets:
                yield f"service {name}: there is no target {build['target']}"
            for argument in set(build.get("args", {})) - arguments:
                yield f"service {name}: the Dockerfile has no ARG {argument}"
            yield from command_problems(name, str(service.get("command", "")))


def command_problems(service: str, command: str) -> Iterator[str]:
    """Yield what is wrong with the command of a service: programs, launch files and launch arguments must exist."""
    words = shlex.split(command)
    if not words:
        return
    if words[:3] == ["ros2", "run", "elysium_ros"]:
        programs = re.findall(r'"?(\w+)=elysium_\w+\.', (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
        if words[3] not in programs:
            yield f"service {service}: elysium_ros has no program {words[3]}"
    elif words[:3] == ["ros2", "launch", "elysium_ros"]:
        path = ROOT / "launch" / words[3]
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not text:
            yield f"service {service}: there is no launch file {words[3]}"
        for word in words[4:]:
            if f'"{word.partition(":=")[0]}": ' not in text or word.endswith(":="):
                yield f"service {service}: {words[3]} takes no argument {word}"
    else:
        yield f"service {service}: {command!r} is neither ros2 run nor ros2 launch elysium_ros"


def problems() -> list[str]:
    """Return what is wrong with the container files of the repository."""
    folder = ROOT / "docker"
    text = (folder / "Dockerfile").read_text(encoding="utf-8")
    lines = (folder / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    ignored = [line for line in lines if line and not line.startswith("#")]
    composed = [(folder / name).read_text(encoding="utf-8") for name in COMPOSE]
    return [*dockerfile_problems(text, ignored), *compose_problems(composed, read_stages(text)[1])]


def try_build(folder: Path) -> str:
    """Build what the Dockerfile copies, start a node from it and check its health; return what failed, "" if nothing.

    Args:
        folder: A new folder.
    """
    source, install = folder / "source", folder / "install"
    _, stages = read_stages((ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8"))
    for path in copied(stages):
        target = source / path
        target.parent.mkdir(parents=True, exist_ok=True)
        leave_out = shutil.ignore_patterns("__pycache__", "*.pyc")
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target, ignore=leave_out)
        else:
            shutil.copy2(ROOT / path, target)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COLCON_PREFIX_PATH")}
    command, environment = _colcon(clean)
    command += ["--log-base", str(folder / "log"), "build", "--packages-select", "elysium_ros", "--base-paths", "."]
    command += ["--build-base", str(folder / "build"), "--install-base", str(install), "--cmake-args"]
    command += ["-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={sys.executable}"]
    built = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    if built.returncode:
        return f"colcon could not build what is copied:\n{built.stderr[-2000:]}"
    path = f"{Path(sys.executable).parent}:{clean['PATH']}"
    environment = clean | {"ELYSIUM_SETUP": str(install / "setup.bash"), "PATH": path}
    node = [str(ROOT / "docker" / "entrypoint.sh"), str(install / "elysium_ros/lib/elysium_ros/tracker_node")]
    with subprocess.Popen([*node, "--ros-args", "-p", "model.path:=identity"], cwd=folder, env=environment) as process:
        try:
            return _wait_until_healthy(environment)
        finally:
            process.terminate()


def _colcon(environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the start of colcon's command line and its environment; see run_colcon in tools/setup.sh."""
    own = Path(sys.prefix) / "bin" / "colcon"
    if not own.exists():
        return ["colcon"], environment
    packages = {"PYTHONPATH": sysconfig.get_path("purelib")}
    prefixes = dict.fromkeys(("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"), sys.prefix)
    base = str(getattr(sys, "_base_executable", sys.executable))
    return [base, str(own)], environment | packages | prefixes


def _wait_until_healthy(environment: dict[str, str]) -> str:
    end_s = time.monotonic() + _START_S
    shown = ""
    while time.monotonic() < end_s:
        check = subprocess.run(
            [ROOT / "docker" / "healthcheck.sh"], env=environment, capture_output=True, text=True, check=False
        )
        shown = (check.stdout + check.stderr).strip()
        if check.returncode == 0:
            print(f"container: {shown}")
            return ""
    return f"the node did not become healthy: {shown}"


def main() -> int:
    """Run the checks; return the exit code."""
    parser = argparse.ArgumentParser(description="Check docker/ without Docker.")
    parser.add_argument(
        "--build", action="store_true", help="also build what is copied, start a node and check its health"
    )
    args = parser.parse_args()
    found = problems()
    if args.build and not found:
        with tempfile.TemporaryDirectory() as folder:
            failure = try_build(Path(folder))
        found += [failure] if failure else []
    for problem in found:
        print(f"container: {problem}", file=sys.stderr)
    if not found:
        print("container: all checks passed; base image, apt and pip lines were not tried")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
