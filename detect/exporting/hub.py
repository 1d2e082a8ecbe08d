"""Trained models on the Hugging Face Hub, or in a folder of the same form: a model card, safetensors, checksums.

``huggingface_hub`` is imported, and the Hub contacted, only for an address of the form ``USER/NAME``.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

from detect.config.yaml_files import dump_yaml
from detect.errors import InputError
from detect.exporting.ship import card_row, sha256, ship_checkpoint
from detect.models.checkpoint import Checkpoint, load_checkpoint
from detect.runtime.files import atomic_folder, atomic_path

MODEL, CARD, CHECKSUMS = "model.safetensors", "README.md", "SHA256SUMS"
"""Files of a published model."""
_HUB_ADDRESS = re.compile(r"(?P<user>\w[\w.-]*)/(?P<name>\w[\w.-]*)")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_CHECKSUM = re.compile(r"[0-9a-f]{64}")
_MAX_CHECKSUMS = 2**16
"""Bytes of ``SHA256SUMS``."""


@dataclass(frozen=True)
class PushOptions:
    """Options of a push.

    Args:
        weights: a checkpoint, a file or a shipped name.
        target: ``USER/NAME`` on the Hub, or a new folder.
        licence: identifier for the card (``apache-2.0``).
        public: make a new repository of the Hub public; an existing one keeps what it is.
    """

    weights: Path
    target: str
    licence: str
    public: bool = False


def push(options: PushOptions) -> list[str]:
    """Publish a checkpoint as ``detect ship`` prepares it, with a card filled in from its record.

    Returns:
        Lines that say where it is, and its checksum.

    Raises:
        InputError: the checkpoint or an option cannot be used, or the Hub refuses.
        OSError: the folder cannot be written.
    """
    if not _LICENCE.fullmatch(options.licence):
        raise InputError(f"--licence {options.licence!r}: must be an identifier, such as apache-2.0, mit or other")
    folder = _as_folder(options.target, "--to")
    if folder is not None:
        with atomic_folder(folder) as building:
            checksum = _write_model(options, building)
        return [f"{folder}: {MODEL}, {CARD}, {CHECKSUMS}", f"sha256 {checksum}"]
    with tempfile.TemporaryDirectory() as building:
        checksum = _write_model(options, Path(building))
        with _hub(options.target) as hub:
            client = hub.HfApi()
            client.create_repo(options.target, private=not options.public, exist_ok=True)
            commit = client.upload_folder(
                repo_id=options.target, folder_path=building, commit_message=f"Model {checksum[:12]}"
            )
    return [f"{options.target}: {commit.commit_url}", f"sha256 {checksum}"]


def pull(source: str, out: Path, checksum: str | None = None, revision: str | None = None) -> list[str]:
    """Fetch a published model, check it, and write it as a new file.

    Args:
        source: ``USER/NAME`` on the Hub, or a folder that ``push`` wrote.
        out: file to write; must end in .safetensors.
        checksum: SHA-256 that the file must have; None takes that of the model's ``SHA256SUMS``.
        revision: branch, tag or commit on the Hub; None is the newest.

    Returns:
        Lines that describe the file.

    Raises:
        InputError: there is no such model, its checksum is another, it is not a checkpoint, or ``out`` exists.
    """
    if out.suffix != Path(MODEL).suffix:
        raise InputError(f"--out {out}: must end in {Path(MODEL).suffix}")
    if out.exists():
        raise InputError(f"--out {out}: exists already; name a new file")
    if checksum is not None and not _CHECKSUM.fullmatch(checksum):
        raise InputError(f"--sha256 {checksum!r}: must be 64 hexadecimal digits, in lower case")
    folder = _as_folder(source, "--from")
    if folder is not None and revision is not None:
        raise InputError(f"--revision: is for models on the Hub; {folder} is a folder")
    with tempfile.TemporaryDirectory() as fetched:
        place = _fetch(source, Path(fetched), revision, has_checksum=checksum is not None) if folder is None else folder
        file = place / MODEL
        expected = checksum or _listed_checksum(place / CHECKSUMS)
        if not file.is_file():
            raise InputError(f"{source}: holds no {MODEL}")
        if (found := sha256(file)) != expected:
            raise InputError(f"{source}: {MODEL} has the SHA-256 {found}, must be {expected}; nothing is kept")
        checkpoint = load_checkpoint(file)
        with atomic_path(out) as temporary:
            shutil.copyfile(file, temporary)
    name = checkpoint.model.definition.name
    return [f"{out}: {name}, {len(checkpoint.names)} classes, {checkpoint.image_size} px", f"sha256 {found}"]


def model_card(checkpoint: Checkpoint, rows: list[str], licence: str) -> str:
    """Return the card of a checkpoint as Markdown with the Hub's YAML in front.

    Args:
        checkpoint: whose record fills it in.
        rows: of ``ship_checkpoint``.
        licence: identifier.
    """
    definition, data = checkpoint.model.definition, _data_name(checkpoint)
    task = "image-classification" if definition.is_classifier else "object-detection"
    metrics = [{"type": name, "value": value} for name, value in checkpoint.metrics.items()]
    results = [{"task": {"type": task}, "dataset": {"name": data, "type": data}, "metrics": metrics}]
    facts: dict[str, Any] = {"license": licence, "library_name": "detect-small", "pipeline_tag": task}
    if metrics:
        facts["model-index"] = [{"name": definition.name, "results": results}]
    measured = ", ".join(f"{name} {value:.3f}" for name, value in checkpoint.metrics.items()) or "not recorded"
    origin = checkpoint.provenance
    counts = [f"{origin[key]} {text}" for key, text in _COUNTS.items() if key in origin]
    about = "on the validation split, before the weights were stored in half precision"
    rows = [
        *rows,
        card_row("data", ", ".join([data, *counts])),
        card_row("result", f"{measured}; {about}"),
        card_row("licence", licence),
    ]
    kind = "Classifier" if definition.is_classifier else "Detector"
    usage = f'```python\nfrom detect import {kind}\n\nprint({kind}("{MODEL}").predict("photo.jpg"))\n```'
    table = "\n".join(["| | |", "|---|---|", *rows])
    return f"---\n{dump_yaml(facts)}---\n\n# {definition.name}\n\n{table}\n\n{usage}\n"


_COUNTS = {"train_images": "training images", "train_boxes": "training boxes"}


def _write_model(options: PushOptions, folder: Path) -> str:
    """Write the files of a published model; returns the model's SHA-256."""
    rows = ship_checkpoint(options.weights, folder / MODEL)
    card = model_card(load_checkpoint(folder / MODEL), rows, options.licence)
    checksum = sha256(folder / MODEL)
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / CHECKSUMS).write_text(f"{checksum}  {MODEL}\n", encoding="utf-8")
    return checksum


