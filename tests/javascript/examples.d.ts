// What the examples of the documentation use and do not show.
import type { DCMClient as Client } from "dcm-ws-client";

declare global {
  const DCMClient: typeof Client;
  const client: Client;
  const url: string;
  function draw(figure: number): void;
  function reload(reason: string): void;
  function save(data: unknown): Promise<void>;
  function show(what: unknown): void;

  interface JSON {
    /** With the source text, which the library of TypeScript 5.9 does not know. */
    parse(text: string, reviver: (key: string, value: unknown, context: { source: string }) => unknown): any;
  }
}
