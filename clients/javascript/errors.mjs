// Errors of the protocol, one class for each code: `error instanceof PeerOffline`, `error.fields.peer`.

/** An error of the system. `code` is stable; `fields` are the fields of this code. */
export class P2PError extends Error {
  static code = "";
  static fields = {};
  static retryable = false;

  constructor(fields = {}) {
    super();
    this.name = this.constructor.name;
    this.code = this.constructor.code;
    this.fields = fields;
    /** True if the same request can succeed later without any change. */
    this.retryable = this.constructor.retryable;
    const details = Object.entries(fields).map(([name, value]) => `${name}: ${value}`);
    this.message = [this.code, ...details].join(", ");
  }

  /** Returns the error of an ErrorReply. An unknown code, or fields that do not match it, become an InternalError. */
  static from(code, fields) {
    const known = ERRORS.get(code);
    if (known && Object.entries(known.fields).every(([name, type]) => FITS[type](fields?.[name]))) {
      return new known(fields);
    }
    return new InternalError({ reason: `unknown error: ${code} ${JSON.stringify(fields)}` });
  }
}

/** An error that a handler raised on purpose. A handler throws it to send it to the caller. */
export class ApplicationError extends Error {
  constructor(kind, message, data = null) {
    super(message);
    this.name = "ApplicationError";
    this.kind = kind;
    this.data = data;
  }
}

const FITS = {
  str: (value) => typeof value === "string",
  int: (value) => Number.isInteger(value),
  float: (value) => typeof value === "number",
  "list[str]": (value) => Array.isArray(value) && value.every((each) => typeof each === "string"),
};

/** Code → class. */
export const ERRORS = new Map();

/** Defines the class of a code. `fields` is written as in the table of errors in docs/protocol.md. */
function define(code, fields, { retryable = false } = {}) {
  const name = code.replace(/(^|-)([a-z])/g, (_, dash, letter) => letter.toUpperCase());
  const types = fields ? Object.fromEntries(fields.split(", ").map((field) => field.split(": "))) : {};
  const made = class extends P2PError {
    static code = code;
    static fields = types;
    static retryable = retryable;
  };
  Object.defineProperty(made, "name", { value: name });
  ERRORS.set(code, made);
  return made;
}

const RETRYABLE = { retryable: true };

