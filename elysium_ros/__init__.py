"""The ROS 2 package of elysium: the tracker node, the video node, their clients, and the demo.

The package has two halves: this folder, and the modules ``msg``, ``srv`` and ``action`` that rosidl generates when the
package is built. Installing merges them into one folder. A program started in the source tree imports this folder
instead, where the generated half is missing; extending ``__path__`` by every other ``elysium_ros`` on ``sys.path``
finds it in the installed package, and changes nothing where both halves already lie in one folder.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
