/**
 * The form that publishes an event.
 */
import { $ } from "./dom.js";

// the catalogue, made by python -m dcm_ws.app.documentation
const CATALOGUE = [
  "task.created",
  "task.updated",
  "task.completed",
  "task.failed",
  "subtask.created",
  "subtask.updated",
  "subtask.running",
  "subtask.completed",
  "subtask.failed",
  "message.new",
  "message.read",
  "message.expired",
  "agent.connected",
  "agent.disconnected",
  "agent.heartbeat",
  "agent.blocked",
  "agent.unblocked",
  "session.created",
  "session.ended",
  "metric.update",
  "system.error",
  "system.info",
];
// end of the catalogue

/**
 * @param {import("../dcm-ws.js").DCMClient} client
 * @param {import("./status.js").Status} status
 */
export function offerPublishing(client, status) {
  for (const event of CATALOGUE) $("catalogue").append(new Option(event, event));
  const said = $("published");
  status.onChange((current) => {
    for (const control of $("publish-form").elements) control.disabled = !current;
    said.textContent = current ? "" : "Publishing is disabled: the page is not connected.";
  });
  $("publish-form").addEventListener("submit", async (submit) => {
    submit.preventDefault();
    said.className = "";
    try {
      const text = $("publish-data").value.trim();
      const answer = await client.publish($("publish-channel").value.trim(), $("publish-event").value.trim(), text ? JSON.parse(text) : null);
      said.textContent = `Published as ${answer.message_id}`;
    } catch (error) {
      said.className = "wrong";
      said.textContent = error instanceof SyntaxError ? `The data is not JSON: ${error.message}` : error.message;
    }
  });
}
