/**
 * The write path of Durable Streams in front of the service, which has only the read path: what the conformance tests
 * append becomes events of a topic, and what they read is passed on as the service says it, with the data of the events
 * in place of the events.
 */
import { createServer } from "node:http";
import { Readable } from "node:stream";
import { WebSocket } from "ws";
import { DCMClient } from "../../dcm_ws/web/dcm-ws.js";

const EVENT = "session.created";

/** Bytes in JSON, and back. */
const toText = (bytes) => bytes.toString("latin1");
const toBytes = (text) => Buffer.from(text, "latin1");

const isJson = (type) => type.toLowerCase().startsWith("application/json");

async function bodyOf(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts);
}

/** The messages in what is appended. */
function messagesOf(type, body) {
  if (!isJson(type)) return body.length ? [toText(body)] : [];
  if (!body.length) return [];
  const value = JSON.parse(body.toString());
  return Array.isArray(value) ? value : [value];
}

/** What a page has, as bytes of the stream. */
function pageOf(type, events) {
  const values = events.map(({ data }) => data);
  return isJson(type) ? Buffer.from(JSON.stringify(values)) : Buffer.concat(values.map(toBytes));
}

/** An event stream, in which the data of the events takes the place of the events. */
async function* withData(type, body) {
  const decoder = new TextDecoder();
  let text = "";
  for await (const part of body) {
    text += decoder.decode(part, { stream: true });
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const found = /^event: data\ndata:(.*)\n(id:.*)$/.exec(block);
      if (!found) yield `${block}\n\n`;
      else {
        const lines = pageOf(type, JSON.parse(found[1])).toString().split(/\r\n|\r|\n/);
        yield `event: data\n${lines.map((line) => `data:${line}\n`).join("")}${found[2]}\n\n`;
      }
    }
  }
}

/** Start one in front of a service. */
export async function adapt(service) {
  const streams = new Map();
  const client = new DCMClient(service.url, { WebSocket, observer: true, channels: [] });
  await client.connect();
  // a stream that was deleted and created again is another one
  let made = 0;

  async function append(stream, values) {
    for (const data of values) await client.publish(stream.channel, EVENT, data);
  }

  const urlOf = (stream, query = "") => `${service.http}/v1/streams/${encodeURIComponent(stream.channel)}${query}`;

  async function write(request, response, name) {
    const body = await bodyOf(request);
    let stream = streams.get(name);
    if (request.method === "DELETE") {
      streams.delete(name);
      response.writeHead(stream ? 204 : 404).end();
      return;
    }
    if (request.method === "PUT" && !stream) {
      stream = { channel: `topics/${name}/${++made}`, type: request.headers["content-type"] ?? "application/octet-stream" };
      streams.set(name, stream);
    }
    if (!stream) {
      response.writeHead(404).end();
      return;
    }
    await append(stream, messagesOf(stream.type, body));
    const tail = await fetch(urlOf(stream), { method: "HEAD" });
    response
      .writeHead(request.method === "PUT" ? 201 : 204, {
        "content-type": stream.type,
        "stream-next-offset": tail.headers.get("stream-next-offset"),
        location: `http://${request.headers.host}${request.url}`,
      })
      .end();
  }

  async function read(request, response, name, query) {
    // every valid channel is a stream: what was not created is at a name that is not valid
    const stream = streams.get(name) ?? { channel: "nothing", type: "text/plain" };
    const { host, connection, ...headers } = request.headers;
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    const answer = await fetch(urlOf(stream, query), { method: request.method, headers, signal: gone.signal });
    const heads = Object.fromEntries(answer.headers);
    for (const hop of ["content-length", "transfer-encoding", "connection"]) delete heads[hop];
    if (answer.headers.get("content-type") === "text/event-stream") {
      response.writeHead(answer.status, heads);
      response.flushHeaders();
      Readable.from(withData(stream.type, answer.body)).on("error", () => response.destroy()).pipe(response);
      return;
    }
    const body = Buffer.from(await answer.arrayBuffer());
    if (answer.ok) heads["content-type"] = stream.type;
    const events = answer.status === 200 && request.method === "GET" ? JSON.parse(body.toString()) : undefined;
    response.writeHead(answer.status, heads).end(events ? pageOf(stream.type, events) : body);
  }

  const server = createServer((request, response) => {
    const { pathname, search } = new URL(request.url, "http://adapter");
    const name = decodeURIComponent(pathname.replace("/v1/stream/", ""));
    const work =
      ["GET", "HEAD", "OPTIONS"].includes(request.method)
        ? read(request, response, name, search)
        : write(request, response, name);
    work.catch((error) => {
      // clients go away in the middle of a stream
      if (error.name !== "AbortError") console.error(error);
      response.destroy();
    });
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close() {
      client.close();
      server.close();
      server.closeAllConnections();
    },
  };
}
