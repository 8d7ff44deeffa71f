"""Flags of the commands: those made from the settings tables of a recipe, and a few that are not part of a recipe."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from typing import Any

from lstm_np import checkpoints, old_names
from lstm_np.backends import BACKENDS
from lstm_np.cells import BUILT_IN, CELLS, CellError, register_cell_file
from lstm_np.checkpoints import Every
from lstm_np.kernels import KERNELS
from lstm_np.options import Option
from lstm_np.training.recipes import DEFAULT, Tables, load_recipe
from lstm_np.training.recipes.settings import NONE, TABLES, convert, settings_of
from lstm_np.training.trainer import ON_DIVERGENCE, ROLLBACKS, SKIPS

CELL_VALUES = f"{{{','.join(BUILT_IN)},FILE.py}}"
NEWEST = ""  # --resume without a run
_METAVARS = {int: "N", float: "X", str: "NAME"}


def add_settings_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting of a recipe; settings without a flag keep the recipe's value.

    Flags of options that were renamed are taken as well; help leaves them out.
    """
    defaults = load_recipe().tables
    for table in TABLES:
        group = parser.add_argument_group(f"{table}, from the recipe ({DEFAULT} in brackets)")
        for name, option in settings_of(table).items():
            add_option_flag(
                group, option, flag_of(table, name), f"{table}.{name}", shown(option, defaults[table][name])
            )
    for old, (name, became) in old_names.OPTIONS.items():
        about: dict[str, Any] = {"dest": f"model.{name}", "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
        if became is None:
            option = settings_of("model")[name]
            parser.add_argument(f"--{_dashed(old)}", type=_or_none(option.kind), **about)
            continue
        for prefix, value in (("", True), ("no-", False)):
            parser.add_argument(f"--{prefix}{_dashed(old)}", action="store_const", const=became[value], **about)


def add_option_flag(parser: argparse._ActionsContainer, option: Option, flag: str, dest: str, default: str) -> None:
    """Add a flag for an option; if it is not given, the namespace has no such name, and `default` applies."""
    text = f"{option.help} [{default}]".replace("%", "%%")
    about: dict[str, Any] = {"dest": dest, "default": argparse.SUPPRESS, "help": text}
    if option.name == "cell":
        about.update(type=cell_argument, metavar=CELL_VALUES)
    elif option.kind is bool and option.choices:
        values: dict[str, object] = {"true": True, "false": False, **{choice: choice for choice in option.choices}}
        about.update(type=_one_of(values), metavar=f"{{{','.join(values)}}}")
    elif option.kind is bool:
        about["action"] = argparse.BooleanOptionalAction
    elif option.kind is dict:
        about.update(type=_numbers_by_name, metavar="NAME=X")
    elif option.kind is tuple:
        about.update(nargs=2, type=float, metavar=("X", "Y"))
    elif option.choices:
        about["choices"] = (*option.choices, *((NONE,) if option.optional else ()))
    else:
        kind = option.kind
        about.update(type=_or_none(kind) if option.optional else kind, metavar=_METAVARS[kind])
    parser.add_argument(flag, **about)


def cell_argument(text: str) -> str:
    """The name of a cell from a name, or from a .py file, which is run and registered."""
    if text.endswith(".py"):
        try:
            return register_cell_file(text).name
        except CellError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    if text not in CELLS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(CELLS)} or a .py file, found {text!r}")
    return text


def add_cell_file_flag(parser: argparse.ArgumentParser) -> None:
    """--cell FILE, for a command whose cell is that of a weights file."""
    text = "the cell of a run that was trained with one of your own; such a file is run only where you name it"
    parser.add_argument("--cell", type=cell_argument, metavar="FILE.py", help=text)


def flag_of(table: str, name: str) -> str:
    """What a setting is called on the command line: --hidden-size."""
    return f"--{_dashed(settings_of(table)[name].flag or name)}"


def settings_from_flags(arguments: argparse.Namespace) -> Tables:
    """The settings that were given on the command line, checked.  Raises ValueError with one line."""
    given = vars(arguments)
    return {
        table: {
            name: convert(table, name, given[f"{table}.{name}"], flag_of(table, name))
            for name in settings_of(table)
            if f"{table}.{name}" in given
        }
        for table in TABLES
    }


def add_hold_flag(parser: argparse.ArgumentParser) -> None:
    """--hold, for a command that runs a trained model: what is held besides what it was trained with."""
    text = (
        "hold a value of the cell at a number at every step, as f=1 or f=1,o=0.5, and see what becomes of the answers"
    )
    parser.add_argument("--hold", type=_numbers_by_name, metavar="NAME=X", help=text)


