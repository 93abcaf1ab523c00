"""The one error tree.

    FastGANAugError
    ├── ConfigError             a configuration file has an unknown key or a bad value
    ├── DataError               a data set or a source image cannot be taken
    │   ├── MissingPatientIds   rows without a patient id
    │   ├── UnreadableImage     a file is no image, or not square, or not finite
    │   ├── IdentifiableData    an image or a name could tell who the patient is
    │   ├── InvalidDataset      validation found what no fit should be made on
    │   └── UnknownFactorValue  a label that the factor does not have
    ├── UnknownCell             a cell, or a factor value, that the condition space does not have
    ├── UnseenCell              a cell without any training slice was requested
    ├── BalanceError            counts and target cannot be met (also a ValueError)
    ├── TrainingDiverged        losses or weights became NaN, infinite or exploding
    ├── EngineFailed            workers could not be started, or were lost too often
    ├── CheckpointError         a checkpoint is missing, damaged or of another version
    ├── StorageError            an output could not be written (disk full, no permission)
    ├── RegistryError           the MLflow registry refused or could not be reached
    │   ├── ModelNotFound       no such version or alias
    │   └── GateRefused         a version without a quality report that passes cannot be champion
    ├── PortInUse               the port asked for is taken
    ├── ServiceUnavailable      the service is not up, or did not answer in time
    │   └── Overloaded          its queue is full
    ├── AccessRefused           no token was sent, or none that the service knows
    │   └── RoleRefused         the token's role does not allow it
    ├── RateExceeded            the token's requests or images per minute are used up
    ├── RequestTooLarge         the body of a request is larger than is read
    ├── LeakageError            training and test data share patients, or test data is synthetic
    │   └── PseudonymKeysDiffer pseudonyms made with different keys cannot be compared
    └── StageFailed             a stage of the demo gave a missing, constant or NaN result

Every message says what was wrong, what is allowed and what to do next. ``code`` is stable: it is
the ``type`` of the service's problem+json answers.
"""

from __future__ import annotations

from typing import ClassVar


class FastGANAugError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        what: What was wrong, with the offending value.
        allowed: What would have been accepted.
        do: What to do next.

    Attributes:
        retry_after: Seconds after which asking again may help, where ``http_status`` is 429 or 503.
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    retry_after: float = 1.0

    def __init__(self, what: str, *, allowed: str = "", do: str = "") -> None:
        self.what, self.allowed, self.do = what, allowed, do
        super().__init__(what, allowed, do)

    def __str__(self) -> str:
        parts = [self.what.rstrip(".") + "."]
        if self.allowed:
            parts.append(f"Allowed: {self.allowed.rstrip('.')}.")
        if self.do:
            parts.append(f"What to do: {self.do.rstrip('.')}.")
        return " ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive BaseException's own reduction (Ray needs it).
        return (_rebuild, (type(self), self.what, self.allowed, self.do))


def _rebuild(kind: type[FastGANAugError], what: str, allowed: str, do: str) -> FastGANAugError:
    return kind(what, allowed=allowed, do=do)


class ConfigError(FastGANAugError):
    """A configuration has an unknown key or a bad value."""

    code = "config-invalid"
    http_status = 400


class DataError(FastGANAugError):
    """A data set or a source image cannot be taken."""

    code = "data-invalid"
    http_status = 400


class MissingPatientIds(DataError):
    """Rows without a patient id: no honest split is possible."""

    code = "patient-ids-missing"


class UnreadableImage(DataError):
    """A file is no image, or is not square, or holds values that are not finite."""

    code = "image-unreadable"


class IdentifiableData(DataError):
    """An image or a name could tell who the patient is: burned-in text, a hospital number."""

    code = "data-identifiable"


class InvalidDataset(DataError):
    """Validation found errors in a data set that no fit should be made on."""

    code = "dataset-invalid"


class UnknownFactorValue(DataError):
    """A label that the factor does not have."""

    code = "factor-value-unknown"


class UnknownCell(FastGANAugError):
    """A cell or a factor value that the condition space does not have."""

    code = "cell-unknown"
    http_status = 422


class UnseenCell(FastGANAugError):
    """A cell without any training slice was requested without ``allow_unseen``."""

    code = "cell-unseen"
    http_status = 422


class BalanceError(FastGANAugError, ValueError):
    """Counts and target cannot be met."""

    code = "balance-invalid"
    http_status = 422


class TrainingDiverged(FastGANAugError):
    """Losses or weights became NaN, infinite or exploding; the last good checkpoint is kept."""

    code = "training-diverged"


class EngineFailed(FastGANAugError):
    """Workers could not be started, or were lost too often; checkpoints are kept."""

    code = "engine-failed"


class CheckpointError(FastGANAugError):
    """A checkpoint is missing, damaged or of another version."""

    code = "checkpoint-invalid"


class StorageError(FastGANAugError):
    """An output could not be written; nothing half-written is left."""

    code = "storage-failed"
    http_status = 507


class RegistryError(FastGANAugError):
    """The model registry refused, or could not be reached."""

    code = "registry-failed"
    http_status = 502


class ModelNotFound(RegistryError):
    """No such model version or alias."""

    code = "model-not-found"
    http_status = 404


class GateRefused(RegistryError):
    """A version without a quality report that passes cannot become champion."""

    code = "gate-refused"
    http_status = 409


class PortInUse(FastGANAugError):
    """The port asked for is taken by another process."""

    code = "port-in-use"


class ServiceUnavailable(FastGANAugError):
    """The service is not up, or did not answer in time."""

    code = "service-unavailable"
    http_status = 503


class Overloaded(ServiceUnavailable):
    """The service has as much waiting as it takes; ask again later."""

    code = "overloaded"


class AccessRefused(FastGANAugError):
    """No token was sent, or none that the service knows."""

    code = "token-refused"
    http_status = 401


class RoleRefused(AccessRefused):
    """The role of the token does not allow this."""

    code = "role-refused"
    http_status = 403


class RateExceeded(FastGANAugError):
    """The requests or images per minute of the token are used up; ask again later."""

    code = "rate-exceeded"
    http_status = 429


class RequestTooLarge(FastGANAugError):
    """The body of a request is larger than is read, or did not arrive in time."""

    code = "request-too-large"
    http_status = 413


class LeakageError(FastGANAugError):
    """Training and test data share patients, or test data holds synthetic slices."""

    code = "leakage"
    http_status = 422


class PseudonymKeysDiffer(LeakageError):
    """Pseudonyms made with different keys cannot be compared: a shared patient would not show."""

    code = "pseudonym-keys-differ"


class StageFailed(FastGANAugError):
    """A stage of the demo gave a missing, constant or NaN result."""

    code = "stage-failed"
