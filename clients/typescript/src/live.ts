// A session that is watched: its transcript, kept up to date while somebody looks.
import type { Client, Sent } from "./client.js";
import { EMPTY, fold, type Transcript } from "./transcript.js";
import type { Cancelled, Content, Decision, NewMessage, Placed, Receipt } from "./types.js";

export interface SessionState extends Transcript {
  /** `closed`: nobody looks, there is no session, or `error` ended it. */
  connection: "closed" | "connecting" | "open" | "lost";
  /** Why it is not followed any more: the session is gone, or the key is. */
  error: Error | null;
}

export const CLOSED: SessionState = { ...EMPTY, connection: "closed", error: null };

/**
 * Follows a session while it has subscribers, in the form that `useSyncExternalStore` wants.
 *
 * Whoever subscribes again goes on where the last one stopped: nothing is asked for twice.
 */
export class LiveSession {
  #state: SessionState = CLOSED;
  #listeners = new Set<() => void>();
  #following: AbortController | undefined;

  constructor(
    readonly client: Client,
    /** None: there is nothing to watch yet. */
    readonly session: string | null | undefined,
    readonly patienceS: number = Number.POSITIVE_INFINITY,
  ) {}

  /** The state; the same object until something changes. */
  readonly getSnapshot = (): SessionState => this.#state;

  readonly subscribe = (listener: () => void): (() => void) => {
    // Of its own, so that one listener that subscribes twice is there until it left twice.
    const own = () => listener();
    this.#listeners.add(own);
    if (!this.#following && this.session) void this.#follow(this.session);
    return () => {
      this.#listeners.delete(own);
      if (!this.#listeners.size) this.#stop();
    };
  };

  /** Says something here.  What comes of it is in the state. */
  send(message: Content | NewMessage, sent?: Sent): Promise<Receipt> {
    return this.client.speak(this.#known(), message, sent);
  }
  /** Answers a request of `approvals`; allows it, if nothing is said. */
  async approve(call: string, decision: Decision = { decision: "allow" }): Promise<Placed> {
    const wanted = this.#state.approvals.find((one) => one.call === call);
    // What is allowed is what was shown here, whatever is asked for meanwhile.
    const digest = wanted && decision.digest === undefined ? { digest: wanted.digest } : {};
    return this.client.approve(this.#known(), call, { ...digest, ...decision });
  }
  /** Gives the result of a call of `errands`. */
  answer(call: string, output: unknown, how?: { is_error?: boolean }): Promise<Placed> {
    return this.client.answer(this.#known(), call, output, how);
  }
  /** Asks for the run that is going to end. */
  stop(reason?: string): Promise<Cancelled> {
    return this.client.cancel(this.#known(), reason === undefined ? {} : { reason });
  }

  #known(): string {
    if (!this.session) throw new Error("there is no session yet: make one, and pass its id");
    return this.session;
  }

  async #follow(session: string): Promise<void> {
    const following = new AbortController();
    this.#following = following;
    const { signal } = following;
    const isOurs = () => this.#following === following;
    this.#change({ connection: "connecting", error: null });
    try {
      const batches = this.client.followBatches(session, {
        after: this.#state.cursor,
        signal,
        patienceS: this.patienceS,
        onConnection: (connection) => isOurs() && this.#change({ connection }),
      });
      for await (const frames of batches) {
        if (!isOurs()) return;
        this.#change(fold(this.#state, frames));
      }
    } catch (error) {
      if (!isOurs()) return;
      this.#following = undefined;
      this.#change({ connection: "closed", error: error as Error });
    }
  }

  #stop(): void {
    this.#following?.abort();
    this.#following = undefined;
    this.#state = { ...this.#state, connection: "closed" };
  }

  #change(change: Partial<SessionState>): void {
    this.#state = { ...this.#state, ...change };
    for (const listener of [...this.#listeners]) listener();
  }
}
