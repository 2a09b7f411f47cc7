// The hook in a page under StrictMode; orders and news, a line of JSON each.
import { createInterface } from "node:readline";
import { Client } from "@hostler/client";
import { useSession } from "@hostler/client/react";
import { Window } from "happy-dom";
import { createElement as h, StrictMode, useEffect } from "react";

const [url, key, given] = process.argv.slice(2);
const tell = (event, more) => console.log(JSON.stringify({ event, ...more }));
const options = JSON.parse(given);

let opened = 0;
let open = 0;
const counted = async (input, init) => {
  const answer = await fetch(input, init);
  if (!answer.headers.get("content-type")?.startsWith("text/event-stream")) return answer;
  opened += 1;
  open += 1;
  init.signal.addEventListener("abort", () => (open -= 1));
  return answer;
};
const client = new Client({ url, key, fetch: counted });
let page;

function Page({ session }) {
  page = useSession(client, session);
  const { messages, status, approvals, errands, connection, problem, error } = page;
  const state = { messages, status, approvals, errands, connection, problem };
  useEffect(() => tell("state", { state: { ...state, error: error?.name ?? null } }));
  return h(
    "main",
    { "data-status": status },
    messages.map((one) => h("p", { key: one.id }, one.role === "user" ? one.content : one.text)),
  );
}

if (options.server) {
  const { renderToString } = await import("react-dom/server");
  tell("state", { state: { html: renderToString(h(Page, { session: options.session })), opened } });
  process.exit(0);
}

const window = new Window();
Object.assign(globalThis, { window, document: window.document });
globalThis.navigator ??= window.navigator;
const { createRoot } = await import("react-dom/client");
const { flushSync } = await import("react-dom");
const root = createRoot(document.body.appendChild(document.createElement("div")));
const show = (session) =>
  flushSync(() => root.render(h(StrictMode, null, h(Page, { session }))));
show(options.session);

const orders = {
  send: ({ content }) => page.send(content),
  approve: ({ call, decision }) => page.approve(call, decision),
  answer: ({ call, output }) => page.answer(call, output),
  stop: () => page.stop(),
  show: ({ session }) => show(session),
  leave: () => root.unmount(),
  html: () => tell("call", { call: { html: document.body.innerHTML, opened, open } }),
};

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const order = JSON.parse(line);
    await orders[order.do](order);
    tell("done", { of: order.do });
  })
  .on("close", () => process.exit(0));
tell("done", { of: "open" });
