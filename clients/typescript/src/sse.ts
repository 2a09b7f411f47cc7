// Server-Sent Events (WHATWG HTML, section 9.2.6), as frames.
import { HostlerError, Unavailable } from "./errors.js";
import type { AnyFrame } from "./types.js";

/** Three heartbeats of the server: a connection that says nothing for so long is gone. */
const SILENCE_MS = 45_000;

/** Yields the frames of a stream, as many at once as have come. */
export async function* batches(
  body: ReadableStream<Uint8Array>,
): AsyncGenerator<AnyFrame[], void, undefined> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await heard(reader);
      if (done) return; // what is left is half an event, which counts as not sent
      rest += decoder.decode(value, { stream: true });
      const events = rest.replace(/\r\n|\r(?!$)/g, "\n").split("\n\n");
      rest = events.pop() ?? "";
      const frames = events.map(frame).filter((one) => one !== undefined);
      if (frames.length) yield frames;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

async function heard(reader: ReadableStreamDefaultReader<Uint8Array>) {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Unavailable("the server is silent")), SILENCE_MS);
  });
  try {
    return await Promise.race([reader.read(), silence]);
  } finally {
    clearTimeout(timer);
  }
}

function frame(block: string): AnyFrame | undefined {
  let id: string | undefined;
  let event: string | undefined;
  const data: string[] = [];
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (line.startsWith("id:")) id = value;
    else if (line.startsWith("event:")) event = value;
    else if (line.startsWith("data:")) data.push(value);
  }
  // Without an id there is nothing to resume from: that is who watches, not what happened.
  if (id === undefined || event === undefined || !data.length) return undefined;
  try {
    return { id, event, data: JSON.parse(data.join("\n")) as Record<string, unknown> };
  } catch {
    throw new HostlerError("what answers is no Hostler server");
  }
}
