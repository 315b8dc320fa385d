"""The errors, one class a reason of `letta.common.v1.ErrorReason`. Made by `make gen`; do not edit."""

from __future__ import annotations

from letta_common.app_error import AppError as AppError  # noqa: PLC0414  (the family with its base)
from letta_common.codes import Code


class Unauthenticated(AppError):
    """No credential, or one that is unknown, expired or malformed."""

    code = Code.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDenied(AppError):
    """The actor's scopes do not allow the call."""

    code = Code.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class InvalidArgument(AppError):
    """A value that the contract allows cannot be used here."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


class ValidationFailed(AppError):
    """The request breaks a rule of the contract; BadRequest names the fields."""

    code = Code.INVALID_ARGUMENT
    reason = "VALIDATION_FAILED"


class InternalError(AppError):
    """A fault of the service; the log has the cause under the request id."""

    code = Code.INTERNAL
    reason = "INTERNAL"


class OperationUnimplemented(AppError):
    """The operation is part of the contract but not of this release."""

    code = Code.UNIMPLEMENTED
    reason = "NOT_IMPLEMENTED"


class ServiceUnavailable(AppError):
    """A service that the call needs does not answer. Retry."""

    code = Code.UNAVAILABLE
    reason = "SERVICE_UNAVAILABLE"


class DatabaseUnavailable(AppError):
    """The database does not answer or refuses writes. Retry."""

    code = Code.UNAVAILABLE
    reason = "DATABASE_UNAVAILABLE"


class DeadlineExceeded(AppError):
    """The caller's deadline passed, or too little of it was left to begin."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class PayloadTooLarge(AppError):
    """The request is larger than the limit."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "PAYLOAD_TOO_LARGE"


class RateLimited(AppError):
    """The organization or key sends too much; RetryInfo says when to come back."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "RATE_LIMITED"


class CursorNotFound(AppError):
    """`before` or `after` names an id that never existed in this list."""

    code = Code.NOT_FOUND
    reason = "CURSOR_NOT_FOUND"


class StaleEtag(AppError):
    """Someone else wrote since the etag was read. Read again."""

    code = Code.ABORTED
    reason = "STALE_ETAG"


class IdempotencyConflict(AppError):
    """The same key was used for another request."""

    code = Code.ABORTED
    reason = "IDEMPOTENCY_CONFLICT"


class Overloaded(AppError):
    """The server sheds load. Retry after RetryInfo."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"


class RequestCancelled(AppError):
    """The caller went away."""

    code = Code.CANCELLED
    reason = "CANCELLED"


class OrganizationNotFound(AppError):
    """No such organization."""

    code = Code.NOT_FOUND
    reason = "ORGANIZATION_NOT_FOUND"


class UserNotFound(AppError):
    """The organization has no such user."""

    code = Code.NOT_FOUND
    reason = "USER_NOT_FOUND"


class APIKeyNotFound(AppError):
    """The organization has no such API key."""

    code = Code.NOT_FOUND
    reason = "API_KEY_NOT_FOUND"


class AlreadyExists(AppError):
    """The organization has one of that name."""

    code = Code.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class AgentNotFound(AppError):
    """The organization has no such agent."""

    code = Code.NOT_FOUND
    reason = "AGENT_NOT_FOUND"


class ConversationNotFound(AppError):
    """The agent has no such conversation."""

    code = Code.NOT_FOUND
    reason = "CONVERSATION_NOT_FOUND"


class RunNotFound(AppError):
    """The organization has no such run."""

    code = Code.NOT_FOUND
    reason = "RUN_NOT_FOUND"


class StepNotFound(AppError):
    """The organization has no such step."""

    code = Code.NOT_FOUND
    reason = "STEP_NOT_FOUND"


class ConversationBusy(AppError):
    """A run holds the conversation; metadata has its `run_id`."""

    code = Code.ABORTED
    reason = "CONVERSATION_BUSY"


class PendingApproval(AppError):
    """A tool call waits for approval; metadata has `pending_request_id`."""

    code = Code.FAILED_PRECONDITION
    reason = "PENDING_APPROVAL"


class RunNotActive(AppError):
    """The run is over."""

    code = Code.FAILED_PRECONDITION
    reason = "RUN_NOT_ACTIVE"


class Fenced(AppError):
    """A newer owner holds the conversation; metadata has the highest `fence` seen."""

    code = Code.ABORTED
    reason = "FENCED"


class NoPendingApproval(AppError):
    """No tool call waits for approval."""

    code = Code.FAILED_PRECONDITION
    reason = "NO_PENDING_APPROVAL"


class RunAbandoned(AppError):
    """The replica that worked on the run died again and again, so that nobody takes it over any more."""

    code = Code.INTERNAL
    reason = "RUN_ABANDONED"


class NothingToCompact(AppError):
    """Compaction would not make the context smaller."""

    code = Code.FAILED_PRECONDITION
    reason = "NOTHING_TO_COMPACT"


class BlockNotFound(AppError):
    """The organization, or the agent, has no such block."""

    code = Code.NOT_FOUND
    reason = "BLOCK_NOT_FOUND"


class BlockReadOnly(AppError):
    """The block refuses writes."""

    code = Code.FAILED_PRECONDITION
    reason = "BLOCK_READ_ONLY"


class BlockLimitExceeded(AppError):
    """The value is longer than the block's limit in characters."""

    code = Code.FAILED_PRECONDITION
    reason = "BLOCK_LIMIT_EXCEEDED"


