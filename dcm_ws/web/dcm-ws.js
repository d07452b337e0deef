/**
 * The client of dcm-ws for browsers and Node: one module, without dependencies.
 *
 *     const client = new DCMClient("ws://127.0.0.1:3849/ws", { channels: ["global"] });
 *     client.on("event:task.*", (event) => console.log(event.data));
 *     await client.connect();
 */

const TRACKED = /^(task|subtask|message)\./;
const CLOSES_FOR_WANT_OF_A_TOKEN = 4001;
const GOING_AWAY = 1001;
// requests on their way, after a reconnection, until the server finds that too much
const AT_ONCE = 16;
// the client exceeded a limit of the server: reconnecting at once would exceed it again
const UNWELCOME = new Set([1013, 4029]);
// all other authentication errors would occur again
const PASSING = new Set(["RATE_LIMITED", "NOT_AVAILABLE"]);
// between two subscriptions, if the server limits the rate and does not say how long to wait
const PAUSE_MS = 10;
// the longest time that setTimeout takes
const WAIT_MAX_MS = 2 ** 31 - 1;
// milliseconds to wait for the server's close frame
const CLOSE_GRACE_MS = 1000;
// between two writes to the storage
const STORE_MS = 500;
// characters of channels in one message: a client that has not authenticated may send 64 KiB
const TOGETHER = 12_000;
// one channel that is refused makes the server refuse to resume all that are named with it
const ABOUT_A_CHANNEL = new Set(["INVALID_CHANNEL", "INVALID_MESSAGE", "NOT_AUTHORIZED", "TOO_MANY_SUBSCRIPTIONS"]);

/** Does the name of `event` match `pattern`, which may end in `*`?  For TypeScript, it then has the type of the catalogue. */
export function isEvent(event, pattern) {
  return fits(pattern, event.event);
}

/** A failure, with the server's `code` or one of the client's own. */
export class DCMError extends Error {
  /**
   * @param {string} code one of the protocol's, or `NOT_CONNECTED`, `TIMEOUT`, `CLOSED`, `LISTENER_FAILED`, `TOKEN_FAILED`, `STORAGE_FAILED`
   * @param {string} message for people
   * @param {object} [details] the frame, or what else there is
   */
  constructor(code, message, details) {
    super(message);
    this.name = "DCMError";
    this.code = code;
    this.details = details;
    if (details?.retry_after_ms !== undefined) this.retryAfterMs = details.retry_after_ms;
  }
}

const DEFAULTS = {
  token: undefined,
  agentId: undefined,
  sessionId: undefined,
  channels: ["global"],
  autoAck: true,
  observer: false,
  durable: undefined,
  last: 0,
  storage: undefined,
  storageKey: undefined,
  requestTimeoutMs: 10_000,
  connectTimeoutMs: 10_000,
  // the server pings every 30 s
  silenceMs: 75_000,
  stableMs: 10_000,
  backoff: { baseMs: 500, maxMs: 30_000 },
  seenMax: 10_000,
  random: Math.random,
  parse: JSON.parse,
  WebSocket: undefined,
};

export class DCMClient {
  #options;
  #url;
  #socket = null;
  #state = "idle";
  #listeners = new Map();
  #wanted;
  // what the server might give back to an agent that has left it
  #left = new Set();
  // channels to look at before the subscriptions are what they should be; null at other times
  #unsettled = null;
  #requests = new Map();
  // a pong says not which ping it answers, but they come in order
  #pings = new Map();
  #seen = new Map();
  #place;
  // the position to resume from, until the server has answered that; null at other times
  #from = null;
  // channels that have been resumed on this connection: until then, their events come again
  #resumed = new Set();
  // channels that it was subscribed to, whether they were wanted or the server gave them; null before it has been connected
  #had = null;
  // the agent that the position is of: undefined before the first connection, null without an agent
  #owner;
  #greeted = null;
  #nextId = 1;
  #attempt = 0;
  #heardAt = 0;
  #timers = {};
  #pause = 0;
  #sleepers = new Set();
  #waiters = [];
  #wake = () => {
    if (globalThis.document?.visibilityState === "hidden") this.#place.store();
    else if (this.#state === "waiting") this.#open();
  };
  #leavePage = () => this.#place.store();

