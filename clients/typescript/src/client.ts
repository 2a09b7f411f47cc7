// The client: one method for one operation of the API, and streams that survive cuts.
import { Conflict, HostlerError, refusal, TooMany, Unavailable } from "./errors.js";
import { batches } from "./sse.js";
import {
  type AnyFrame,
  type Approval,
  type Cancelled,
  type Content,
  type Decision,
  is,
  type NewMessage,
  type NewSession,
  type Placed,
  type Receipt,
  type Run,
  type RunDetail,
  type Scheduled,
  type Session,
  type Usage,
} from "./types.js";

/** Between two tries; each waits twice as long as the one before. */
const SOONEST_MS = 100;
const LATEST_MS = 3000;
/** However long a server asks us to wait: it may be back earlier. */
const LONGEST_WAIT_S = 60;
const SEND_S = 10;
/** Until an answer begins.  `fetch` of Node 20 waits for ever on a connection closed too early. */
const ANSWER_MS = 30_000;
const PATIENCE_S = 60;

type Query = Record<string, string | number | undefined>;

export interface ClientOptions {
  /** Where the server is; in a page, the page's own server when it is left out. */
  url?: string;
  /** A key or a token, or what gives one that is still good. Without it, cookies are sent. */
  key?: string | (() => string | Promise<string>);
  /** For whom an operator acts. */
  tenant?: string;
  /** In place of the global `fetch`. */
  fetch?: typeof fetch;
}

export interface Sent {
  /** Makes a repeat harmless across restarts of your program, too. */
  idempotencyKey?: string;
  signal?: AbortSignal;
}

export interface Following {
  /** A cursor: the `id` of the last frame that was seen. Without it, from the first fact on. */
  after?: string;
  /** Ends it, without an error. */
  signal?: AbortSignal;
  /** How long in a row a stream that broke is tried again; 60 without it. */
  patienceS?: number;
  /** Is told when the connection breaks, and when it is there (again). */
  onConnection?: (is: "open" | "lost", why?: string) => void;
}

export interface Asking extends Sent, Omit<Following, "after"> {
  /** Where to say it; without it, in a new session. */
  session?: string;
  /** Whom to ask in a new session. */
  agent?: string;
  policy?: NonNullable<NewMessage["policy"]>;
  purpose?: string;
  priority?: NonNullable<NewMessage["priority"]>;
  metadata?: NonNullable<NewMessage["metadata"]>;
  client_tools?: NonNullable<NewMessage["client_tools"]>;
}

export interface Finished {
  session: string;
  run: string;
  status: string;
  reason: string | null;
  /** Of the last reply. */
  text: string;
}

/** One call to the API: for operations that have no method here. */
export interface Asked extends Sent {
  body?: unknown;
  query?: Query;
}

export class Client {
  readonly url: string;
  #options: ClientOptions;

  constructor(options: ClientOptions = {}) {
    this.#options = options;
    this.url = (options.url ?? "").replace(/\/+$/, "");
  }

  // -- sessions --------------------------------------------------------------------------------

  /** Makes a session, of the default agent or another; with an `id`, makes it or finds it. */
  createSession(session: NewSession = {}, sent: Sent = {}): Promise<Session> {
    return this.request("POST", "/api/sessions", { ...sent, body: session });
  }
  getSession(session: string): Promise<Session> {
    return this.request("GET", at(session));
  }
  /** Sessions, newest first. */
  listSessions(query: { agent?: string; status?: Session["status"] } = {}) {
    return this.items<Session>("/api/sessions", query);
  }
  labelSession(session: string, labels: { title?: string | null; metadata?: object }) {
    return this.request<Session>("PATCH", at(session), { body: labels });
  }
  /** Cancels what is going, then removes the session and its log. */
  async deleteSession(session: string): Promise<void> {
    await this.request("DELETE", at(session));
  }
  /** Makes a session that begins with what this one said, up to `at` or its last closed step. */
  fork(session: string, fork: { at?: number; title?: string } = {}, sent: Sent = {}) {
    return this.request<Session>("POST", at(session, "fork"), { ...sent, body: fork });
  }

  // -- saying something, and what comes of it --------------------------------------------------

  /** Says something, now or `at` a time; the receipt says that it is stored, and will be answered. */
  speak(session: string, message: Content | NewMessage, sent: Sent = {}): Promise<Receipt> {
    const is_content = typeof message === "string" || Array.isArray(message);
    const body = is_content ? { content: message } : message;
    return this.request("POST", at(session, "messages"), { ...sent, body });
  }

  /** The messages that are still to be said, the next one first. */
  async listScheduled(session: string): Promise<Scheduled[]> {
    const page = await this.request<{ items: Scheduled[] }>("GET", at(session, "scheduled"));
    return page.items;
  }
  /** Has a scheduled message not said, by its receipt's `input`. */
  async withdraw(session: string, input: string): Promise<void> {
    await this.request("DELETE", at(session, "scheduled", input));
  }