def add_data_flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """--data-dir and --offline; the group, for more."""
    group = parser.add_argument_group("where the images are")
    group.add_argument(
        "--data-dir", metavar="FOLDER", help="the folder with the MNIST files [$LSTM_NP_DATA, else the cache folder]"
    )
    group.add_argument("--offline", action="store_true", help="never download")
    return group


def add_machine_flags(parser: argparse.ArgumentParser) -> None:
    """--backend, --kernel (or --memory) and --threads: where and how to compute; results differ by rounding only."""
    group = parser.add_argument_group("machine (affects results by rounding only)")
    group.add_argument("--backend", choices=BACKENDS, default="numpy", help="numpy (CPU) or cupy (NVIDIA GPU) [numpy]")
    kernels = ("auto", *KERNELS)
    one = group.add_mutually_exclusive_group()
    one.add_argument("--kernel", choices=kernels, default="auto", help="auto: the fastest one possible [auto]")
    text = "lean: keep only h of each step and recompute the gates (gradient checkpointing): --kernel lean [full]"
    one.add_argument("--memory", dest="kernel", type=_kernel_of_memory, metavar="{full,lean}", help=text)
    group.add_argument("--threads", type=_threads, metavar="N", help="CPU cores to use [all that this process may use]")


def add_checkpoint_flags(
    parser: argparse.ArgumentParser, of: str = "", moved: str = "", default: Any = None
) -> argparse._ArgumentGroup:
    """--resume, --checkpoint-every, --keep-checkpoints and --on-divergence; the group of the last, for more.

    of       before the groups' titles;  moved: what --resume says of data that were moved
    default  of flags that are not given; argparse.SUPPRESS: they are not in the namespace
    """
    group = parser.add_argument_group(f"{of}checkpoints, what a run goes on from")
    about: dict[str, Any] = {"default": default}
    group.add_argument(
        "--resume",
        nargs="?",
        const=NEWEST,
        metavar="RUN",
        help="go on with a run from its newest checkpoint [that under runs/ with the newest]; with --epochs also for "
        f"longer than it was meant to{moved}",
        **about,
    )
    group.add_argument(
        "--checkpoint-every",
        type=_every,
        metavar="N|TIME",
        help="write one after N steps, or a time such as 30s or 5m [each epoch and each minute, at most one in 10 s]; "
        "also at the start, at the end, and at a signal",
        **about,
    )
    group.add_argument(
        "--keep-checkpoints",
        type=int,
        metavar="N",
        help=f"keep the newest N; each holds the weights of the best epoch too [{checkpoints.KEEP}]",
        **about,
    )
    group = parser.add_argument_group(f"{of}when training goes wrong")
    group.add_argument(
        "--on-divergence",
        choices=ON_DIVERGENCE,
        help="when loss, gradients, parameters or optimizer are no longer finite. raise: end; skip: leave the batch "
        f"out, at most {SKIPS} in a row (CPU); rollback: go back to the last checkpoint and leave the batch out, at "
        f"most {ROLLBACKS} times [raise]",
        **about,
    )
    return group


def _every(text: str) -> Every:
    try:
        return Every.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _kernel_of_memory(text: str) -> str:
    if text not in ("full", "lean"):
        raise argparse.ArgumentTypeError(f"must be full or lean, found {text!r}")
    return "lean" if text == "lean" else "auto"


def _threads(text: str) -> int:
    number, cores = int(text), os.cpu_count()
    if cores is not None and number > cores:
        raise argparse.ArgumentTypeError(f"must be at most {cores}, the cores of this machine, found {number}")
    return number


_threads.__name__ = "int"  # what argparse calls a value that does not fit


def _or_none(kind: type) -> Callable[[str], object]:
    def parse(text: str) -> object:
        return text if text == NONE else kind(text)

    parse.__name__ = kind.__name__  # what argparse calls a value that does not fit
    return parse


def _numbers_by_name(text: str) -> str | dict[str, float]:
    """{"f": 1.0, "o": 0.5} from "f=1,o=0.5"."""
    if text == NONE:
        return text
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        return {name: float(number) for name, _, number in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be like f=1 or f=1,o=0.5, found {text!r}") from None


def _one_of(values: Mapping[str, object]) -> Callable[[str], object]:
    def parse(text: str) -> object:
        if text not in values:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(values)}, found {text!r}")
        return values[text]

    return parse


def shown(option: Option, value: object) -> str:
    """A value of an option as help has it."""
    if value is None:
        return NONE
    if isinstance(value, dict):
        return ",".join(f"{name}={number:g}" for name, number in value.items())
    if isinstance(value, bool):
        return str(value).lower() if option.choices else "yes" if value else "no"
    return " ".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)