export const InvalidKey = define("invalid-key", "text: str, reason: str");
export const InvalidTicket = define("invalid-ticket", "reason: str");
export const InvalidName = define("invalid-name", "name: str, what: str, reason: str");
export const InvalidConfig = define("invalid-config", "protocol: str, reason: str");
export const BadRequest = define("bad-request", "protocol: str, reason: str");
export const BadReply = define("bad-reply", "protocol: str, reason: str");
export const BadMessage = define("bad-message", "reason: str");
export const InvalidPassphrase = define("invalid-passphrase", "reason: str");
export const SessionClosed = define("session-closed", "what: str");
export const UsedElsewhere = define("used-elsewhere", "what: str, reason: str");
export const PayloadTooLarge = define("payload-too-large", "size: int, limit: int");
export const DaemonNotRunning = define("daemon-not-running", "home: str", RETRYABLE);
export const DaemonAlreadyRunning = define("daemon-already-running", "home: str, pid: int");
export const HomeUnusable = define("home-unusable", "path: str, reason: str");
export const DaemonBusy = define("daemon-busy", "actor: str", RETRYABLE);
export const VersionMismatch = define("version-mismatch", "ours: int, theirs: int");
export const IdentityNotFound = define("identity-not-found", "identity: str");
export const IdentityExists = define("identity-exists", "identity: str");
export const IdentityOffline = define("identity-offline", "identity: str");
export const IdentityFailed = define("identity-failed", "identity: str, reason: str");
export const IdentityAmbiguous = define("identity-ambiguous", "online: list[str]");
export const NoIdentityOnline = define("no-identity-online", "");
export const BindingExists = define("binding-exists", "identity: str, protocol: str, instance: str");
export const WorkspaceNotEmpty = define("workspace-not-empty", "identity: str, protocol: str, instance: str, holds: str");
export const BindingNotFound = define("binding-not-found", "identity: str, protocol: str, instance: str");
export const ProtocolNotInstalled = define("protocol-not-installed", "protocol: str, installed: list[str]");
export const PeerNameTaken = define("peer-name-taken", "name: str");
export const PeerNameUnknown = define("peer-name-unknown", "name: str");
export const PeerBlocked = define("peer-blocked", "peer: str");
export const GroupExists = define("group-exists", "group: str");
export const GroupNotFound = define("group-not-found", "group: str");
export const StorageFailed = define("storage-failed", "path: str, reason: str");
export const StorageDamaged = define("storage-damaged", "path: str, reason: str");
export const Forbidden = define("forbidden", "role: str, request: str");
export const VaultLocked = define("vault-locked", "what: str", RETRYABLE);
export const VaultNotEncrypted = define("vault-not-encrypted", "");
export const WrongPassphrase = define("wrong-passphrase", "");
export const PassphraseDelayed = define("passphrase-delayed", "seconds: int", RETRYABLE);
export const PeerUnknown = define("peer-unknown", "peer: str", RETRYABLE);
export const PeerUnreachable = define("peer-unreachable", "peer: str, reason: str", RETRYABLE);
export const PeerOffline = define("peer-offline", "peer: str", RETRYABLE);
export const ProtocolNotFound = define("protocol-not-found", "peer: str, protocol: str");
export const InstanceNotFound = define("instance-not-found", "peer: str, protocol: str, instance: str");
export const CommandNotFound = define("command-not-found", "peer: str, protocol: str, command: str");
export const Denied = define("denied", "peer: str, protocol: str, instance: str");
export const HandlerFailed = define("handler-failed", "peer: str, protocol: str, reason: str");
export const BadSignature = define("bad-signature", "what: str, identity: str");
export const DelegationExpired = define("delegation-expired", "identity: str, seconds: int");
export const DelegationNotYetValid = define("delegation-not-yet-valid", "identity: str, seconds: int");
export const WrongEndpoint = define("wrong-endpoint", "identity: str");
export const EpochRetired = define("epoch-retired", "identity: str, epoch: int, newest: int");
export const RecordReplayed = define("record-replayed", "identity: str, sequence: int, newest: int");
export const DeadlineExceeded = define("deadline-exceeded", "seconds: float", RETRYABLE);
export const Overloaded = define("overloaded", "what: str, limit: int", RETRYABLE);
export const ConnectionLost = define("connection-lost", "what: str");
export const StreamReset = define("stream-reset", "reset_code: int");
export const InternalError = define("internal-error", "reason: str");
export const OutcomeUnknown = define("outcome-unknown", "peer: str");
export const IdentityRevoked = define("identity-revoked", "identity: str, revoked: str, successor: str");
export const SlotExists = define("slot-exists", "slot: str");
export const SlotNotFound = define("slot-not-found", "slot: str");
export const LastSlot = define("last-slot", "slot: str");
export const InvitationNotRedeemed = define("invitation-not-redeemed", "");
export const InvitationNotFound = define("invitation-not-found", "invitation: str");
export const InvitationRefused = define("invitation-refused", "peer: str, reason: str");
export const PermissionsNeeded = define("permissions-needed", "protocol: str, permissions: str");
export const WrongBackupPassphrase = define("wrong-backup-passphrase", "");
export const BackupUnusable = define("backup-unusable", "path: str, reason: str");
export const BackupConflict = define("backup-conflict", "conflicts: str");
export const IdentityElsewhere = define("identity-elsewhere", "identity: str, owner: str, what: str");
export const OwnerAway = define("owner-away", "identity: str, owner: str, reason: str", RETRYABLE);
export const OwnerReplaced = define("owner-replaced", "identity: str, owner: str, since: str");
export const ReplicaNotFound = define("replica-not-found", "identity: str, replica: str");
export const ReplicaRemoved = define("replica-removed", "identity: str");
export const StorageHeld = define("storage-held", "store: str, holder: str", RETRYABLE);
export const StorageUnavailable = define("storage-unavailable", "what: str", RETRYABLE);
export const HomeAway = define("home-away", "peer: str, protocol: str, instance: str, daemon: str, endpoint: str, term: int, seconds: int", RETRYABLE);
export const NotForWorkers = define("not-for-workers", "identity: str, protocol: str, instance: str, reason: str");
export const TokenRefused = define("token-refused", "identity: str, protocol: str, instance: str");
export const WrongDaemon = define("wrong-daemon", "address: str");
export const InvalidToken = define("invalid-token", "reason: str");
