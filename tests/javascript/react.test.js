// @vitest-environment jsdom
// The hooks in a document, against the real service.
import { act, cleanup, render, renderHook, waitFor } from "@testing-library/react";
import { StrictMode, createElement as h } from "react";
import { renderToString } from "react-dom/server";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { DCMProvider, useAgentChannel, useRealtimeEvents, useRealtimeMetrics, useWebSocket } from "../../dcm_ws/web/dcm-ws-react.js";
import { client, closeClients, start, token, until } from "./running.js";
import { WebSocket } from "ws";

let service, speaking;
beforeAll(async () => {
  service = await start();
});
afterAll(() => service?.stop());
afterEach(async () => {
  cleanup();
  closeClients();
  await until(async () => (await service.stats()).connectedClients === 0, "that all were gone");
});

async function speak(channel, event, data) {
  speaking ??= client(service.url, { channels: [] });
  await speaking.connect();
  return speaking.publish(channel, event, data);
}

function provider(options) {
  return ({ children }) => h(StrictMode, null, h(DCMProvider, { url: service.url, options: { WebSocket, ...options } }, children));
}

const soon = (check) => waitFor(check, { timeout: 60_000 });

test("useWebSocket", async () => {
  const heard = [];
  const { result } = renderHook(() => useWebSocket({ channels: ["topics/hook"], onEvent: (event) => heard.push(event.data) }), {
    wrapper: provider(),
  });
  expect(result.current).toMatchObject({ connected: false, connecting: true, lastMessage: null, error: null });
  expect(result.current.send({ type: "ping" })).toBe(false);
  await soon(() => expect(result.current).toMatchObject({ connected: true, connecting: false }));
  await act(() => speak("topics/hook", "system.info", 1));
  await soon(() => expect(result.current.lastMessage).toMatchObject({ channel: "topics/hook", data: 1 }));
  expect(result.current.send({ type: "publish", channel: "topics/hook", event: "system.info", data: 2 })).toBe(true);
  await soon(() => expect(heard).toEqual([1, 2]));

  act(() => result.current.subscribe("topics/more"));
  await until(async () => (await service.channels())["topics/more"] === 1);
  await act(() => speak("topics/more", "system.info", 3));
  await soon(() => expect(result.current.lastMessage.data).toBe(3));
  act(() => result.current.unsubscribe("topics/more"));
  await until(async () => !(await service.channels())["topics/more"]);

  act(() => result.current.subscribe("nonsense"));
  await soon(() => expect(result.current.error).toMatchObject({ code: "INVALID_CHANNEL" }));
  act(() => result.current.reconnect());
  await soon(() => expect(result.current).toMatchObject({ connected: true, error: { code: "INVALID_CHANNEL" } }));
  act(() => result.current.unsubscribe("nonsense"));
  await soon(() => expect(result.current).toMatchObject({ connected: true, error: null }));
  expect((await service.channels())["topics/hook"]).toBe(1);
});

test("an event that comes on two channels is told once, and again where it failed", async () => {
  const heard = [];
  const silence = vi.spyOn(console, "error").mockImplementation(() => {});
  const channels = ["topics/two", "global"];
  const onEvent = async (event) => {
    heard.push(event.data);
    if (heard.length === 2) throw new Error("not now");
  };
  const { result } = renderHook(() => useWebSocket({ channels, onEvent }), { wrapper: provider() });
  await soon(() => expect(result.current.connected).toBe(true));
  await act(() => speak("topics/two", "system.info", 1));
  await soon(() => expect(heard).toEqual([1]));
  await act(() => speak("topics/two", "task.created", 2));
  await soon(() => expect(heard).toEqual([1, 2, 2]));
  expect(result.current.error).toBe(null);
  silence.mockRestore();
});

test("an error tells why there is no connection, and which channel was refused to whom", async () => {
  const wrapper = ({ children }) => h(DCMProvider, { url: "ws://127.0.0.1:1/", options: { WebSocket } }, children);
  const { result, unmount } = renderHook(() => useWebSocket(), { wrapper });
  await soon(() => expect(result.current.error).toMatchObject({ code: "NOT_CONNECTED" }));
  unmount();
  const both = renderHook(() => [useWebSocket({ channels: ["agents/bob"] }), useRealtimeMetrics()], { wrapper: provider() });
  await soon(() => expect(both.result.current[0]).toMatchObject({ connected: true, error: { code: "NOT_AUTHORIZED" } }));
  expect(both.result.current[1].error).toBe(null);
});

test("channels over the rate limit are subscribed to later", async () => {
  const strict = await start({ options: ["--rate-limit", "20/s", "--rate-burst", "3"] });
  const wrapper = ({ children }) => h(DCMProvider, { url: strict.url, options: { WebSocket } }, children);
  const { result, unmount } = renderHook(() => useWebSocket(), { wrapper });
  await soon(() => expect(result.current.connected).toBe(true));
  act(() => Array.from({ length: 12 }, (_, n) => result.current.subscribe(`topics/${n}`)));
  await until(async () => Object.keys(await strict.channels()).length === 12);
  unmount();
  await strict.stop();
});

