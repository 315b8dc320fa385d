"""The errors, one class a reason of `letta.common.v1.ErrorReason`. Made by `make gen`; do not edit."""

from __future__ import annotations

from letta_common.app_error import AppError as AppError  # noqa: PLC0414  (the family with its base)
from letta_common.codes import Code


class Unauthenticated(AppError, code=Code.UNAUTHENTICATED, reason="UNAUTHENTICATED"):
    """No credential, or one that is unknown, expired or malformed."""


class PermissionDenied(AppError, code=Code.PERMISSION_DENIED, reason="PERMISSION_DENIED"):
    """The actor's scopes do not allow the call."""


class InvalidArgument(AppError, code=Code.INVALID_ARGUMENT, reason="INVALID_ARGUMENT"):
    """A value that the contract allows cannot be used here."""


class ValidationFailed(AppError, code=Code.INVALID_ARGUMENT, reason="VALIDATION_FAILED"):
    """The request breaks a rule of the contract; BadRequest names the fields."""


class InternalError(AppError, code=Code.INTERNAL, reason="INTERNAL"):
    """A fault of the service; the log has the cause under the request id."""


class OperationUnimplemented(AppError, code=Code.UNIMPLEMENTED, reason="NOT_IMPLEMENTED"):
    """The operation is part of the contract but not of this release."""


class ServiceUnavailable(AppError, code=Code.UNAVAILABLE, reason="SERVICE_UNAVAILABLE"):
    """A service that the call needs does not answer. Retry."""


class DatabaseUnavailable(AppError, code=Code.UNAVAILABLE, reason="DATABASE_UNAVAILABLE"):
    """The database does not answer or refuses writes. Retry."""


class DeadlineExceeded(AppError, code=Code.DEADLINE_EXCEEDED, reason="DEADLINE_EXCEEDED"):
    """The caller's deadline passed, or too little of it was left to begin."""


class PayloadTooLarge(AppError, code=Code.RESOURCE_EXHAUSTED, reason="PAYLOAD_TOO_LARGE"):
    """The request is larger than the limit."""


class RateLimited(AppError, code=Code.RESOURCE_EXHAUSTED, reason="RATE_LIMITED"):
    """The organization or key sends too much; RetryInfo says when to come back."""


class CursorNotFound(AppError, code=Code.NOT_FOUND, reason="CURSOR_NOT_FOUND"):
    """`before` or `after` names an id that never existed in this list."""


class StaleEtag(AppError, code=Code.ABORTED, reason="STALE_ETAG"):
    """Someone else wrote since the etag was read. Read again."""


class IdempotencyConflict(AppError, code=Code.ABORTED, reason="IDEMPOTENCY_CONFLICT"):
    """The same key was used for another request."""


class Overloaded(AppError, code=Code.RESOURCE_EXHAUSTED, reason="OVERLOADED"):
    """The server sheds load. Retry after RetryInfo."""


class RequestCancelled(AppError, code=Code.CANCELLED, reason="CANCELLED"):
    """The caller went away."""


class OrganizationNotFound(AppError, code=Code.NOT_FOUND, reason="ORGANIZATION_NOT_FOUND"):
    """No such organization."""


class UserNotFound(AppError, code=Code.NOT_FOUND, reason="USER_NOT_FOUND"):
    """The organization has no such user."""


class APIKeyNotFound(AppError, code=Code.NOT_FOUND, reason="API_KEY_NOT_FOUND"):
    """The organization has no such API key."""


class AlreadyExists(AppError, code=Code.ALREADY_EXISTS, reason="ALREADY_EXISTS"):
    """The organization has one of that name."""


class AgentNotFound(AppError, code=Code.NOT_FOUND, reason="AGENT_NOT_FOUND"):
    """The organization has no such agent."""


class ConversationNotFound(AppError, code=Code.NOT_FOUND, reason="CONVERSATION_NOT_FOUND"):
    """The agent has no such conversation."""


class RunNotFound(AppError, code=Code.NOT_FOUND, reason="RUN_NOT_FOUND"):
    """The organization has no such run."""


class StepNotFound(AppError, code=Code.NOT_FOUND, reason="STEP_NOT_FOUND"):
    """The organization has no such step."""


class ConversationBusy(AppError, code=Code.ABORTED, reason="CONVERSATION_BUSY"):
    """A run holds the conversation; metadata has its `run_id`."""


class PendingApproval(AppError, code=Code.FAILED_PRECONDITION, reason="PENDING_APPROVAL"):
    """A tool call waits for approval; metadata has `pending_request_id`."""


class RunNotActive(AppError, code=Code.FAILED_PRECONDITION, reason="RUN_NOT_ACTIVE"):
    """The run is over."""


class Fenced(AppError, code=Code.ABORTED, reason="FENCED"):
    """A newer owner holds the conversation; metadata has the highest `fence` seen."""


class NoPendingApproval(AppError, code=Code.FAILED_PRECONDITION, reason="NO_PENDING_APPROVAL"):
    """No tool call waits for approval."""


