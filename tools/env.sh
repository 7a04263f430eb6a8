# Source this file in bash or zsh: `source tools/env.sh`.
#
# It puts .venv/bin first on the PATH, and the built package into the environment: AMENT_PREFIX_PATH (where ROS finds
# packages), LD_LIBRARY_PATH (where the message libraries are), PYTHONPATH. Then `elysium`, `python -m elysium_ros.demo`
# and the ROS 2 tools work. What lies in .venv/bin works without it, as long as ROS comes as wheels; see
# tools/elysium_overlay.py. For ROS 2 installed in the system, source that first.

_elysium_root=$(cd "$(dirname "${BASH_SOURCE[0]:-${(%):-%x}}")/.." && pwd)

if [ -f "$_elysium_root/install/setup.bash" ]; then
  if [ -n "${ZSH_VERSION:-}" ]; then
    . "$_elysium_root/install/setup.zsh"
  else
    . "$_elysium_root/install/setup.bash"
  fi
  # The sources come before their installed links, because a file that is newer than the last build has no link.
  export PYTHONPATH="$_elysium_root${PYTHONPATH:+:$PYTHONPATH}"
  . "$_elysium_root/.venv/bin/activate"
else
  echo "elysium is not built yet; run: make setup" >&2
fi
unset _elysium_root