def _data_name(checkpoint: Checkpoint) -> str:
    settings = checkpoint.provenance.get("settings")
    data = settings.get("data") if isinstance(settings, dict) else None
    return str(data.get("name", "unknown")) if isinstance(data, dict) else "unknown"


def _as_folder(address: str, flag: str) -> Path | None:
    """The folder of an address; None for a repository of the Hub. ``InputError`` for neither."""
    if address.startswith("file://"):
        parts = urlsplit(address)
        if parts.netloc not in ("", "localhost"):
            raise InputError(f"{flag} {address}: names another machine; a folder of this one is file:///...")
        return Path(unquote(parts.path))
    if address.startswith((".", "/", "~")):
        return Path(address).expanduser()
    if _HUB_ADDRESS.fullmatch(address):
        return None
    raise InputError(
        f"{flag} {address}: must be USER/NAME on the Hugging Face Hub, or a folder: ./..., /... or file://..."
    )


def _listed_checksum(path: Path) -> str:
    """The checksum of the model, from a file of the form of ``sha256sum``."""
    try:
        if path.stat().st_size > _MAX_CHECKSUMS:
            raise InputError(f"{path.name}: is larger than {_MAX_CHECKSUMS} bytes, which no list of checksums is")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        hint = "name the checksum with --sha256"
        raise InputError(f"{path.name}: cannot be read: {error.strerror or error}; {hint}") from None
    found = [words[0] for line in lines if len(words := line.split()) == 2 and words[1].lstrip("*") == MODEL]
    if len(found) != 1 or not _CHECKSUM.fullmatch(found[0]):
        raise InputError(f"{path.name}: must have one line with the SHA-256 of {MODEL}")
    return found[0]


def _fetch(source: str, folder: Path, revision: str | None, has_checksum: bool) -> Path:
    """Download the files of a model on the Hub to a folder."""
    with _hub(source) as hub:
        for name in (MODEL,) if has_checksum else (CHECKSUMS, MODEL):
            hub.hf_hub_download(source, name, revision=revision, local_dir=folder)
    return folder


@contextmanager
def _hub(address: str) -> Iterator[ModuleType]:
    """The package of the Hub, without its telemetry and progress bars; its errors become one line."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    except ImportError:
        raise InputError(f"{address}: needs huggingface_hub: pip install 'detect-small[hub]'") from None
    try:
        yield huggingface_hub
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        raise InputError(f"{address}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
