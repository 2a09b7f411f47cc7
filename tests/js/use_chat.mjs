// The hook `useChat` in a rendered component; orders and news as in chat.mjs.
import { createInterface } from "node:readline";
import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } from "ai";
import { createElement, useEffect } from "react";
import { act, create } from "react-test-renderer";

const [url, key, given] = process.argv.slice(2);
const { id, resume } = JSON.parse(given);
const tell = (event, more) => console.log(JSON.stringify({ event, ...more }));
const transport = new DefaultChatTransport({
  api: `${url}/api/chat`,
  headers: { Authorization: `Bearer ${key}` },
});
let chat;

function Page() {
  chat = useChat({
    id,
    resume,
    transport,
    onData: (data) => tell("data", { data }),
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
  });
  const { status, messages, error } = chat;
  useEffect(() => tell("state", { state: { status, messages, error: error?.message ?? null } }));
  const text = messages.map(({ id, parts }) =>
    createElement("p", { key: id }, parts.map((part) => part.text ?? "").join("")),
  );
  return createElement("main", null, text);
}

globalThis.IS_REACT_ACT_ENVIRONMENT = true;
let page;
await act(async () => {
  page = create(createElement(Page));
});
globalThis.IS_REACT_ACT_ENVIRONMENT = false;

const orders = {
  send: ({ message }) => chat.sendMessage(message),
  approve: ({ answer }) => chat.addToolApprovalResponse(answer),
  show: () => tell("call", { call: page.toJSON() }),
};

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const order = JSON.parse(line);
    await orders[order.do](order);
    tell("done", { of: order.do });
  })
  .on("close", () => process.exit(0));
tell("done", { of: "open" });
