"""The table of verbs. A verb is found by name, and its module is imported only when it runs.

To add a verb: write a module that defines ``command`` (a function with Typer
annotations) or ``app`` (a :class:`typer.Typer` with verbs of its own), and add one
line here. A line whose module is not installed is left out of the help.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command as build_command

from elysium_core.errors import ConfigError, missing_package

UsageError: Any = typer.BadParameter.__bases__[0]
"""Base class of Typer's errors on the command line, such as an unknown option. Typer does not export it."""

_LEAST_RESEMBLANCE = 0.6


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb of the command line.

    Attributes:
        name: Name of the verb.
        module: Module that defines ``command`` or ``app``.
        help: One line for the help.
    """

    name: str
    module: str
    help: str


VERBS: tuple[Verb, ...] = (
    Verb("track", "elysium_core.cli.track", "Track objects, given by words or boxes, in a video or camera."),
    Verb("view", "elysium_core.cli.view", "Follow things in a video or camera in the browser."),
    Verb("ground", "elysium_core.cli.ground", "Find the object that an expression names in an image."),
    Verb("describe", "elysium_core.cli.describe", "Describe the object in a box of an image or video."),
    Verb("ask", "elysium_core.cli.ask", "Answer a question about an image or video."),
    Verb("caption", "elysium_core.cli.caption", "Describe a whole image or video."),
    Verb("ros", "elysium_core.cli.ros", "Control a running tracker node, without the ros2 command."),
    Verb("eval", "elysium_core.cli.eval", "Evaluate models on a benchmark, or report scores."),
    Verb("train", "elysium_core.cli.train", "Train a model from a recipe file."),
    Verb("synth", "elysium_core.cli.synth", "Generate training videos with ground truth."),
    Verb("curate", "elysium_core.cli.curate", "Make referring tracks from captioned videos."),
    Verb("export", "elysium_core.cli.export", "Export the vision encoder to ONNX or TensorRT."),
    Verb("pull", "elysium_core.cli.pull", "Download a model (the only verb that uses the network)."),
    Verb("check", "elysium_core.cli.check", "Check a model on this machine: answers, boxes, speed, memory."),
    Verb("info", "elysium_core.cli.info", "Print sizes and vocabulary of a model."),
    Verb("doctor", "elysium_core.cli.doctor", "Check this installation and print what is missing."),
)


class LazyGroup(TyperGroup):
    """A group of verbs whose modules are imported when they are called.

    Attributes:
        verbs: The verbs, in the order of the help. Subclasses set it.
    """

    verbs: ClassVar[tuple[Verb, ...]] = ()
    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the verbs that are installed."""
        return [verb.name for verb in self.verbs if find_spec(verb.module)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of a verb, or None if there is no such verb."""
        for verb in self.verbs:
            if verb.name == cmd_name and find_spec(verb.module):
                return TyperCommand(verb.name, help=verb.help) if self._listing else load_verb(verb)
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb that the arguments begin with; for a misspelt one, name those that it resembles."""
        try:
            return super().resolve_command(ctx, args)
        except UsageError as error:
            close = get_close_matches(args[0], self.list_commands(ctx), cutoff=_LEAST_RESEMBLANCE)
            if close:
                error.message = (
                    f"{error.message.rstrip('.')}; did you mean {' or '.join(repr(name) for name in close)}?"
                )
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the list of verbs from the table above, without importing any of them."""
        with self._from_the_table():
            super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Return the verbs and options that begin as typed, without importing any verb: a person waits for them."""
        with self._from_the_table():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _from_the_table(self) -> Iterator[None]:
        self._listing = True
        try:
            yield
        finally:
            self._listing = False


def load_verb(verb: Verb) -> Any:
    """Import the module of a verb and return its command object.

    Raises:
        ConfigError: A package that the verb needs is not installed.
    """
    try:
        module = importlib.import_module(verb.module)
    except ModuleNotFoundError as error:
        sentence = missing_package(error)
        raise ConfigError(f"'{verb.name}' needs the package {error.name!r}: {sentence}", "PACKAGE_MISSING") from error
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False, context_settings=CONTEXT_SETTINGS)
        app.command(**getattr(module, "COMMAND_SETTINGS", {}))(module.command)
    command = build_command(app)
    command.name = verb.name
    return command


CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}
"""Settings of every verb."""
