// The conformance tests of Durable Streams, of which those about reading apply: the service has no write path.
import { afterAll, beforeAll, beforeEach, expect } from "vitest";
import { runConformanceTests } from "@durable-streams/server-conformance-tests";
import { adapt } from "./adapter.js";
import { start } from "./running.js";

const LONG_POLL_S = 1;

const WRITING = "the service has no write path: this would test the adapter";
const LIFE = "streams have no time to live";
const CLOSING = "streams cannot be closed";
const FORKS = "streams cannot be forked";
const BINARY = "messages are JSON: there are no binary streams";
const PRODUCERS = "idempotent producers write; the service has keys of publishes";

/** Groups of tests that do not apply, by the beginning of their names. */
const GROUPS = {
  "Append Operations": WRITING,
  "TTL and Expiry Validation": LIFE,
  "Case-Insensitivity": WRITING,
  "TTL and Expiry Edge Cases": LIFE,
  "TTL Expiration Behavior": LIFE,
  "Property-Based Tests (fast-check) > Sequence Ordering Properties": WRITING,
  "Property-Based Tests (fast-check) > Concurrent Writer Stress Tests > concurrent writers": WRITING,
  "Idempotent Producer Operations": PRODUCERS,
  "Stream Closure > HEAD with Stream Closure > head-closed": CLOSING,
  "Stream Closure > Create": CLOSING,
  "Stream Closure > Close": CLOSING,
  "Stream Closure > Read": CLOSING,
  "Stream Closure > Long-poll": CLOSING,
  "Stream Closure > SSE": CLOSING,
  "Stream Closure > Idempotent": CLOSING,
  "Stream Closure > Edge": CLOSING,
  "Fork - ": FORKS,
};

/** Single tests that do not apply. */
const TESTS = {
  "should allow idempotent create with same config": WRITING,
  "should reject create with different config (409)": WRITING,
  "should return correct headers on PUT": WRITING,
  "should return 200 on idempotent PUT with same config": WRITING,
  "should return 409 on PUT with different config": WRITING,
  "should return correct headers on POST": WRITING,
  "should return 404 on POST to non-existent stream": WRITING,
  "should return 409 on content-type mismatch": WRITING,
  "should enforce sequence ordering": WRITING,
  'should enforce lexicographic seq ordering ("2" then "10" rejects)': WRITING,
  'should allow lexicographic seq ordering ("09" then "10" succeeds)': WRITING,
  "should reject duplicate seq values": WRITING,
  "should include X-Content-Type-Options: nosniff on PUT responses": WRITING,
  "should include X-Content-Type-Options: nosniff on POST responses": WRITING,
  "should enforce content-type match on append": WRITING,
  "should reject empty POST body with 400": WRITING,
  "should enforce case-sensitive seq ordering": WRITING,
  "should reject missing Content-Type on POST": WRITING,
  "should return TTL metadata if configured": LIFE,
  "should return Expires-At metadata if configured": LIFE,
  "should handle large payload appropriately": WRITING,
  "should reject POST with empty array body": WRITING,
  "should reject invalid JSON with 400": WRITING,
  "should reject empty JSON arrays with 400": WRITING,
  "should auto-detect binary streams and return base64 encoded data in SSE mode": BINARY,
  "should include Stream-SSE-Data-Encoding header for binary streams": BINARY,
  "should base64 encode data events only, control events remain JSON": BINARY,
  "should handle empty binary payload with auto-detected base64 encoding": BINARY,
  "should handle large binary payload with auto-detected base64 encoding": BINARY,
  "should handle binary data with special bytes using auto-detected base64 encoding": BINARY,
  "base64 SSE catch-up pairs every data event with a control event": BINARY,
  "should auto-detect base64 encoding for application/x-protobuf streams": BINARY,
  "should auto-detect base64 encoding for image/png streams": BINARY,
  "should handle offset=now with auto-detected base64 encoding for binary streams": BINARY,
};

const options = { baseUrl: "", longPollTimeoutMs: LONG_POLL_S * 1000 + 2000 };
const unused = new Set([...Object.keys(GROUPS), ...Object.keys(TESTS)]);
let service, adapter;

beforeAll(async () => {
  service = await start({ options: ["--long-poll", String(LONG_POLL_S)] });
  adapter = await adapt(service);
  options.baseUrl = adapter.url;
});

beforeEach(({ task, skip }) => {
  const names = [];
  for (let one = task; one.name && one.type !== undefined && one.filepath === undefined; one = one.suite ?? {}) names.unshift(one.name);
  const full = names.join(" > ");
  const group = Object.keys(GROUPS).find((name) => full.startsWith(name));
  const key = group ?? (task.name in TESTS ? task.name : undefined);
  if (key === undefined) return;
  unused.delete(key);
  skip(GROUPS[key] ?? TESTS[key]);
});

afterAll(async () => {
  adapter?.close();
  await service?.stop();
  // a test that is gone must not stay on the list
  expect([...unused]).toEqual([]);
});

runConformanceTests(options);
