#!/usr/bin/env bash
# Builds .venv/, build/ and install/ in this folder. `make setup` runs it, and so do the other targets.
#
# With a full ROS 2 installation sourced, its Python, packages and build tools are used. Without one, ROS 2 Jazzy comes
# as Python wheels into .venv, which is then an ament prefix itself.
#
# Every step is skipped while its inputs are unchanged: .venv/.stamps/STEP holds a hash of them, written when the step is
# done, so an interrupted set-up is continued.
#
# Read from the environment:
#   PYTHON       the Python to use (default: the newest suitable python3 on the PATH)
#   TORCH_INDEX  address of a package index with the build of PyTorch to use, for example the CPU builds

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
VENV=$ROOT/.venv
STAMPS=$VENV/.stamps
LOGS=$ROOT/log/setup
PREFIX=$ROOT/install/elysium_ros
# Every requirement is a wheel, so that nothing is compiled, except for these two, which are plain Python.
WHEELS_ONLY=(--only-binary=:all: --no-binary=empy,notify2)

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# ---------------------------------------------------------------------------------------------------------- what is here

suits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, int(sys.argv[1])))' "$2" 2>/dev/null; }

# The real Python, also if the command belongs to a virtual environment or is a version manager's shim.
base_of() { "$1" -c 'import sys; print(sys._base_executable)'; }

# A sourced ROS puts its packages on the search path of the system's Python; a virtual environment that happens to be
# active says nothing about that, so the Python below it is asked.
find_ros_python() {
  [[ -n ${ROS_DISTRO:-} && -n ${AMENT_PREFIX_PATH:-} ]] || return 1
  local base
  base=$(base_of python3 2>/dev/null) || return 1
  "$base" -c 'import rclpy' 2>/dev/null || return 1
  printf '%s\n' "$base"
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if suits "$candidate" 11; then
      base_of "$candidate"
      return
    fi
  done
  return 1
}

check_tools() {
  local python=$1
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make virtual environments; install its venv module (Debian, Ubuntu: apt install python3-venv)"
  "$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null ||
    fail "the C headers of $python are missing; install them (Debian, Ubuntu: apt install python3-dev)"
  command -v g++ >/dev/null || fail "g++ was not found; install a C++ compiler (Debian, Ubuntu: apt install g++)"
  command -v cmake >/dev/null || fail "cmake was not found; install it (Debian, Ubuntu: apt install cmake)"
}

# ----------------------------------------------------------------------------------------------------------------- steps

hash_of() { { printf '%s\n' "$ROOT" "$MODE"; find "$@" -type f -print0 | sort -z | xargs -0 sha256sum; } | sha256sum; }
# Of what is installed as links: an edited file needs no build, but a new or renamed one does.
names_of() { find "$@" -type f -not -name '*.pyc' | sort | sha256sum; }
is_done() { [[ -f $STAMPS/$1 && $(<"$STAMPS/$1") == "$2" ]]; }

# Runs a command with its output in log/setup/STEP.log; on failure shows the end of it and the given sentence.
logged() {
  local step=$1 sentence=$2
  shift 2
  "$@" >"$LOGS/$step.log" 2>&1 && return
  tail -n 30 "$LOGS/$step.log" >&2
  fail "$sentence (all output: log/setup/$step.log)"
}

# The same, with what pip fetches and its size shown while it works: this step takes minutes and gigabytes.
logged_with_progress() {
  local step=$1 sentence=$2
  shift 2
  if "$@" 2>&1 | tee "$LOGS/$step.log" | sed -un -e '/\.metadata /d; s/^ *Downloading \([^ ]*\/\)\{0,1\}\([^ /]*\) \((.*)\)$/setup:   fetching \2 \3/p' \
    -e 's/^Installing collected packages:.*/setup:   unpacking/p'; then
    return
  fi
  tail -n 30 "$LOGS/$step.log" >&2
  fail "$sentence (all output: log/setup/$step.log)"
}

