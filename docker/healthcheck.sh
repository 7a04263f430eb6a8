#!/usr/bin/env bash
# Says whether the tracker node answers and is active: exit code 0, else 1. It calls the node, so a node that hangs, or
# that could not load its model, is not healthy. A camera that does not send is not the container's fault: see ~/status.
# Read from the environment: ELYSIUM_NODE, the name of the node with its namespace.
set -o pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=$("$here/entrypoint.sh" python -m elysium_ros.client.command --node "${ELYSIUM_NODE:-elysium}" --timeout 10 lifecycle) || exit 1
echo "the node is $state"
[[ $state == active ]]
