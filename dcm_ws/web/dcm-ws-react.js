"use client";
/**
 * React hooks on the client of dcm-ws.  All hooks below a `DCMProvider` share one connection; a channel is subscribed to
 * as long as any of them wants it.
 */
import { createContext, createElement, useCallback, useContext, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import { DCMClient, DCMError } from "./dcm-ws.js";

const Connection = createContext(null);
const NONE = [];
const GLOBAL = ["global"];
const METRICS = ["metrics"];
const KNOWN = 1000;
// the server may accept these later
const LATER = new Set(["RATE_LIMITED", "NOT_AVAILABLE", "TIMEOUT"]);
const LATER_MS = 1000;

/** A client, and how many hooks want each of its channels. */
class Shared {
  #make;
  #client;
  #token;
  #wanted = new Map();
  #users = 0;
  #snapshot = { state: "idle", error: null, gap: null, refused: new Map() };
  #watchers = new Set();

  constructor(url, token, options) {
    this.#token = token;
    this.#make = () => new DCMClient(url, { ...options, ...(this.#token === undefined ? {} : { token: this.#token }), channels: [] });
  }

  /** Created by the first effect that needs it: effects do not run in server rendering. */
  get client() {
    if (this.#client === undefined) {
      this.#client = this.#make();
      this.#client.on("state", (state) => this.#follow(state));
      this.#client.on("error", (error) => this.#note(error));
      this.#client.on("gap", (gap) => this.#change({ gap }));
    }
    return this.#client;
  }

  watch = (watcher) => {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  };

  snapshot = () => this.#snapshot;

  #change(changed) {
    this.#snapshot = { ...this.#snapshot, ...changed };
    for (const watcher of this.#watchers) watcher();
  }

  #follow(state) {
    if (state === "connected") this.#change({ state, error: null });
    else if (state === "waiting") {
      const { code, reason } = this.#client.lastClose;
      this.#change({ state, error: this.#snapshot.error ?? new DCMError("NOT_CONNECTED", reason || `The connection ended with ${code}`, this.#client.lastClose) });
    } else this.#change({ state });
  }

  #note(error) {
    // it does not concern the connection, and the hook that caused it is unknown
    if (error.code === "LISTENER_FAILED") console.error(error);
    else if (error.channel === undefined) this.#change({ error });
    else this.#refuse(error.channel, error);
  }

  #refuse(channel, error) {
    const refused = new Map(this.#snapshot.refused);
    if (error === null ? refused.delete(channel) : refused.set(channel, error)) this.#change({ refused });
  }

  /** Called when the provider is mounted; returns the cleanup function. */
  use() {
    this.#users += 1;
    // failures are reported as errors
    this.client.connect().catch(() => {});
    return () => {
      this.#users -= 1;
      // in StrictMode React unmounts and remounts everything once: wait before closing
      setTimeout(() => this.#users === 0 && this.client.close());
    };
  }

  /** From now on authenticate with `token`. */
  setToken(token) {
    if (token === this.#token) return;
    this.#token = token;
    if (this.#client === undefined) return;
    this.#client.authenticate(token).catch((error) => error.code !== "NOT_CONNECTED" && this.#change({ error }));
    if (this.#client.state === "closed" && this.#users > 0) this.#client.connect().catch(() => {});
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
    if (!wanted) {
      this.#wanted.delete(channel);
      this.#refuse(channel, null);
    }
    if (wanted !== this.client.channels.includes(channel)) this.#ask(channel, wanted);
  }

  #ask(channel, wanted) {
    const asked = wanted ? this.client.subscribe(channel) : this.client.unsubscribe(channel);
    asked.then(
      () => this.#refuse(channel, null),
      (error) => {
        if (LATER.has(error.code)) {
          setTimeout(() => {
            if (wanted === this.#wanted.get(channel) > 0) this.#ask(channel, wanted);
          }, error.retryAfterMs ?? LATER_MS);
        } else if (error.code !== "NOT_CONNECTED") this.#refuse(channel, error);
      },
    );
  }
}

/**
 * @param {{url: string, options?: object, token?: any, children?: any}} props `options` as for `DCMClient`, fixed at the first rendering
 */
export function DCMProvider({ url, token, options, children }) {
  const latest = useRef(token);
  const settings = useRef(options);
  // a function is a new object at each rendering, and is called only when a token is needed
  const kind = typeof token === "function" ? "function" : token;
  const given = useMemo(() => (kind === "function" ? () => latest.current() : kind), [kind]);
  const first = useRef(given);
  first.current = given;
  const shared = useMemo(() => new Shared(url, first.current, settings.current), [url]);
  useEffect(() => {
    latest.current = token;
  });
  useEffect(() => shared.setToken(given), [shared, given]);
  useEffect(() => shared.use(), [shared]);
  return createElement(Connection.Provider, { value: shared }, children);
}

function useShared() {
  const shared = useContext(Connection);
  if (shared === null) throw new Error("There is no connection: put <DCMProvider url=…> around what uses dcm-ws hooks");
  return shared;
}

/** The connection's state, the last gap, and what went wrong with the connection or with one of `channels`. */
function useStatus(shared, channels) {
  const { state, error, gap, refused } = useSyncExternalStore(shared.watch, shared.snapshot, shared.snapshot);
  return { state, gap, error: error ?? channels.map((channel) => refused.get(channel)).find(Boolean) ?? null };
}

/** Subscribe to `channels` as long as the component is there, and call `listener` with each of their events, once. */
function useChannels(shared, channels, listener) {
  const latest = useRef(listener);
  useEffect(() => {
    latest.current = listener;
  });
  // a new array with the same names is the same
  const names = JSON.stringify([...new Set(channels)]);
  useEffect(() => {
    // one that comes on the same channel again is delivered again, since it failed
    const first = new Map();
    const hear = (event) => {
      if ((first.get(event.id) ?? event.channel) !== event.channel) return undefined;
      first.set(event.id, event.channel);
      if (first.size > KNOWN) first.delete(first.keys().next().value);
      return latest.current(event);
    };
    const ends = JSON.parse(names).flatMap((channel) => [shared.client.on(`channel:${channel}`, hear), shared.want(channel)]);
    return () => ends.forEach((end) => end());
  }, [shared, names]);
}

export function useWebSocket({ channels = NONE, onEvent } = {}) {
  const shared = useShared();
  const [lastMessage, setLastMessage] = useState(null);
  const [more, setMore] = useState(NONE);
  const all = [...channels, ...more];
  const { state, error, gap } = useStatus(shared, all);
  useChannels(shared, all, (event) => {
    setLastMessage(event);
    return onEvent?.(event);
  });
  const subscribe = useCallback((channel) => setMore((known) => (known.includes(channel) ? known : [...known, channel])), []);
  const unsubscribe = useCallback((channel) => setMore((known) => known.filter((other) => other !== channel)), []);
  const send = useCallback((message) => shared.client.send(message), [shared]);
  const reconnect = useCallback(() => {
    shared.client.reconnect().catch(() => {});
  }, [shared]);
  return {
    connected: state === "connected",
    connecting: state === "connecting" || state === "waiting",
    lastMessage,
    error,
    gap,
    send,
    subscribe,
    unsubscribe,
    reconnect,
  };
}

/** The last snapshot of the metrics; null until the first one. */
export function useRealtimeMetrics() {
  const shared = useShared();
  const { state, error } = useStatus(shared, METRICS);
  const [metrics, setMetrics] = useState(null);
  useChannels(shared, METRICS, (event) => {
    if (event.event === "metric.update") setMetrics(event.data);
  });
  return { metrics, connected: state === "connected", error };
}

/** The last events, the newest first, each once. */
export function useRealtimeEvents({ channels = GLOBAL, eventTypes, maxEvents = 100 } = {}) {
  const shared = useShared();
  const { state, error, gap } = useStatus(shared, channels);
  const choice = JSON.stringify([channels, eventTypes]);
  const [kept, setKept] = useState({ choice, events: NONE });
  useChannels(shared, channels, (event) => {
    if (eventTypes && !eventTypes.some((type) => fits(type, event.event))) return;
    setKept((known) => ({ choice, events: added(event, known.choice === choice ? known.events : NONE, maxEvents) }));
  });
  const clearEvents = useCallback(() => setKept({ choice, events: NONE }), [choice]);
  const events = kept.choice === choice ? kept.events : NONE;
  return { events: events.length > maxEvents ? events.slice(0, maxEvents) : events, connected: state === "connected", error, gap, clearEvents };
}

/** What is said to one agent, the newest last, and a way to say something to it. */
export function useAgentChannel(agentId, { maxMessages = 100 } = {}) {
  const shared = useShared();
  const channel = `agents/${agentId}`;
  const channels = agentId ? [channel] : NONE;
  const { state, error, gap } = useStatus(shared, channels);
  const [kept, setKept] = useState({ channel, newest: NONE });
  useChannels(shared, channels, (event) => {
    setKept((known) => ({ channel, newest: added(event, known.channel === channel ? known.newest : NONE, maxMessages) }));
  });
  const messages = useMemo(() => (kept.channel === channel ? [...kept.newest].reverse() : NONE), [kept, channel]);
  const sendMessage = useCallback(
    async (data, event = "message.new", choices = {}) => {
      if (!agentId) throw new DCMError("INVALID_CHANNEL", "There is no agent to send a message to");
      return shared.client.publish(channel, event, data, choices);
    },
    [shared, channel, agentId],
  );
  return { connected: state === "connected", messages, error, gap, sendMessage };
}

/** The events with one more, the newest first, each once. */
function added(event, known, most) {
  return known.some(({ id }) => id === event.id) ? known : [event, ...known].slice(0, most);
}

function fits(pattern, name) {
  return pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}
