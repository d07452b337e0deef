/**
 * What the list says while it is empty.
 */
import { element } from "./dom.js";

/** @param {boolean} filtered there are events, and none fits the filter */
export function nothing(filtered) {
  const empty = element("div", undefined, "empty");
  // a list box has nothing but options
  empty.setAttribute("role", "option");
  empty.setAttribute("aria-disabled", "true");
  empty.setAttribute("aria-selected", "false");
  if (filtered) {
    empty.append(element("p", "No events match the filter."));
    return empty;
  }
  const port = location.port || (location.protocol === "https:" ? "443" : "80");
  const service = `${location.protocol === "https:" ? "wss" : "ws"}://${location.hostname}:${port}/ws`;
  empty.append(
    element("p", "Waiting for the first event…"),
    element("p", "Publish one from a terminal:"),
    element("code", `dcm-ws publish global task.created '{"title": "hello"}' --url ${service}`),
  );
  return empty;
}
