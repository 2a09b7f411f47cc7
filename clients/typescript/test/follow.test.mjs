import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, HostlerError } from "@hostler/client";

const encoded = new TextEncoder().encode(
  ": open\r\n\r\nretry: 1000\nid: 1\nevent: delta\ndata: {\"text\":\"größe\"}\n\n" +
    'event: presence\ndata: {"watching":[]}\n\n' +
    "id:2\revent:odd\rdata:{\rdata:\"a\": 1}\r\rid: 3\nevent: half\ndata: {",
);
const wanted = [
  { id: "1", event: "delta", data: { text: "größe" } },
  { id: "2", event: "odd", data: { a: 1 } },
];

const answering = (pieces, type = "text/event-stream") => async () =>
  new Response(ReadableStream.from(pieces), { headers: { "content-type": type } });

async function seen(client) {
  const frames = [];
  for await (const frame of client.follow("ses_1")) {
    frames.push(frame);
    if (frames.length === wanted.length) return frames;
  }
}

test("events are read wherever the network cuts them into pieces", async () => {
  for (let size = 1; size < encoded.length; size += 1) {
    const pieces = [];
    for (let at = 0; at < encoded.length; at += size) pieces.push(encoded.slice(at, at + size));
    assert.deepEqual(await seen(new Client({ url: "http://x", fetch: answering(pieces) })), wanted);
  }
});

test("what is no event stream is an error, and is not tried again", async () => {
  const client = new Client({ url: "http://x", fetch: answering(["<html>"], "text/html") });
  await assert.rejects(seen(client), HostlerError);
  const odd = ["id: 1\nevent: odd\ndata: {\n\n"].map((one) => new TextEncoder().encode(one));
  await assert.rejects(seen(new Client({ url: "http://x", fetch: answering(odd) })), HostlerError);
});

test("an id in a path stays in its place", async () => {
  let asked;
  const fetch = async (url) => ((asked = url), Response.json({}));
  await new Client({ url: "http://x//", fetch }).getSession("../keys?a=b");
  assert.equal(asked, "http://x/api/sessions/..%2Fkeys%3Fa%3Db");
});

const settled = () => new Promise((resolve) => setImmediate(resolve));

test("a server that does not answer is given up in time", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const fetch = (_, { signal }) =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const asked = new Client({ url: "http://x", fetch }).speak("ses_1", "hello");
  const silent = assert.rejects(asked, /the server at http:\/\/x is silent/);
  t.mock.timers.tick(30_000);
  await silent;
});

test("a stream without a sign of life is asked for anew, and what is aborted is left", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const asked = [];
  const fetch = async (_, { headers, signal }) => {
    asked.push({ after: headers.get("last-event-id"), signal });
    const start = (stream) => stream.enqueue(encoded.slice(0, 80));
    return new Response(new ReadableStream({ start }), {
      headers: { "content-type": "text/event-stream" },
    });
  };
  const stop = new AbortController();
  const following = (async () => {
    const ids = [];
    const how = { after: "0", signal: stop.signal };
    for await (const { id } of new Client({ url: "http://x", fetch }).follow("ses_1", how)) ids.push(id);
    return ids;
  })();
  await settled();
  t.mock.timers.tick(45_000);
  await settled();
  t.mock.timers.tick(1000);
  await settled();
  assert.deepEqual(asked.map((one) => one.after), ["0", "1"]);
  assert.equal(asked[0].signal.aborted, true);
  stop.abort();
  await settled();
  t.mock.timers.tick(45_000);
  assert.deepEqual(await following, ["1", "1"]);
  assert.equal(asked[1].signal.aborted, true);
});
