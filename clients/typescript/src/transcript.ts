// A session as people see it: its messages, and what it waits for.  A pure fold over frames:
// whoever has seen the same facts has the same transcript, whatever was streamed meanwhile.
import { type AnyFrame, type Content, type Delta, type Frame, is } from "./types.js";

type DataOf<Kind extends Frame["event"]> = Extract<Frame, { event: Kind }>["data"];

export interface Call {
  id: string;
  name: string;
  arguments: Record<string, unknown>;
  /** `called`: asked for by the model, and not begun; `waiting`: for an approval, or for a client. */
  status: "called" | "waiting" | "running" | DataOf<"tool_finished">["outcome"];
  /** What the model read. */
  output?: string;
}

export interface UserMessage {
  role: "user";
  id: string;
  run: string;
  content: Content;
  principal: string;
  metadata: Record<string, unknown>;
  /** `waiting`: no model has replied to it yet. */
  status: "waiting" | "processed" | "dropped";
}

export interface ModelMessage {
  role: "assistant";
  id: string;
  run: string;
  text: string;
  thinking: string;
  calls: readonly Call[];
  /** `streaming`: more comes; `cut`: it was stopped, and the model will not know of it. */
  status: "streaming" | "done" | "cut";
}

export type Message = UserMessage | ModelMessage;

/** A request for an approval that is open: answer it with `approve`. */
export interface Wanted {
  call: string;
  name: string;
  arguments: Record<string, unknown>;
  /** Sent back with the decision, it says what was shown. */
  digest: string;
  expires_at: string;
}

/** A call that a client has to answer, with `answer`. */
export interface Errand {
  call: string;
  name: string;
  arguments: Record<string, unknown>;
  expires_at: string;
}

export interface Transcript {
  messages: readonly Message[];
  status: "idle" | "queued" | "running" | "waiting";
  approvals: readonly Wanted[];
  errands: readonly Errand[];
  /** The run that is going. */
  run: string | null;
  /** How the last run ended that did not end well. */
  problem: { run: string; status: string; reason: string | null } | null;
  /** Past the last frame. */
  cursor: string;
  /** Runs that have not ended, the active one first. */
  open: readonly string[];
}

export const EMPTY: Transcript = {
  messages: [],
  status: "idle",
  approvals: [],
  errands: [],
  run: null,
  problem: null,
  cursor: "0",
  open: [],
};

/** The transcript after some more frames.  What is not known is passed over. */
export function fold(before: Transcript, frames: readonly AnyFrame[]): Transcript {
  const next = { ...before };
  for (const frame of frames) {
    step(next, frame as Frame);
    next.cursor = frame.id;
  }
  const waits = next.approvals.length + next.errands.length > 0;
  const going = waits ? "waiting" : "running";
  next.status = next.run !== null ? going : next.open.length ? "queued" : "idle";
  return next;
}

/**
 * The text of the replies in frames, piece by piece as it comes, and all of it.
 *
 * What was said before somebody listened, or while their connection was away, comes when the reply
 * is stored.  An attempt at a reply that was given up is not taken back.
 */
export async function* textOf(
  frames: AsyncIterable<AnyFrame>,
): AsyncGenerator<string, void, undefined> {
  let attempt: string | undefined;
  let said = "";
  for await (const frame of frames) {
    if (!is(frame, "delta") && !is(frame, "model_replied")) continue;
    if (frame.data.attempt !== attempt) said = "";
    attempt = frame.data.attempt;
    let more = "";
    if (is(frame, "model_replied")) {
      if (frame.data.text.startsWith(said)) more = frame.data.text.slice(said.length);
    } else if (frame.data.part === "text") more = frame.data.text;
    said += more;
    if (more) yield more;
  }
}

function step(now: Transcript, frame: Frame): void {
  switch (frame.event) {
    case "user_spoke":
      return spoken(now, frame.data);
    case "input_processed":
      return inputIs(now, frame.data.input, "processed");
    case "input_dropped":
      return inputIs(now, frame.data.input, "dropped");
    case "session_rewound":
      return rewound(now, frame.data.before);
    case "run_started":
      return started(now, frame.data.run);
    case "model_asked":
      return asked(now, frame.data.attempt, frame.data.run);
    case "delta":
      return streamed(now, frame.data);
    case "model_replied":
      return replied(now, frame.data);
    case "model_failed":
      now.messages = now.messages.filter((one) => one.id !== frame.data.attempt);
      return;
    case "attempt_dropped":
      return dropped(now, frame.data);
    case "approval_asked":
    case "approval_given":
    case "tool_started":
    case "tool_finished":
      return called(now, frame);
    case "run_ended":
      return ended(now, frame.data);
  }
}