class BlockLabelTaken(AppError):
    """The agent has a block of that label."""

    code = Code.ALREADY_EXISTS
    reason = "BLOCK_LABEL_TAKEN"


class EditNoMatch(AppError):
    """The text to replace does not occur in the block."""

    code = Code.FAILED_PRECONDITION
    reason = "EDIT_NO_MATCH"


class EditNotUnique(AppError):
    """The text to replace occurs more than once; metadata has the `lines`."""

    code = Code.FAILED_PRECONDITION
    reason = "EDIT_NOT_UNIQUE"


class EditLineOutOfRange(AppError):
    """The line to insert after does not exist; metadata has `lines`."""

    code = Code.OUT_OF_RANGE
    reason = "EDIT_LINE_OUT_OF_RANGE"


class ArchiveNotFound(AppError):
    """The organization has no such archive."""

    code = Code.NOT_FOUND
    reason = "ARCHIVE_NOT_FOUND"


class PassageNotFound(AppError):
    """The archive has no such passage."""

    code = Code.NOT_FOUND
    reason = "PASSAGE_NOT_FOUND"


class MessageNotFound(AppError):
    """The organization has no such message."""

    code = Code.NOT_FOUND
    reason = "MESSAGE_NOT_FOUND"


class ArchiveTaken(AppError):
    """The agent has an archive already."""

    code = Code.ALREADY_EXISTS
    reason = "ARCHIVE_TAKEN"


class EmbeddingDimensionChanged(AppError):
    """An archive's embedder makes vectors of another dimension than before; the archive must be embedded anew."""

    code = Code.FAILED_PRECONDITION
    reason = "EMBEDDING_DIMENSION_CHANGED"


class FolderNotFound(AppError):
    """The organization has no such folder."""

    code = Code.NOT_FOUND
    reason = "FOLDER_NOT_FOUND"


class FileNotFound(AppError):
    """The folder has no such file."""

    code = Code.NOT_FOUND
    reason = "FILE_NOT_FOUND"


class ToolNotFound(AppError):
    """The organization, or the agent, has no such tool."""

    code = Code.NOT_FOUND
    reason = "TOOL_NOT_FOUND"


class ToolNameTaken(AppError):
    """The organization has a tool of that name."""

    code = Code.ALREADY_EXISTS
    reason = "TOOL_NAME_TAKEN"


class ToolSourceInvalid(AppError):
    """No schema can be read from the source; the message says why."""

    code = Code.INVALID_ARGUMENT
    reason = "TOOL_SOURCE_INVALID"


class IsolationUnavailable(AppError):
    """The host offers no isolation that is strong enough; metadata names the missing feature."""

    code = Code.FAILED_PRECONDITION
    reason = "ISOLATION_UNAVAILABLE"