# Without a GPU, the usual build of PyTorch brings gigabytes that nothing uses.
hint_at_small_torch() {
  [[ -n ${TORCH_INDEX:-} ]] || command -v nvidia-smi >/dev/null || "$VENV/bin/python" -c 'import torch' 2>/dev/null ||
    say "no NVIDIA GPU was found: make setup TORCH_INDEX=<address of PyTorch's CPU builds> fetches 0.2 GB instead of several"
}

pip_install() {
  local step=$1
  shift
  local machine
  machine=$("$VENV/bin/python" -c 'import platform as p; print("Python", p.python_version(), "on", p.system(), p.machine())')
  logged_with_progress "$step" "${step/requirements-/requirements/} could not be installed: a wheel for $machine is not to be had, versions do not go together, or no package index was reached" \
    "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input "$@"
}

make_environment() {
  local options=()
  [[ $MODE == ros ]] && options=(--system-site-packages)
  say "making .venv with $BASE_PYTHON ($WHAT)"
  logged environment ".venv could not be made" "$BASE_PYTHON" -m venv "${options[@]}" "$VENV"
}

# Without ROS: exactly the locked versions.
install_locked() {
  local purpose key
  local index=()
  [[ -n ${TORCH_INDEX:-} ]] && index=(--extra-index-url "$TORCH_INDEX")
  for purpose in core ros dev; do
    key=$(hash_of "requirements/$purpose.txt")
    is_done "requirements-$purpose" "$key" && continue
    say "installing requirements/$purpose.txt"
    pip_install "requirements-$purpose" "${WHEELS_ONLY[@]}" "${index[@]}" -r "requirements/$purpose.txt"
    if [[ $purpose == ros ]]; then
      "$VENV/bin/python" tools/relocate_ros_wheels.py
    fi
    printf '%s\n' "$key" >"$STAMPS/requirements-$purpose"
  done
}

# With ROS: numpy keeps its major version, because ROS's own packages (cv_bridge, the messages) were built against its C
# interface. Within a major version a newer one serves what an older one built: Humble's 1.21 is too old for the rest.
install_beside_ros() {
  local key
  key=$(hash_of setup.py)
  is_done requirements "$key" && return
  "$VENV/bin/python" -c 'import numpy; print("numpy" + ("<2" if numpy.__version__[0] == "1" else ">=2"))' \
    >"$LOGS/constraints.txt" 2>/dev/null || true
  say "installing the requirements of setup.py beside ROS 2 ${ROS_DISTRO}"
  pip_install requirements -c "$LOGS/constraints.txt" -e '.[dev]'
  command -v colcon >/dev/null || pip_install colcon colcon-common-extensions
  printf '%s\n' "$key" >"$STAMPS/requirements"
}

# The `elysium` command, and metadata; the code itself is found through the overlay below.
install_core() {
  local key
  key=$(hash_of setup.py pyproject.toml package.xml) # package.xml: the version
  is_done core "$key" && return
  say "installing elysium_core and the elysium command"
  pip_install core --no-deps --no-build-isolation -e .
  printf '%s\n' "$key" >"$STAMPS/core"
}

build_package() {
  local key
  key=$(hash_of msg srv action CMakeLists.txt package.xml tools/node.py.in tools/command.py.in)
  key+=$(names_of elysium_core elysium_ros config launch msg rviz)
  is_done build "$key" && [[ -f $PREFIX/share/elysium_ros/package.xml ]] && return
  if [[ $MODE == wheels ]]; then
    export AMENT_PREFIX_PATH=$VENV CMAKE_PREFIX_PATH=$VENV
    write_prefix_scripts
  fi
  say "building the interfaces with colcon"
  # Links instead of copies: an edited Python file needs no build. See names_of.
  logged build "colcon could not build the package" run_colcon \
    --log-base log build --base-paths . --packages-select elysium_ros --symlink-install \
    --event-handlers console_direct+ --cmake-args -DBUILD_TESTING=OFF "-DPython3_EXECUTABLE=$VENV/bin/python"
  # What was removed or renamed since the last build leaves a link to nothing.
  find "$PREFIX" -xtype l -delete
  printf '%s\n' "$key" >"$STAMPS/build"
}

