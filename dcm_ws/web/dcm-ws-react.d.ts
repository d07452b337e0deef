import type { ReactElement, ReactNode } from "react";
import type { Answer, DCMError, DCMEvent, EventName, EventOf, Gap, MetricData, Options } from "./dcm-ws.js";

/** Keeps the one connection that all hooks below it share. */
export function DCMProvider(props: {
  url: string;
  /** A new string is used to authenticate at once; if functions are given, the latest is called. */
  token?: Options["token"];
  /** Fixed at the first rendering. */
  options?: Omit<Options, "channels" | "token">;
  children?: ReactNode;
}): ReactElement;

export function useWebSocket(choices?: { channels?: string[]; onEvent?: (event: DCMEvent) => unknown }): {
  connected: boolean;
  connecting: boolean;
  lastMessage: DCMEvent | null;
  error: DCMError | null;
  /** The last one: what was loaded before it has to be loaded again. */
  gap: Gap | null;
  /** False without a connection. */
  send(message: object): boolean;
  subscribe(channel: string): void;
  unsubscribe(channel: string): void;
  reconnect(): void;
};

export type Metrics = MetricData;

export function useRealtimeMetrics(): { metrics: Metrics | null; connected: boolean; error: DCMError | null };

/** With `eventTypes`, the events have the types of the catalogue. */
export function useRealtimeEvents<Pattern extends EventName | (string & {}) = string>(choices?: {
  /** `["global"]` by default. */
  channels?: string[];
  /** Event names; a `*` at the end matches any rest. */
  eventTypes?: readonly Pattern[];
  /** 100 by default. */
  maxEvents?: number;
}): { events: EventOf<Pattern>[]; connected: boolean; error: DCMError | null; gap: Gap | null; clearEvents(): void };

export function useAgentChannel(
  agentId: string | null | undefined,
  choices?: { maxMessages?: number },
): {
  connected: boolean;
  messages: DCMEvent[];
  error: DCMError | null;
  gap: Gap | null;
  /** Publishes `message.new`, or another event, to the agent's channel. */
  sendMessage(data: unknown, event?: EventName | (string & {}), choices?: { key?: string }): Promise<Answer & { message_id: string }>;
};