class MCPServerNotFound(AppError):
    """The organization has no such MCP server."""

    code = Code.NOT_FOUND
    reason = "MCP_SERVER_NOT_FOUND"


class MCPConnectionFailed(AppError):
    """The MCP server cannot be reached or answers garbage."""

    code = Code.UNAVAILABLE
    reason = "MCP_CONNECTION_FAILED"


class MCPTimeout(AppError):
    """The MCP server did not answer in time."""

    code = Code.DEADLINE_EXCEEDED
    reason = "MCP_TIMEOUT"


class SandboxConfigNotFound(AppError):
    """The organization has no such sandbox configuration."""

    code = Code.NOT_FOUND
    reason = "SANDBOX_CONFIG_NOT_FOUND"


class ToolRequirementsUnsatisfied(AppError):
    """What a tool requires cannot be installed; the message says why."""

    code = Code.INVALID_ARGUMENT
    reason = "TOOL_REQUIREMENTS_UNSATISFIED"


class ModelNotFound(AppError):
    """No provider offers this handle; metadata lists some that exist."""

    code = Code.NOT_FOUND
    reason = "MODEL_NOT_FOUND"


class ProviderNotFound(AppError):
    """The organization has no such provider."""

    code = Code.NOT_FOUND
    reason = "PROVIDER_NOT_FOUND"


class ProviderNameTaken(AppError):
    """A provider of that name exists."""

    code = Code.ALREADY_EXISTS
    reason = "PROVIDER_NAME_TAKEN"


class LLMTimeout(AppError):
    """The model did not answer in time."""

    code = Code.DEADLINE_EXCEEDED
    reason = "LLM_TIMEOUT"


class LLMRateLimit(AppError):
    """The vendor refuses for now, retries included."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "LLM_RATE_LIMIT"


class LLMAuthentication(AppError):
    """The vendor refuses the key."""

    code = Code.FAILED_PRECONDITION
    reason = "LLM_AUTHENTICATION"


class LLMBadRequest(AppError):
    """The vendor refuses the request."""

    code = Code.INVALID_ARGUMENT
    reason = "LLM_BAD_REQUEST"


class LLMInsufficientCredits(AppError):
    """The vendor account has no credit."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "LLM_INSUFFICIENT_CREDITS"


class LLMUnavailable(AppError):
    """The vendor is down or overloaded, or cannot be reached."""

    code = Code.UNAVAILABLE
    reason = "LLM_UNAVAILABLE"


class LLMInvalidResponse(AppError):
    """The vendor's answer cannot be read, or is none: empty twice, thoughts alone, blocked."""

    code = Code.UNAVAILABLE
    reason = "LLM_INVALID_RESPONSE"


class ContextWindowExceeded(AppError):
    """The prompt does not fit the model's window. Compact and try again."""

    code = Code.FAILED_PRECONDITION
    reason = "CONTEXT_WINDOW_EXCEEDED"


class CapabilityMissing(AppError):
    """The model cannot do what was asked; the message names what to change."""

    code = Code.FAILED_PRECONDITION
    reason = "CAPABILITY_MISSING"


class IdentityNotFound(AppError):
    """The organization has no such identity."""

    code = Code.NOT_FOUND
    reason = "IDENTITY_NOT_FOUND"


class GroupNotFound(AppError):
    """The organization has no such group."""

    code = Code.NOT_FOUND
    reason = "GROUP_NOT_FOUND"


class BudgetExceeded(AppError):
    """A budget of the organization is used up."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "BUDGET_EXCEEDED"


class BudgetNotFound(AppError):
    """The organization has no such budget."""

    code = Code.NOT_FOUND
    reason = "BUDGET_NOT_FOUND"


class SecretRequired(AppError):
    """A secret would go to another address than the one it was given for. Send it again with the change."""

    code = Code.INVALID_ARGUMENT
    reason = "SECRET_REQUIRED"


BY_REASON: dict[str, type[AppError]] = {kind.reason: kind for kind in AppError.__subclasses__()}