# colcon writes install/setup.bash so that it runs the Python that ran colcon, to work out what the environment lacks. In
# the Python of .venv the overlay has already added it, so that the script would find nothing to do; hence the one below.
run_colcon() {
  local packages
  if [[ -x $VENV/bin/colcon ]]; then
    packages=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    PYTHONPATH=$packages${PYTHONPATH:+:$PYTHONPATH} PATH=$VENV/bin:$PATH "$BASE_PYTHON" "$VENV/bin/colcon" "$@"
  else
    colcon "$@"
  fi
}

# The wheels are an ament prefix without the scripts of one. install/setup.bash sources those of the prefixes it was
# built on; with these three, sourcing it alone is enough.
write_prefix_scripts() {
  local shell
  for shell in sh bash zsh; do
    printf 'export AMENT_PREFIX_PATH="%s${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"\n' "$VENV" >"$VENV/local_setup.$shell"
  done
}

# See tools/elysium_overlay.py. Renamed into place: a Python that starts right now must not read half a file.
install_overlay() {
  local key packages built prefixes="'$PREFIX'"
  key=$(hash_of tools/elysium_overlay.py "$STAMPS/build")
  is_done overlay "$key" && return
  packages=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  built=$(find "$PREFIX" -type d -path '*-packages/elysium_ros' -print -quit)
  [[ $MODE == wheels ]] && prefixes+=", '$VENV'"
  cp tools/elysium_overlay.py "$packages/elysium_overlay.new"
  mv "$packages/elysium_overlay.new" "$packages/elysium_overlay.py"
  printf '%s\n' "$ROOT" "${built%/*}" "import elysium_overlay; elysium_overlay.activate($prefixes)" \
    >"$packages/elysium_overlay.new"
  mv "$packages/elysium_overlay.new" "$packages/elysium_overlay.pth"
  printf '%s\n' "$key" >"$STAMPS/overlay"
}

# ------------------------------------------------------------------------------------------------------------------ main

if BASE_PYTHON=$(find_ros_python); then
  MODE=ros
  WHAT="beside the ROS 2 $ROS_DISTRO that is sourced"
  suits "$BASE_PYTHON" 10 || fail "Python 3.10 or newer is needed; the sourced ROS 2 $ROS_DISTRO uses $BASE_PYTHON"
else
  MODE=wheels
  WHAT="with ROS 2 Jazzy as wheels"
  BASE_PYTHON=$(find_python) ||
    fail "Python 3.11 or newer was not found; install it, or name it: make setup PYTHON=/path/to/python3.11"
  [[ $(uname -s -m) == "Linux x86_64" ]] ||
    fail "ROS 2 comes as wheels for Linux x86_64 only, and this is $(uname -s -m); install ROS 2 and source it first"
fi
check_tools "$BASE_PYTHON"

mkdir -p "$LOGS"
# Two set-ups at once (two terminals, a test beside a demo) would trample each other.
exec 9>"$LOGS/lock"
flock 9

[[ -x $VENV/bin/python ]] || make_environment
mkdir -p "$STAMPS"
if [[ -f $STAMPS/origin && $(<"$STAMPS/origin") != "$WHAT, in $ROOT" ]]; then
  fail "this folder was set up $(<"$STAMPS/origin"), and now it would be $WHAT, in $ROOT; run: make clean"
fi
printf '%s\n' "$WHAT, in $ROOT" >"$STAMPS/origin"

hint_at_small_torch
if [[ $MODE == ros ]]; then install_beside_ros; else install_locked; fi
install_core
build_package
install_overlay
