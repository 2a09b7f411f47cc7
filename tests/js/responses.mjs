// OpenAI's own client for JavaScript: a stream, a tool's round trip, a background response that is
// left in the middle and gone on with, polled and cancelled.  Prints what it saw as JSON.
import OpenAI from "openai";

const [url, key] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, timeout: 10_000 });
const tools = [
  {
    type: "function",
    name: "look",
    description: "Look.",
    parameters: { type: "object", properties: { at: { type: "string" } } },
    strict: null,
  },
];
const seen = {};

const first = client.responses.stream({ model: "p:m", input: "hello", tools });
seen.deltas = [];
first.on("response.output_text.delta", (event) => seen.deltas.push(event.delta));
seen.first = await first.finalResponse();

const call = seen.first.output.find((item) => item.type === "function_call");
seen.second = await client.responses.create({
  model: "p:m",
  tools,
  previous_response_id: seen.first.id,
  input: [{ type: "function_call_output", call_id: call.call_id, output: "water" }],
});

const dropped = await client.responses.create({
  model: "p:m",
  input: "more",
  background: true,
  stream: true,
});
let name;
let last;
for await (const event of dropped) {
  name ??= event.response?.id;
  last = event.sequence_number;
  if (event.type === "response.in_progress") break;
}
const rest = client.responses.stream({ response_id: name, starting_after: last });
seen.rest = [];
rest.on("event", (event) => seen.rest.push(event.sequence_number));
seen.resumed = await rest.finalResponse();
seen.last = last;
seen.polled = await client.responses.retrieve(name);
seen.cancelled = await client.responses.cancel(name);
seen.absent = await client.responses.retrieve("resp_none").catch((error) => error.status);
console.log(JSON.stringify(seen));
