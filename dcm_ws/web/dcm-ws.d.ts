export type State = "idle" | "connecting" | "connected" | "waiting" | "closed";

export interface DCMEvent<Data = any> {
  /** The same on every channel and in every repetition. */
  id: string;
  channel: string;
  /** The agent that published it; absent for the service's and the database's events, and for anonymous clients'. */
  from?: string;
  /** On `global`, the channel that it was published to. */
  origin?: string;
  /** Its position in the server's log; absent if it is not logged. */
  pos?: number;
  event: string;
  data: Data;
  /** Milliseconds since the epoch; the time of arrival if the event has no valid timestamp. */
  timestamp: number;
  /** The text of the frame as it came, in which no number is rounded.  It is not copied with the event. */
  readonly raw: string;
  /** Acknowledge the event; only needed if `autoAck` is false. */
  ack(): void;
  /** Do not acknowledge the event: the server sends it again after `delayMs` (0 by default, one hour at most). */
  nack(delayMs?: number): void;
}

/** What keeps a client's position: `sessionStorage`, for example. */
export interface Storing {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

/** How far a client is in the server's log. */
export interface Position {
  epoch: string;
  pos: number;
}

/** There are events that the client has not received, and will not: load the state again. */
export interface Gap {
  /**
   * `epoch`: the log is another one; `expired`: they are not kept any more; `ahead`: the log ends before the position;
   * `rights`: a new token does not allow every channel any more.
   */
  reason: "epoch" | "expired" | "ahead" | "rights";
  /** The oldest position that is kept. */
  first?: number;
  /** Where the client goes on from; absent if the server has no log. */
  epoch?: string;
  pos?: number;
}

export interface Answer {
  type: "ack";
  id: string;
  success: true;
  timestamp: number;
  /** Of a published event. */
  message_id?: string;
  /** The position of a published event in the log, if it is logged. */
  pos?: number;
  /** The agent had published the event before, with the same key. */
  duplicate?: true;
  /** After `auth`. */
  subscriptions?: string[];
}

export interface Options {
  /** A token, or a function that returns one, called for each connection. */
  token?: string | (() => string | Promise<string>);
  /** The agent to authenticate as without a token; only possible in development. */
  agentId?: string;
  sessionId?: string;
  /** Subscribed to now and after each reconnection; `["global"]` by default. */
  channels?: Iterable<string>;
  /** Acknowledge tracked events once all listeners have returned and their promises are fulfilled; true by default. */
  autoAck?: boolean;
  /** Receive events without acknowledging them, and without being the agent's presence; false by default. */
  observer?: boolean;
  /** The server keeps what the agent does not acknowledge, also before its first acknowledgement. */
  durable?: boolean;
  /**
   * At the first connection, receive the last events again: those of the client's channels among so many of the log.  0
   * by default.
   */
  last?: number;
  /** Keeps the position, to go on from it after a reload: `sessionStorage`, `localStorage`, or what has their methods, or returns it. */
  storage?: Storing | (() => Storing);
  /** By default the address of the server and `agentId`. */
  storageKey?: string;
  /** 10,000 by default. */
  requestTimeoutMs?: number;
  /** 10,000 by default. */
  connectTimeoutMs?: number;
  /** Silence after which the connection counts as lost; 75,000 by default. */
  silenceMs?: number;
  /** How long a connection must last before the back-off starts again; 10,000 by default. */
  stableMs?: number;
  /** The longest delay before the first retry, which doubles for each further one, and what it grows to. */
  backoff?: { baseMs?: number; maxMs?: number };
  /** Event ids remembered, to leave out repetitions; 10,000 by default. */
  seenMax?: number;
  /** From 0 up to 1. */
  random?: () => number;
  /** Reads each frame, in place of `JSON.parse`: one that knows integers beyond 2^53, for example. */
  parse?: (text: string) => any;
  /** Used instead of the global WebSocket. */
  WebSocket?: new (url: string) => any;
}

export class DCMError extends Error {
  constructor(code: string, message: string, details?: any);
  /** One of the protocol's, or `NOT_CONNECTED`, `TIMEOUT`, `CLOSED`, `LISTENER_FAILED`, `TOKEN_FAILED`, `STORAGE_FAILED`. */
  code: string;
  details?: any;
  /** That a subscription was refused to, after connecting. */
  channel?: string;
  retryAfterMs?: number;
}

export class DCMClient {
  constructor(url: string | URL, options?: Options);
  readonly state: State;
  readonly channels: string[];
  /** Null before the first connection, and if the server keeps no log. */
  readonly position: Position | null;
  clientId: string | null;
  agentId: string | null;
  lastClose: { code: number; reason: string } | null;
  /** When it tries again, in milliseconds since the epoch, while it waits. */
  retryAt: number | null;
  connect(): Promise<void>;
  reconnect(): Promise<void>;
  close(): void;
  on(what: "state", listener: (state: State, client: DCMClient) => void): () => void;
  on(what: "error", listener: (error: DCMError) => void): () => void;
  on(what: "gap", listener: (gap: Gap, client: DCMClient) => void): () => void;
  on(what: "message", listener: (frame: any) => void): () => void;
  on(what: "event" | `event:${string}` | `channel:${string}`, listener: (event: DCMEvent, client: DCMClient) => unknown): () => void;
  /** Undefined without a connection: the subscription follows as soon as there is one. */
  subscribe(channel: string): Promise<Answer | undefined>;
  unsubscribe(channel: string): Promise<Answer | undefined>;
  /** Of all calls of an agent with the same `key` within 10 minutes, only the first publishes an event. */
  publish(channel: string, event: string, data?: unknown, choices?: { key?: string }): Promise<Answer & { message_id: string }>;
  /** Milliseconds there and back. */
  ping(): Promise<number>;
  authenticate(token?: Options["token"]): Promise<Answer>;
  send(message: object): boolean;
}
