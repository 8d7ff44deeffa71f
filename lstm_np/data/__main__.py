"""Download MNIST, or check what is there: python -m lstm_np.data [--data-dir FOLDER]."""

from __future__ import annotations

import argparse
import json
import sys

from lstm_np.cli.command import Parser, emit, run_command, say
from lstm_np.data.download import MIRRORS, DownloadError, fetch
from lstm_np.data.load import data_folder, is_complete
from lstm_np.data.mnist import FILES, load_mnist
from lstm_np.data.progress import download_bars


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(
        "data",
        "[flags]",
        "Download the four MNIST files and verify them. Files that are there and whole are kept.",
        one="is not used",
    )
    parser.add_argument(
        "--data-dir", metavar="FOLDER", help="where to put them [$LSTM_NP_DATA, else the user's cache folder]"
    )
    parser.add_argument("--mirror", metavar="URL", action="append", help="https address to read from (repeatable)")
    parser.add_argument("--offline", action="store_true", help="do not touch the network, only check what is there")
    parser.add_argument("--verify", action="store_true", help="also unpack the files and check every image and label")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser


def main(argv: list[str] | None = None, *, called: str = "data") -> int:
    """Run the command; returns its exit status.  `called` is what it is called where it says what went wrong."""
    parser = make_parser()
    parser.name = called
    return run_command(parser, argv, lambda arguments: _fetch(arguments, called))


def _fetch(arguments: argparse.Namespace, called: str) -> int:
    folder = data_folder(arguments.data_dir)
    downloaded: set[str] = set()
    try:
        if not arguments.offline:
            with download_bars(arguments.quiet) as bar:

                def progress(name: str, done: int, total: int) -> None:
                    downloaded.add(name)
                    if bar is not None:
                        bar(name, done, total)

                fetch(folder, arguments.mirror or MIRRORS, progress)
        elif not arguments.verify and not is_complete(folder):
            missing = f"{folder} does not hold the four verified files, and --offline forbids to download them"
            raise DownloadError(missing, folder)
        if arguments.verify:
            dataset = load_mnist(folder)
            if not dataset.verified:
                raise DownloadError(dataset.source, folder)
    except DownloadError as error:
        say(f"{called}: {error}")
        if not arguments.quiet:
            say(error.help())
        return 2
    except KeyboardInterrupt:
        raise KeyboardInterrupt("no half file was left") from None
    if not arguments.quiet:
        emit(f"MNIST is in {folder}: {len(FILES)} files, sha256 verified, {len(downloaded)} downloaded now")
    if arguments.json:
        files = [{"name": file.name, "bytes": file.size, "sha256": file.sha256} for file in FILES]
        emit(json.dumps({"folder": str(folder), "verified": True, "downloaded": sorted(downloaded), "files": files}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
