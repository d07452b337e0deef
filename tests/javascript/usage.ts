// What a program in TypeScript may write, and what it may not: checked, not run.
import { DCMClient, DCMError, isEvent, type DCMEvent, type EventMap, type TaskData } from "../../dcm_ws/web/dcm-ws.js";
import { useAgentChannel, useRealtimeEvents, useRealtimeMetrics, useWebSocket } from "../../dcm_ws/web/dcm-ws-react.js";

const client = new DCMClient("ws://127.0.0.1:3849/ws", { token: async () => "…", channels: ["global"], backoff: { maxMs: 1000 } });
const end: () => void = client.on("event:task.*", async (event: DCMEvent<{ id: string }>) => event.data.id.length);
client.on("state", (state) => state === "waiting" && console.log(client.retryAt! - Date.now()));
client.on("error", (error: DCMError) => console.log(error.code, error.retryAfterMs));
const answer = await client.publish("global", "system.info", { text: "…" });
const again: true | undefined = (await client.publish("global", "system.info", null, { key: "k" })).duplicate;
const id: string = answer.message_id;
client.on("channel:metrics", (event) => console.log(event.raw.length));
new DCMClient("ws://127.0.0.1:3849/ws", { parse: (text) => JSON.parse(text) });
end();

export function Page() {
  const { connected, lastMessage, send } = useWebSocket({ channels: ["global"], onEvent: (event) => event.id });
  const { metrics } = useRealtimeMetrics();
  const { events, clearEvents } = useRealtimeEvents({ eventTypes: ["task.*"], maxEvents: 10 });
  const { messages, sendMessage } = useAgentChannel("ann");
  const figure: number | undefined = metrics?.active_agents;
  clearEvents();
  void sendMessage({ text: id });
  return connected && send({ type: "ping" }) && lastMessage?.event === "x" ? events.length + messages.length + (figure ?? 0) : null;
}

// @ts-expect-error there is no such option
new DCMClient("ws://127.0.0.1", { tokn: "…" });
// @ts-expect-error nothing is told as that
client.on("events", () => {});

// the events of the catalogue have types
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<A, B>(_same: Same<A, B>): void {}

client.on("event:task.created", (event) => {
  same<typeof event, DCMEvent<TaskData, "task.created">>(true);
  same<typeof event.data.id, string | undefined>(true);
  same<typeof event.data.completed_at, string | null | undefined>(true);
  same<typeof event.data.version, unknown>(true);
  // @ts-expect-error it may be missing
  event.data.id.length;
  // @ts-expect-error it may be anything
  event.data.version.length;
  // @ts-expect-error another event
  event.event === "task.failed";
});
client.on("event:task.*", (event) => {
  same<typeof event.data, TaskData>(true);
  return event.event === "task.completed" || event.event === "task.archived";
});
client.on("event:agent.*", (event) => {
  same<typeof event.data, EventMap["agent.connected"] | EventMap["agent.blocked"]>(true);
  same<typeof event.data.agent_id, string | undefined>(true);
});
client.on("event:metric.update", async ({ data }) => {
  const figure: number = data.active_agents;
  // @ts-expect-error there is no such figure
  data.active_agent;
  // @ts-expect-error a number
  figure.length;
});
client.on("event:agent.connected", ({ data }) => {
  same<typeof data.session_id, string | null>(true);
  // @ts-expect-error the service sends no others
  data.name;
});
client.on("event:system.error", ({ data }) => {
  data.state === "down";
  // @ts-expect-error no such state
  data.state === "dwon";
});

// others are allowed, and may be anything
client.on("event:pipeline.done", (event) => event.data.version.major);
client.on("event:pipeline.*", (event) => event.data.version.major);
client.on("event:*", (event) => event.data.version.major);
client.on("event", (event) => event.data.version.major);
client.on("channel:topics/x", (event) => event.data.version.major);
declare const any: string;
client.on(`event:${any}`, (event) => event.data.version.major);
declare const either: "event:task.created" | "event" | "channel:global";
client.on(either, (event) => event.data.version.major);

// a type of one's own, and an event of one's own
client.on("event:message.new", (event: DCMEvent<{ text: string }>) => event.data.text.length);
declare module "../../dcm_ws/web/dcm-ws.js" {
  interface EventMap {
    "deploy.done": { version: number };
  }
}
client.on("event:deploy.done", (event) => same<typeof event.data, { version: number }>(true));
client.on("event:deploy.*", (event) => same<typeof event.data.version, number>(true));

client.on("event", (event) => {
  if (isEvent(event, "session.ended")) same<typeof event.data.ended_at, string | null | undefined>(true);
  else if (isEvent(event, "subtask.*")) same<typeof event.data.result, unknown>(true);
  else if (isEvent(event, "deploy.done")) same<typeof event.data.version, number>(true);
  else if (isEvent(event, "pipeline.done")) event.data.version.major;
  // @ts-expect-error it may be null
  if (isEvent(event, "agent.connected")) event.data.session_id.length;
});
void client.publish("topics/x", "task.created", { any: 1 });
void client.publish("topics/x", "pipeline.done", { any: 1 });

export function Typed() {
  const { events: tasks } = useRealtimeEvents({ eventTypes: ["task.created", "task.failed"] });
  same<(typeof tasks)[number]["data"], TaskData>(true);
  const { events: metrics } = useRealtimeEvents({ eventTypes: ["metric.*"] });
  const figures: number[] = metrics.map(({ data }) => data.running_tasks);
  const { events: several } = useRealtimeEvents({ eventTypes: ["metric.update", "message.*"] });
  for (const event of several) {
    if (isEvent(event, "metric.update")) figures.push(event.data.running_tasks);
    // @ts-expect-error not of a message
    else event.data.running_tasks.toFixed();
  }
  const { events: all } = useRealtimeEvents();
  const { events: others } = useRealtimeEvents({ eventTypes: [any, "pipeline.done"] });
  useWebSocket({ channels: ["global"], onEvent: (event) => isEvent(event, "task.*") && same<typeof event.data.id, string | undefined>(true) });
  // @ts-expect-error a number
  useRealtimeMetrics().metrics?.running_tasks.length;
  return all[0]?.data.version.major + others[0]?.data.version.major + figures[0];
}