  /**
   * Says something, in a new session or another, and yields the receipt, then what happens up to
   * the `run_ended` of its run.  Whoever stops reading cancels nothing.
   */
  async *ask(content: Content, asking: Asking = {}): AsyncGenerator<AnyFrame, void, undefined> {
    const { session: given, agent, policy, purpose, priority, metadata, client_tools, ...how } = asking;
    const { idempotencyKey, ...following } = how;
    const signal = how.signal ? { signal: how.signal } : {};
    const session = given ?? (await this.createSession(agent ? { agent } : {}, signal)).id;
    const sent = idempotencyKey === undefined ? signal : { ...signal, idempotencyKey };
    const rest = { policy, purpose, priority, metadata, client_tools };
    const receipt = await this.speak(session, { content, ...rest } as NewMessage, sent);
    yield { id: receipt.cursor, event: "receipt", data: receipt };
    for await (const frame of this.follow(session, { ...following, after: receipt.cursor })) {
      yield frame;
      if (is(frame, "run_ended") && frame.data.run === receipt.run) return;
    }
  }

  /** As `ask`; gives how the run ended.  It waits for people who are asked, too. */
  async run(content: Content, asking: Asking = {}): Promise<Finished> {
    let text = "";
    for await (const frame of this.ask(content, asking)) {
      if (is(frame, "model_replied")) text = frame.data.text || text;
      if (!is(frame, "run_ended")) continue;
      const { session, run, status, reason } = frame.data;
      return { session, run: run ?? "", status, reason: reason ?? null, text };
    }
    asking.signal?.throwIfAborted();
    throw new HostlerError("the stream ended before the run");
  }

  /**
   * Yields what happened past a cursor, then what happens, each once, until you stop.
   *
   * A stream that breaks is taken up again where it was.  Kinds of frames that this version does
   * not know come, too: pass over them.
   */
  async *follow(session: string, how: Following = {}): AsyncGenerator<AnyFrame, void, undefined> {
    for await (const frames of this.followBatches(session, how)) yield* frames;
  }

  /** As `follow`, as many frames at once as have come. */
  async *followBatches(
    session: string,
    { after = "0", signal, patienceS = PATIENCE_S, onConnection }: Following = {},
  ): AsyncGenerator<AnyFrame[], void, undefined> {
    let waitMs = SOONEST_MS;
    let lostAt: number | undefined;
    let wasThere = false;
    while (!signal?.aborted) {
      let lost = new Unavailable("the server ended the stream");
      const connection = new AbortController();
      const stop = () => connection.abort();
      signal?.addEventListener("abort", stop);
      try {
        const headers = { Accept: "text/event-stream", "Last-Event-ID": after };
        const answer = await this.#fetch("GET", at(session, "events"), headers, connection.signal);
        const body = streamOf(answer, this.url);
        onConnection?.("open");
        lostAt = undefined;
        wasThere = true;
        for await (const frames of batches(body)) {
          waitMs = SOONEST_MS;
          after = frames.at(-1)?.id ?? after;
          yield frames;
          if (signal?.aborted) return;
        }
      } catch (error) {
        if (signal?.aborted) return;
        lost = passing(error, wasThere);
      } finally {
        signal?.removeEventListener("abort", stop);
        connection.abort();
      }
      if (lostAt === undefined) onConnection?.("lost", lost.message);
      lostAt ??= Date.now();
      const pauseMs = pause(waitMs, lost.retryAfterS);
      if (Date.now() + pauseMs > lostAt + patienceS * 1000) throw lost;
      await elapsed(pauseMs, signal);
      waitMs = Math.min(2 * waitMs, LATEST_MS);
    }
  }

  // -- what runs wait for, and runs ------------------------------------------------------------

  /** Asks for the active run, or another of the session, to end; safe to repeat. */
  cancel(session: string, what: { run?: string; reason?: string } = {}, sent: Sent = {}) {
    return this.request<Cancelled>("POST", at(session, "cancel"), { ...sent, body: what });
  }
  /** Requests for approval, oldest first; those that are open, if no status is given. */
  listApprovals(query: { session?: string; status?: string } = {}) {
    return this.items<Approval>("/api/approvals", query);
  }
  /** Allows or denies a call that waits for that; the first answer holds. */
  approve(session: string, call: string, decision: Decision = { decision: "allow" }, sent: Sent = {}) {
    const path = at(session, "approvals", call);
    return this.request<Placed>("POST", path, { ...sent, body: decision });
  }
  /** Gives the result of a call that clients answer: text, or any JSON. */
  answer(session: string, call: string, output: unknown, sent: Sent & { is_error?: boolean } = {}) {
    const { is_error = false, ...rest } = sent;
    const path = at(session, "calls", call, "result");
    return this.request<Placed>("POST", path, { ...rest, body: { output, is_error } });
  }
  /** Runs, newest first. */
  listRuns(query: { session?: string; status?: Run["status"]; purpose?: string } = {}) {
    return this.items<Run>("/api/runs", query);
  }
  getRun(run: string): Promise<RunDetail> {
    return this.request("GET", `/api/runs/${encodeURIComponent(run)}`);
  }
  /** Tokens and cost of a time, summed `by` what the documentation names, with commas between. */
  usage(query: { by?: string; from?: string; to?: string } = {}) {
    return this.items<Usage>("/api/usage", query);
  }

