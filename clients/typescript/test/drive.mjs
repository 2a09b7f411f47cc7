// The client under orders, a line of JSON each; tells what comes of them likewise.
import { createInterface } from "node:readline";
import { Client } from "@hostler/client";

const [url, key] = process.argv.slice(2);
const tell = (event, more) => console.log(JSON.stringify({ event, ...more }));
const stops = new Map();
const client = new Client({ url, key: async () => key });

function told(error) {
  const { name, message, status, code, problem, retryAfterS } = error;
  return { name, message, status, code, problem, retryAfterS, isError: error instanceof Error };
}

async function collected(found) {
  if (!found?.[Symbol.asyncIterator]) return found ?? null;
  const items = [];
  for await (const one of found) items.push(one);
  return items;
}

const orders = {
  call: async ({ method, args }) => collected(await client[method](...args)),
  follow: async ({ id, session, how }) => {
    stops.set(id, new AbortController());
    const onConnection = (is) => tell("connection", { id, is });
    const signal = stops.get(id).signal;
    for await (const frame of client.follow(session, { ...how, signal, onConnection })) {
      tell("frame", { id, frame });
    }
  },
  ask: async ({ id, content, asking }) => {
    for await (const frame of client.ask(content, asking)) tell("frame", { id, frame });
  },
  stop: ({ of }) => stops.get(of).abort(),
};

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const order = JSON.parse(line);
    try {
      tell("result", { id: order.id, value: (await orders[order.do](order)) ?? null });
    } catch (error) {
      tell("result", { id: order.id, error: told(error) });
    }
  })
  .on("close", () => process.exit(0));
