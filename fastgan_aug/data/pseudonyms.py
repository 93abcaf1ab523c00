"""Pseudonyms: keyed HMACs of patient and scan ids. The key stays with the user, its id travels."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fastgan_aug.data.schema import BY_PATIENT, FICTION
from fastgan_aug.errors import DataError, LeakageError, PseudonymKeysDiffer, StorageError

if TYPE_CHECKING:
    from fastgan_aug.data.dataset import Dataset

_BYTES = 32
_DIGITS = 16  # base32: 80 bits, so that no two of millions of patients collide


@dataclass(frozen=True)
class PseudonymKey:
    """A secret of 32 bytes that turns identifiers into pseudonyms.

    Without it a pseudonym cannot be traced back, not even by trying all hospital numbers. The same
    key gives the same person the same pseudonym in every import.

    Attributes:
        secret: Never printed, logged or stored with data.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != _BYTES:
            raise ValueError(f"a key has {_BYTES} bytes, not {len(self.secret)}")

    @property
    def id(self) -> str:
        """Tells keys apart without giving one away; ``K`` and 12 characters."""
        return "K" + self._digest("key id", "")[:12]

    def patient(self, identifier: str) -> str:
        """The pseudonym of a patient; ``P`` and 16 characters."""
        return "P" + self._digest("patient", identifier)

    def scan(self, patient: str, scan: str) -> str:
        """The pseudonym of one patient's scan; ``S`` and 16 characters.

        Args:
            patient: The patient's identifier, so that equal scan names of two patients differ.
            scan: The scan's identifier (a series UID, a visit, a file).
        """
        return "S" + self._digest("scan", f"{len(patient)}:{patient}{scan}")

    def _digest(self, purpose: str, text: str) -> str:
        mac = hmac.new(self.secret, f"{purpose}\0{text}".encode(), hashlib.sha256).digest()
        return base64.b32encode(mac).decode()[:_DIGITS]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a key file.

        Raises:
            DataError: there is none, or it holds no key.
        """
        try:
            return cls(bytes.fromhex(path.read_text(encoding="ascii").strip()))
        except FileNotFoundError:
            raise DataError(
                "there is no pseudonym key at the path given",
                do="give the path of an existing key, or leave it out: one is then made",
            ) from None
        except (OSError, ValueError):
            # Not the error itself: it may quote a part of the key.
            raise DataError(
                "the pseudonym key cannot be read",
                allowed=f"a readable file of {2 * _BYTES} hexadecimal digits",
                do="give the path of another key",
            ) from None

    @classmethod
    def read_or_create(cls, path: Path) -> tuple[Self, bool]:
        """Reads a key file, or makes one that its owner alone can read.

        Returns:
            The key, and whether it was made now.

        Raises:
            DataError: the file holds no key.
            StorageError: it cannot be made.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return cls.read(path), False
        except OSError as error:
            raise StorageError(
                f"the pseudonym key cannot be made: {error.strerror}",
                do="give the path of a file in a folder you may write to",
            ) from None
        key = cls(secrets.token_bytes(_BYTES))
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(key.secret.hex() + "\n")
        return key, True


def default_key_path() -> Path:
    """Where the key is looked for: in the user's configuration folder (``XDG_CONFIG_HOME``)."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "fastgan-aug" / "pseudonym.key"


def patient_digest(pseudonym: str) -> str:
    """Sha256 of a pseudonym, as data sets and models tell of their patients; 64 hex digits."""
    return hashlib.sha256(pseudonym.encode()).hexdigest()


def check_comparable(one: str, other: str) -> None:
    """Verifies that a patient of both would have one pseudonym.

    Args:
        one: Id of a key (``DatasetMeta.pseudonym_key``).
        other: Id of another.

    Raises:
        PseudonymKeysDiffer: two different keys. Patients who do not exist are never shared.
    """
    if one != other and FICTION not in (one, other):
        raise PseudonymKeysDiffer(
            f"the pseudonyms were made with different keys ({one} and {other}): a patient of both "
            "would not be noticed",
            allowed="data sets and models whose pseudonyms come from one key",
            do="import both with the same --key",
        )


@dataclass(frozen=True)
class SeenPatients:
    """Whom a model was trained on, without naming anyone.

    Attributes:
        pseudonym_key: Id of the key that made their pseudonyms.
        digests: Sha256 of each pseudonym.
        grouping: Of the training data; without patients nobody can tell whom the model saw.
    """

    pseudonym_key: str
    digests: frozenset[str]
    grouping: str = BY_PATIENT

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """The patients of a data set."""
        meta = dataset.meta
        return cls(meta.pseudonym_key, frozenset(dataset.patient_digests), meta.grouping)

    def shared_with(self, dataset: Dataset) -> int:
        """How many patients of a data set are among them.

        Raises:
            PseudonymKeysDiffer: their pseudonyms come from another key, so nobody can tell.
            LeakageError: the training data had no patients, those of the data set are known.
        """
        other = dataset.meta.pseudonym_key
        check_comparable(self.pseudonym_key, other)
        if self.pseudonym_key != other:
            return 0  # patients who do not exist are never shared
        if self.grouping != dataset.meta.grouping:
            raise LeakageError(
                "the model's training data or the data set has no patients "
                f"(grouping {self.grouping!r} and {dataset.meta.grouping!r}): a patient of both "
                "would not be noticed",
                allowed="models and data sets of one grouping",
                do="train a model on the training part of this data set",
            )
        return len(self.digests & set(dataset.patient_digests))
