"""Make the file of pretrained weights that a model with the encoder efficientnet_lite0_yolox_nano starts from.

    python training/import_yolox.py --crops encoder.safetensors --onnx yolox_nano.onnx --out detector.safetensors

The first file is made by import_efficientnet.py; the second is published at github.com/Megvii-BaseDetection/YOLOX.
Source, terms and what is changed: docs/data.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from elysium_core.errors import ElysiumError
from elysium_core.training.pretrained_detector import import_detector


def main() -> int:
    """Run the command; 0 = done, 2 = bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=Path, required=True, help="what import_efficientnet.py has written")
    parser.add_argument("--onnx", type=Path, required=True, help="ONNX graph of YOLOX-nano")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    arguments = parser.parse_args()
    try:
        import_detector(arguments.crops, arguments.onnx, arguments.out)
    except ElysiumError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stderr.write(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