class RunAbandoned(AppError, code=Code.INTERNAL, reason="RUN_ABANDONED"):
    """The replica that worked on the run died again and again, so that nobody takes it over any more."""


class NothingToCompact(AppError, code=Code.FAILED_PRECONDITION, reason="NOTHING_TO_COMPACT"):
    """Compaction would not make the context smaller."""


class BlockNotFound(AppError, code=Code.NOT_FOUND, reason="BLOCK_NOT_FOUND"):
    """The organization, or the agent, has no such block."""


class BlockReadOnly(AppError, code=Code.FAILED_PRECONDITION, reason="BLOCK_READ_ONLY"):
    """The block refuses writes."""


class BlockLimitExceeded(AppError, code=Code.FAILED_PRECONDITION, reason="BLOCK_LIMIT_EXCEEDED"):
    """The value is longer than the block's limit in characters."""


class BlockLabelTaken(AppError, code=Code.ALREADY_EXISTS, reason="BLOCK_LABEL_TAKEN"):
    """The agent has a block of that label."""


class EditNoMatch(AppError, code=Code.FAILED_PRECONDITION, reason="EDIT_NO_MATCH"):
    """The text to replace does not occur in the block."""


class EditNotUnique(AppError, code=Code.FAILED_PRECONDITION, reason="EDIT_NOT_UNIQUE"):
    """The text to replace occurs more than once; metadata has the `lines`."""


class EditLineOutOfRange(AppError, code=Code.OUT_OF_RANGE, reason="EDIT_LINE_OUT_OF_RANGE"):
    """The line to insert after does not exist; metadata has `lines`."""


class ArchiveNotFound(AppError, code=Code.NOT_FOUND, reason="ARCHIVE_NOT_FOUND"):
    """The organization has no such archive."""


class PassageNotFound(AppError, code=Code.NOT_FOUND, reason="PASSAGE_NOT_FOUND"):
    """The archive has no such passage."""


class MessageNotFound(AppError, code=Code.NOT_FOUND, reason="MESSAGE_NOT_FOUND"):
    """The organization has no such message."""


class ArchiveTaken(AppError, code=Code.ALREADY_EXISTS, reason="ARCHIVE_TAKEN"):
    """The agent has an archive already."""


class EmbeddingDimensionChanged(AppError, code=Code.FAILED_PRECONDITION, reason="EMBEDDING_DIMENSION_CHANGED"):
    """An archive's embedder makes vectors of another dimension than before; the archive must be embedded anew."""


class FolderNotFound(AppError, code=Code.NOT_FOUND, reason="FOLDER_NOT_FOUND"):
    """The organization has no such folder."""


class FileNotFound(AppError, code=Code.NOT_FOUND, reason="FILE_NOT_FOUND"):
    """The folder has no such file."""


class ChecksumMismatch(AppError, code=Code.INVALID_ARGUMENT, reason="CHECKSUM_MISMATCH"):
    """Other bytes came than the checksum says; nothing of them is kept. Send them again."""


class ToolNotFound(AppError, code=Code.NOT_FOUND, reason="TOOL_NOT_FOUND"):
    """The organization, or the agent, has no such tool."""


class ToolNameTaken(AppError, code=Code.ALREADY_EXISTS, reason="TOOL_NAME_TAKEN"):
    """The organization has a tool of that name."""


class ToolSourceInvalid(AppError, code=Code.INVALID_ARGUMENT, reason="TOOL_SOURCE_INVALID"):
    """No schema can be read from the source; the message says why."""


class IsolationUnavailable(AppError, code=Code.FAILED_PRECONDITION, reason="ISOLATION_UNAVAILABLE"):
    """The host offers no isolation that is strong enough; metadata names the missing feature."""


class MCPServerNotFound(AppError, code=Code.NOT_FOUND, reason="MCP_SERVER_NOT_FOUND"):
    """The organization has no such MCP server."""


class MCPConnectionFailed(AppError, code=Code.UNAVAILABLE, reason="MCP_CONNECTION_FAILED"):
    """The MCP server cannot be reached or answers garbage."""


class MCPTimeout(AppError, code=Code.DEADLINE_EXCEEDED, reason="MCP_TIMEOUT"):
    """The MCP server did not answer in time."""


class SandboxConfigNotFound(AppError, code=Code.NOT_FOUND, reason="SANDBOX_CONFIG_NOT_FOUND"):
    """The organization has no such sandbox configuration."""


class ToolRequirementsUnsatisfied(AppError, code=Code.INVALID_ARGUMENT, reason="TOOL_REQUIREMENTS_UNSATISFIED"):
    """What a tool requires cannot be installed; the message says why."""


class ModelNotFound(AppError, code=Code.NOT_FOUND, reason="MODEL_NOT_FOUND"):
    """No provider offers this handle; metadata lists some that exist."""


class ProviderNotFound(AppError, code=Code.NOT_FOUND, reason="PROVIDER_NOT_FOUND"):
    """The organization has no such provider."""


class ProviderNameTaken(AppError, code=Code.ALREADY_EXISTS, reason="PROVIDER_NAME_TAKEN"):
    """A provider of that name exists."""


