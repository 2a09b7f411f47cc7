// OpenAI's own client for JavaScript and an agent behind Chat Completions: a stream, the runner that
// calls functions by itself (streamed and whole), refusals, a stream that is left.  Prints what it saw.
import OpenAI from "openai";

const [url, key, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, timeout: 10_000 });
const messages = [{ role: "user", content: "hello" }];
const seen = {};

const models = [];
for await (const one of client.models.list()) models.push(one.id);
seen.models = models;

function looking(done) {
  return {
    type: "function",
    function: {
      name: "look",
      description: "Look.",
      parameters: { type: "object", properties: { at: { type: "string" } } },
      parse: JSON.parse,
      function: ({ at }) => (done.push(at), `the ${at} is blue`),
    },
  };
}

seen.ran = [];
const streamed = client.chat.completions.runTools({
  model,
  messages,
  stream: true,
  stream_options: { include_usage: true },
  tools: [looking(seen.ran)],
});
seen.deltas = [];
streamed.on("content", (text) => seen.deltas.push(text));
seen.said = await streamed.finalContent();
seen.used = await streamed.totalUsage();
seen.roles = streamed.messages.map((one) => one.role);

seen.again = [];
const whole = client.chat.completions.runTools({ model, messages, tools: [looking(seen.again)] });
seen.whole = await whole.finalContent();

const chunks = [];
const stream = await client.chat.completions.create({
  model,
  messages,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) chunks.push(chunk);
seen.usages = chunks.map((one) => one.usage?.total_tokens ?? null);
seen.ends = chunks.map((one) => one.choices[0]?.finish_reason ?? null).filter(Boolean);

const left = await client.chat.completions.create({ model, messages, stream: true });
for await (const chunk of left) {
  if (chunk.choices[0].delta.content) break; // which ends the request
}

const refused = await client.chat.completions
  .create({ model: "agent:nobody", messages })
  .catch((error) => error);
seen.refused = [refused.constructor.name, refused.code, Boolean(refused.requestID)];
const unknown = new OpenAI({ baseURL: `${url}/v1`, apiKey: "hk_no", maxRetries: 0 });
seen.unknown = await unknown.models.list().catch((error) => error.constructor.name);
console.log(JSON.stringify(seen));
