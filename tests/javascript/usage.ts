// What a program in TypeScript may write, and what it may not: checked, not run.
import { DCMClient, DCMError, type DCMEvent } from "../../dcm_ws/web/dcm-ws.js";
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
