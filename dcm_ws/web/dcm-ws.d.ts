export type State = "idle" | "connecting" | "connected" | "waiting" | "closed";

/** An event.  `EventOf<"task.*">` is one whose name matches a pattern. */
export interface DCMEvent<Data = any, Name extends string = string> {
  /** The same on every channel and in every repetition. */
  id: string;
  channel: string;
  /** The agent that published it; absent for the service's and the database's events, and for anonymous clients'. */
  from?: string;
  /** On `global`, the channel that it was published to. */
  origin?: string;
  /** Its position in the server's log; absent if it is not logged. */
  pos?: number;
  event: Name;
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

// the catalogue, made by python -m dcm_ws.app.documentation

/** Data of `task.*`. */
export interface TaskData {
  /** The task. */
  id?: string;
  /** The request that it belongs to. */
  request_id?: string | null;
  /** What it is called. */
  name?: string | null;
  /** Its place among the waves of the request. */
  wave_number?: number;
  /** `pending`, `running`, `completed`, `failed`, or another one. */
  status?: string;
  /** ISO 8601. */
  created_at?: string;
  /** ISO 8601. */
  completed_at?: string | null;
  /** Columns that were left out, because they have more than 500 bytes. */
  omitted?: string[];
  /** The row was too large: only its ids and its `status` were sent. */
  truncated?: true;
  /** When it happened, in milliseconds since the epoch. */
  at?: number;
  /** The agent that runs it. */
  agent_id?: string;
  /** Exit status of the command. */
  exit_status?: number;
  /** Seconds that the command ran. */
  duration_s?: number;
  /** The end of its output. */
  last_lines?: string[];
  /** The signal that ended it. */
  signal?: string;
  /** Why the command could not be run. */
  error?: string;
  /** The task that was claimed or ended. */
  task_id?: string;
  /** What came of it. */
  result?: unknown;
  /** What other publishers send. */
  [field: string]: unknown;
}

/** Data of `subtask.*`. */
export interface SubtaskData {
  /** The subtask. */
  id?: string;
  /** The task that it belongs to. */
  task_list_id?: string | null;
  /** The kind of agent that does it. */
  agent_type?: string | null;
  /** The agent that does it. */
  agent_id?: string | null;
  /** What is to be done. */
  description?: string | null;
  /** `pending`, `running`, `completed`, `failed`, or another one. */
  status?: string;
  /** ISO 8601. */
  created_at?: string;
  /** ISO 8601. */
  completed_at?: string | null;
  /** What came of it. */
  result?: unknown;
  /** Columns that were left out, because they have more than 500 bytes. */
  omitted?: string[];
  /** The row was too large: only its ids and its `status` were sent. */
  truncated?: true;
  /** The name of the command. */
  name?: string;
  /** When it happened, in milliseconds since the epoch. */
  at?: number;
  /** Exit status of the command. */
  exit_status?: number;
  /** Seconds that the command ran. */
  duration_s?: number;
  /** The end of its output. */
  last_lines?: string[];
  /** The signal that ended it. */
  signal?: string;
  /** Why the command could not be run. */
  error?: string;
  /** The name of the hook. */
  hook?: string;
  /** The session of the coding agent. */
  session_id?: string;
  /** The name of its folder. */
  project?: string;
  /** With `--full`. */
  last_assistant_message?: unknown;
  /** What other publishers send. */
  [field: string]: unknown;
}

/** Data of `message.*`. */
export interface MessageData {
  /** The message. */
  id?: string;
  /** Who sent it. */
  from_agent_id?: string | null;
  /** Who is to read it. */
  to_agent_id?: string | null;
  /** Its topic. */
  topic?: string | null;
  /** Its contents. */
  payload?: unknown;
  /** Its priority. */
  priority?: number;
  /** ISO 8601. */
  created_at?: string;
  /** ISO 8601. */
  expires_at?: string | null;
  /** Columns that were left out, because they have more than 500 bytes. */
  omitted?: string[];
  /** The row was too large: only its ids and its `status` were sent. */
  truncated?: true;
  /** The text. */
  content?: string;
  /** The `id` of the event that it answers. */
  reply_to?: string;
  /** What other publishers send. */
  [field: string]: unknown;
}

/** Data of `agent.connected` and `agent.disconnected`. */
export interface PresenceData {
  /** The agent. */
  agent_id: string;
  /** Its connection. */
  client_id: string;
  /** Its DCM session; null if none is known. */
  session_id: string | null;
}

/** Data of `agent.heartbeat`, `agent.blocked` and `agent.unblocked`. */
export interface AgentData {
  /** The agent. */
  agent_id?: string;
  /** When it happened, in milliseconds since the epoch. */
  at?: number;
  /** The task that is being run. */
  id?: string;
  /** The task that the subtask belongs to. */
  task_list_id?: string;
  /** The name of the command. */
  name?: string;
  /** Seconds since the command was started. */
  elapsed_s?: number;
  /** The name of the hook. */
  hook?: string;
  /** The session of the coding agent. */
  session_id?: string;
  /** The name of its folder. */
  project?: string;
  /** The subagent that it concerns. */
  subagent_id?: string;
  /** The tool that is used. */
  tool_name?: string;
  /** Which use of it. */
  tool_use_id?: string;
  /** Why the tool failed. */
  error?: string;
  /** What the agent waits for. */
  message?: string;
  /** The kind of notification. */
  notification_type?: string;
  /** With `--full`. */
  prompt?: unknown;
  /** With `--full`. */
  tool_input?: unknown;
  /** With `--full`. */
  tool_response?: unknown;
  /** With `--full`. */
  last_assistant_message?: unknown;
  /** What other publishers send. */
  [field: string]: unknown;
}

/** Data of `session.*`. */
export interface SessionData {
  /** The session. */
  id?: string;
  /** ISO 8601. */
  started_at?: string;
  /** ISO 8601. */
  ended_at?: string | null;
  /** Columns that were left out, because they have more than 500 bytes. */
  omitted?: string[];
  /** The row was too large: only its ids and its `status` were sent. */
  truncated?: true;
  /** The name of the hook. */
  hook?: string;
  /** The session of the coding agent. */
  session_id?: string;
  /** The name of its folder. */
  project?: string;
  /** When it happened, in milliseconds since the epoch. */
  at?: number;
  /** The agent. */
  agent_id?: string;
  /** The subagent that it concerns. */
  subagent_id?: string;
  /** How it began. */
  source?: string;
  /** The language model. */
  model?: string;
  /** Why it ended. */
  reason?: string;
  /** What other publishers send. */
  [field: string]: unknown;
}

/** Data of `metric.update`. */
export interface MetricData {
  /** Sessions that go on. */
  active_sessions: number;
  /** Agents with a running subtask. */
  active_agents: number;
  /** Tasks that wait. */
  pending_tasks: number;
  /** Tasks that run. */
  running_tasks: number;
  /** Tasks that were completed in the last hour. */
  completed_tasks_last_hour: number;
  /** Mean duration of tasks. */
  avg_task_duration_ms: number;
  /** Messages of the last hour. */
  messages_last_hour: number;
  /** Actions per minute, over 5 minutes. */
  actions_per_minute: number;
  /** When they were read, in milliseconds since the epoch. */
  timestamp: number;
}

/** Data of `system.*`. */
export interface SystemData {
  /** What it is about. */
  component?: "database" | "server";
  /** What has become of it. */
  state?: "up" | "down" | "draining";
  /** What other publishers send. */
  [field: string]: unknown;
}

/** The events of the catalogue, and their data.  Declare your own events in it. */
export interface EventMap {
  /** A row of `task_lists` is inserted; `dcm-ws run` starts a command. */
  "task.created": TaskData;
  /** Another column or status of a row of `task_lists` changes; an agent claims a task. */
  "task.updated": TaskData;
  /** `status` of a row of `task_lists` becomes `completed`; a command or an agent succeeds. */
  "task.completed": TaskData;
  /** `status` of a row of `task_lists` becomes `failed`; a command or an agent fails. */
  "task.failed": TaskData;
  /** A row of `subtasks` is inserted; `dcm-ws run --subtask-of` starts a command. */
  "subtask.created": SubtaskData;
  /** Another column or status of a row of `subtasks` changes. */
  "subtask.updated": SubtaskData;
  /** `status` of a row of `subtasks` becomes `running`; a subagent starts. */
  "subtask.running": SubtaskData;
  /** `status` of a row of `subtasks` becomes `completed`; a command or a subagent ends. */
  "subtask.completed": SubtaskData;
  /** `status` of a row of `subtasks` becomes `failed`; a command fails. */
  "subtask.failed": SubtaskData;
  /** A row of `agent_messages` is inserted; an agent sends a message. */
  "message.new": MessageData;
  /** A row of `agent_messages` is marked as read. */
  "message.read": MessageData;
  /** `expires_at` of a row of `agent_messages` is set to a time in the past. */
  "message.expired": MessageData;
  /** A client authenticates. */
  "agent.connected": PresenceData;
  /** The connection of an authenticated client ends. */
  "agent.disconnected": PresenceData;
  /** An agent or a command still works. */
  "agent.heartbeat": AgentData;
  /** An agent waits for somebody. */
  "agent.blocked": AgentData;
  /** An agent goes on. */
  "agent.unblocked": AgentData;
  /** A row of `sessions` is inserted; a session of a coding agent starts. */
  "session.created": SessionData;
  /** `ended_at` of a row of `sessions` is set; a session of a coding agent ends. */
  "session.ended": SessionData;
  /** Every 5 s, while a client is subscribed to `metrics`. */
  "metric.update": MetricData;
  /** The database cannot be reached. */
  "system.error": SystemData;
  /** The database can be reached again; the service is about to close all connections. */
  "system.info": SystemData;
}
// end of the catalogue

export type EventName = keyof EventMap & string;

/** The names in `EventMap` that a pattern matches: a name, or the beginning of names and `*`. */
export type Matching<Pattern extends string> = Extract<EventName, Pattern extends `${infer Start}*` ? `${Start}${string}` : Pattern>;

/** An event whose name matches a pattern.  If the pattern matches no name in `EventMap`, or all, its data may be anything. */
export type EventOf<Pattern extends string> = Pattern extends unknown
  ? string extends Pattern
    ? DCMEvent
    : Pattern extends "*"
      ? DCMEvent
      : DCMEvent<
          [Matching<Pattern>] extends [never] ? any : EventMap[Matching<Pattern>],
          Pattern extends `${string}*` ? Matching<Pattern> | (string & {}) : Pattern
        >
  : never;

/** Does the name of the event match?  Its data has the type of the catalogue then. */
export function isEvent<Pattern extends EventName | (string & {})>(event: DCMEvent, pattern: Pattern): event is EventOf<Pattern>;

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
  /** The event has the type of the catalogue, unless the listener's parameter has another one. */
  on<Pattern extends string>(what: `event:${Pattern}`, listener: (event: EventOf<Pattern>, client: DCMClient) => unknown): () => void;
  on(what: "event" | `event:${string}` | `channel:${string}`, listener: (event: DCMEvent, client: DCMClient) => unknown): () => void;
  /** Undefined without a connection: the subscription follows as soon as there is one. */
  subscribe(channel: string): Promise<Answer | undefined>;
  unsubscribe(channel: string): Promise<Answer | undefined>;
  /** Of all calls of an agent with the same `key` within 10 minutes, only the first publishes an event. */
  publish(channel: string, event: EventName | (string & {}), data?: unknown, choices?: { key?: string }): Promise<Answer & { message_id: string }>;
  /** Milliseconds there and back. */
  ping(): Promise<number>;
  authenticate(token?: Options["token"]): Promise<Answer>;
  send(message: object): boolean;
}