test("another token is used at once", async () => {
  const guarded = await start({ production: true });
  const { result, rerender, unmount } = renderHook(() => useAgentChannel("ann"), {
    wrapper: ({ children }) => h(DCMProvider, { url: guarded.url, token: tokens[0], options: { WebSocket } }, children),
  });
  await soon(() => expect(result.current.error).toMatchObject({ code: "TOKEN_EXPIRED" }));
  tokens[0] = token("ann");
  rerender();
  await soon(() => expect(result.current).toMatchObject({ connected: true, error: null }));
  tokens[0] = async () => token("bob");
  rerender();
  await until(async () => (await guarded.stats()).totalConnections >= 2 && (await guarded.stats()).agents.connected === 1);
  unmount();
  await guarded.stop();
});
const tokens = [token("ann", { minutes: -1 })];

test("a page that is rendered on a server has no connection", () => {
  const { WebSocket: own } = globalThis;
  delete globalThis.WebSocket;
  try {
    const Shown = () => h("p", null, useWebSocket().connecting ? "connecting" : "not yet");
    expect(renderToString(h(DCMProvider, { url: "/ws" }, h(Shown)))).toBe("<p>not yet</p>");
  } finally {
    globalThis.WebSocket = own;
  }
});

test("all hooks share one connection, and each channel lives as long as one of them wants it", async () => {
  function One({ children }) {
    useRealtimeEvents({ channels: ["topics/shared"] });
    useWebSocket({ channels: ["topics/shared"] });
    return children ?? null;
  }
  function Other() {
    useRealtimeEvents({ channels: ["topics/shared", "topics/own"] });
    return null;
  }
  const Provider = provider();
  const page = (...parts) => h(Provider, null, ...parts);
  const { rerender } = render(page(h(One, { key: 1 }), h(Other, { key: 2 })));
  await until(async () => (await service.channels())["topics/own"] === 1);
  expect(await service.channels()).toMatchObject({ "topics/shared": 1, "topics/own": 1 });
  const { connectedClients } = await service.stats();
  rerender(page(h(One, { key: 1 })));
  await until(async () => !(await service.channels())["topics/own"]);
  expect((await service.channels())["topics/shared"]).toBe(1);
  rerender(page());
  await until(async () => !(await service.channels())["topics/shared"]);
  expect((await service.stats()).connectedClients).toBe(connectedClients);
});

test("useRealtimeEvents", async () => {
  const choices = { channels: ["global", "topics/list"], eventTypes: ["task.*", "system.error"], maxEvents: 3 };
  const { result, rerender } = renderHook(() => useRealtimeEvents(choices), { wrapper: provider() });
  await until(async () => (await service.channels())["topics/list"] === 1);
  await soon(() => expect(result.current.connected).toBe(true));
  for (const [event, data] of [["task.created", 1], ["system.info", 2], ["task.updated", 3], ["system.error", 4], ["task.failed", 5]]) {
    await act(() => speak("topics/list", event, data));
  }
  await soon(() => expect(result.current.events.map((event) => event.data)).toEqual([5, 4, 3]));
  act(() => result.current.clearEvents());
  expect(result.current.events).toEqual([]);
  expect(result.current.error).toBe(null);
  await act(() => speak("topics/list", "task.created", 6));
  await soon(() => expect(result.current.events.length).toBe(1));
  choices.maxEvents = 0;
  rerender();
  expect(result.current.events).toEqual([]);
  Object.assign(choices, { maxEvents: 3, eventTypes: ["task.*"] });
  rerender();
  expect(result.current.events).toEqual([]);
});

test("useRealtimeMetrics", async () => {
  const { result } = renderHook(() => useRealtimeMetrics(), { wrapper: provider() });
  expect(result.current).toEqual({ metrics: null, connected: false, error: null });
  await until(async () => (await service.channels()).metrics === 1);
  await act(() => speak("metrics", "metric.update", { active_agents: 7 }));
  await soon(() => expect(result.current).toEqual({ metrics: { active_agents: 7 }, connected: true, error: null }));
});

test("useAgentChannel", async () => {
  const { result, rerender } = renderHook(({ agent }) => useAgentChannel(agent), {
    wrapper: provider({ agentId: "watcher" }),
    initialProps: { agent: "ann" },
  });
  await until(async () => (await service.channels())["agents/ann"] === 1);
  await soon(() => expect(result.current.connected).toBe(true));
  await act(() => result.current.sendMessage({ text: "hello" }));
  await soon(() => expect(result.current.messages).toMatchObject([{ event: "message.new", data: { text: "hello" } }]));
  rerender({ agent: "bob" });
  expect(result.current.messages).toEqual([]);
  await until(async () => (await service.channels())["agents/bob"] === 1 && !(await service.channels())["agents/ann"]);
  await expect(result.current.sendMessage({}, "no.such")).rejects.toMatchObject({ code: "INVALID_EVENT" });
  rerender({ agent: null });
  await expect(result.current.sendMessage({})).rejects.toMatchObject({ code: "INVALID_CHANNEL" });
});

test("without a provider the hooks say what is missing", () => {
  expect(() => renderHook(() => useRealtimeMetrics())).toThrow("<DCMProvider");
});