function spoken(now: Transcript, data: DataOf<"user_spoke">): void {
  const run = data.run ?? "";
  const { input: id, content, principal, metadata } = data;
  const said: UserMessage = {
    role: "user",
    id,
    run,
    content: content as Content,
    principal,
    metadata,
    status: "waiting",
  };
  now.messages = run === now.run ? inserted(now.messages, run, [said]) : [...now.messages, said];
  if (!now.open.includes(run)) now.open = [...now.open, run];
}

// What was said while another run was going joins the conversation here, after all of that run.
function started(now: Transcript, run: string | null): void {
  now.run = run;
  const joins = (one: Message) => isQueued(one) && one.run === run;
  const joining = now.messages.filter(joins);
  now.messages = inserted(now.messages.filter((one) => !joins(one)), run, joining);
}

const isQueued = (one: Message | undefined) => one?.role === "user" && one.status === "waiting";

// At the end of a run, above what waits for another one.
function inserted(messages: readonly Message[], run: string | null, more: readonly Message[]) {
  let place = messages.length;
  while (isQueued(messages[place - 1]) && messages[place - 1]?.run !== run) place -= 1;
  return messages.toSpliced(place, 0, ...more);
}

function inputIs(now: Transcript, id: string, status: UserMessage["status"]): void {
  now.messages = now.messages.map((one) =>
    one.role === "user" && one.id === id ? { ...one, status } : one,
  );
}

function rewound(now: Transcript, run: string): void {
  const from = now.messages.findIndex((one) => one.run === run);
  if (from >= 0) now.messages = now.messages.slice(0, from);
}

function asked(now: Transcript, id: string, run: string | null): void {
  const empty = { text: "", thinking: "", calls: [] };
  const begun: ModelMessage = { role: "assistant", id, run: run ?? "", ...empty, status: "streaming" };
  now.messages = inserted(now.messages, run, [begun]);
}

function streamed(now: Transcript, { attempt, part, text }: Delta): void {
  if (part === "arguments") return; // of a call that is whole in the reply
  replaced(now, attempt, (one) => ({ ...one, [part]: one[part] + text }));
}

function replied(now: Transcript, data: DataOf<"model_replied">): void {
  const calls = data.calls.map(
    ({ id, name, arguments: given }): Call => ({ id, name, arguments: given, status: "called" }),
  );
  const { text, thinking } = data;
  replaced(now, data.attempt, (one) => ({
    ...one,
    text,
    thinking: thinking ?? "",
    calls,
    status: "done",
  }));
}

function dropped(now: Transcript, { attempt, reason, text }: DataOf<"attempt_dropped">): void {
  if (reason !== "interrupted" || !text) {
    now.messages = now.messages.filter((one) => one.id !== attempt);
    return;
  }
  // Not what was streamed to whoever watched: all who come see the same.
  replaced(now, attempt, (one) => ({ ...one, text, thinking: "", status: "cut" }));
}

type Calling = Extract<
  Frame,
  { event: "approval_asked" | "approval_given" | "tool_started" | "tool_finished" }
>;

function called(now: Transcript, { event, data }: Calling): void {
  const { call } = data;
  now.approvals = now.approvals.filter((one) => one.call !== call);
  switch (event) {
    case "approval_asked": {
      const { name, arguments: given, digest, expires_at } = data;
      now.approvals = [...now.approvals, { call, name, arguments: given, digest, expires_at }];
      return callIs(now, call, { status: "waiting" });
    }
    case "approval_given":
      return callIs(now, call, { status: "called" });
    case "tool_started": {
      const { name, arguments: given, expires_at } = data;
      if (!expires_at) return callIs(now, call, { status: "running", arguments: given });
      now.errands = [...now.errands, { call, name, arguments: given, expires_at }];
      return callIs(now, call, { status: "waiting", arguments: given });
    }
    case "tool_finished":
      now.errands = now.errands.filter((one) => one.call !== call);
      return callIs(now, call, { status: data.outcome, output: data.output });
  }
}

function ended(now: Transcript, data: DataOf<"run_ended">): void {
  const { run, status } = data;
  const reason = data.reason ?? null;
  now.open = now.open.filter((one) => one !== run);
  if (now.run === run) {
    now.run = null;
    now.approvals = [];
    now.errands = [];
  }
  now.problem = status === "done" ? null : { run: run ?? "", status, reason };
}

function callIs(now: Transcript, id: string, change: Partial<Call>): void {
  const place = now.messages.findLastIndex(
    (one) => one.role === "assistant" && one.calls.some((call) => call.id === id),
  );
  changed(now, place, (one) => ({
    ...one,
    calls: one.calls.map((call) => (call.id === id ? { ...call, ...change } : call)),
  }));
}

function replaced(now: Transcript, id: string, change: (one: ModelMessage) => ModelMessage): void {
  changed(now, now.messages.findLastIndex((one) => one.id === id), change);
}

function changed(
  now: Transcript,
  place: number,
  change: (one: ModelMessage) => ModelMessage,
): void {
  const one = now.messages[place];
  if (one?.role !== "assistant") return;
  now.messages = now.messages.with(place, change(one));
}
