// Types of what index.mjs exports. The comments there and in its modules say what each promises.

/** What msgpack carries. An integer that no number holds exactly is a bigint. */
export type Value = null | boolean | number | bigint | string | Uint8Array | Value[] | { [key: string]: Value };

export interface CallOptions {
  /** Name of the protocol's instance; "default" if not given. */
  instance?: string;
  /** Seconds until DeadlineExceeded; 10 if not given. */
  timeout?: number;
  /** Cancels the request when it aborts. */
  signal?: AbortSignal;
  /** Name of the call in the logs of both daemons; the client makes one if it is not given. */
  requestId?: string;
}

export class Client {
  constructor(options?: { home?: string; program?: string });
  /** Calls a protocol of a peer (petname, ID52 or ticket) as an identity ("" for the only one online). */
  call<Reply = Value>(
    identity: string,
    peer: string,
    protocol: string,
    request?: unknown,
    options?: CallOptions & {
      command?: string;
      /** Sends the call again until its timeout if a process or a connection is lost. It is executed once. */
      retry?: boolean;
    },
  ): Promise<Reply>;
  /** Opens a session. `initial` is for its handler. */
  open(identity: string, peer: string, protocol: string, initial?: unknown, options?: CallOptions): Promise<Session>;
  /** Closes the connections. Calls in flight reject with ConnectionLost. */
  close(): void;
}

/** A bidirectional byte stream with flow control. */
export class Session implements AsyncIterable<Uint8Array> {
  private constructor();
  readonly peer: string;
  readonly petname: string;
  readonly path: string;
  readonly requestId: string;
  /** In a handler: accepts the session, as the first read or write does. */
  accept(): void;
  write(bytes: Uint8Array): Promise<void>;
  end(): Promise<void>;
  reset(code: number): void;
  stop(code: number): void;
  close(code?: number): Promise<void>;
  [Symbol.asyncIterator](): AsyncIterator<Uint8Array>;
}

export const RESET_CLOSED: number;
export const RESET_FAILED: number;

/** What a handler knows of its call. */
export interface CallContext {
  /** ID52 of the caller. */
  peer: string;
  petname: string;
  path: string;
  identity: string;
  instance: string;
  command: string;
  callId: Uint8Array;
  /** Name of the call in logs. The caller may have chosen it. */
  requestId: string;
  /** Seconds that the caller still waited when the call came. */
  timeout: number;
  /** Aborts when the caller no longer waits. */
  signal: AbortSignal;
}

export type Handler = (request: any, context: CallContext) => unknown;

export interface Handlers {
  request?: Handler;
  commands?: Record<string, Handler>;
  session?: (session: Session, initial: any) => Promise<void>;
}

export interface ServeOptions {
  instance?: string;
  /** Access list; ["peers"] if not given. */
  allow?: string[];
  /** Requests that are delivered at once. */
  limit?: number;
  /** Whether any daemon of the identity may serve any request or session: the program keeps nothing between them. */
  stateless?: boolean;
  /** Ends serving when it aborts, after the requests in flight. */
  signal?: AbortSignal;
  onReady?: () => void;
}

export function serve(
  client: Client,
  identity: string,
  protocol: string,
  handlers: Handlers,
  options?: ServeOptions,
): Promise<void>;

/** An error that a handler raises on purpose. */
export class ApplicationError extends Error {
  constructor(kind: string, message: string, data?: unknown);
  kind: string;
  data: unknown;
  requestId?: string;
}

/** An error of the system. */
export class P2PError<Fields = Record<string, unknown>> extends Error {
  static code: string;
  constructor(fields: Fields);
  code: string;
  fields: Fields;
  retryable: boolean;
  /** Name of the call that failed. */
  requestId?: string;
}

/** Code to class. */
export const ERRORS: Map<string, typeof P2PError>;

