// The bodies and facts of the API by short names.  `api.ts` is generated; nothing here is.
import type { components } from "./api.js";

type Schemas = components["schemas"];

export type Session = Schemas["SessionView"];
export type NewSession = Partial<Schemas["NewSession"]>;
export type NewMessage = Schemas["NewMessage"];
export type Content = NewMessage["content"];
export type ClientTool = Schemas["ClientTool"];
export type Receipt = Schemas["WaitingReceipt"];
export type Scheduled = Schemas["ScheduledView"];
export type Cancelled = Schemas["Cancelled"];
export type Approval = Schemas["ApprovalView"];
export type Decision = Schemas["NewDecision"];
export type Run = Schemas["RunView"];
export type RunDetail = Schemas["RunDetailView"];
export type Usage = Schemas["UsageView"];
export type Problem = Schemas["Problem"];

/** What every fact has beside its own fields. */
export interface Placed {
  seq: number;
  at: string;
  session: string;
}

type Named<Kind extends string, Data> = { id: string; event: Kind; data: Data };
type Facts = {
  [Name in keyof Schemas]: Schemas[Name] extends { kind: infer Kind; run: string | null }
    ? Kind extends string
      ? string extends Kind
        ? never
        : Named<Kind, Schemas[Name] & Placed>
      : never
    : never;
}[keyof Schemas];

export interface Delta {
  attempt: string;
  part: "text" | "thinking" | "arguments";
  text: string;
  call?: string;
  name?: string;
}

/** A fact, a delta, or the receipt that `ask` begins with. */
export type Frame = Facts | Named<"delta", Delta> | Named<"receipt", Receipt>;

/** A frame as it comes: of a kind that this version may not know. */
export type AnyFrame = Frame | { id: string; event: string & {}; data: Record<string, unknown> };

/** Whether a frame is of a kind; its data then has the type of that kind. */
export function is<Kind extends Frame["event"]>(
  frame: AnyFrame,
  kind: Kind,
): frame is Extract<Frame, { event: Kind }> {
  return frame.event === kind;
}
