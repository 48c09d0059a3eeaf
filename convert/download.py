"""Checkpoints from the Hugging Face hub. The only module that imports ``huggingface_hub``."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from orin_runner.errors import UserError, first_line

NEEDED = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model", "merges.txt")


def download(repository: str) -> Path:
    """The local folder of a hub checkpoint; files already there, and parts of files, are not fetched again.

    Raises:
        UserError: there is no such checkpoint, or the hub cannot be reached.
    """
    try:
        return Path(snapshot_download(repository, allow_patterns=list(NEEDED)))
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
