// A chat as an app has it: the real `Chat` over the real transport.  Takes orders as lines of JSON,
// and prints what the app would see as lines of JSON.
import { createInterface } from "node:readline";
import { Chat } from "@ai-sdk/react";
import {
  DefaultChatTransport,
  lastAssistantMessageIsCompleteWithApprovalResponses,
  lastAssistantMessageIsCompleteWithToolCalls,
} from "ai";

const [url, key, given] = process.argv.slice(2);
const { newest, automatic, ...options } = JSON.parse(given);
const api = `${url}/api/chat`;
const headers = { Authorization: `Bearer ${key}`, ...options.headers };
const tell = (event, more) => console.log(JSON.stringify({ event, ...more }));

const chat = new Chat({
  id: options.id,
  messages: options.messages ?? [],
  transport: new DefaultChatTransport({
    api,
    headers,
    body: options.body,
    prepareSendMessagesRequest: newest
      ? ({ id, messages, body, trigger, messageId }) => ({
          body: { ...body, id, message: messages.at(-1), trigger, messageId },
        })
      : undefined,
  }),
  sendAutomaticallyWhen: automatic
    ? (seen) =>
        lastAssistantMessageIsCompleteWithApprovalResponses(seen) ||
        lastAssistantMessageIsCompleteWithToolCalls(seen)
    : undefined,
  onData: (data) => tell("data", { data }),
  onToolCall: ({ toolCall }) => tell("call", { call: toolCall }),
  onFinish: ({ isAbort, isDisconnect, isError, finishReason }) =>
    tell("finish", { isAbort, isDisconnect, isError, finishReason }),
});

function show() {
  const { status, messages, error } = chat;
  tell("state", { state: { status, messages, error: error?.message ?? null } });
}
chat["~registerMessagesCallback"](show);
chat["~registerStatusCallback"](show);
chat["~registerErrorCallback"](show);

const orders = {
  send: ({ message, options }) => chat.sendMessage(message, options),
  resume: () => chat.resumeStream(),
  leave: () => chat.stop(),
  regenerate: ({ options }) => chat.regenerate(options),
  approve: ({ answer }) => chat.addToolApprovalResponse(answer),
  output: ({ answer }) => chat.addToolOutput(answer),
  stop: () => fetch(`${api}/${encodeURIComponent(chat.id)}/stop`, { method: "POST", headers }),
};

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const order = JSON.parse(line);
    await orders[order.do](order);
    tell("done", { of: order.do });
  })
  .on("close", () => process.exit(0));
show();
tell("done", { of: "open" });