export class InvalidKey extends P2PError<{ text: string; reason: string }> {}
export class InvalidTicket extends P2PError<{ reason: string }> {}
export class InvalidToken extends P2PError<{ reason: string }> {}
export class InvalidName extends P2PError<{ name: string; what: string; reason: string }> {}
export class InvalidConfig extends P2PError<{ protocol: string; reason: string }> {}
export class BadRequest extends P2PError<{ protocol: string; reason: string }> {}
export class BadReply extends P2PError<{ protocol: string; reason: string }> {}
export class BadMessage extends P2PError<{ reason: string }> {}
export class InvalidPassphrase extends P2PError<{ reason: string }> {}
export class SessionClosed extends P2PError<{ what: string }> {}
export class UsedElsewhere extends P2PError<{ what: string; reason: string }> {}
export class PayloadTooLarge extends P2PError<{ size: number; limit: number }> {}
export class DaemonNotRunning extends P2PError<{ home: string }> {}
export class NotForWorkers extends P2PError<{ identity: string; protocol: string; instance: string; reason: string }> {}
export class TokenRefused extends P2PError<{ identity: string; protocol: string; instance: string }> {}
export class WrongDaemon extends P2PError<{ address: string }> {}
export class DaemonAlreadyRunning extends P2PError<{ home: string; pid: number }> {}
export class HomeUnusable extends P2PError<{ path: string; reason: string }> {}
export class DaemonBusy extends P2PError<{ actor: string }> {}
export class VersionMismatch extends P2PError<{ ours: number; theirs: number }> {}
export class IdentityNotFound extends P2PError<{ identity: string }> {}
export class IdentityExists extends P2PError<{ identity: string }> {}
export class IdentityOffline extends P2PError<{ identity: string }> {}
export class IdentityFailed extends P2PError<{ identity: string; reason: string }> {}
export class IdentityAmbiguous extends P2PError<{ online: string[] }> {}
export class NoIdentityOnline extends P2PError<{}> {}
export class BindingExists extends P2PError<{ identity: string; protocol: string; instance: string }> {}
export class WorkspaceNotEmpty extends P2PError<{ identity: string; protocol: string; instance: string; holds: string }> {}
export class BindingNotFound extends P2PError<{ identity: string; protocol: string; instance: string }> {}
export class ProtocolNotInstalled extends P2PError<{ protocol: string; installed: string[] }> {}
export class PeerNameTaken extends P2PError<{ name: string }> {}
export class PeerNameUnknown extends P2PError<{ name: string }> {}
export class PeerBlocked extends P2PError<{ peer: string }> {}
export class GroupExists extends P2PError<{ group: string }> {}
export class GroupNotFound extends P2PError<{ group: string }> {}
export class StorageFailed extends P2PError<{ path: string; reason: string }> {}
export class StorageDamaged extends P2PError<{ path: string; reason: string }> {}
export class Forbidden extends P2PError<{ role: string; request: string }> {}
export class VaultLocked extends P2PError<{ what: string }> {}
export class VaultNotEncrypted extends P2PError<{}> {}
export class WrongPassphrase extends P2PError<{}> {}
export class PassphraseDelayed extends P2PError<{ seconds: number }> {}
export class PeerUnknown extends P2PError<{ peer: string }> {}
export class PeerUnreachable extends P2PError<{ peer: string; reason: string }> {}
export class PeerOffline extends P2PError<{ peer: string }> {}
export class ProtocolNotFound extends P2PError<{ peer: string; protocol: string }> {}
export class InstanceNotFound extends P2PError<{ peer: string; protocol: string; instance: string }> {}
export class CommandNotFound extends P2PError<{ peer: string; protocol: string; command: string }> {}
export class Denied extends P2PError<{ peer: string; protocol: string; instance: string }> {}
export class HandlerFailed extends P2PError<{ peer: string; protocol: string; reason: string }> {}
export class BadSignature extends P2PError<{ what: string; identity: string }> {}
export class DelegationExpired extends P2PError<{ identity: string; seconds: number }> {}
export class DelegationNotYetValid extends P2PError<{ identity: string; seconds: number }> {}
export class WrongEndpoint extends P2PError<{ identity: string }> {}
export class EpochRetired extends P2PError<{ identity: string; epoch: number; newest: number }> {}
export class RecordReplayed extends P2PError<{ identity: string; sequence: number; newest: number }> {}
export class DeadlineExceeded extends P2PError<{ seconds: number }> {}
export class Overloaded extends P2PError<{ what: string; limit: number }> {}
export class ConnectionLost extends P2PError<{ what: string }> {}
export class StreamReset extends P2PError<{ reset_code: number }> {}
export class InternalError extends P2PError<{ reason: string }> {}
export class OutcomeUnknown extends P2PError<{ peer: string }> {}
export class IdentityRevoked extends P2PError<{ identity: string; revoked: string; successor: string }> {}
export class SlotExists extends P2PError<{ slot: string }> {}
export class SlotNotFound extends P2PError<{ slot: string }> {}
export class LastSlot extends P2PError<{ slot: string }> {}
export class InvitationNotRedeemed extends P2PError<{}> {}
export class InvitationNotFound extends P2PError<{ invitation: string }> {}
export class InvitationRefused extends P2PError<{ peer: string; reason: string }> {}
export class PermissionsNeeded extends P2PError<{ protocol: string; permissions: string }> {}
export class WrongBackupPassphrase extends P2PError<{}> {}
export class BackupUnusable extends P2PError<{ path: string; reason: string }> {}
export class BackupConflict extends P2PError<{ conflicts: string }> {}
export class IdentityElsewhere extends P2PError<{ identity: string; owner: string; what: string }> {}
export class OwnerAway extends P2PError<{ identity: string; owner: string; reason: string }> {}
export class OwnerReplaced extends P2PError<{ identity: string; owner: string; since: string }> {}
export class ReplicaNotFound extends P2PError<{ identity: string; replica: string }> {}
export class ReplicaRemoved extends P2PError<{ identity: string }> {}
export class StorageHeld extends P2PError<{ store: string; holder: string }> {}
export class StorageUnavailable extends P2PError<{ what: string }> {}
export class HomeAway extends P2PError<{ peer: string; protocol: string; instance: string; daemon: string; endpoint: string; term: number; seconds: number }> {}
