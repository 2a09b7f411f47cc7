// One small tree of errors.  `Refused` and below: the request cannot be honoured as it was sent;
// `Unavailable`: nobody answers, or not now.
import type { Problem } from "./types.js";

export class HostlerError extends Error {
  constructor(detail: string) {
    super(detail);
    this.name = new.target.name;
  }
}

/** Answered with a status of 3xx or 4xx. */
export class Refused extends HostlerError {
  /** From the closed list of the documentation; decide on this. */
  readonly code: string;
  constructor(
    readonly status: number,
    /** What was answered (RFC 9457), with all its members; empty when it was no problem. */
    readonly problem: Partial<Problem> & Record<string, unknown>,
    detail: string,
  ) {
    super(detail);
    this.code = problem.code ?? "";
  }
}
/** 401: no key, or one that is not known. */
export class Unauthorised extends Refused {}
/** 403: known, and without this right. */
export class Forbidden extends Refused {}
/** 404: absent, or not yours. */
export class NotFound extends Refused {}
/** 409: its state does not allow this. */
export class Conflict extends Refused {}
/** 413: over a documented limit. */
export class TooLarge extends Refused {}
/** 422: readable, and wrong; `problem.errors` names each field. */
export class Invalid extends Refused {}
/** 429: more at once, or of late, than one caller may. */
export class TooMany extends Refused {
  retryAfterS = 1;
}
/** No answer, or one of 5xx; the same request may work later. */
export class Unavailable extends HostlerError {
  constructor(
    detail: string,
    readonly code = "unavailable",
    readonly retryAfterS = 0,
  ) {
    super(detail);
  }
}

const KINDS: Record<number, typeof Refused> = {
  401: Unauthorised,
  403: Forbidden,
  404: NotFound,
  409: Conflict,
  413: TooLarge,
  422: Invalid,
  429: TooMany,
};

/** The error for an answer that is none. */
export async function refusal(answer: Response, url: string): Promise<HostlerError> {
  const problem = await problemOf(answer);
  const detail = problem.detail ?? `${url} answers with status ${answer.status}`;
  const retryAfterS = seconds(answer.headers.get("retry-after"));
  if (answer.status >= 500) return new Unavailable(detail, problem.code, retryAfterS);
  const error = new (KINDS[answer.status] ?? Refused)(answer.status, problem, detail);
  if (error instanceof TooMany) error.retryAfterS = retryAfterS || 1;
  return error;
}

async function problemOf(answer: Response): Promise<Refused["problem"]> {
  try {
    const told: unknown = await answer.json();
    return typeof told === "object" && told !== null ? (told as Refused["problem"]) : {};
  } catch {
    return {};
  }
}

// A date, which a Hostler server never sends, says nothing.
const seconds = (text: string | null) => (/^\d+$/.test(text ?? "") ? Number(text) : 0);