  // -- any operation ---------------------------------------------------------------------------

  /** What a list holds, page by page. */
  async *items<Item>(path: string, query: Query = {}): AsyncGenerator<Item, void, undefined> {
    type Page = { items: Item[]; cursor: string | null; more: boolean };
    let page: Page = { items: [], cursor: null, more: true };
    while (page.more) {
      const after = page.cursor === null ? {} : { after: page.cursor };
      page = await this.request<Page>("GET", path, { query: { limit: 1000, ...query, ...after } });
      yield* page.items;
    }
  }

  /**
   * Asks for an operation by its path and gives the JSON of the answer.
   *
   * A POST is sent again, with the same idempotency key, while no answer comes.
   */
  async request<Body>(method: string, path: string, asked: Asked = {}): Promise<Body> {
    const { body, query = {}, signal } = asked;
    const headers: Record<string, string> = {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (method === "POST") headers["Idempotency-Key"] = asked.idempotencyKey ?? newKey();
    const until = Date.now() + (method === "POST" ? SEND_S * 1000 : 0);
    const where = path + queryOf(query);
    const text = body === undefined ? undefined : JSON.stringify(body);
    for (let waitMs = SOONEST_MS; ; waitMs = Math.min(2 * waitMs, LATEST_MS)) {
      try {
        const answer = await this.#fetch(method, where, headers, signal, text);
        return await jsonOf<Body>(answer, this.url);
      } catch (error) {
        const pauseMs = pause(waitMs, error instanceof Unavailable ? error.retryAfterS : 0);
        if (!mayChange(error) || signal?.aborted || Date.now() + pauseMs > until) throw error;
        await elapsed(pauseMs, signal);
      }
    }
  }

  async #fetch(
    method: string,
    path: string,
    more: Record<string, string>,
    signal?: AbortSignal,
    body?: string,
  ): Promise<Response> {
    const { key, tenant, fetch: own = fetch } = this.#options;
    const headers = new Headers(more);
    if (key !== undefined) {
      headers.set("Authorization", `Bearer ${typeof key === "string" ? key : await key()}`);
    }
    if (tenant !== undefined) headers.set("Hostler-Tenant", tenant);
    const silence = new AbortController();
    const either = signal ? AbortSignal.any([signal, silence.signal]) : silence.signal;
    const init: RequestInit = { method, headers, signal: either, redirect: "error", cache: "no-store" };
    if (body !== undefined) init.body = body;
    const timer = setTimeout(() => silence.abort(), ANSWER_MS);
    let answer: Response;
    try {
      answer = await own(this.url + path, init);
    } catch {
      signal?.throwIfAborted();
      const where = this.url || "this page's server";
      throw new Unavailable(
        silence.signal.aborted ? `the server at ${where} is silent` : `no server answers at ${where}`,
      );
    } finally {
      clearTimeout(timer);
    }
    if (!answer.ok) throw await refusal(answer, this.url);
    return answer;
  }
}

const at = (session: string, ...rest: string[]) =>
  ["/api/sessions", ...[session, ...rest].map(encodeURIComponent)].join("/");

function queryOf(query: Query): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  return given.length ? `?${new URLSearchParams(given.map(([k, v]) => [k, String(v)]))}` : "";
}

// `crypto.randomUUID` is missing in pages that are not served over TLS.
function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (one) =>
    one.toString(16).padStart(2, "0"),
  ).join("");
}

function streamOf(answer: Response, url: string): ReadableStream<Uint8Array> {
  const is_stream = answer.headers.get("content-type")?.startsWith("text/event-stream");
  if (!is_stream || !answer.body) throw new HostlerError(`what answers at ${url} is no Hostler server`);
  return answer.body;
}

async function jsonOf<Body>(answer: Response, url: string): Promise<Body> {
  let text: string;
  try {
    text = await answer.text();
  } catch {
    throw new Unavailable(`the answer of ${url} broke off`);
  }
  try {
    return (text ? JSON.parse(text) : undefined) as Body;
  } catch {
    throw new HostlerError(`what answers at ${url} is no Hostler server`);
  }
}

/** What a stream broke by, if trying again can help; else it is thrown. */
function passing(error: unknown, wasThere: boolean): Unavailable {
  if (error instanceof TooMany && wasThere) {
    return new Unavailable(error.message, error.code, error.retryAfterS);
  }
  if (error instanceof Unavailable) return error;
  if (error instanceof HostlerError) throw error;
  return new Unavailable("the connection broke");
}

function mayChange(error: unknown): boolean {
  if (error instanceof Conflict) return error.code === "in_progress";
  return error instanceof Unavailable && error.code !== "internal";
}

/** As long as was asked for; and not all who wait at once. */
const pause = (waitMs: number, leastS: number) =>
  Math.max(Math.min(leastS, LONGEST_WAIT_S) * 1000, waitMs * (0.75 + 0.5 * Math.random()));

function elapsed(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener("abort", end);
    if (signal?.aborted) end();
  });
}