  /**
   * @param {string | URL} url `ws:`, `wss:`, `http:` or `https:`; in a browser it may be relative to the page
   * @param {object} [options] see the `.d.ts` next to this file
   */
  constructor(url, options = {}) {
    for (const name of Object.keys(options)) {
      if (!(name in DEFAULTS)) throw new TypeError(`Unknown option: ${name}; there are ${Object.keys(DEFAULTS).join(", ")}`);
    }
    this.#options = { ...DEFAULTS, ...given(options), backoff: { ...DEFAULTS.backoff, ...given(options.backoff) } };
    this.#url = new URL(url, globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace(/^http/, "ws");
    if (!/^wss?:$/.test(this.#url.protocol)) throw new TypeError(`Not the address of a WebSocket: ${url}`);
    if (!(this.#options.WebSocket ?? globalThis.WebSocket)) {
      throw new TypeError("There is no WebSocket here: use Node 22 or later, or give that of the package ws as the option WebSocket");
    }
    if (this.#options.observer) this.#url.searchParams.set("observer", "1");
    this.#wanted = new Set(this.#options.channels);
    const { storage, storageKey, agentId } = this.#options;
    this.#place = new Place(storage, storageKey ?? `dcm-ws ${this.#url.origin}${this.#url.pathname} ${agentId ?? ""}`.trim(), (error) => this.#tell("error", error));
    this.clientId = null;
    this.agentId = null;
    this.lastClose = null;
    this.retryAt = null;
  }

  /** `idle`, `connecting`, `connected`, `waiting` (until it tries again) or `closed`. */
  get state() {
    return this.#state;
  }

  /** What it is, or will be, subscribed to. */
  get channels() {
    return [...this.#wanted];
  }

  /** How far it is in the server's log: `epoch` and `pos`; null before it has connected, and if the server keeps no log. */
  get position() {
    return this.#place.epoch === null ? null : { epoch: this.#place.epoch, pos: this.#place.from };
  }

  /**
   * Connect, and stay connected until `close()`.
   *
   * @returns {Promise<void>} fulfilled at the first connection; rejected if none is possible
   */
  connect() {
    if (this.#state === "connected") return Promise.resolve();
    const connected = new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
    // callers that do not await the promise learn of failures from `error` and `state`
    connected.catch(() => {});
    if (this.#state === "idle" || this.#state === "closed") {
      globalThis.addEventListener?.("online", this.#wake);
      globalThis.addEventListener?.("pagehide", this.#leavePage);
      globalThis.document?.addEventListener("visibilitychange", this.#wake);
      this.#attempt = 0;
      this.#open();
    }
    return connected;
  }

  /** Drop the connection and connect again, now. */
  reconnect() {
    if (this.#state === "idle" || this.#state === "closed") return this.connect();
    this.#drop(1000, "reconnect");
    this.#attempt = 0;
    this.#open();
    return this.connect();
  }

  /** End the connection, for good or until `connect()` is called again. */
  close() {
    this.#end(new DCMError("CLOSED", "The client was closed"));
  }

  /**
   * Listen.
   *
   * @param {string} what `state`, `event`, `message`, `error`, `gap`, `event:NAME` or `channel:NAME`; a NAME may end in `*`
   * @param {(...values: any[]) => any} listener
   * @returns {() => void} ends it
   */
  on(what, listener) {
    if (!/^(state|event|message|error|gap|event:.+|channel:.+)$/.test(what)) {
      throw new TypeError(`Unknown event ${what}: use state, event, message, error, gap, event:NAME or channel:NAME`);
    }
    const listeners = this.#listeners.get(what) ?? new Set();
    this.#listeners.set(what, listeners);
    // the same function may listen twice
    const entry = { listener };
    listeners.add(entry);
    return () => {
      listeners.delete(entry);
      if (listeners.size === 0 && this.#listeners.get(what) === listeners) this.#listeners.delete(what);
    };
  }

  /** Subscribe, now if connected, and after each reconnection. */
  async subscribe(channel) {
    this.#wanted.add(channel);
    this.#left.delete(channel);
    this.#unsettled?.push(channel);
    if (this.#state !== "connected") return undefined;
    try {
      const answer = await this.#request({ type: "subscribe", channel });
      this.#had?.add(channel);
      this.#place.sent(answer);
      return answer;
    } catch (error) {
      if (error.code === "INVALID_CHANNEL") this.#wanted.delete(channel);
      throw error;
    }
  }

  async unsubscribe(channel) {
    this.#wanted.delete(channel);
    this.#left.add(channel);
    this.#unsettled?.push(channel);
    return this.#state === "connected" ? this.#leave(channel) : undefined;
  }

  /**
   * @param {string} [choices.key] of all calls of an agent with the same one within 10 minutes, only the first publishes:
   *   a call that failed without an answer can be repeated
   * @returns {Promise<{message_id: string}>} the answer, with the id of the event
   * @throws {DCMError} the server's reason; `NOT_CONNECTED`; `TIMEOUT`, after which it may have been published
   */
  async publish(channel, event, data = null, { key } = {}) {
    if (this.#state !== "connected") throw this.#notConnected();
    return this.#request({ type: "publish", channel, event, data, key });
  }

  /** @returns {Promise<number>} milliseconds there and back */
  ping() {
    return new Promise((resolve, reject) => {
      // with an id, so that it can be refused
      const id = this.#nextName();
      if (!this.send({ type: "ping", id })) {
        reject(this.#notConnected());
        return;
      }
      // it stays after that, and takes its pong with it
      const timer = setTimeout(() => reject(new DCMError("TIMEOUT", "No answer to a ping")), this.#options.requestTimeoutMs);
      this.#pings.set(id, { at: now(), resolve, reject, timer });
    });
  }

  /** Authenticate on the open connection, with the token given or a new one of the option's. */
  async authenticate(token) {
    if (token !== undefined) this.#options.token = token;
    if (this.#socket?.readyState !== 1) throw this.#notConnected();
    return this.#authenticate(await this.#getToken());
  }

  /** Send any message. Returns false without a connection. */
  send(message) {
    if (this.#socket?.readyState !== 1) return false;
    this.#socket.send(JSON.stringify({ timestamp: Date.now(), ...message }));
    return true;
  }

  // connecting

  #open() {
    clearTimeout(this.#timers.retry);
    this.retryAt = null;
    let socket;
    try {
      socket = new (this.#options.WebSocket ?? globalThis.WebSocket)(this.#url.href);
    } catch (cause) {
      this.#setState("connecting");
      this.#lost(1006, cause?.message ?? String(cause));
      return;
    }
    this.#socket = socket;
    this.#timers.connect = setTimeout(() => {
      if (this.#socket === socket) this.#lost(1006, "No answer in time");
    }, this.#options.connectTimeoutMs);
    socket.addEventListener("message", ({ data }) => {
      if (this.#socket === socket) this.#hear(data);
    });
    socket.addEventListener("close", ({ code, reason }) => {
      if (this.#socket === socket) this.#lost(code, reason);
    });
    // the close event that follows has the details
    socket.addEventListener("error", () => {});
    this.#setState("connecting");
  }

  /** Decide where to go on from, at the greeting of a server. */
  #begin({ epoch, pos }) {
    const place = this.#place;
    this.#greeted = { epoch, pos };
    this.#resumed = new Set();
    this.#from = null;
    if (epoch === undefined) {
      // a server without a log: what was missed cannot be known
      if (place.epoch !== null) this.#skip({ reason: "epoch" });
    } else if (place.epoch !== null) this.#from = { epoch: place.epoch, pos: place.from };
    else {
      const { last } = this.#options;
      place.move(epoch, pos);
      // how far the log reaches back is known only from the answer
      if (last > 0) this.#from = { epoch, pos: Math.max(0, pos - last), isGuess: true };
    }
  }

  async #welcome(frame) {
    // a second greeting changes nothing
    if (this.clientId !== null) return;
    this.#begin(frame);
    const socket = this.#socket;
    this.clientId = frame.client_id;
    // from here on each request has a time of its own: very many channels take longer than that
    clearTimeout(this.#timers.connect);
    this.#listenForLife();
    try {
      // the server subscribes all clients to it at once, and would not send what came before that
      const leaving = this.#from && this.#request({ type: "unsubscribe", channel: "global" }).catch(() => {});
      const token = await this.#getToken();
      const answer = await this.#comeBack(token);
      await leaving;
      if (this.#socket !== socket) return;
      const has = new Set(answer?.subscriptions ?? (leaving ? [] : ["global"]));
      this.#had = has;
      if (!this.#wanted.has("global")) this.#left.add("global");
      this.#unsettled = [...this.#wanted, ...this.#left];
      this.#pause = 0;
      // the user may have changed the subscriptions meanwhile
      while (this.#socket === socket && this.#unsettled.length) await this.#settle(has);
    } catch (error) {
      if (this.#socket === socket) this.#refused(error);
      return;
    }
    if (this.#socket !== socket) return;
    this.#unsettled = null;
    this.#timers.stable = setTimeout(() => (this.#attempt = 0), this.#options.stableMs);
    this.#setState("connected");
    for (const { resolve } of this.#waiters.splice(0)) resolve();
  }

  /**
   * Authenticate, if the client is anyone's, and resume all channels at once.
   *
   * @returns {Promise<object | undefined>} the server's answer; undefined if there was nothing to ask for
   */
  async #comeBack(token) {
    const known = token !== undefined || this.#options.agentId !== undefined;
    this.#belongTo(this.#agentOf(token) ?? null);
    const from = this.#from;
    const channels = from && this.#resumable(token);
    const request = from && { epoch: from.epoch, pos: from.pos, channels };
    // as soon as the answer is there: what was missed may come in the same turn
    const resumed = (answer) => {
      if (from.isGuess && answer.gap?.reason === "expired") return;
      this.#cameBack(answer, channels, from.isGuess);
      this.#from = null;
    };
    try {
      if (!from) return known ? await this.#authenticate(token) : undefined;
      const groups = grouped(channels);
      if (groups.length > 1) return await this.#resumeGroups(from, groups, known ? await this.#authenticate(token) : undefined);
      const answer = known ? await this.#authenticate(token, request, resumed) : await this.#request({ type: "resume", ...request }, resumed);
      if (this.#from) {
        // as far back as the log goes: what is before that, nobody has missed
        request.pos = answer.gap.first - 1;
        from.isGuess = false;
        await this.#request({ type: "resume", ...request }, (again) => {
          this.#cameBack(again, channels, true);
          this.#from = null;
        });
      }
      return answer;
    } catch (error) {
      if (!from || !ABOUT_A_CHANNEL.has(error.code) || error.details?.type !== "ack") throw error;
      const apart = channels.map((channel) => [channel]);
      return this.#resumeGroups(from, apart, known ? await this.#authenticate(token) : undefined);
    }
  }

  /**
   * Resume one group of channels after the other.  Those that are refused are left to `#settle`.
   *
   * @returns {Promise<object>} `answer`, with all subscriptions
   */
  async #resumeGroups(from, groups, answer) {
    const has = new Set(answer?.subscriptions);
    // what is new there comes already
    for (const channel of has) this.#resumed.add(channel);
    let isTold = from.isGuess;
    for (const queue = [...groups]; queue.length; ) {
      const channels = queue.shift();
      try {
        await this.#request({ type: "resume", epoch: from.epoch, pos: from.pos, channels }, (resumed) => {
          for (const channel of channels) has.add(channel);
          this.#cameBack(resumed, channels, isTold);
          isTold ||= resumed.gap !== undefined;
        });
      } catch (error) {
        if (error.code === "RATE_LIMITED") {
          queue.unshift(channels);
          await this.#sleep(pauseOf(error));
        } else if (!ABOUT_A_CHANNEL.has(error.code)) throw error;
        else if (channels.length > 1) queue.unshift(...channels.map((channel) => [channel]));
      }
    }
    this.#from = null;
    return { subscriptions: [...has] };
  }

  #agentOf(token) {
    return token === undefined ? this.#options.agentId : agentIn(token);
  }

  /** What one agent has missed does not concern another: it begins with what came since the server's greeting. */
  #belongTo(agent) {
    if (this.#from && this.#owner !== undefined && this.#owner !== agent) {
      this.#had = null;
      this.#from = { ...this.#greeted };
      this.#place.move(this.#greeted.epoch, this.#greeted.pos);
    }
    this.#owner = agent;
  }

  /** The channels that it may have missed something on: not those that are wanted since the last connection ended. */
  #resumable(token) {
    const agent = this.#agentOf(token);
    const { sessionId } = this.#options;
    const own = [agent !== undefined && `agents/${agent}`, agent !== undefined && sessionId !== undefined && `sessions/${sessionId}`].filter(Boolean);
    return [...new Set([...(this.#had ?? this.#wanted), ...own])].filter((channel) => !this.#left.has(channel) || this.#wanted.has(channel));
  }

  /** The server has answered a request to resume `channels`. */
  #cameBack({ epoch, pos, gap }, channels, isGuess = false) {
    for (const channel of channels) this.#resumed.add(channel);
    if (gap === undefined) return;
    this.#place.move(epoch, pos);
    if (!isGuess) this.#skip({ ...gap, epoch, pos });
  }

  /** There are events that the client does not get. */
  #skip(gap) {
    if (gap.epoch !== this.#place.epoch) this.#place.move(gap.epoch ?? null, gap.pos ?? 0);
    if (this.#listeners.has("gap")) this.#tell("gap", gap, this);
    else console.warn(`dcm-ws: events are missing (${gap.reason}); listen for "gap", and load the state again`);
  }

  /** Ask for what is wanted, some at a time, and one at a time once that was over the server's rate limit. */
  async #settle(has) {
    const socket = this.#socket;
    const queue = this.#unsettled;
    const next = async (_, number) => {
      while (queue.length && (number === 0 || !this.#pause)) {
        if (this.#pause) await this.#sleep(this.#pause);
        if (this.#socket !== socket || !queue.length) return;
        const channel = queue.shift();
        const wanted = this.#wanted.has(channel);
        if (wanted === has.has(channel) || !(wanted || this.#left.has(channel))) continue;
        // messages are executed in order: what is requested after this one may rely on it
        note(has, channel, wanted);
        try {
          if (wanted) this.#place.sent(await this.#request({ type: "subscribe", channel }));
          else await this.#leave(channel);
        } catch (error) {
          if (error.code === "NOT_CONNECTED" || error.code === "TIMEOUT") throw error;
          note(has, channel, !wanted);
          error.channel = channel;
          if (error.code !== "RATE_LIMITED") this.#tell("error", error);
          else {
            queue.push(channel);
            this.#pause = Math.max(this.#pause, pauseOf(error));
          }
        }
      }
    };
    // one error that ends it ends the others, too: the connection is over
    await Promise.all(Array.from({ length: AT_ONCE }, next));
  }

  async #leave(channel) {
    this.#had?.delete(channel);
    const answer = await this.#request({ type: "unsubscribe", channel });
    // what the server knows to be left it does not give back, but for global, which all get
    if (channel !== "global") this.#left.delete(channel);
    return answer;
  }

  #sleep(ms) {
    return new Promise((resolve) => {
      const sleeper = {
        resolve,
        timer: setTimeout(() => {
          this.#sleepers.delete(sleeper);
          resolve();
        }, ms),
      };
      this.#sleepers.add(sleeper);
    });
  }

  /** The token for this connection; undefined if there is none. */
  async #getToken() {
    const socket = this.#socket;
    const { token, requestTimeoutMs } = this.#options;
    if (typeof token !== "function") return token;
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`none came within ${requestTimeoutMs} ms`)), requestTimeoutMs);
    });
    let fresh;
    try {
      fresh = await Promise.race([token(), late]);
    } catch (cause) {
      throw new DCMError("TOKEN_FAILED", `There is no token: ${cause?.message ?? cause}`, { cause });
    } finally {
      clearTimeout(timer);
    }
    // a token that comes late is for a connection that has ended
    if (this.#socket !== socket) throw this.#notConnected();
    return fresh ?? undefined;
  }

  async #authenticate(fresh, resume, resumed) {
    const { agentId, sessionId, durable } = this.#options;
    const who = fresh === undefined ? { agent_id: agentId } : { token: fresh };
    const answer = await this.#request({ type: "auth", ...who, ...given({ session_id: sessionId, durable, resume }) }, resumed);
    this.agentId = fresh === undefined ? agentId : (agentIn(fresh) ?? null);
    return answer;
  }

  #refused(error) {
    const final = error.details?.type === "ack" && !PASSING.has(error.code) && typeof this.#options.token !== "function";
    if (final) this.#end(error);
    else this.#lost(1006, error.message);
    // last, for the listener may close the client, or connect it again
    if (!final || this.#listeners.has("error")) this.#tell("error", error);
  }

  #listenForLife() {
    const { silenceMs } = this.#options;
    const check = () => {
      const silent = now() - this.#heardAt;
      if (silent >= silenceMs) this.#lost(1006, "Nothing heard for too long");
      else this.#timers.life = setTimeout(check, silenceMs - silent);
    };
    this.#timers.life = setTimeout(check, silenceMs);
  }

  #lost(code, reason) {
    this.lastClose = { code, reason };
    this.#drop(1000, "");
    const { baseMs, maxMs } = this.#options.backoff;
    if (code === CLOSES_FOR_WANT_OF_A_TOKEN && typeof this.#options.token !== "function") {
      const error = new DCMError("AUTHENTICATION_REQUIRED", reason || "Authentication required", this.lastClose);
      this.#end(error);
      if (this.#listeners.has("error")) this.#tell("error", error);
      return;
    }
    if (UNWELCOME.has(code)) this.#attempt = Math.max(this.#attempt, 4);
    const longest = code === GOING_AWAY ? maxMs : Math.min(maxMs, baseMs * 2 ** this.#attempt);
    this.#attempt = Math.min(this.#attempt + 1, 30);
    const delay = this.#options.random() * longest;
    this.retryAt = Date.now() + delay;
    this.#timers.retry = setTimeout(() => this.#open(), delay);
    this.#setState("waiting");
  }

  /** Release the connection, in whatever state it is. */
  #drop(code, reason) {
    for (const name of ["connect", "stable", "life", "retry"]) clearTimeout(this.#timers[name]);
    const socket = this.#socket;
    this.#socket = null;
    this.#unsettled = null;
    this.#from = null;
    this.clientId = null;
    this.#place.store();
    for (const { timer, resolve } of this.#sleepers) {
      clearTimeout(timer);
      resolve();
    }
    this.#sleepers.clear();
    hangUp(socket, code, reason);
    const ended = this.lastClose ? howItEnded(this.lastClose) : "The connection was closed";
    const error = new DCMError("NOT_CONNECTED", `${ended}; there was no answer yet`, this.lastClose ?? undefined);
    const requests = [...this.#requests.values(), ...this.#pings.values()];
    this.#requests.clear();
    this.#pings.clear();
    for (const { timer, reject } of requests) {
      clearTimeout(timer);
      reject(error);
    }
  }

  #end(error) {
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.removeEventListener?.("pagehide", this.#leavePage);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    this.#drop(1000, "");
    this.retryAt = null;
    this.#setState("closed");
    for (const { reject } of this.#waiters.splice(0)) reject(error);
  }

  #notConnected() {
    const why = this.lastClose ? `: ${howItEnded(this.lastClose)}` : "";
    return new DCMError("NOT_CONNECTED", `There is no connection${why}; wait for connect() or the state "connected"`, this.lastClose ?? undefined);
  }

  #setState(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#tell("state", state, this);
  }

  // messages

  #nextName() {
    return `r${this.#nextId++}`;
  }

  /** @param {(answer: object) => void} [answered] called with the answer before the next frame is read */
  #request(message, answered) {
    return new Promise((resolve, reject) => {
      const id = this.#nextName();
      if (!this.send({ ...message, id })) {
        reject(this.#notConnected());
        return;
      }
      const timer = setTimeout(() => {
        this.#requests.delete(id);
        reject(new DCMError("TIMEOUT", `No answer to ${message.type}`));
      }, this.#options.requestTimeoutMs);
      this.#requests.set(id, { resolve, reject, timer, answered });
    });
  }

  #hear(text) {
    this.#heardAt = now();
    let frame;
    let why = "it is not a JSON object";
    try {
      frame = this.#options.parse(text);
    } catch (error) {
      why = error?.message ?? String(error);
    }
    if (frame === null || typeof frame !== "object") {
      this.#tell("error", new DCMError("PARSE_ERROR", `A frame of the server cannot be read: ${why}`));
      return;
    }
    this.#tell("message", frame);
    if (typeof frame.event === "string") this.#receive(frame, text);
    else if (frame.type === "ack") this.#answer(frame);
    else if (frame.type === "ping") {
      if (!this.#from) this.#place.sent(frame);
      this.send({ type: "pong" });
    } else if (frame.type === "gap") this.#skip({ reason: frame.reason, first: frame.first, epoch: frame.epoch, pos: frame.pos });
    else if (frame.type === "pong") this.#pong();
    else if (frame.type === "connected") this.#welcome(frame);
    else if (frame.error !== undefined) this.#tell("error", new DCMError(frame.code, frame.error, frame));
  }

  #answer(frame) {
    for (const waiting of [this.#requests, this.#pings]) {
      const request = waiting.get(frame.id);
      if (request === undefined) continue;
      waiting.delete(frame.id);
      clearTimeout(request.timer);
      if (frame.success) {
        request.answered?.(frame);
        request.resolve(frame);
      } else request.reject(new DCMError(frame.code, frame.error, frame));
    }
  }

  #pong() {
    const [id, ping] = this.#pings.entries().next().value ?? [];
    if (ping === undefined) return;
    this.#pings.delete(id);
    clearTimeout(ping.timer);
    ping.resolve(now() - ping.at);
  }

  // events

  /**
   * An event comes once on each channel, and again where its ack got lost or a listener failed.
   *
   * @param {string} raw the frame's text
   */
  #receive(event, raw) {
    // it comes again, in its order; what is tracked is not acknowledged until then, even if `global` is not wanted: one
    // ack would count for all channels and connections of the agent
    if (this.#from && event.pos !== undefined && !this.#resumed.has(event.channel)) return;
    event.timestamp = momentOf(event.timestamp) ?? Date.now();
    let seen = this.#seen.get(event.id);
    const first = seen === undefined;
    if (first) {
      seen = { state: "given", channels: new Set(), open: 0, awaited: false };
      this.#seen.set(event.id, seen);
      if (this.#seen.size > this.#options.seenMax) this.#seen.delete(this.#seen.keys().next().value);
    }
    const again = seen.channels.has(event.channel);
    const nack = (delayMs = 0) => {
      if (seen.state === "done") return;
      seen.state = "failed";
      this.#place.settle(event.pos);
      // a server without positions sends it again by itself
      if (this.#place.epoch !== null && !this.#options.observer && TRACKED.test(event.event)) this.send({ type: "nack", message_id: event.id, delay_ms: delayMs });
    };
    const ack = () => {
      // one ack settles all channels; a second would count as a message of ours, and is needed where the first got lost
      const needed = seen.state !== "done" || again;
      seen.state = "done";
      this.#place.settle(event.pos);
      // the server expects none from an observer
      if (needed && !this.#options.observer && TRACKED.test(event.event)) this.send({ type: "ack", message_id: event.id });
    };
    if (again && seen.state === "done") ack();
    if (again && seen.state !== "failed") {
      // what was awaited does not seem to come
      seen.awaited = false;
      this.#settleFate(seen, ack);
      return;
    }
    // what failed is delivered again, on all its channels
    if (again) seen.channels.clear();
    seen.channels.add(event.channel);
    const fresh = first || again;
    if (fresh) seen.state = "given";
    seen.awaited = this.#comesOnGlobal(event, seen);
    // none of them is part of the event when it is copied or written as JSON
    Object.defineProperties(event, { ack: { value: ack }, nack: { value: nack }, raw: { value: raw } });
    // while it resumes one channel after the other, events of others come at positions that are still missing here
    const moves = event.pos !== undefined && !this.#from;
    if (moves) this.#place.hold(event.pos);
    const finished = this.#give(event, seen, fresh ? ["event", "event:", "channel:"] : ["channel:"], ack);
    if (!moves) return;
    this.#place.heard(event.pos, event.channel === "global" || !this.#wanted.has("global"));
    // what the user has to acknowledge is handled only then
    const waits = !this.#options.autoAck && !this.#options.observer && TRACKED.test(event.event);
    finished.then(() => (waits && seen.state === "given") || this.#place.release(event.pos));
  }

  /** One ack settles an event on all its channels: is there a listener that has yet to get it on `global`? */
  #comesOnGlobal(event, seen) {
    if (!TRACKED.test(event.event) || !this.#wanted.has("global") || seen.channels.has("global")) return false;
    return [...this.#listeners.keys()].some((what) => what.startsWith("channel:") && fits(what.slice(8), "global"));
  }

  #settleFate(seen, ack) {
    if (this.#options.autoAck && seen.open === 0 && !seen.awaited && seen.state === "given") ack();
  }

  /** @returns {PromiseLike<void>} resolves when all listeners have finished */
  #give(event, seen, kinds, ack) {
    const results = [];
    // a listener may add listeners, for what comes after this
    for (const [what, listeners] of [...this.#listeners]) {
      const colon = what.indexOf(":") + 1;
      const kind = colon ? what.slice(0, colon) : what;
      if (!kinds.includes(kind) || (colon && !fits(what.slice(colon), kind === "event:" ? event.event : event.channel))) continue;
      for (const { listener } of [...listeners]) {
        try {
          results.push(listener(event, this));
        } catch (cause) {
          results.push(Promise.reject(cause));
        }
      }
    }
    if (!results.some((result) => typeof result?.then === "function")) {
      this.#settleFate(seen, ack);
      return DONE;
    }
    seen.open += 1;
    return Promise.all(results).then(
      () => {
        seen.open -= 1;
        this.#settleFate(seen, ack);
      },
      (cause) => {
        seen.open -= 1;
        seen.state = "failed";
        this.#tell("error", listenerFailed(cause, event));
      },
    );
  }

  #tell(what, ...values) {
    const listeners = [...(this.#listeners.get(what) ?? [])];
    if (what === "error" && listeners.length === 0) console.error(...values);
    for (const { listener } of listeners) {
      // a failing listener must not stop the other listeners or the client
      const failed = (cause) => (what === "error" ? console.error(cause) : this.#tell("error", listenerFailed(cause)));
      try {
        listener(...values)?.then?.(undefined, failed);
      } catch (cause) {
        failed(cause);
      }
    }
  }
}

// what has finished: unlike a promise, it calls at once
const DONE = { then: (call) => call() };

/**
 * How far a client is in the server's log, and the copy of that in a storage.
 *
 * The stored position is before the first event whose listeners have not finished, so a client that resumes there
 * misses none.
 */
class Place {
  #storage;
  #key;
  #fail;
  #timer;
  #stored = "";
  // the last position of which all frames have come, and the last of which any has
  #whole = 0;
  #pos = 0;
  // positions of events whose listeners have not finished, with their number
  #open = new Map();
  epoch = null;

  constructor(storage, key, fail) {
    this.#storage = storage;
    this.#key = key;
    this.#fail = fail;
    this.#load();
  }

  /** The position to go on from on another connection: an event of which a second frame may be missing comes again. */
  get from() {
    return this.#whole;
  }

  /** It is now there, whatever it was before. */
  move(epoch, pos) {
    this.epoch = epoch;
    this.#whole = this.#pos = pos;
    this.#open.clear();
    this.#storeSoon();
  }

  /** The server has sent everything up to the position in `frame`. */
  sent({ epoch, pos }) {
    if (epoch !== undefined && epoch === this.epoch) this.heard(pos, true);
  }

  /** @param {boolean} whole there is no second frame of it, for `global` */
  heard(pos, whole) {
    this.#whole = Math.max(this.#whole, whole ? pos : pos - 1);
    this.#pos = Math.max(this.#pos, pos);
    this.#storeSoon();
  }

  /** The listeners have been given the event at this position, and have not finished. */
  hold(pos) {
    this.#open.set(pos, (this.#open.get(pos) ?? 0) + 1);
  }

  /** The event has been acknowledged, or refused. */
  settle(pos) {
    if (this.#open.delete(pos)) this.#storeSoon();
  }

  /** Some of its listeners have finished. */
  release(pos) {
    const count = this.#open.get(pos);
    if (count === undefined) return;
    if (count > 1) this.#open.set(pos, count - 1);
    else this.#open.delete(pos);
    this.#storeSoon();
  }

  store() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (!this.#storage || this.epoch === null) return;
    let pos = this.#pos;
    for (const open of this.#open.keys()) pos = Math.min(pos, open - 1);
    const text = JSON.stringify({ epoch: this.epoch, pos });
    if (text === this.#stored) return;
    try {
      this.#storage.setItem(this.#key, text);
      this.#stored = text;
    } catch (cause) {
      this.#storage = undefined;
      this.#fail(new DCMError("STORAGE_FAILED", `The position is not stored from now on: ${cause?.message ?? cause}`, { cause }));
    }
  }

  #storeSoon() {
    if (!this.#storage || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => this.store(), STORE_MS);
    // does not keep Node running
    this.#timer.unref?.();
  }

  #load() {
    try {
      // a page that may not store anything throws when it is only asked for the storage
      if (typeof this.#storage === "function") this.#storage = this.#storage();
      const text = this.#storage?.getItem(this.#key) ?? null;
      if (text === null) return;
      const { epoch, pos } = JSON.parse(text);
      if (typeof epoch !== "string" || !Number.isSafeInteger(pos) || pos < 0) throw new Error("it is something else");
      this.epoch = epoch;
      this.#whole = this.#pos = pos;
      this.#stored = text;
    } catch (cause) {
      if (typeof this.#storage === "function") this.#storage = undefined;
      const error = new DCMError("STORAGE_FAILED", `What is stored as ${JSON.stringify(this.#key)} is not used: ${cause?.message ?? cause}`, { cause });
      // there are no listeners yet: the client is just being made
      queueMicrotask(() => this.#fail(error));
    }
  }
}

function listenerFailed(cause, event) {
  return new DCMError("LISTENER_FAILED", `A listener failed: ${cause?.message ?? cause}`, { cause, event });
}

/** The options that are not undefined. */
function given(options = {}) {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

/** The agent that a token names; undefined if it names none. */
function agentIn(token) {
  try {
    const bytes = atob(token.split(".")[0].replaceAll("-", "+").replaceAll("_", "/"));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0)))).agent_id;
  } catch {
    return undefined;
  }
}

/** Channels in groups that fit into one message each; one group if there is none. */
function grouped(channels) {
  const groups = [[]];
  let size = 0;
  for (const channel of channels) {
    size += channel.length + 3;
    if (size > TOGETHER && groups.at(-1).length) {
      groups.push([]);
      size = channel.length + 3;
    }
    groups.at(-1).push(channel);
  }
  return groups;
}

/** How long the server wants a client to wait, in ms. */
function pauseOf(error) {
  // a parser of the user's own may make it a bigint
  const after = Number(error.retryAfterMs);
  return after > 0 && after <= WAIT_MAX_MS ? after : PAUSE_MS;
}

function hangUp(socket, code, reason) {
  socket?.close(code, reason);
  // of the package ws; browsers see to it themselves
  if (socket?.terminate) setTimeout(() => socket.terminate(), CLOSE_GRACE_MS).unref?.();
}

function fits(pattern, name) {
  return pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}

function note(set, value, there) {
  if (there) set.add(value);
  else set.delete(value);
}

/** The close code and the reason of a connection that has ended. */
function howItEnded({ code, reason }) {
  if (code === 1005 || code === 1006) return `Connection lost (${[code, reason].filter(Boolean).join(": ")})`;
  return `Connection closed: ${[code, reason].filter(Boolean).join(" ")}`;
}

// the end of the year 9999
const LAST_MS = 253_402_300_799_999;
// as milliseconds, a smaller number would be before March 1973
const SECONDS_BELOW = 1e11;
const ISO_8601 = /^(\d{4})-?(\d\d)-?(\d\d)(?:[T ](\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d+))?)?)?(?:Z|([+-]\d\d)(?::?(\d\d))?)?$/i;

/** Milliseconds of a timestamp in milliseconds, seconds or ISO 8601 (UTC without an offset); undefined for anything else. */
function momentOf(value) {
  if (typeof value === "string") value = isNaN(Number(value)) ? millisecondsOf(value.trim()) : Number(value);
  else if (typeof value === "bigint") value = Number(value);
  if (typeof value !== "number" || !(value > 0 && value <= LAST_MS)) return undefined;
  return Math.floor(value < SECONDS_BELOW ? value * 1000 : value) || undefined;
}

function millisecondsOf(text) {
  const [, year, month, day, hour = "00", minute = "00", second = "00", fraction = "0", offset = "+00", offsetMinutes = "00"] = ISO_8601.exec(text) ?? [];
  const ms = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}.${fraction.slice(0, 3)}${offset}:${offsetMinutes}`);
  // not to be taken for seconds
  return ms >= SECONDS_BELOW ? ms : undefined;
}

function now() {
  return performance.now();
}