class LLMTimeout(AppError, code=Code.DEADLINE_EXCEEDED, reason="LLM_TIMEOUT"):
    """The model did not answer in time."""


class LLMRateLimit(AppError, code=Code.RESOURCE_EXHAUSTED, reason="LLM_RATE_LIMIT"):
    """The vendor refuses for now, retries included."""


class LLMAuthentication(AppError, code=Code.FAILED_PRECONDITION, reason="LLM_AUTHENTICATION"):
    """The vendor refuses the key."""


class LLMBadRequest(AppError, code=Code.INVALID_ARGUMENT, reason="LLM_BAD_REQUEST"):
    """The vendor refuses the request."""


class LLMInsufficientCredits(AppError, code=Code.RESOURCE_EXHAUSTED, reason="LLM_INSUFFICIENT_CREDITS"):
    """The vendor account has no credit."""


class LLMUnavailable(AppError, code=Code.UNAVAILABLE, reason="LLM_UNAVAILABLE"):
    """The vendor is down or overloaded, or cannot be reached."""


class LLMInvalidResponse(AppError, code=Code.UNAVAILABLE, reason="LLM_INVALID_RESPONSE"):
    """The vendor's answer cannot be read, or is none: empty twice, thoughts alone, blocked."""


class ContextWindowExceeded(AppError, code=Code.FAILED_PRECONDITION, reason="CONTEXT_WINDOW_EXCEEDED"):
    """The prompt does not fit the model's window. Compact and try again."""


class CapabilityMissing(AppError, code=Code.FAILED_PRECONDITION, reason="CAPABILITY_MISSING"):
    """The model cannot do what was asked; the message names what to change."""


class IdentityNotFound(AppError, code=Code.NOT_FOUND, reason="IDENTITY_NOT_FOUND"):
    """The organization has no such identity."""


class GroupNotFound(AppError, code=Code.NOT_FOUND, reason="GROUP_NOT_FOUND"):
    """The organization has no such group."""


class BudgetExceeded(AppError, code=Code.RESOURCE_EXHAUSTED, reason="BUDGET_EXCEEDED"):
    """A budget of the organization is used up."""


class BudgetNotFound(AppError, code=Code.NOT_FOUND, reason="BUDGET_NOT_FOUND"):
    """The organization has no such budget."""


class SecretRequired(AppError, code=Code.INVALID_ARGUMENT, reason="SECRET_REQUIRED"):
    """A secret would go to another address than the one it was given for. Send it again with the change."""


class UnsupportedMediaType(AppError, code=Code.INVALID_ARGUMENT, reason="UNSUPPORTED_MEDIA_TYPE"):
    """The file has no text that can be read here."""


class CorruptDocument(AppError, code=Code.INVALID_ARGUMENT, reason="CORRUPT_DOCUMENT"):
    """The file breaks its own format."""


class DocumentProtected(AppError, code=Code.INVALID_ARGUMENT, reason="DOCUMENT_PROTECTED"):
    """The file needs a password."""


class DocumentTooLarge(AppError, code=Code.RESOURCE_EXHAUSTED, reason="DOCUMENT_TOO_LARGE"):
    """The file, its text, or what parsing it takes is beyond the limits."""


class ExtractionTimedOut(AppError, code=Code.FAILED_PRECONDITION, reason="EXTRACTION_TIMED_OUT"):
    """Parsing the file took longer than the limit."""


class BlockRevisionNotFound(AppError, code=Code.NOT_FOUND, reason="BLOCK_REVISION_NOT_FOUND"):
    """The block has no such revision."""


class NothingToUndo(AppError, code=Code.FAILED_PRECONDITION, reason="NOTHING_TO_UNDO"):
    """The block is as it was made, or undone to it."""


class NothingToRedo(AppError, code=Code.FAILED_PRECONDITION, reason="NOTHING_TO_REDO"):
    """Nothing was undone since the block was last written."""


class MemorySuggestionNotFound(AppError, code=Code.NOT_FOUND, reason="MEMORY_SUGGESTION_NOT_FOUND"):
    """The organization has no such suggestion."""


class MemorySuggestionOutdated(AppError, code=Code.FAILED_PRECONDITION, reason="MEMORY_SUGGESTION_OUTDATED"):
    """What the suggestion is about has changed since it was made, or is gone."""


class MemorySuggestionDecided(AppError, code=Code.FAILED_PRECONDITION, reason="MEMORY_SUGGESTION_DECIDED"):
    """The suggestion was decided otherwise before."""


class StorageExhausted(AppError, code=Code.RESOURCE_EXHAUSTED, reason="STORAGE_EXHAUSTED"):
    """The organization would store more bytes of files than it may; delete some."""


class LostObject(AppError, code=Code.DATA_LOSS, reason="LOST_OBJECT"):
    """The bytes of the file are not in the bucket, or are other ones; upload it again."""


BY_REASON: dict[str, type[AppError]] = {kind.reason: kind for kind in AppError.__subclasses__()}
