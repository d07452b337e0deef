/**
 * React hooks on the client of dcm-ws.  All hooks below a `DCMProvider` share one connection; a channel is subscribed to
 * as long as any of them wants it.
 */
import { createContext, createElement, useCallback, useContext, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import { DCMClient } from "./dcm-ws.js";

const Connection = createContext(null);
const NONE = [];
const GLOBAL = ["global"];
const METRICS = ["metrics"];

/** A client, and how many hooks want each of its channels. */
class Shared {
  #wanted = new Map();
  #users = 0;
  #snapshot = { state: "idle", error: null };
  #watchers = new Set();

  constructor(url, options) {
    this.client = new DCMClient(url, { ...options, channels: [] });
    this.client.on("state", (state) => this.#change({ state, error: state === "connected" ? null : this.#snapshot.error }));
    this.client.on("error", (error) => this.#change({ ...this.#snapshot, error }));
  }

  watch = (watcher) => {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  };

  snapshot = () => this.#snapshot;

  #change(snapshot) {
    this.#snapshot = snapshot;
    for (const watcher of this.#watchers) watcher();
  }

  /** The provider is there; answers what to do when it goes. */
  use() {
    this.#users += 1;
    // failures are told as errors
    this.client.connect().catch(() => {});
    return () => {
      this.#users -= 1;
      // in StrictMode React takes everything down once and puts it up again: wait and see
      setTimeout(() => this.#users === 0 && this.client.close());
    };
  }

  want(channel) {
    const count = this.#wanted.get(channel) ?? 0;
    this.#wanted.set(channel, count + 1);
    if (count === 0) this.#settle(channel);
    let wanted = true;
    return () => {
      if (!wanted) return;
      wanted = false;
      this.#wanted.set(channel, this.#wanted.get(channel) - 1);
      setTimeout(() => this.#settle(channel));
    };
  }

  #settle(channel) {
    const wanted = this.#wanted.get(channel) > 0;
    if (!wanted) this.#wanted.delete(channel);
    if (wanted === this.client.channels.includes(channel)) return;
    const done = wanted ? this.client.subscribe(channel) : this.client.unsubscribe(channel);
    done.catch((error) => error.code !== "NOT_CONNECTED" && this.#change({ ...this.#snapshot, error }));
  }
}

/**
 * @param {{url: string, options?: object, token?: any, children?: any}} props `options` as for `DCMClient`, fixed at the first rendering
 */
export function DCMProvider({ url, token, options, children }) {
  const settings = useRef();
  settings.current = { token, options };
  const shared = useMemo(() => {
    const { token: first, options: rest } = settings.current;
    return new Shared(url, { ...rest, ...(first === undefined ? {} : { token: first }) });
  }, [url]);
  useEffect(() => shared.use(), [shared]);
  return createElement(Connection.Provider, { value: shared }, children);
}

function useShared() {
  const shared = useContext(Connection);
  if (shared === null) throw new Error("There is no connection: put <DCMProvider url=…> around what uses dcm-ws hooks");
  return shared;
}

function useStatus(shared) {
  return useSyncExternalStore(shared.watch, shared.snapshot, shared.snapshot);
}

/** Subscribe to `channels` as long as the component is there, and call `listener` with each of their events. */
function useChannels(shared, channels, listener) {
  const latest = useRef(listener);
  useEffect(() => {
    latest.current = listener;
  });
  // a new array with the same names is the same
  const names = JSON.stringify([...new Set(channels)]);
  useEffect(() => {
    const ends = JSON.parse(names).flatMap((channel) => [
      shared.client.on(`channel:${channel}`, (event) => latest.current(event)),
      shared.want(channel),
    ]);
    return () => ends.forEach((end) => end());
  }, [shared, names]);
}

export function useWebSocket({ channels = NONE, onEvent } = {}) {
  const shared = useShared();
  const { state, error } = useStatus(shared);
  const [lastMessage, setLastMessage] = useState(null);
  const own = useRef(new Map());
  useChannels(shared, channels, (event) => {
    setLastMessage(event);
    return onEvent?.(event);
  });
  useEffect(() => {
    const mine = own.current;
    return () => {
      for (const end of mine.values()) end();
      mine.clear();
    };
  }, [shared]);
  const subscribe = useCallback(
    (channel) => {
      if (own.current.has(channel)) return;
      const ends = [shared.client.on(`channel:${channel}`, setLastMessage), shared.want(channel)];
      own.current.set(channel, () => ends.forEach((end) => end()));
    },
    [shared],
  );
  const unsubscribe = useCallback((channel) => {
    own.current.get(channel)?.();
    own.current.delete(channel);
  }, []);
  const send = useCallback((message) => shared.client.send(message), [shared]);
  const reconnect = useCallback(() => {
    shared.client.reconnect().catch(() => {});
  }, [shared]);
  return {
    connected: state === "connected",
    connecting: state === "connecting" || state === "waiting",
    lastMessage,
    error,
    send,
    subscribe,
    unsubscribe,
    reconnect,
  };
}

/** The last snapshot of the metrics; null until the first one. */
export function useRealtimeMetrics() {
  const shared = useShared();
  const { state, error } = useStatus(shared);
  const [metrics, setMetrics] = useState(null);
  useChannels(shared, METRICS, (event) => {
    if (event.event === "metric.update") setMetrics(event.data);
  });
  return { metrics, connected: state === "connected", error };
}

/** The last events, the newest first, each once. */
export function useRealtimeEvents({ channels = GLOBAL, eventTypes, maxEvents = 100 } = {}) {
  const shared = useShared();
  const { state, error } = useStatus(shared);
  const [events, setEvents] = useState(NONE);
  useChannels(shared, channels, (event) => {
    if (eventTypes && !eventTypes.some((type) => fits(type, event.event))) return;
    setEvents((known) => (known.some(({ id }) => id === event.id) ? known : [event, ...known].slice(0, maxEvents)));
  });
  const clearEvents = useCallback(() => setEvents(NONE), []);
  return { events, connected: state === "connected", error, clearEvents };
}

/** What is said to one agent, the newest last, and a way to say something to it. */
export function useAgentChannel(agentId, { maxMessages = 100 } = {}) {
  const shared = useShared();
  const { state } = useStatus(shared);
  const channel = `agents/${agentId}`;
  const [kept, setKept] = useState({ channel, messages: NONE });
  useChannels(shared, agentId ? [channel] : NONE, (event) => {
    setKept((known) => ({ channel, messages: [...(known.channel === channel ? known.messages : NONE), event].slice(-maxMessages) }));
  });
  const sendMessage = useCallback((data, event = "message.new") => shared.client.publish(channel, event, data), [shared, channel]);
  return { connected: state === "connected", messages: kept.channel === channel ? kept.messages : NONE, sendMessage };
}

function fits(pattern, name) {
  return pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}
