"""Checkpoints from the Hugging Face hub. The only module that imports ``huggingface_hub``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from convert.checkpoint import bin_reader, has_safetensors
from orin_runner.errors import UserError, first_line

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
"""What the hub calls a repository: owner/name."""
TOKENIZER = ("*.json", "*.jinja", "tokenizer.model", "merges.txt")
SAFETENSORS = ("*.safetensors", "*.safetensors.index.json")
BINS = ("pytorch_model.bin", "pytorch_model-*-of-*.bin")


def download_checkpoint(repository: str) -> Path:
    """``download`` of all that a conversion reads: pickled weights only where there are no others.

    Raises:
        UserError: as ``download``; or the weights are pickled, and torch is not installed.
    """
    directory = download(repository, (*SAFETENSORS, *TOKENIZER))
    if has_safetensors(directory):
        return directory
    bin_reader()  # before hours of downloading
    return download(repository, (*BINS, *TOKENIZER))


def download(repository: str, patterns: Sequence[str]) -> Path:
    """The local folder of a hub checkpoint; files already there, and parts of files, are not fetched again.

    Args:
        repository: its name, ``owner/name``.
        patterns: of the files to fetch; ``TOKENIZER`` leaves the weights out.

    Raises:
        UserError: there is no such checkpoint, or the hub cannot be reached.
    """
    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns)))
    except RepositoryNotFoundError as error:
        raise UserError(
            f"the hub has no checkpoint {repository}", "check the spelling, or name a local folder"
        ) from error
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = first_line(error)
        raise UserError(f"cannot download {repository}: {reason}", "run the command again to resume") from error
    except Exception as error:
        # A connection that breaks off raises an error of the HTTP library, which differs by huggingface_hub's version.
        if not type(error).__module__.startswith("http"):
            raise
        raise UserError(
            f"the download of {repository} broke off: {first_line(error)}", "run the command again to resume"
        ) from error
